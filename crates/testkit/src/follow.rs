//! A command that goes on printing, read line by line while it runs.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use crate::{setpoint::SOON, wait::until};

/// What it has printed so far.
#[derive(Debug)]
pub struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    /// On stderr.
    said: mpsc::Receiver<String>,
    heard: Vec<String>,
}

impl Followed {
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let said = lines_of(child.stderr.take().unwrap());
        Self { child, lines, seen: Vec::new(), said, heard: Vec::new() }
    }

    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Waits for a line with these words.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        self.wait_for_lines(words, 1);
    }

    /// Waits for exactly so many.
    #[track_caller]
    pub fn wait_for_lines(&mut self, words: &str, count: usize) {
        until(words, SOON, || {
            self.seen.extend(self.lines.try_iter());
            (self.seen.iter().filter(|line| line.contains(words)).count() == count).then_some(())
        });
    }

    /// Waits for exactly so many on stderr.
    #[track_caller]
    pub fn wait_for_words(&mut self, words: &str, count: usize) {
        until(words, SOON, || {
            self.heard.extend(self.said.try_iter());
            (self.heard.iter().filter(|line| line.contains(words)).count() == count).then_some(())
        });
    }

    #[track_caller]
    pub fn wait_for_end(&mut self) {
        until("it has ended", SOON, || self.child.try_wait().unwrap());
        self.seen.extend(self.lines.iter());
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel();
    let stream = BufReader::new(stream);
    std::thread::spawn(move || stream.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    lines
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
