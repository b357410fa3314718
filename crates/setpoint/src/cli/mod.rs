//! The command line: parses, asks the API, prints.
//!
//! Owns: flags, exit statuses, tables, progress, the drawing of errors. Refuses to know: how anything is decided or
//! kept; every command is a client of the HTTP interface.

pub mod apply;
pub mod args;
pub mod client;
mod commands;
pub mod files;
pub mod json;
pub mod output;
pub mod place;
pub mod progress;
mod reference;
mod source;
mod stay;
mod terminal;
#[cfg(test)]
mod tests;
pub mod text;
mod upload;
pub mod wait;

use std::process::ExitCode;

pub use stay::{read_files, show_until_settled, tell_events, watch_status};

const FAILED: u8 = 1;

/// Runs a command that asks a server, or nobody; prints its error, once.
pub fn run(command: args::Client) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let ended = runtime.block_on(commands::run(command));
    // A thread that still packs for an upload that was refused is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Tells an error on stderr; the exit status that goes with it.
pub fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    // A closed stderr leaves the exit status.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(FAILED)
}
