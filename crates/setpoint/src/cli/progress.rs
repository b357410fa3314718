//! How far uploads and deployments have come, on stderr: bars on a terminal, one line per change elsewhere.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use content::Progress;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use model::deployment::Phase;

use super::text;

/// Where progress is shown.
#[derive(Debug, Clone)]
pub struct Display {
    bars: Option<MultiProgress>,
    lines: Lines,
}

/// How a line is written where there is no terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    Plain,
    /// As one of the log, which is written as JSON: whoever reads that reads nothing else.
    Logged,
}

/// What the lines that are [`Lines::Logged`] are logged under, whatever else is.
pub const TARGET: &str = "told";

impl Display {
    pub fn of_stderr() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new), lines: Lines::Plain }
    }

    /// Beside a log that is written as JSON.
    pub fn logged() -> Self {
        Self { bars: None, lines: Lines::Logged }
    }

    /// Shows how far this folder, archive or backup has come on its way.
    pub fn transfer(&self, what: &str) -> Transfer {
        let what = text::line(what);
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix}: {msg}"));
            bar.set_prefix(what.clone());
            bar
        });
        Transfer { what: what.into(), bar, lines: self.lines, last: Arc::default() }
    }

    /// Shows a deployment's phases.
    pub fn deployment(&self, service: &str) -> Phases {
        let service = text::line(service);
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(100));
            bar.set_style(style("{prefix:<24} [{bar:24}] {pos:>3}% {msg}").progress_chars("=> "));
            bar.set_prefix(service.clone());
            bar
        });
        Phases { service, bar, lines: self.lines, shown: None }
    }

    /// A line of its own, above the bars if there are any.
    pub fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(line);
            }
            None => self.lines.tell(line),
        }
    }
}

impl Lines {
    /// One line on stderr. Nobody may be reading it any more, or its disk may be full: that must not end what is told
    /// of.
    fn tell(self, line: &str) {
        match self {
            Self::Plain => drop(writeln!(std::io::stderr(), "{line}")),
            Self::Logged => tracing::info!(target: TARGET, "{line}"),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; the fallback only keeps a typo from being a panic.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One transfer.
#[derive(Debug, Clone)]
pub struct Transfer {
    what: Arc<str>,
    bar: Option<ProgressBar>,
    lines: Lines,
    last: Arc<Mutex<Progress>>,
}

impl Transfer {
    pub fn at(&self, done: Progress) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = done;
        if let Some(bar) = &self.bar {
            bar.set_message(sum(done));
            bar.tick();
        }
    }

    /// `how` is what was done: sent, received, checked.
    pub fn done(&self, how: &str) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}: {how} {}", self.what, sum(last));
        match &self.bar {
            Some(bar) => {
                bar.println(line);
                bar.finish_and_clear();
            }
            None => self.lines.tell(&line),
        }
    }
}

pub fn sum(done: Progress) -> String {
    let files = if done.files == 1 { "file" } else { "files" };
    format!("{} {files}, {}", done.files, HumanBytes(done.bytes))
}

/// One deployment, or a service that converges without one.
#[derive(Debug)]
pub struct Phases {
    service: String,
    bar: Option<ProgressBar>,
    lines: Lines,
    shown: Option<String>,
}

impl Phases {
    pub fn reached(&mut self, number: u64, phase: Phase, progress: u8) {
        let words = format!("deployment #{number}: {phase}");
        self.show(words, Some(progress));
    }

    pub fn waiting(&mut self, words: &str) {
        self.show(text::line(words), None);
    }

    fn show(&mut self, words: String, progress: Option<u8>) {
        if self.shown.as_ref() == Some(&words) {
            return;
        }
        match (&self.bar, progress) {
            (Some(bar), progress) => {
                // In this order: each may draw, and a phase's progress beside the name of the one before would be wrong.
                bar.set_message(words.clone());
                if let Some(progress) = progress {
                    bar.set_position(progress.into());
                }
                bar.tick();
            }
            (None, Some(progress)) => self.lines.tell(&format!("{}: {words} ({progress}%)", self.service)),
            (None, None) => self.lines.tell(&format!("{}: {words}", self.service)),
        }
        self.shown = Some(words);
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
