//! What goes over the WebSocket of a command, as both ends write and read it.
//!
//! The first message is text: an [`Exec`](model::session::Exec). All others are binary, and their first byte says what
//! follows: to the server 0 input, 4 a new size of the terminal (JSON), 255 the end of input; from the server 1 output,
//! 2 errors, 3 how it ended (JSON), which is the last.

use model::session::{Input, Output, Size};

use crate::views::ExecEnded;

/// The name that the handshake agrees on.
pub const PROTOCOL: &str = "setpoint.exec.v1";
/// Larger messages end the session.
pub const MAX_MESSAGE: usize = 1 << 20;

const INPUT: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ENDED: u8 = 3;
const RESIZE: u8 = 4;
const INPUT_ENDS: u8 = 255;

/// From the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Output(Output),
    Ended(ExecEnded),
}

pub fn input(input: &Input) -> Vec<u8> {
    match input {
        Input::Bytes(bytes) => frame(INPUT, bytes),
        Input::End => vec![INPUT_ENDS],
        Input::Resize(size) => frame(RESIZE, &serde_json::to_vec(size).unwrap_or_default()),
    }
}

/// `None`: it is none of ours.
pub fn read_input(frame: &[u8]) -> Option<Input> {
    match frame.split_first()? {
        (&INPUT, bytes) => Some(Input::Bytes(bytes.to_vec())),
        (&INPUT_ENDS, _) => Some(Input::End),
        (&RESIZE, size) => serde_json::from_slice::<Size>(size).ok().map(Input::Resize),
        _ => None,
    }
}

pub fn said(said: &Said) -> Vec<u8> {
    match said {
        Said::Output(Output::Stdout(bytes)) => frame(STDOUT, bytes),
        Said::Output(Output::Stderr(bytes)) => frame(STDERR, bytes),
        Said::Ended(ended) => frame(ENDED, &serde_json::to_vec(ended).unwrap_or_default()),
    }
}

/// `None`: it is none of ours.
pub fn read_said(frame: &[u8]) -> Option<Said> {
    match frame.split_first()? {
        (&STDOUT, bytes) => Some(Said::Output(Output::Stdout(bytes.to_vec()))),
        (&STDERR, bytes) => Some(Said::Output(Output::Stderr(bytes.to_vec()))),
        (&ENDED, ended) => serde_json::from_slice(ended).ok().map(Said::Ended),
        _ => None,
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(kind);
    frame.extend_from_slice(bytes);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_writes_the_other_reads() {
        for sent in [
            Input::Bytes(b"ls\n\xff".to_vec()),
            Input::Bytes(Vec::new()),
            Input::End,
            Input::Resize(Size { width: 80, height: 24 }),
        ] {
            assert_eq!(read_input(&input(&sent)), Some(sent));
        }
        for sent in [
            Said::Output(Output::Stdout(vec![0, 1, 2])),
            Said::Output(Output::Stderr(Vec::new())),
            Said::Ended(ExecEnded { exit: Some(137), problem: None }),
        ] {
            assert_eq!(read_said(&said(&sent)), Some(sent));
        }
    }

    #[test]
    fn what_is_none_of_ours_is_passed_over() {
        for bad in [&b""[..], b"\x09x", b"\x04{}", b"\x04{\"width\":-1,\"height\":2}", b"\x01out"] {
            assert_eq!(read_input(bad), None, "{bad:?}");
        }
        assert_eq!(read_said(b"\x03not json"), None);
    }
}
