//! Sessions: a command run inside an instance, and what instances use of their machine. They carry no decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::InstanceId;

/// A command to run inside an instance, with its env, in its folder, as its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// Whether it is sent input. Without, its standard input is empty.
    #[serde(default)]
    pub stdin: bool,
    /// A terminal of this size, for containers alone; its output and errors are one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Size>,
}

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// What goes to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    /// No more of it.
    End,
    Resize(Size),
}

/// What comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// What one instance uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    pub instance: InstanceId,
    /// Processors kept busy over the time of the measurement: 0.25 is a quarter of one.
    pub cpus: f64,
    /// Bytes in memory, without what the kernel may take back at once where it tells.
    pub memory: u64,
    /// Bytes, where there is a limit.
    pub memory_limit: Option<u64>,
    pub processes: u64,
}
