//! What commands about the cluster itself take: its nodes, its tokens, its backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use model::{Millis, NodeId, ProjectName, TokenName, access::Role};

use super::{Connection, Data, Output, Wait};

#[derive(Debug, Clone, Subcommand)]
pub enum Node {
    /// Every node, what it runs and when it was heard of
    #[command(after_help = "Example:\n  setpoint node list -o json")]
    List(NodeList),
    /// Let a node take nothing new, and move what it has as far as another node takes it
    ///
    /// What nothing can replace stays and serves on: a drain never stops it. With --wait the exit status is 0 once the
    /// node runs nothing, and 1 as soon as only that is left which has nowhere to go.
    #[command(after_help = "Examples:\n  setpoint node drain n1\n  setpoint node drain n1 --wait=10m")]
    Drain(NodeDrain),
    /// Let a node take new instances again
    #[command(after_help = "Example:\n  setpoint node undrain n1")]
    Undrain(NodeUndrain),
}

#[derive(Debug, Clone, Args)]
pub struct NodeDrain {
    /// The node, as `setpoint node list` lists it
    pub node: NodeId,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct NodeUndrain {
    /// The node, as `setpoint node list` lists it
    pub node: NodeId,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct NodeList {
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Print the token of the data folder
    #[command(after_help = "Example:\n  setpoint token show --data /var/lib/setpoint")]
    Show(TokenShow),
    /// Give out a token of its own to somebody or something; it is shown this once
    ///
    /// Only its SHA-256 is stored. Whoever may deploy runs code; processes, which run on the machine itself, need the
    /// data folder's own token unless the settings allow them (tokens.processes).
    #[command(
        after_help = "Examples:\n  setpoint token create dashboard\n  setpoint token create ci --role deployer --project demo --expires 90d"
    )]
    Create(TokenCreate),
    /// The tokens that were given out: for whom, for what, until when
    #[command(after_help = "Example:\n  setpoint token list -o json")]
    List(TokenList),
    /// Take a token back; it opens nothing from then on
    #[command(after_help = "Example:\n  setpoint token revoke ci")]
    Revoke(TokenRevoke),
}

fn some_time(text: &str) -> Result<Millis, String> {
    match text.parse::<Millis>().map_err(|error| error.to_string())? {
        Millis::ZERO => Err("a token that expires at once opens nothing".into()),
        time => Ok(time),
    }
}

#[derive(Debug, Clone, Args)]
pub struct TokenShow {
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub data: Data,
}

#[derive(Debug, Clone, Args)]
pub struct TokenCreate {
    /// What the audit trail calls whoever shows it
    pub name: TokenName,
    /// viewer reads; deployer also declares and deploys; operator also deletes and drains; admin may everything
    #[arg(long, default_value = "viewer", value_name = "ROLE")]
    pub role: Role,
    /// One project alone [default: the whole cluster]
    #[arg(long, value_name = "P")]
    pub project: Option<ProjectName>,
    /// From when on it opens nothing, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DUR", value_parser = some_time)]
    pub expires: Option<Millis>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct TokenList {
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct TokenRevoke {
    /// The token, as `setpoint token list` lists it
    pub name: TokenName,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// The file to write; one that is there is replaced once the new one is whole
    pub file: PathBuf,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// A file that `setpoint backup` has written
    pub file: PathBuf,
    /// Move a data folder that is not empty aside; nothing is deleted
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub data: Data,
}
