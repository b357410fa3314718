#!/bin/sh
# The program of `batch` in every-key.yaml: it works until it is asked to end.
trap 'exit 0' TERM
while :; do sleep 1 & wait $!; done
