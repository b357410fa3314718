//! Conditional requests, in the order of RFC 9110, section 13.2.2.

use std::time::SystemTime;

use http::{
    HeaderMap, HeaderName,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE},
};

use super::lookup::Entity;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    NotModified,
    Failed,
}

pub fn evaluate(headers: &HeaderMap, entity: &Entity) -> Verdict {
    verdict(headers, &entity.etag, entity.modified)
}

fn verdict(headers: &HeaderMap, etag: &str, modified: SystemTime) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !names(headers, IF_MATCH, |tag| tag == etag) {
            return Verdict::Failed;
        }
    } else if date(headers, IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) {
        return Verdict::Failed;
    }
    let same = if headers.contains_key(IF_NONE_MATCH) {
        names(headers, IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
    } else {
        date(headers, IF_MODIFIED_SINCE).is_some_and(|since| modified <= since)
    };
    if same { Verdict::NotModified } else { Verdict::Send }
}

/// Whether a list of tags has ours, or is `*`. A foreign tag may hold a comma; its halves are not ours either.
fn names(headers: &HeaderMap, name: HeaderName, is_ours: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || is_ours(tag))
}

/// A date that cannot be read is as none.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn the_table_of_conditions() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (conditions, expected) in [
            (&[][..], Verdict::Send),
            (&[("if-none-match", "\"a\"")], Verdict::NotModified),
            (&[("if-none-match", "W/\"a\"")], Verdict::NotModified),
            (&[("if-none-match", "\"b\", \"a\"")], Verdict::NotModified),
            (&[("if-none-match", "*")], Verdict::NotModified),
            (&[("if-none-match", "\"b\"")], Verdict::Send),
            (&[("if-modified-since", AT)], Verdict::NotModified),
            (&[("if-modified-since", BEFORE)], Verdict::Send),
            (&[("if-modified-since", "yesterday")], Verdict::Send),
            (&[("if-none-match", "\"b\""), ("if-modified-since", AT)], Verdict::Send),
            (&[("if-match", "\"a\"")], Verdict::Send),
            (&[("if-match", "*")], Verdict::Send),
            (&[("if-match", "W/\"a\"")], Verdict::Failed),
            (&[("if-match", "\"b\"")], Verdict::Failed),
            (&[("if-unmodified-since", AT)], Verdict::Send),
            (&[("if-unmodified-since", BEFORE)], Verdict::Failed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Verdict::Send),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], Verdict::NotModified),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in conditions {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(verdict(&headers, "\"a\"", modified), expected, "{conditions:?}");
        }
    }
}
