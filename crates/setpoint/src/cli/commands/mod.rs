//! One function per command: ask, print, say how it ended.

mod backup;
mod changes;
mod declare;
mod exec;
mod history;
mod local;
pub mod logs;
mod nodes;
pub mod states;
mod tokens;
mod why;

use crate::ends::Ends;

use super::{
    apply,
    args::{Client as Command, Node, Token},
    client, files, output, place,
    wait::NotDone,
};

/// Exit status of what is done.
const DONE: u8 = 0;
/// Exit status of `plan` when something would change.
const CHANGES: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Place(#[from] place::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error(transparent)]
    Backup(#[from] crate::backup::Error),
    #[error("{}", told(.0))]
    NotDone(Vec<NotDone>),
    #[error("{0}")]
    Said(String),
}

impl Error {
    /// Whether it is only that nobody reads the output any more.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(output::Error::Closed))
    }
}

/// Each with the log that goes with it.
fn told(not_done: &[NotDone]) -> String {
    let one = |not_done: &NotDone| {
        let log: String = not_done.log.iter().map(|line| format!("\n    {line}")).collect();
        format!("{not_done}{log}")
    };
    not_done.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// What was fetched and built goes with whoever asked for it: a command that makes such things ends by its own hand.
async fn until_interrupted(command: impl Future<Output = Result<u8, Error>>) -> Result<u8, Error> {
    let Ok(mut ends) = Ends::new() else { return command.await };
    tokio::select! {
        ended = command => ended,
        // As a shell tells of a death by a signal.
        signal = ends.wait() => Ok(u8::try_from(128 + signal.as_raw_value()).unwrap_or(u8::MAX)),
    }
}

/// Runs a command; gives its exit status.
pub async fn run(command: Command) -> Result<u8, Error> {
    match command {
        Command::Plan(args) => until_interrupted(declare::plan(&args)).await,
        Command::Apply(args) => until_interrupted(declare::apply(&args)).await,
        Command::Deploy(args) => until_interrupted(changes::deploy(&args)).await,
        Command::Status(args) => states::status(&args).await,
        Command::Explain(args) => why::explain(&args).await,
        Command::Deployments(args) => history::deployments(&args).await,
        Command::Rollback(args) => changes::rollback(&args).await,
        Command::Cancel(args) => changes::cancel(&args).await,
        Command::Logs(args) => logs::logs(&args).await,
        Command::Exec(args) => exec::exec(&args).await,
        Command::Stats(args) => states::stats(&args).await,
        Command::Events(args) => logs::events(&args).await,
        Command::Audit(args) => history::audit(&args).await,
        Command::Drift(args) => states::drift(&args).await,
        Command::Scale(args) => changes::scale(&args).await,
        Command::Stop(args) => changes::stop(&args).await,
        Command::Start(args) => changes::start(&args).await,
        Command::Restart(args) => changes::restart(&args).await,
        Command::Delete(args) => changes::delete(&args).await,
        Command::Reconcile(args) => why::reconcile(&args).await,
        Command::Gc(args) => states::gc(&args).await,
        Command::Node(Node::List(args)) => nodes::list(&args).await,
        Command::Node(Node::Drain(args)) => nodes::drain(&args).await,
        Command::Node(Node::Undrain(args)) => nodes::undrain(&args).await,
        Command::Token(Token::Show(args)) => local::token(&args),
        Command::Token(Token::Create(args)) => tokens::create(&args).await,
        Command::Token(Token::List(args)) => tokens::list(&args).await,
        Command::Token(Token::Revoke(args)) => tokens::revoke(&args).await,
        Command::Backup(args) => backup::backup(&args).await,
        Command::Restore(args) => backup::restore(&args).await,
        Command::Schema(args) => local::schema(args.output),
        Command::Completions(args) => local::completions(args.shell),
        Command::Reference(args) => local::reference(args.page),
    }
}
