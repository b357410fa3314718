//! What a request's path asks for, decoded exactly once.

/// A path below the site's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `a/b.html`; never empty.
    File(String),
    /// `a/b`, or empty for the folder itself; the path ended with a slash.
    Directory(String),
    /// A folder was asked for without its slash: the prefix of the site itself.
    Bare,
    /// Well-formed, and no site has such a file.
    Impossible,
}

/// Why a path is refused instead of searched for. All of these have been used to leave folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path has a % that is not followed by two hex digits")]
    Percent,
    #[error("the path has an encoded slash, a backslash or a NUL")]
    Separator,
    #[error("the path has a . or .. segment")]
    Dots,
    #[error("the path is not UTF-8")]
    Encoding,
}

/// Parses a path from the site's prefix on: empty, or beginning with a slash.
pub fn parse(path: &str) -> Result<Wanted, PathError> {
    let Some(path) = path.strip_prefix('/') else { return Ok(Wanted::Bare) };
    let segments = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    if segments.iter().any(|segment| segment == "." || segment == "..") {
        return Err(PathError::Dots);
    }
    let Some((name, folders)) = segments.split_last() else { return Ok(Wanted::Impossible) };
    if folders.iter().any(String::is_empty) {
        return Ok(Wanted::Impossible);
    }
    Ok(if name.is_empty() { Wanted::Directory(folders.join("/")) } else { Wanted::File(segments.join("/")) })
}

fn decode(segment: &str) -> Result<String, PathError> {
    let percents_ok = segment
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !percents_ok {
        return Err(PathError::Percent);
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
    if decoded.iter().any(|b| matches!(b, b'/' | b'\\' | 0)) {
        return Err(PathError::Separator);
    }
    String::from_utf8(decoded).map_err(|_| PathError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Result<Wanted, PathError> {
        Ok(Wanted::File(path.into()))
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(parse("/a/b.html"), file("a/b.html"));
        assert_eq!(parse("/a%20b/%c3%bc.html"), file("a b/ü.html"));
        assert_eq!(parse("/%252e%252e/x"), file("%2e%2e/x"), "not twice");
        assert_eq!(parse("/..a/...b"), file("..a/...b"));
        assert_eq!(parse("/"), Ok(Wanted::Directory(String::new())));
        assert_eq!(parse("/a/b/"), Ok(Wanted::Directory("a/b".into())));
        assert_eq!(parse(""), Ok(Wanted::Bare));
        assert_eq!(parse("//a"), Ok(Wanted::Impossible));
        assert_eq!(parse("/a//"), Ok(Wanted::Impossible));
        assert_eq!(parse("//evil.example/"), Ok(Wanted::Impossible), "no redirect to another host");
    }

    #[test]
    fn what_has_been_used_to_leave_folders_is_refused() {
        for (path, error) in [
            ("/../x", PathError::Dots),
            ("/a/..", PathError::Dots),
            ("/%2e%2e/x", PathError::Dots),
            ("/.%2E/x", PathError::Dots),
            ("/./x", PathError::Dots),
            ("/..%2fx", PathError::Separator),
            ("/a%5c..%5cx", PathError::Separator),
            ("/a\\..\\x", PathError::Separator),
            ("/x%00.html", PathError::Separator),
            ("/%", PathError::Percent),
            ("/%2", PathError::Percent),
            ("/%zz", PathError::Percent),
            ("/%+1", PathError::Percent),
            ("/%ff", PathError::Encoding),
            ("/%c0%ae%c0%ae/x", PathError::Encoding),
        ] {
            assert_eq!(parse(path), Err(error), "{path}");
        }
    }
}
