//! What the commands that stay take: `up`, `server`, `edge`; and their settings.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Data, Output};

/// What the long-running roles share.
#[derive(Debug, Clone, Args)]
pub struct LongRunning {
    #[command(flatten)]
    pub data: Data,
    /// The settings file [default: setpoint.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How the log on stderr is written
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,server=debug`
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Config {
    /// As to `up` or `server`: the address that the API listens on
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// As to `up` or `edge`: the address that the edge listens on
    #[arg(long, value_name = "ADDR")]
    pub edge: Option<SocketAddr>,
    #[command(flatten)]
    pub role: LongRunning,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct Up {
    /// A manifest to apply; may be repeated
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The address that the API listens on [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// The address that the edge listens on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub edge: Option<SocketAddr>,
    /// At the end leave the workloads running, to be adopted at the next start
    #[arg(long)]
    pub keep: bool,
    /// Delete what the files' projects have and the files do not
    #[arg(long, requires = "files")]
    pub prune: bool,
    #[command(flatten)]
    pub role: LongRunning,
}

#[derive(Debug, Clone, Args)]
pub struct Server {
    /// The address that the API listens on [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    #[command(flatten)]
    pub role: LongRunning,
}

#[derive(Debug, Clone, Args)]
pub struct Edge {
    /// The address that the edge listens on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub edge: Option<SocketAddr>,
    #[command(flatten)]
    pub role: LongRunning,
}
