//! Where in a text a field of a service stands, for mistakes that are found by whoever knows more than the text: what is
//! on the disk, what other services have, what a machine allows.

use super::{
    error::Span,
    yaml::{self, Node, Value},
};
use crate::{ProjectName, ServiceKey};

/// The place of a field such as `static.webroot` or `volumes[0]`, or of the nearest thing above it that was written, and
/// that thing's whole path. `None` where the text does not declare the service.
pub fn locate(text: &str, service: &ServiceKey, field: &str) -> Option<(Span, String)> {
    let documents = yaml::read(text).ok()?;
    documents.iter().filter(|document| is_of(document, &service.project)).find_map(|document| {
        let (services, _) = document.step("services")?;
        let (node, _) = services.step(service.name.as_str())?;
        let Value::Map(entries) = &services.value else { return None };
        let (key, _) = entries.iter().find(|(key, _)| key.text == service.name.as_str())?;
        Some(descend(node, key.span, format!("services.{}", service.name), field))
    })
}

fn is_of(document: &Node, project: &ProjectName) -> bool {
    match document.step("project") {
        Some((Node { value: Value::Scalar(name), .. }, _)) => name.text == project.as_str(),
        _ => project.as_str() == "default",
    }
}

fn descend(mut node: &Node, mut span: Span, mut path: String, field: &str) -> (Span, String) {
    let mut rest = field;
    while let Some((step, after)) = first_step(node, rest) {
        let Some((next, place)) = node.step(&step) else { break };
        if !step.starts_with('[') {
            path.push('.');
        }
        path.push_str(&step);
        (node, span, rest) = (next, place, after);
    }
    if !rest.is_empty() && !matches!(node.value, Value::Scalar(_)) {
        path.push_str(if rest.starts_with('[') { "" } else { "." });
        path.push_str(rest);
    }
    (span, path)
}

/// A key of this map may itself hold dots: the longest that fits is meant.
fn first_step<'f>(node: &Node, field: &'f str) -> Option<(String, &'f str)> {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
    let after = |len: usize| field[len..].strip_prefix('.').unwrap_or(&field[len..]);
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(key, _)| &key.text)
            .filter(|key| field.strip_prefix(key.as_str()).is_some_and(ends))
            .max_by_key(|key| key.len())
            .map(|key| (key.clone(), after(key.len()))),
        Value::List(_) => {
            let len = field.starts_with('[').then(|| field.find(']'))?? + 1;
            Some((field[..len].to_owned(), after(len)))
        }
        Value::Scalar(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
services:
  docs:
    static: ./site
---
project: demo
services:
  docs:
    static:
      path: ./site
      webroot: ./www
    files: {a.b: x, a.b.c: y}
  web:
    image: acme/web:1
    volumes:
      - data:/a
      - /etc:/b
";

    fn at(service: &str, field: &str) -> Option<(u32, u32, String)> {
        let (span, path) = locate(TEXT, &service.parse().unwrap(), field)?;
        Some((span.line, span.column, path))
    }

    #[test]
    fn a_field_is_found_in_the_document_of_its_project() {
        let found = |line, column, path: &str| Some((line, column, path.to_owned()));
        assert_eq!(at("demo/docs", "static.webroot"), found(10, 16, "services.docs.static.webroot"));
        assert_eq!(at("demo/docs", "static.path"), found(9, 13, "services.docs.static.path"));
        assert_eq!(at("default/docs", "static.path"), found(3, 13, "services.docs.static"));
        assert_eq!(at("demo/docs", "files.a.b.c"), found(11, 28, "services.docs.files.a.b.c"));
        assert_eq!(at("demo/docs", "files.a.b"), found(11, 18, "services.docs.files.a.b"));
        assert_eq!(at("demo/web", "volumes[1]"), found(16, 9, "services.web.volumes[1]"));
    }

    #[test]
    fn of_what_was_not_written_the_nearest_is_pointed_at() {
        assert_eq!(at("demo/web", "port"), Some((12, 3, "services.web.port".to_owned())));
        assert_eq!(at("demo/nope", "port"), None);
    }
}
