//! Where a site's content comes from when it is fetched: a repository, and the commit that was taken.
//!
//! Refuses to know who fetches it and how.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{artifact::RelPath, id::printable};

pub const MAX_BUILD_COMMANDS: usize = 100;
/// The kernel takes no longer single argument.
const MAX_COMMAND: usize = 128 << 10;
const MAX_URL: usize = 2048;

/// A Git repository and what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// `https://…`, `http://…`, `ssh://…` or `user@host:path`, without a password.
    pub url: String,
    /// A branch, a tag or a whole commit id; `None`: the repository's own default.
    pub reference: Option<String>,
}

/// The commit that an artifact was made from, and how. The same origin is not fetched and built again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    pub repository: Repository,
    /// In full: 40 hexadecimal digits, or 64.
    pub commit: String,
    /// Commands that were run one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<String>,
    /// The folder that was taken, instead of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<RelPath>,
}

impl Repository {
    /// What is wrong with it, each with its key.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let url = url_mistake(&self.url).map(|message| ("url", message));
        let reference = self.reference.as_deref().filter(|reference| !is_reference(reference));
        let reference =
            reference.map(|r| ("ref", format!("`{}` is not a branch, tag or commit", printable(r))));
        url.into_iter().chain(reference).collect()
    }
}

impl FromStr for Repository {
    type Err = String;

    /// `URL` or `URL#REF`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (url, reference) = text.split_once('#').map_or((text, None), |(url, r)| (url, Some(r)));
        let repository = Self { url: url.into(), reference: reference.map(str::to_owned) };
        match repository.mistakes().into_iter().next() {
            None => Ok(repository),
            Some((_, message)) => Err(message),
        }
    }
}

impl Origin {
    /// Whether it is a commit of this, made in this way.
    pub fn is_of(&self, repository: &Repository, build: &[String], output: Option<&RelPath>) -> bool {
        self.repository == *repository && self.build == build && self.output.as_ref() == output
    }

    /// What is wrong with it, each with the keys that lead to it.
    pub fn mistakes(&self) -> Vec<(Vec<String>, String)> {
        let git = |key: &str| vec!["git".to_owned(), key.to_owned()];
        let mut found: Vec<_> =
            self.repository.mistakes().into_iter().map(|(key, message)| (git(key), message)).collect();
        if !is_commit(&self.commit) {
            let message = format!("`{}` is not a whole commit id", printable(&self.commit));
            found.push((git("commit"), message));
        }
        let build = build_mistakes(&self.build);
        found.extend(
            build.into_iter().map(|(at, message)| (vec!["build".into(), format!("[{at}]")], message)),
        );
        found
    }
}

/// What is wrong with the commands of a build, each with its place among them.
pub fn build_mistakes(commands: &[String]) -> Vec<(usize, String)> {
    if commands.len() > MAX_BUILD_COMMANDS {
        let message = format!("a build has at most {MAX_BUILD_COMMANDS} commands: put them into a script");
        return vec![(MAX_BUILD_COMMANDS, message)];
    }
    let mistake = |command: &str| match command {
        _ if command.trim().is_empty() => Some("an empty command"),
        _ if command.contains('\0') => Some("a command cannot hold a NUL"),
        _ if command.len() >= MAX_COMMAND => Some("a command of 128 KiB or more: put it into a script"),
        _ => None,
    };
    let each = commands.iter().enumerate();
    each.filter_map(|(at, command)| Some((at, mistake(command)?.to_owned()))).collect()
}

/// A commit's id in full.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn url_mistake(url: &str) -> Option<String> {
    if !is_url(url) {
        let shown = printable(url);
        return Some(format!("`{shown}` is not a repository: https://, http://, ssh:// or user@host:path"));
    }
    // Whatever is written here is stored, shown and logged; the text itself is not repeated.
    (has_secret(url) || url.contains('?')).then(|| {
        "a password or token does not belong into a `url`, which everybody sees: give it to Git's credential helper, \
         or use ssh"
            .into()
    })
}

/// Nothing that a Git program could take for an option or a local file.
fn is_url(url: &str) -> bool {
    let known = ["https://", "http://", "ssh://"].iter().any(|scheme| {
        url.strip_prefix(scheme).is_some_and(|rest| !rest.starts_with(['-', '/']) && !rest.is_empty())
    });
    let short = url.split_once('@').is_some_and(|(user, rest)| {
        !user.is_empty()
            && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
            && rest.split_once(':').is_some_and(|(host, path)| !host.starts_with('-') && !path.is_empty())
    });
    (known || short) && url.len() <= MAX_URL && url.bytes().all(|b| b.is_ascii_graphic())
}

/// Whoever logs in by HTTP has a token for a name; by ssh a name alone is none.
fn has_secret(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| scheme != "ssh" || user.contains(':'))
}

/// What `git check-ref-format` allows, a little less.
fn is_reference(reference: &str) -> bool {
    (1..=255).contains(&reference.len())
        && !reference.starts_with(['-', '/', '.'])
        && !reference.ends_with(['/', '.'])
        && !reference.ends_with(".lock")
        && ["..", "//", "@{", "/."].iter().all(|bad| !reference.contains(bad))
        && reference.bytes().all(|b| b.is_ascii_graphic() && !b"~^:?*[\\".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, reference: &str) -> Vec<&'static str> {
        let repository = Repository { url: url.into(), reference: Some(reference.into()) };
        repository.mistakes().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_git_would_take_for_something_else_is_refused() {
        for url in ["https://a/b.git", "http://127.0.0.1:3000/b", "ssh://git@a:22/b", "git@a.example:b/c.git"]
        {
            assert_eq!(of(url, "main"), [""; 0], "{url}");
        }
        for url in
            ["--upload-pack=x", "file:///etc", "ext::sh -c x", "/etc", "https://-x", "a b@c:d", "x@-b:c", ""]
        {
            assert_eq!(of(url, "main"), ["url"], "{url}");
        }
        for reference in ["-x", "a..b", "a b", "x~1", "a.lock", "", "@{1}", "a\nb"] {
            assert_eq!(of("https://a/b", reference), ["ref"], "{reference}");
        }
    }

    #[test]
    fn a_token_in_a_url_is_refused_and_not_repeated() {
        for url in ["https://s3cret@a/b", "https://u:s3cret@a/b", "ssh://u:s3cret@a/b", "http://s3cret@a"] {
            let mistakes = Repository { url: url.into(), reference: None }.mistakes();
            assert!(matches!(&mistakes[..], [("url", message)] if !message.contains("s3cret")), "{url}");
        }
        assert_eq!(of("https://a/b@c", "main"), [""; 0], "an @ in the path is none");
    }

    #[test]
    fn commands_of_a_build_are_bounded() {
        let commands = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(build_mistakes(&commands(&["npm ci", "npm run build"])).is_empty());
        let places: Vec<_> =
            build_mistakes(&commands(&["a", " ", "b\0"])).into_iter().map(|(at, _)| at).collect();
        assert_eq!(places, [1, 2]);
        assert_eq!(build_mistakes(&vec!["a".into(); MAX_BUILD_COMMANDS + 1]).len(), 1);
    }
}
