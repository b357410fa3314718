//! The built binary against an API that says what each test wants: exit statuses, messages, what is sent.

#![expect(clippy::unwrap_used, reason = "a panic names what a test could not do")]

mod client;
mod demo;
mod fake;
mod wait;

use std::{
    path::Path,
    process::{Command, Output},
};

/// The binary with an environment of its own.
pub fn setpoint(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    command.args(args).current_dir(data).env_remove("SETPOINT_API").env_remove("SETPOINT_TOKEN");
    command.env("SETPOINT_DATA", data).env("HOME", data);
    command
}

/// Runs it to its end.
pub fn run(data: &Path, args: &[&str]) -> Ended {
    Ended::of(&setpoint(data, args).output().unwrap())
}

#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
