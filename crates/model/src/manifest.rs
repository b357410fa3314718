//! The manifest: YAML to `ServiceSpec`s, with errors that point at line and column.
