//! What is wrong with a manifest, and where: several mistakes at once, each with line, column and bytes, so
//! that the CLI can point at them. How it is drawn is the CLI's.

use std::fmt;

/// So many mistakes are told at once; a file with more has usually one cause.
pub const MAX_ERRORS: usize = 50;

/// A place in the text. Line and column count from 1, the column in characters; offset and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub offset: usize,
    pub len: usize,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Stable, for programs: `unknown_key`, `out_of_range` …
    pub code: &'static str,
    /// `services.api.deploy.order`; empty for the file as a whole.
    pub field: String,
    pub message: String,
    /// What to do next, where the message does not say it.
    pub help: Option<String>,
    pub line: u32,
    pub column: u32,
    /// In bytes from the beginning of the text.
    pub offset: usize,
    pub len: usize,
}

impl Error {
    pub(super) fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let Span { line, column, offset, len } = span;
        Self { code, field: String::new(), message: message.into(), help: None, line, column, offset, len }
    }

    pub(super) fn declares_nothing(span: Span) -> Self {
        Self::new("no_services", span, "the file declares no service")
            .field("services")
            .help("write `services:` and below it a service by its name")
    }

    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Every mistake of one file, in the order of the text; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    pub file: String,
    errors: Vec<Error>,
}

impl Errors {
    /// `None` when there is no error.
    pub(super) fn collect(file: &str, mut errors: Vec<Error>) -> Option<Self> {
        errors.sort_by_key(|error| error.offset);
        // One mistake can be wrong in several ways at once: a health path stands for three probes.
        errors.dedup_by(|b, a| (a.offset, &a.message) == (b.offset, &b.message));
        errors.truncate(MAX_ERRORS);
        (!errors.is_empty()).then(|| Self { file: file.into(), errors })
    }

    pub(super) fn one(file: &str, error: Error) -> Self {
        Self { file: file.into(), errors: vec![error] }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.errors.iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One line for each: `file:line:column: message (help)`.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {}", self.file, error.line, error.column, error.message)?;
            if let Some(help) = &error.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
