//! Manifests from disk: read, parsed, and their mistakes drawn with the lines they are in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use model::{
    ServiceKey,
    manifest::{self, Declared},
};

use super::text;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", text::line(&.path.display().to_string()))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: this is a folder; name the manifest in it, or a file with each -f", text::line(&.path.display().to_string()))]
    Folder { path: PathBuf },
    #[error("{}: the file is larger than {} MiB; split it", text::line(&.path.display().to_string()), manifest::MAX_TEXT >> 20)]
    TooLarge { path: PathBuf },
    #[error("{}: the file is not UTF-8 text", text::line(&.path.display().to_string()))]
    NotText { path: PathBuf },
    /// Already drawn, line by line.
    #[error("the manifest cannot be used as it is\n{0}")]
    Mistakes(String),
    #[error(
        "the service {key} is declared twice: in {} and in {}; remove one",
        text::line(&.first.display().to_string()), text::line(&.second.display().to_string())
    )]
    Twice { key: ServiceKey, first: PathBuf, second: PathBuf },
}

/// What files declare, with their text.
#[derive(Debug)]
pub struct Manifests {
    /// Every service, each once.
    pub services: Vec<Declared>,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    name: String,
    text: String,
    services: BTreeSet<ServiceKey>,
}

/// What is wrong with a field of a service that can be read well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub service: ServiceKey,
    /// Below the service: `static.webroot`.
    pub field: String,
    pub message: String,
    pub help: Option<String>,
    /// What a program said that failed for it; escaped already.
    pub log: Vec<String>,
}

/// Every service that the files declare.
pub fn read(paths: &[PathBuf]) -> Result<Manifests, Error> {
    let mut manifests = Manifests { services: Vec::new(), files: Vec::new() };
    let mut places: BTreeMap<ServiceKey, &PathBuf> = BTreeMap::new();
    for path in paths {
        let text = read_text(path)?;
        let declared = parse(path, &text)?;
        for service in &declared {
            let key = service.key.clone();
            if let Some(first) = places.insert(key.clone(), path) {
                return Err(Error::Twice { key, first: first.clone(), second: path.clone() });
            }
        }
        let services = declared.iter().map(|service| service.key.clone()).collect();
        manifests.files.push(File { name: path.display().to_string(), text, services });
        manifests.services.extend(declared);
    }
    Ok(manifests)
}

impl Manifests {
    /// The faults, each at its place.
    pub fn mistakes(&self, faults: &[Fault]) -> Error {
        let plain = |fault: &Fault| format!("{}: {}\n", fault.service, text::line(&fault.message));
        let one = |fault: &Fault| {
            let log: String = fault.log.iter().map(|line| format!("    {line}\n")).collect();
            self.draw(fault).unwrap_or_else(|| plain(fault)) + &log
        };
        Error::Mistakes(faults.iter().map(one).collect::<String>() + &sum(faults.len()))
    }

    /// `None` when the service is of none of these files.
    fn draw(&self, fault: &Fault) -> Option<String> {
        let file = self.files.iter().find(|file| file.services.contains(&fault.service))?;
        let (span, field) = manifest::locate(&file.text, &fault.service, &fault.field)?;
        let error = manifest::Error {
            code: "refused",
            field,
            message: fault.message.clone(),
            help: fault.help.clone(),
            line: span.line,
            column: span.column,
            offset: span.offset,
            len: span.len,
        };
        Some(draw_one(&Mistake::new(&file.name, &error, &file.text), &Style::of_stderr()))
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Declared>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let whole = std::path::absolute(path).map_err(unreadable)?;
    let base = whole.parent().unwrap_or(Path::new("/"));
    let base = base.to_str().ok_or_else(|| unreadable(io::Error::other("its folder's name is not UTF-8")))?;
    let name = path.display().to_string();
    let parsed = manifest::parse(text, &name, base);
    parsed
        .map(|manifest| manifest.services)
        .map_err(|errors| Error::Mistakes(draw(&errors, text, &Style::of_stderr())))
}

/// Reads no more than a manifest may be long, whatever the file is; `-` is the standard input.
fn read_text(path: &Path) -> Result<String, Error> {
    if path.is_dir() {
        return Err(Error::Folder { path: path.into() });
    }
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let mut bytes = Vec::new();
    let limit = manifest::MAX_TEXT as u64 + 1;
    let opened: io::Result<Box<dyn Read>> = match path.to_str() {
        Some("-") => Ok(Box::new(io::stdin())),
        _ => fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    opened.and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() > manifest::MAX_TEXT {
        return Err(Error::TooLarge { path: path.into() });
    }
    String::from_utf8(bytes).map_err(|_| Error::NotText { path: path.into() })
}

/// How mistakes are drawn.
#[derive(Debug, Clone, Copy)]
struct Style {
    coloured: bool,
}

impl Style {
    fn of_stderr() -> Self {
        Self { coloured: text::coloured(&io::stderr()) }
    }
}

fn draw(errors: &manifest::Errors, source: &str, style: &Style) -> String {
    let one = |error| draw_one(&Mistake::new(&errors.file, error, source), style);
    errors.iter().map(one).collect::<String>() + &sum(errors.iter().count())
}

fn draw_one(mistake: &Mistake, style: &Style) -> String {
    let theme = if style.coloured { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        // The place is in the name, as the file has it: escapes move the columns of what is shown.
        .without_primary_span_start()
        // Broken lines could not be searched for.
        .with_wrap_lines(false)
        .with_context_lines(1);
    let mut out = String::new();
    match handler.render_report(&mut out, mistake) {
        Ok(()) => out,
        Err(_) => mistake.to_string(),
    }
}

fn sum(mistakes: usize) -> String {
    match mistakes {
        1 => "1 mistake; nothing was changed".to_owned(),
        n => format!("{n} mistakes; nothing was changed"),
    }
}

/// One mistake as miette draws it. The source is shown with its control characters escaped, so the place moves.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Mistake {
    message: String,
    help: Option<String>,
    text: NamedSource<String>,
    label: LabeledSpan,
}

impl Mistake {
    fn new(file: &str, error: &manifest::Error, source: &str) -> Self {
        let (shown, start, len) = excerpt(source, error.offset, error.len);
        let message = match error.field.as_str() {
            "" => text::line(&error.message),
            field => format!("{}: {}", text::line(field), text::line(&error.message)),
        };
        Self {
            message,
            help: error.help.as_deref().map(text::line),
            text: NamedSource::new(format!("{}:{}:{}", text::line(file), error.line, error.column), shown),
            label: LabeledSpan::new_primary_with_span(Some("here".into()), (start, len)),
        }
    }
}

/// Of a line as much as can be read at a glance, in characters.
const MAX_LINE: usize = 160;
/// Shown before the place of a mistake in a longer line.
const LEAD: usize = 60;

/// The source as it is shown: control characters escaped, and long lines cut, with an ellipsis; that of the mistake around
/// its place. Lines stay lines, so that their numbers are right. With it the place that the mistake has then.
fn excerpt(source: &str, offset: usize, len: usize) -> (String, usize, usize) {
    let escaped = |text: &str| text::lines(text);
    let (mut shown, mut place, mut at) = (String::new(), None, 0);
    for line in source.split_inclusive('\n') {
        let text = line.strip_suffix('\n').unwrap_or(line);
        let is_last = at + line.len() == source.len();
        let is_it = place.is_none() && (offset < at + line.len() || is_last);
        let (before, rest) = text.split_at(text.floor_char_boundary(if is_it { offset - at } else { 0 }));
        let is_long = text.chars().count() > MAX_LINE;
        let lead = if is_long { last_chars(before, LEAD) } else { before };
        let kept = if is_long { first_chars(rest, MAX_LINE - LEAD) } else { rest };
        shown.extend((lead.len() < before.len()).then_some('…'));
        shown.push_str(&escaped(lead));
        if is_it {
            let marked = &kept[..kept.floor_char_boundary(len)];
            place = Some((shown.len(), escaped(marked).len()));
        }
        shown.push_str(&escaped(kept));
        shown.extend((kept.len() < rest.len()).then_some('…'));
        shown.push_str(&line[text.len()..]);
        at += line.len();
    }
    let (start, len) = place.unwrap_or((shown.len(), 0));
    (shown, start, len)
}

fn first_chars(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

fn last_chars(text: &str, count: usize) -> &str {
    let start = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(start, _)| start);
    &text[start..]
}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(self.label.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> String {
        let errors = manifest::parse(text, "app.yaml", "/srv").unwrap_err();
        draw(&errors, text, &Style { coloured: false })
    }

    #[test]
    fn a_mistake_is_drawn_in_its_line_with_what_to_do() {
        insta::assert_snapshot!(drawn("services:\n  api:\n    comand: [./api]\n    replicas: 3\n"));
    }

    #[test]
    fn a_mistake_in_a_long_line_is_shown_with_what_is_around_it() {
        let filler = "x".repeat(5000);
        let long = format!("services: {{api: {{command: [a], env: {{A: \"{filler}\"}}, repliccas: 1}}}}\n");
        let shown = drawn(&long);
        let longest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest < 220, "{longest}: {shown}");
        assert!(shown.contains('…') && shown.contains("repliccas: 1"), "{shown}");
        let other = format!("# {filler}\nservices:\n  api: {{command: [a], repliccas: 1}}\n");
        let shown = drawn(&other);
        assert!(shown.contains("repliccas: 1") && !shown.contains(&"x".repeat(200)), "{shown}");
    }

    #[test]
    fn a_mistake_behind_control_characters_is_still_pointed_at() {
        let text = "services:\n  api: # \u{202e} \u{feff}\n    command: [a]\n    replicas: \"\\u001b[31m\"\n";
        let drawn = drawn(text);
        assert!(!drawn.chars().any(|c| c != '\n' && text::is_hostile(c)), "{drawn:?}");
        assert!(drawn.contains("app.yaml:4:15"), "{drawn}");
    }

    #[test]
    fn the_same_service_in_two_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.yaml", "b.yaml"].map(|name| dir.path().join(name));
        for path in &paths {
            fs::write(path, "services:\n  api:\n    command: [true]\n").unwrap();
        }
        let error = read(&paths).unwrap_err().to_string();
        assert!(
            error.contains("default/api") && error.contains("a.yaml") && error.contains("b.yaml"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&[dir.path().join("none.yaml")]).unwrap_err().to_string().contains("none.yaml"));
        let binary = dir.path().join("binary.yaml");
        fs::write(&binary, b"\xff\xfe").unwrap();
        assert!(matches!(read(&[binary]), Err(Error::NotText { .. })));
        assert!(matches!(read(&[dir.path().into()]), Err(Error::Folder { .. })));
    }
}
