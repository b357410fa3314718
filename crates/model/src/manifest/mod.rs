//! The manifest: YAML to `ServiceSpec`s, with errors that point at line and column.
//!
//! Owns what may be written and what it means. `yaml` reads text into a tree, `decode` and `raw` turn the
//! tree into what was written, `lower` into what is meant, `validate` asks whether that can be.
//! Refuses to know: files and what is in them, other manifests, the server.

mod decode;
mod error;
mod lower;
mod notes;
mod place;
mod raw;
mod schema;
#[cfg(test)]
mod tests;
mod validate;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

pub use decode::nearest;
pub use error::{Error, Errors, MAX_ERRORS, Span};
pub use notes::{Note, notes};
pub use place::locate;
pub use schema::{reference, schema};
pub use validate::{
    BUILT_INS, FieldError, FieldPath, MAX_DOMAINS, MAX_FILES_BYTES, MAX_RETAIN, needs_port, validate,
};
pub use yaml::{MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES, MAX_TEXT};

use crate::{ProjectName, ServiceKey, artifact::RelPath, source::Repository, spec::ServiceSpec};
use decode::{Cx, Decode};
use yaml::{Node, Value};

/// What one file declares: at least one service, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of the file.
    pub services: Vec<Declared>,
}

impl Manifest {
    /// The projects that the file speaks for.
    pub fn projects(&self) -> BTreeSet<ProjectName> {
        self.services.iter().map(|declared| declared.key.project.clone()).collect()
    }
}

/// A declared service. A site's `artifact` is still empty: whoever can read files takes in `source` and fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub key: ServiceKey,
    pub spec: ServiceSpec,
    /// Where a site's content is; `None` for a process, and for a site whose content comes by `deploy`.
    pub source: Option<SiteSource>,
    /// Where the service begins in the file.
    pub line: u32,
}

/// A site's source, as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSource {
    pub from: SourceFrom,
    /// Commands that a shell runs in the source, one after the other, before `output` is taken.
    pub build: Vec<String>,
    /// The folder below the source that is served, instead of the whole.
    pub output: Option<RelPath>,
}

/// Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFrom {
    Path(String),
    Archive(String),
    Git(Repository),
}

/// Reads a manifest of one or several documents. `base` is the absolute folder of the file, against which
/// relative paths are resolved; `file_name` is for the messages.
pub fn parse(text: &str, file_name: &str, base: &str) -> Result<Manifest, Errors> {
    let fail = |errors: Vec<Error>| Errors::collect(file_name, errors);
    let documents = match yaml::read(text) {
        Ok(documents) => documents,
        Err(errors) => return Err(fail(errors).unwrap_or_else(|| unreadable(file_name))),
    };
    let (mut services, mut errors) = (Vec::new(), Vec::new());
    for document in &documents {
        let (declared, found) = read_document(document, base);
        services.extend(declared);
        errors.extend(found);
    }
    errors.extend(clashes(&services));
    if documents.is_empty() {
        errors.push(Error::declares_nothing(Span { line: 1, column: 1, ..Span::default() }));
    }
    match fail(errors) {
        Some(errors) => Err(errors),
        None => Ok(Manifest { services: services.into_iter().map(|placed| placed.declared).collect() }),
    }
}

/// A service with the places that errors between services point at.
struct Placed {
    declared: Declared,
    key: Span,
    domains: Vec<Span>,
}

fn read_document(document: &Node, base: &str) -> (Vec<Placed>, Vec<Error>) {
    let mut cx = Cx::new(document);
    let Some(raw) = raw::Document::decode(document, &mut cx) else { return (Vec::new(), cx.errors) };
    if !matches!(&document.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "services"))
    {
        cx.declares_nothing(document.span);
    }
    // With a project that cannot be read, the services are still looked through for their own mistakes.
    let project = raw.project.map(|name| name.0).or_else(|| "default".parse().ok());
    let (Some(project), Some(entries)) = (project, raw.services) else { return (Vec::new(), cx.errors) };
    let node = |at: usize| match document.step("services") {
        Some((Node { value: Value::Map(services), .. }, _)) => services.get(at).map(|(_, node)| node),
        _ => None,
    };
    let mut services = Vec::new();
    for entry in entries.0 {
        let Some(node) = node(entry.at) else { continue };
        services.extend(declare(&project, node, entry, base, &mut cx));
    }
    (services, cx.errors)
}

fn declare<'t>(
    project: &ProjectName,
    node: &'t Node,
    entry: raw::Entry,
    base: &str,
    cx: &mut Cx<'t>,
) -> Option<Placed> {
    let raw::Entry { key, name, span, service, .. } = entry;
    cx.within("services", |cx| {
        cx.rooted(&key, node, span, |cx| {
            let (spec, source) = lower::lower(service, base, cx)?;
            let domain = |at: usize| cx.locate(&FieldPath::of(&["domains", &format!("[{at}]")]));
            let domains = (0..spec.domains.len()).map(domain).collect();
            let key = ServiceKey::new(project.clone(), name);
            Some(Placed { declared: Declared { key, spec, source, line: span.line }, key: span, domains })
        })
    })
}

/// What two services of one file cannot both have. Across files the server asks the same, and whether entries of
/// sites collide in a webroot, for which it knows their content.
fn clashes(services: &[Placed]) -> Vec<Error> {
    let (mut names, mut domains) = (BTreeMap::new(), BTreeMap::new());
    let mut errors = Vec::new();
    for placed in services {
        let key = &placed.declared.key;
        let field = format!("services.{}", key.name);
        if let Some(line) = names.insert(key, placed.key.line) {
            let message = format!("the service {key} is declared twice; the first is in line {line}");
            errors.push(Error::new("conflict", placed.key, message).field(&field));
            continue;
        }
        for (at, (domain, span)) in placed.declared.spec.domains.iter().zip(&placed.domains).enumerate() {
            if let Some(other) = domains.insert(domain, key) {
                let message = format!("`{domain}` already leads to the service {other}");
                errors.push(Error::new("conflict", *span, message).field(format!("{field}.domains[{at}]")));
            }
        }
    }
    errors
}

fn unreadable(file_name: &str) -> Errors {
    // `read` gives at least one error when it fails; this only keeps the promise in the type.
    Errors::one(file_name, Error::new("syntax", Span::default(), "the file cannot be read"))
}
