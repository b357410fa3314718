//! YAML text as a tree in which every key and value knows its place. Owns the budgets that keep hostile
//! text cheap; refuses to know what any key means.
//!
//! Built from the parser's events rather than by serde, because a scalar's own spelling is needed (`"3"` is
//! no number, `8080` is the text of an env value) and because all mistakes shall be told at once.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError};

use super::{
    error::{Error, MAX_ERRORS, Span},
    validate::FieldPath,
};
use crate::id::printable;

/// Larger text is refused unread.
pub const MAX_TEXT: usize = 1 << 20;
/// Nesting of lists and maps; what a manifest needs is 6.
pub const MAX_DEPTH: usize = 32;
/// Scalars, lists and maps of all documents together.
/// Some 800 services of 25 values each.
pub const MAX_NODES: usize = 20_000;
pub const MAX_DOCUMENTS: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes and not as a block: only then can it be a number, a boolean or nothing.
    pub plain: bool,
}

impl Scalar {
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// The value below one step of a path: a key, or `[n]` in a list; and the place to point at for it.
    pub fn step(&self, step: &str) -> Option<(&Self, Span)> {
        match &self.value {
            Value::Map(entries) => {
                let (key, node) = entries.iter().find(|(key, _)| key.text == step)?;
                // A block's own place is its first line below the key, which would point at the wrong thing.
                let span = if matches!(node.value, Value::Scalar(_)) { node.span } else { key.span };
                Some((node, span))
            }
            Value::List(items) => {
                let at: usize = step.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
                let node = items.get(at)?;
                Some((node, node.span))
            }
            Value::Scalar(_) => None,
        }
    }
}

/// The documents of a text, without the empty ones. What was read before a mistake is dropped.
pub fn read(text: &str) -> Result<Vec<Node>, Vec<Error>> {
    if text.len() > MAX_TEXT {
        let message = format!("the file has {} bytes; a manifest has at most {MAX_TEXT}", text.len());
        return Err(vec![Error::new("too_large", Span { line: 1, column: 1, ..Span::default() }, message)]);
    }
    let mut reader = Reader::new(text);
    match reader.documents() {
        Ok(documents) if reader.errors.is_empty() => Ok(documents),
        Ok(_) => Err(reader.errors),
        Err(fatal) => {
            let field = reader.path.to_string();
            reader.errors.push(fatal.field(field));
            Err(reader.errors)
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    nodes: usize,
    /// Where reading is; after a mistake that ends it, where it ended.
    path: FieldPath,
    /// Mistakes after which reading can go on.
    errors: Vec<Error>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let mut options = granit_parser::options! {
            disallow_directives: true,
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            nodes: 0,
            path: FieldPath::default(),
            errors: Vec::new(),
        }
    }

    fn documents(&mut self) -> Result<Vec<Node>, Error> {
        let mut documents = Vec::new();
        let mut seen = 0;
        while let Some((event, span)) = self.event()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    seen += 1;
                    if seen > MAX_DOCUMENTS {
                        let message = format!("a file has at most {MAX_DOCUMENTS} documents");
                        return Err(Error::new("too_large", span, message));
                    }
                }
                event => documents.push(self.node(event, span, 0)?),
            }
        }
        documents.retain(|node| !matches!(&node.value, Value::Scalar(scalar) if scalar.is_null()));
        Ok(documents)
    }

    fn event(&mut self) -> Result<Option<(Event<'t>, Span)>, Error> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, at))) => Ok(Some((event, span(at.start, at.end)))),
            Some(Err(error)) => Err(syntax(&error)),
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Error> {
        let end = || Error::new("syntax", Span::default(), "the text ends too early");
        self.event()?.ok_or_else(end)
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Error> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Error::new("too_large", span, format!("a manifest has at most {MAX_NODES} values")));
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(span));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                Value::Scalar(Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                Value::List(self.items(depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                Value::Map(self.entries(depth)?)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err(no_aliases(span)),
            _ => return Err(Error::new("syntax", span, "a value is missing here")),
        };
        Ok(Node { span, value })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            self.path.push(&format!("[{}]", items.len()));
            items.push(self.node(event, span, depth + 1)?);
            self.path.pop();
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Error> {
        let mut entries = Vec::new();
        let mut lines: BTreeMap<String, u32> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let key = self.key(event, span, depth)?;
            self.path.push(&key.text);
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, depth + 1)?;
            if node.span.len == 0 && matches!(&node.value, Value::Scalar(scalar) if scalar.is_null()) {
                // Nothing was written: there is only the key to point at.
                node.span = key.span;
            }
            let first = lines.get(&key.text).copied();
            if let Some(line) = first {
                self.duplicate(&key, line)?;
            }
            self.path.pop();
            if first.is_some() {
                continue;
            }
            lines.insert(key.text.clone(), key.span.line);
            entries.push((key, node));
        }
    }

    fn duplicate(&mut self, key: &Key, line: u32) -> Result<(), Error> {
        let message = format!("`{}` is here twice; the first is in line {line}", printable(&key.text));
        let error = Error::new("duplicate_key", key.span, message).field(self.path.to_string());
        if self.errors.len() >= MAX_ERRORS {
            return Err(error);
        }
        self.errors.push(error);
        Ok(())
    }

    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Key, Error> {
        match self.node(event, span, depth + 1)? {
            Node { value: Value::Scalar(Scalar { text, .. }), span } => Ok(Key { text, span }),
            Node { span, .. } => Err(Error::new("syntax", span, "a key is plain text, not a list or a map")),
        }
    }
}

/// Anchors and tags are refused: a manifest needs neither, and both make text mean something that its reader
/// does not see.
fn refuse_extras(anchor: usize, tagged: bool, span: Span) -> Result<(), Error> {
    if tagged {
        return Err(Error::new("tag", span, "YAML tags (`!…`) are not used in a manifest")
            .help("remove the tag; put text that looks like a number into quotes"));
    }
    if anchor != 0 { Err(no_aliases(span)) } else { Ok(()) }
}

fn no_aliases(span: Span) -> Error {
    Error::new("alias", span, "YAML anchors and aliases (`&name`, `*name`) are not used in a manifest")
        .help("write the value out; put text that begins with & or * into quotes")
}

fn too_deep(span: Span) -> Error {
    Error::new("too_large", span, format!("lists and maps are nested more than {MAX_DEPTH} deep"))
}

fn syntax(error: &ScanError) -> Error {
    let at = span(*error.marker(), *error.marker());
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(at),
        _ => Error::new("syntax", at, format!("this is not YAML: {}", printable(&error.info()))),
    }
}

fn span(start: Marker, end: Marker) -> Span {
    let offset = start.byte_offset().unwrap_or_default();
    Span {
        line: u32::try_from(start.line()).unwrap_or(u32::MAX),
        column: u32::try_from(start.col() + 1).unwrap_or(u32::MAX),
        offset,
        len: end.byte_offset().unwrap_or(offset).saturating_sub(offset),
    }
}
