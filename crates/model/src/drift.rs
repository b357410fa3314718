//! A difference between declared and observed.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The path of a container's first process that somebody had its engine end.
pub const RUNNING_PATH: &str = "container/running";

/// One differing field. `path` names it: `files/config.yaml`, `site/css/app.css`, `site/current`,
/// `webroot/index.html`, `process`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub path: String,
    /// `None`: nothing is declared there.
    pub declared: Option<String>,
    /// `None`: nothing is there.
    pub observed: Option<String>,
    pub since: Timestamp,
    /// Who did it, if known.
    pub by: Option<String>,
    /// Why it cannot be put back, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

impl Drift {
    /// As people read it: what is empty is not left blank.
    pub fn declared_word(&self) -> &str {
        word(self.declared.as_deref(), "nothing")
    }

    pub fn observed_word(&self) -> &str {
        word(self.observed.as_deref(), "missing")
    }
}

/// A value as people read it, where `absent` stands for none.
pub fn word<'a>(value: Option<&'a str>, absent: &'a str) -> &'a str {
    match value {
        Some("") => "nothing",
        Some(value) => value,
        None => absent,
    }
}

/// Whether an ignore pattern (`*` for any text, also none) covers a drift path: the whole of it, or what follows
/// `files/`, `site/` or `webroot/`.
pub fn ignores(pattern: &str, path: &str) -> bool {
    covers(pattern, path) || within(path).is_some_and(|rest| covers(pattern, rest))
}

/// Whether a pattern may cover something below this path.
pub fn ignores_below(pattern: &str, path: &str) -> bool {
    let below = |path: &str| pattern.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    below(path) || within(path).is_some_and(below)
}

fn within(path: &str) -> Option<&str> {
    path.split_once('/').map(|(_, rest)| rest)
}

fn covers(pattern: &str, path: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(mut left) = path.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{ignores, word};

    #[test]
    fn no_value_is_left_blank() {
        assert_eq!(word(Some("0-1"), "nothing"), "0-1");
        assert_eq!(word(Some(""), "missing"), "nothing");
        assert_eq!(word(None, "missing"), "missing");
    }

    #[test]
    fn patterns_cover_by_stars() {
        for (pattern, path, covered) in [
            ("files/a", "files/a", true),
            ("files/a", "files/ab", false),
            ("files/*", "files/a/b", true),
            ("*.css", "site/x.css", true),
            ("*.css", "site/x.css.map", false),
            ("site/*/x*.js", "site/a/x1.js", true),
            ("site/*/x*.js", "site/x1.js", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
            ("a/b.txt", "files/a/b.txt", true),
            ("b.txt", "files/a/b.txt", false),
            ("current", "site/current", true),
        ] {
            assert_eq!(ignores(pattern, path), covered, "{pattern} {path}");
        }
    }
}
