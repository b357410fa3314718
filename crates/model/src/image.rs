//! Names of container images: what people write, and what such a name stood for when it was resolved.

use std::{fmt, str::FromStr};

use crate::{Digest, id::InvalidId};

/// A reference as it is written: `[host[:port]/]path[:tag][@sha256:…]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef(String);

const MAX_REFERENCE: usize = 512;

impl ImageRef {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Everything before the tag and the digest.
    pub fn repository(&self) -> &str {
        let name = self.0.split('@').next().unwrap_or(&self.0);
        match name.rfind(':') {
            // A colon before a slash belongs to the port of the registry.
            Some(at) if !name[at..].contains('/') => &name[..at],
            Some(_) | None => name,
        }
    }

    /// The tag that is written; neither is one assumed.
    pub fn tag(&self) -> Option<&str> {
        let name = self.0.split('@').next().unwrap_or(&self.0);
        name.strip_prefix(self.repository()).and_then(|rest| rest.strip_prefix(':'))
    }

    /// The digest that is written: then nothing needs to be asked for.
    pub fn digest(&self) -> Option<Digest> {
        self.0.split_once('@').and_then(|(_, digest)| digest.parse().ok())
    }

    /// The host of its registry: what is written before the first slash, if that can be a host.
    pub fn registry(&self) -> &str {
        match self.0.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            Some(_) | None => "docker.io",
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for ImageRef {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidId {
            what: "image",
            text: s.into(),
            expected: "write a reference such as acme/web:1.4 or registry.example.com/acme/web@sha256:…, in lower case",
        };
        let reference = Self(s.into());
        let (name, digest) = match s.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (s, None),
        };
        let repository = reference.repository();
        let (host, path) = match repository.split_once('/') {
            Some((host, path)) if reference.registry() == host => (Some(host), path),
            Some(_) | None => (None, repository),
        };
        let whole = s.len() <= MAX_REFERENCE
            && host.is_none_or(is_host)
            && path.split('/').all(is_component)
            && (name.len() == repository.len() || reference.tag().is_some_and(is_tag))
            && digest.is_none_or(|digest| digest.parse::<Digest>().is_ok());
        if whole { Ok(reference) } else { Err(invalid()) }
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Lower case letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().next_back().is_some_and(alphanumeric);
    ends && component.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b))
        && ["..", "._", "_.", ".-", "-.", "___", "_-", "-_"].iter().all(|bad| !component.contains(bad))
}

fn is_tag(tag: &str) -> bool {
    let head = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    head && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// What a reference stood for: a release runs this, wherever its tag points meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImagePin {
    /// The manifest in the reference's repository; any engine can pull it. Written `sha256:…`.
    Registry(Digest),
    /// The image's own id: it is in no registry, only where it was built or loaded. Written `local:sha256:…`.
    Local(Digest),
}

impl ImagePin {
    pub fn digest(&self) -> Digest {
        match self {
            Self::Registry(digest) | Self::Local(digest) => *digest,
        }
    }
}

impl fmt::Display for ImagePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(digest) => write!(f, "{digest}"),
            Self::Local(digest) => write!(f, "local:{digest}"),
        }
    }
}

impl FromStr for ImagePin {
    type Err = crate::digest::InvalidDigest;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.strip_prefix("local:") {
            Some(digest) => digest.parse().map(Self::Local),
            None => s.parse().map(Self::Registry),
        }
    }
}

crate::text::serde_as_text!(ImageRef, ImagePin);

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Option<String>, bool) {
        let image: ImageRef = text.parse().unwrap();
        let tag = image.tag().map(str::to_owned);
        (image.registry().into(), image.repository().into(), tag, image.digest().is_some())
    }

    #[test]
    fn references_have_a_registry_a_repository_a_tag_and_a_digest() {
        let digest = Digest::of_bytes(b"x").to_string();
        for (text, registry, repository, tag, pinned) in [
            ("web", "docker.io", "web", None, false),
            ("acme/web:1.4", "docker.io", "acme/web", Some("1.4"), false),
            ("localhost/web:v_1", "localhost", "localhost/web", Some("v_1"), false),
            ("127.0.0.1:5000/web", "127.0.0.1:5000", "127.0.0.1:5000/web", None, false),
            (
                "r.example.com:5000/a/b-c:1",
                "r.example.com:5000",
                "r.example.com:5000/a/b-c",
                Some("1"),
                false,
            ),
            (&format!("acme/web:1@{digest}"), "docker.io", "acme/web", Some("1"), true),
            (&format!("acme/web@{digest}"), "docker.io", "acme/web", None, true),
        ] {
            let expected = (registry.to_owned(), repository.to_owned(), tag.map(str::to_owned), pinned);
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            ":1",
            "Web",
            "a b",
            "-web",
            "web:",
            "web:-1",
            "web@",
            "web@sha256:00",
            "a//b",
            "/web",
            "web/",
            "http://web",
            "a..b",
            "host:0/web",
            "host:70000/web",
            "web:1:2",
            "we\nb",
            "--help",
            "a.-b",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(600).parse::<ImageRef>().is_err());
    }

    #[test]
    fn a_pin_survives_its_text_form() {
        let digest = Digest::of_bytes(b"x");
        for pin in [ImagePin::Registry(digest), ImagePin::Local(digest)] {
            assert_eq!(pin.to_string().parse(), Ok(pin));
        }
        assert!("local:local:sha256:00".parse::<ImagePin>().is_err());
    }
}
