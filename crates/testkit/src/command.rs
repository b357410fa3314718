//! Runs commands to their end, which must come, with what goes in and all that comes out.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::wait;

/// A command that does not end by then hangs.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// A command's end.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {self:?}"),
        }
    }
}

/// Runs a command to its end, which must come.
#[track_caller]
pub fn bounded(command: Command) -> Output {
    bounded_with(command, b"")
}

/// As [`bounded`], with something on its standard input.
#[track_caller]
pub fn bounded_with(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    std::thread::spawn(move || {
        // It need not read it.
        let _ = stdin.write_all(&input);
    });
    let read = |mut stream: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let began = Instant::now();
    let status = wait::within(COMMAND_WITHIN, || child.try_wait().unwrap());
    let Some(status) = status else {
        let _ = child.kill();
        panic!("{command:?} hangs since {:?}: {}", began.elapsed(), stderr.join().unwrap());
    };
    Output {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}
