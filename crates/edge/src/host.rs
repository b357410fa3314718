//! Which host a request is for, canonicalised once: lower case, without port and trailing dot.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header::HOST};

/// Why a request names no host. All are the client's fault: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the Host header is missing")]
    Missing,
    #[error("there is more than one Host header")]
    Duplicate,
    #[error("the Host header is not a host name with an optional port")]
    Malformed,
    #[error("the request line names another host than the Host header")]
    Mismatch,
    #[error("the request line must begin with / or http://")]
    Scheme,
}

/// The canonical host of a request. Borrows in the usual case, in which it already was canonical.
pub fn canonical<'a>(uri: &Uri, headers: &'a HeaderMap) -> Result<Cow<'a, str>, HostError> {
    let mut all = headers.get_all(HOST).iter();
    let value = all.next().ok_or(HostError::Missing)?;
    if all.next().is_some() {
        return Err(HostError::Duplicate);
    }
    let text = value.to_str().map_err(|_| HostError::Malformed)?;
    let (host, port) = split(text)?;
    if let Some(authority) = uri.authority() {
        if uri.scheme_str() != Some("http") {
            return Err(HostError::Scheme);
        }
        let (named, named_port) = split(authority.as_str())?;
        if named != host || named_port.unwrap_or(80) != port.unwrap_or(80) {
            return Err(HostError::Mismatch);
        }
    }
    Ok(host)
}

fn split(text: &str) -> Result<(Cow<'_, str>, Option<u16>), HostError> {
    let (host, port) = match text.rfind(':') {
        // The colons of an IPv6 address are inside brackets.
        Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    Ok((canonical_name(host)?, port.map(parse_port).transpose()?.flatten()))
}

/// `host:` with an empty port is legal and means the default.
fn parse_port(text: &str) -> Result<Option<u16>, HostError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Some).ok_or(HostError::Malformed)
}

fn canonical_name(host: &str) -> Result<Cow<'_, str>, HostError> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let allowed = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => true,
        b'-' | b'_' => !bracketed,
        b':' | b'[' | b']' => bracketed,
        _ => false,
    };
    let labels = bracketed || host.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    if host.is_empty() || host.len() > 253 || !labels || !host.bytes().all(allowed) {
        return Err(HostError::Malformed);
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(host.to_ascii_lowercase().into())
    } else {
        Ok(host.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, hosts: &[&str], expected: Result<&str, HostError>) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let found = canonical(&uri.parse().unwrap(), &headers);
        assert_eq!(found.as_deref().map_err(|e| *e), expected, "{uri} {hosts:?}");
    }

    #[test]
    fn a_host_has_one_canonical_form() {
        for host in [
            "api.localhost",
            "API.LocalHost",
            "api.localhost:8080",
            "api.localhost.",
            "api.localhost.:80",
            "api.localhost:",
        ] {
            check("/", &[host], Ok("api.localhost"));
        }
        check("/", &["127.0.0.1:8080"], Ok("127.0.0.1"));
        check("/", &["[::1]:8080"], Ok("[::1]"));
        check("/", &["[::1]"], Ok("[::1]"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        check("/", &[], Err(HostError::Missing));
        check("/", &["a", "a"], Err(HostError::Duplicate));
        check("/", &["a", "b"], Err(HostError::Duplicate));
        for bad in [
            "", ".", "..", "a..", "a..b", "a b", "a/b", "u@a", "a:b", "a:99999", "a:+80", "a:80:80", "::1",
            "a,b", "[::1", "a%00", "é",
        ] {
            check("/", &[bad], Err(HostError::Malformed));
        }
    }

    #[test]
    fn an_absolute_request_line_must_agree_with_the_host_header() {
        check("http://a.localhost/x", &["A.localhost"], Ok("a.localhost"));
        check("http://a.localhost:80/x", &["a.localhost"], Ok("a.localhost"));
        check("http://a.localhost/x", &["b.localhost"], Err(HostError::Mismatch));
        check("http://a.localhost:81/x", &["a.localhost"], Err(HostError::Mismatch));
        check("http://u@a.localhost/x", &["a.localhost"], Err(HostError::Malformed));
        check("https://a.localhost/x", &["a.localhost"], Err(HostError::Scheme));
        check("http://a.localhost/x", &[], Err(HostError::Missing));
    }
}
