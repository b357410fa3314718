//! From the tree to typed values: what is the wrong type, an unknown key or an unreadable word is said here,
//! for as many keys as there are. Whether the values make sense together is `validate`'s question.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    error::{Error, MAX_ERRORS, Span},
    validate::{FieldError, FieldPath},
    yaml::{Key, Node, Scalar, Value},
};
use crate::id::printable;

/// Reads itself from a node, and describes what it accepts. `None` means that an error has been reported.
pub(super) trait Decode: JsonSchema + Sized {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self>;
}

/// Where decoding is, and what was wrong so far.
pub(super) struct Cx<'t> {
    /// Where `locate` begins: its node, its place and how many steps of the path lead to it.
    root: (&'t Node, Span, usize),
    path: FieldPath,
    pub errors: Vec<Error>,
}

impl<'t> Cx<'t> {
    pub fn new(root: &'t Node) -> Self {
        Self { root: (root, root.span, 0), path: FieldPath::default(), errors: Vec::new() }
    }

    /// As `within`, for a node at hand: places below it are found from there, not from the document's top,
    /// which would be searched again for each of its services.
    pub fn rooted<T>(&mut self, step: &str, node: &'t Node, span: Span, f: impl FnOnce(&mut Self) -> T) -> T {
        self.within(step, |cx| {
            let above = std::mem::replace(&mut cx.root, (node, span, cx.path.steps().count()));
            let result = f(cx);
            cx.root = above;
            result
        })
    }

    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    pub fn within<T>(&mut self, step: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Error::new(code, span, message));
    }

    pub fn error_with_help(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report(Error::new(code, span, message).help(help));
    }

    /// A mistake in a field below the present one, at its place.
    pub fn error_at(&mut self, error: FieldError) {
        if self.is_full() {
            return;
        }
        let span = self.locate(&error.field);
        let field = self.path.steps().chain(error.field.steps()).collect::<Vec<_>>();
        let field = FieldPath::of(&field).to_string();
        let mut reported = Error::new(error.code, span, error.message).field(field);
        reported.help = error.help;
        self.errors.push(reported);
    }

    pub fn declares_nothing(&mut self, span: Span) {
        if !self.is_full() {
            self.errors.push(Error::declares_nothing(span));
        }
    }

    fn report(&mut self, error: Error) {
        if !self.is_full() {
            self.errors.push(error.field(self.path.to_string()));
        }
    }

    /// The place of a path below the present one, or of the nearest thing above it that was written.
    pub fn locate(&self, below: &FieldPath) -> Span {
        let (mut node, mut span, depth) = self.root;
        for step in self.path.steps().skip(depth).chain(below.steps()) {
            let Some((next, place)) = node.step(step) else { break };
            (node, span) = (next, place);
        }
        span
    }

    /// Text in any notation. Numbers and booleans are their own spelling, so that `012` stays `012`.
    pub fn text(&mut self, node: &Node, expected: &str) -> Option<String> {
        let scalar = self.scalar(node, expected)?;
        Some(scalar.text.clone())
    }

    fn scalar<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) if scalar.is_null() => {
                let message = format!("{} is empty: {expected} is expected", self.here());
                let help = "write a value, or remove the line; empty text is \"\", the word null is \"null\" in quotes";
                self.error_with_help("missing_value", node.span, message, help);
                None
            }
            Value::Scalar(scalar) => Some(scalar),
            value => {
                let message = format!("{} is {}; {expected} is expected", self.here(), kind(value));
                self.error("wrong_type", node.span, message);
                None
            }
        }
    }

    pub fn map<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [(Key, Node)]> {
        if let Value::Map(entries) = &node.value {
            return Some(entries);
        }
        let message = format!("{} is {}; {expected} is expected", self.here(), kind(&node.value));
        self.error("wrong_type", node.span, message);
        None
    }

    pub fn list<'n>(&mut self, node: &'n Node, help: &str) -> Option<&'n [Node]> {
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        let message = format!("{} is {}; a list is expected", self.here(), kind(&node.value));
        self.error_with_help("wrong_type", node.span, message, help);
        None
    }

    /// The present key, as a message names it.
    pub fn here(&self) -> String {
        self.path.last().map_or_else(|| "the document".into(), |step| format!("`{}`", printable(step)))
    }

    /// One key of a map; `None` when it is not there, or wrong (which is reported).
    pub fn field<T: Decode>(&mut self, entries: &[(Key, Node)], key: &str) -> Option<T> {
        let (_, node) = entries.iter().find(|(k, _)| k.text == key)?;
        self.within(key, |cx| T::decode(node, cx))
    }

    /// Reports every key that is neither in `known` nor begins with `x-`.
    pub fn refuse_unknown_keys(&mut self, entries: &[(Key, Node)], known: &[&str], later: Later) {
        for (key, _) in entries {
            if self.is_full() || known.contains(&key.text.as_str()) || key.text.starts_with("x-") {
                continue;
            }
            let text = printable(&key.text);
            self.within(&text, |cx| match later.iter().find(|(name, _)| *name == key.text) {
                Some((_, why)) => cx.error("not_supported", key.span, format!("`{text}`: {why}")),
                None => cx.unknown_key(key, known),
            });
        }
    }

    fn unknown_key(&mut self, key: &Key, known: &[&str]) {
        let text = printable(&key.text);
        if key.text == "<<" {
            let help = "write the keys out";
            return self.error_with_help("alias", key.span, "merge keys (`<<`) are not used here", help);
        }
        if known.contains(&"static") && ["spa", "webroot", "archive", "output"].contains(&text.as_str()) {
            let help = "write it below `static`, beside its `path`; it is for sites alone";
            return self.error_with_help(
                "unknown_key",
                key.span,
                format!("`{text}` belongs below `static`"),
                help,
            );
        }
        let help = format!("known here: {}", known.join(", "));
        let message = match nearest(&key.text, known.iter().copied()) {
            Some(name) => format!("unknown key `{text}`; did you mean `{name}`?"),
            None => format!("unknown key `{text}`"),
        };
        self.error_with_help("unknown_key", key.span, message, help);
    }
}

/// Keys that are known but that this build refuses, each with the reason.
pub(super) type Later = &'static [(&'static str, &'static str)];

/// The known word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of the lengths; no word of ours is long.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let limit = |name: &str| (name.len().max(word.len()) / 3).max(1);
    known
        .filter(|name| name.len().abs_diff(word.len()) <= limit(name))
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= limit(name))
        .min()
        .map(|(_, name)| name)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Scalar(scalar) if scalar.is_null() => "empty",
        Value::Scalar(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// Implements `JsonSchema` for a type that has no name of its own in the schema.
macro_rules! inline_schema {
    ([$($generics:tt)*] $ty:ty, |$generator:ident| $schema:expr) => {
        impl<$($generics)*> JsonSchema for $ty {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                std::any::type_name::<Self>().into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}
pub(super) use inline_schema;

/// Any text.
#[derive(Debug)]
pub(super) struct Text(pub String);

inline_schema!([] Text, |_g| json_schema!({ "type": ["string", "number", "boolean"] }));

impl Decode for Text {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.text(node, "text").map(Self)
    }
}

/// Text with a form of its own: a name, a duration, a size, a domain.
#[derive(Debug)]
pub(super) struct Parsed<T>(pub T);

pub(super) trait Form: FromStr<Err: fmt::Display> {
    const EXPECTED: &'static str;
    fn schema() -> Schema;
}

inline_schema!([T: Form] Parsed<T>, |_g| T::schema());

impl<T: Form> Decode for Parsed<T> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let text = cx.text(node, T::EXPECTED)?;
        match text.parse() {
            Ok(value) => Some(Self(value)),
            Err(error) => {
                cx.error("invalid_value", node.span, error.to_string());
                None
            }
        }
    }
}

/// One word of a few.
#[derive(Debug)]
pub(super) struct OneOf<T>(pub T);

pub(super) trait Words: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

pub(super) fn words<T: Words>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

inline_schema!([T: Words] OneOf<T>, |_g| json_schema!({ "enum": words::<T>() }));

impl<T: Words> Decode for OneOf<T> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let expected = format!("one of {}", words::<T>().join(", "));
        let text = cx.text(node, &expected)?;
        if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| *word == text) {
            return Some(Self(*value));
        }
        let guess = nearest(&text, words::<T>().into_iter())
            .map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
        let message = format!("{} is `{}`; {expected} is expected{guess}", cx.here(), printable(&text));
        cx.error("invalid_value", node.span, message);
        None
    }
}

/// A whole number from `MIN` to `MAX`, in plain digits: `012`, `1e3`, `1.5` and `"3"` are ambiguous.
#[derive(Debug)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub u32);

inline_schema!([const MIN: u32, const MAX: u32] Count<MIN, MAX>,
    |_g| json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }));

impl<const MIN: u32, const MAX: u32> Decode for Count<MIN, MAX> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let expected = format!("a whole number from {MIN} to {MAX}");
        let scalar = cx.scalar(node, &expected)?;
        let text = &scalar.text;
        let digits = scalar.plain && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits && (text == "0" || !text.starts_with('0'));
        match text.parse() {
            Ok(n) if number && (MIN..=MAX).contains(&n) => Some(Self(n)),
            _ => {
                let code = if number { "out_of_range" } else { "wrong_type" };
                let written = if scalar.plain {
                    format!("`{}`", printable(text))
                } else {
                    format!("the text \"{}\" in quotes", printable(text))
                };
                cx.error(code, node.span, format!("{} is {written}; {expected} is expected", cx.here()));
                None
            }
        }
    }
}

/// `true` or `false`; never `yes`, `on` or a quoted word.
#[derive(Debug)]
pub(super) struct Flag(pub bool);

inline_schema!([] Flag, |_g| json_schema!({ "type": "boolean" }));

impl Decode for Flag {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let scalar = cx.scalar(node, "true or false")?;
        match scalar.text.as_str() {
            "true" if scalar.plain => Some(Self(true)),
            "false" if scalar.plain => Some(Self(false)),
            text => {
                let message = format!("{} is `{}`; true or false is expected", cx.here(), printable(text));
                cx.error("wrong_type", node.span, message);
                None
            }
        }
    }
}

/// A list. `None` items are reported and left out.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<T>);

inline_schema!([T: Decode] List<T>,
    |g| json_schema!({ "type": "array", "items": g.subschema_for::<T>() }));

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let items = cx.list(node, "write [a, b], or one line for each: - a")?;
        Some(Self(decode_items(items, cx)))
    }
}

pub(super) fn decode_items<T: Decode>(items: &[Node], cx: &mut Cx<'_>) -> Vec<T> {
    let item = |(at, item): (usize, &Node)| cx.within(&format!("[{at}]"), |cx| T::decode(item, cx));
    items.iter().enumerate().filter_map(item).collect()
}

/// A map with keys of one's own choice.
#[derive(Debug)]
pub(super) struct Dict<K: Ord, V>(pub BTreeMap<K, V>);

inline_schema!([K: Form + Ord, V: Decode] Dict<K, V>,
    |g| json_schema!({ "type": "object", "additionalProperties": g.subschema_for::<V>() }));

impl<K: Form + Ord, V: Decode> Decode for Dict<K, V> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let entries = cx.map(node, "a map (`key: value`)")?;
        let mut dict = BTreeMap::new();
        for (key, node) in entries {
            let (name, value) = cx.within(&key.text, |cx| (parse_key::<K>(key, cx), V::decode(node, cx)));
            if let (Some(name), Some(value)) = (name, value) {
                dict.insert(name, value);
            }
        }
        Some(Self(dict))
    }
}

pub(super) fn parse_key<K: Form>(key: &Key, cx: &mut Cx<'_>) -> Option<K> {
    key.text.parse().map_err(|error: K::Err| cx.error("invalid_name", key.span, error.to_string())).ok()
}

/// One key of a mapping, as the reference shows it.
#[derive(Debug, Clone)]
pub(super) struct FieldDoc {
    pub key: &'static str,
    pub doc: String,
    pub default: Option<serde_json::Value>,
    pub schema: serde_json::Value,
}

/// What the macro `mapping!` gives: the same list of keys parses, makes the schema and makes the reference.
pub(super) trait Mapping: Decode {
    const TITLE: &'static str;
    fn doc() -> String;
    fn fields(generator: &mut SchemaGenerator) -> Vec<FieldDoc>;
}

pub(super) fn mapping_schema<T: Mapping>(generator: &mut SchemaGenerator) -> Schema {
    let mut properties = serde_json::Map::new();
    for field in T::fields(generator) {
        let mut schema = field.schema;
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), field.doc.into());
            if let Some(default) = field.default {
                object.insert("default".into(), default);
            }
        }
        properties.insert(field.key.into(), schema);
    }
    json_schema!({
        "type": "object",
        "description": T::doc(),
        "properties": properties,
        "patternProperties": { "^x-": true },
        "additionalProperties": false,
    })
}

/// Joins the lines of a doc comment.
pub(super) fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Declares a map with known keys: the struct, its decoding, its schema and its reference in one place.
macro_rules! mapping {
    ($(#[doc = $doc:literal])* $name:ident ($title:literal) $(later $later:ident)? {
        $($(#[doc = $field_doc:literal])* $key:literal $field:ident: $ty:ty $(= $default:tt)?,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            $($(#[doc = $field_doc])* pub $field: Option<$ty>,)*
        }

        impl $name {
            pub const KEYS: &'static [&'static str] = &[$($key),*];
        }

        impl Decode for $name {
            fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
                let entries = cx.map(node, concat!("a map with the keys of ", $title))?;
                cx.refuse_unknown_keys(entries, Self::KEYS, mapping!(@later $($later)?));
                Some(Self { $($field: cx.field(entries, $key)),* })
            }
        }

        impl Mapping for $name {
            const TITLE: &'static str = $title;

            fn doc() -> String {
                doc(&[$($doc),*])
            }

            fn fields(generator: &mut SchemaGenerator) -> Vec<FieldDoc> {
                vec![$(FieldDoc {
                    key: $key,
                    doc: doc(&[$($field_doc),*]),
                    default: mapping!(@default $($default)?),
                    schema: generator.subschema_for::<$ty>().to_value(),
                }),*]
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                mapping_schema::<Self>(generator)
            }
        }
    };
    (@later) => { &[] };
    (@later $later:ident) => { $later };
    (@default) => { None };
    (@default $default:tt) => { Some(serde_json::json!($default)) };
}
pub(super) use mapping;
