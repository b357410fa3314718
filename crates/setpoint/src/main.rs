//! The one binary: parses what was typed and hands it to a role or to the command line.

mod backup;
mod cli;
mod demo;
mod ends;
mod roles;

use std::process::ExitCode;

use clap::Parser;
use cli::args::{Cli, Command};

/// Gives back what a burst of work took: the system's own kept three times what was in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Client(command) => cli::run(command),
        Command::DemoApp => demo::run(),
        Command::Up(args) => roles::up(&args),
        Command::Server(args) => roles::server(&args),
        Command::Edge(args) => roles::edge(&args),
        Command::Config(args) => {
            roles::print_settings(&args).map_or_else(|e| cli::fail(&e), |()| ExitCode::SUCCESS)
        }
    }
}
