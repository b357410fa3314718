//! Answers on stdout: tables for people, JSON and YAML for programs.

use std::io::{self, Write};

use comfy_table::Table as Grid;

use super::{args::Format, json::Json, text};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whoever read the output has seen enough.
    #[error("the output was closed")]
    Closed,
    #[error("cannot write the output: {0}")]
    Write(io::Error),
    #[error("the answer cannot be written as {0}")]
    Encode(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Write(error) }
    }
}

/// Prints one line and hands it over at once, so that a reader of a pipe sees it when it happens.
pub fn line(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a document as JSON or YAML; `false` when a table is wanted.
pub fn document(json: &Json, format: Format) -> Result<bool, Error> {
    match format {
        Format::Table => return Ok(false),
        Format::Json => line(&json.to_pretty().map_err(|error| Error::Encode(format!("JSON: {error}")))?)?,
        Format::Yaml => {
            line(json.to_yaml().map_err(|error| Error::Encode(format!("YAML: {error}")))?.trim_end())?
        }
    }
    Ok(true)
}

/// How a row is coloured on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
}

impl Tone {
    fn paint(self, text: &str) -> String {
        match self {
            Self::Plain => text.into(),
            Self::Good => format!("\x1b[32m{text}\x1b[0m"),
            Self::Busy => format!("\x1b[33m{text}\x1b[0m"),
            Self::Bad => format!("\x1b[31m{text}\x1b[0m"),
        }
    }
}

/// Rows under a header, without lines around them. Every cell is made safe to print.
#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<(Tone, Vec<String>)>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, tone: Tone, cells: impl IntoIterator<Item = String>) {
        self.rows.push((tone, cells.into_iter().map(|cell| text::line(&cell)).collect()));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, coloured for a terminal if that is where they go.
    pub fn lines(&self, coloured: bool) -> Vec<String> {
        let mut grid = Grid::new();
        grid.load_style(comfy_table::presets::NOTHING);
        grid.set_header(self.header.clone());
        grid.add_rows(self.rows.iter().map(|(_, cells)| cells.clone()));
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let tones = std::iter::once(Tone::Plain).chain(self.rows.iter().map(|(tone, _)| *tone));
        let paint = |tone: Tone, line: &str| if coloured { tone.paint(line) } else { line.to_owned() };
        grid.lines().zip(tones).map(|(line, tone)| paint(tone, line.trim_end())).collect()
    }

    pub fn print(&self) -> Result<(), Error> {
        let coloured = text::coloured(&io::stdout());
        self.lines(coloured).iter().try_for_each(|text| line(text))
    }
}

/// A cell of what may not be there.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["SERVICE", "STATE", "MESSAGE"]);
        table.row(Tone::Good, ["default/api", "converged", ""].map(String::from));
        table.row(Tone::Bad, ["default/web", "failed", "exit\u{1b}[2J\nstatus 1"].map(String::from));
        table
    }

    #[test]
    fn a_table_is_columns_and_nothing_else() {
        assert_eq!(
            table().lines(false),
            [
                "SERVICE      STATE      MESSAGE",
                "default/api  converged",
                r"default/web  failed     exit\x1b[2J\nstatus 1",
            ]
        );
    }

    #[test]
    fn only_our_own_colours_reach_a_terminal() {
        let lines = table().lines(true).join("");
        assert_eq!(lines.matches('\u{1b}').count(), 4, "{lines:?}");
    }
}
