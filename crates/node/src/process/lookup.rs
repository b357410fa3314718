//! Finds what a declaration names on this machine: a program by PATH, a user by name.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sys::Credentials;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the program `{program}` is not in PATH ({path}): install it, or write its whole path as the command"
    )]
    NotInPath { program: String, path: String },
    #[error("the program `{program}` does not exist: install it, or correct the command")]
    Missing { program: String },
    #[error("the program `{program}` may not be executed: `chmod +x` it, or correct the command")]
    NotExecutable { program: String },
    #[error("the command is empty: name a program")]
    Empty,
    #[error(
        "the user `{user}` does not exist here: create it with `useradd --system {user}`, or declare another `user`"
    )]
    UnknownUser { user: String },
    #[error("running as `{user}` needs Setpoint to run as root: start it as root, or leave `user` out")]
    NotRoot { user: String },
    #[error("{path}: {error}")]
    Unreadable { path: &'static str, error: io::Error },
}

/// The program's absolute path. With a `/` it is one already; without, PATH is searched.
pub fn program(word: &str, path: Option<&str>) -> Result<PathBuf, Error> {
    if word.is_empty() {
        return Err(Error::Empty);
    }
    if word.contains('/') {
        return whole(word);
    }
    // As the C library does when PATH is not set.
    let path = path.unwrap_or("/bin:/usr/bin");
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(word))
        .find(|file| is_executable(file))
        .ok_or_else(|| Error::NotInPath { program: word.into(), path: path.into() })
}

fn whole(word: &str) -> Result<PathBuf, Error> {
    let file = Path::new(word);
    if is_executable(file) {
        Ok(file.to_owned())
    } else if file.is_file() {
        Err(Error::NotExecutable { program: word.into() })
    } else {
        Err(Error::Missing { program: word.into() })
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A user and what it has: `name`, or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub credentials: Credentials,
    pub home: Option<String>,
}

/// Reads /etc/passwd and /etc/group. `None`: it is Setpoint's own user already.
pub fn user(name: &str) -> Result<Option<User>, Error> {
    let read = |path| fs::read_to_string(path).map_err(|error| Error::Unreadable { path, error });
    let found = find(name, &read("/etc/passwd")?, &read("/etc/group")?)
        .ok_or_else(|| Error::UnknownUser { user: name.into() })?;
    let own = rustix::process::geteuid();
    if own.as_raw() == found.credentials.uid {
        return Ok(None);
    }
    if own.is_root() { Ok(Some(found)) } else { Err(Error::NotRoot { user: name.into() }) }
}

fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let known = lines.find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    let Some(fields) = known else {
        let id = name.parse().ok()?;
        return Some(User { credentials: Credentials { uid: id, gid: id, groups: vec![id] }, home: None });
    };
    let (login, uid, gid) = (*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    let mut groups = vec![gid];
    groups.extend(groups_of(login, group));
    Some(User {
        credentials: Credentials { uid, gid, groups },
        home: fields.get(5).map(|home| (*home).to_owned()),
    })
}

fn groups_of(login: &str, group: &str) -> Vec<u32> {
    let member = |line: &&str| line.rsplit(':').next().is_some_and(|m| m.split(',').any(|m| m == login));
    group.lines().filter(member).filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_or_named_with_what_to_do() {
        assert_eq!(program("sh", Some("/nonexistent:/bin")).unwrap(), Path::new("/bin/sh"));
        assert_eq!(program("/bin/sh", None).unwrap(), Path::new("/bin/sh"));
        let missing = program("no-such-program", Some("/bin:/usr/bin")).unwrap_err().to_string();
        assert!(missing.contains("no-such-program") && missing.contains("/bin:/usr/bin"), "{missing}");
        assert!(matches!(program("/etc/passwd", None), Err(Error::NotExecutable { .. })));
        assert!(matches!(program("/no/such", None), Err(Error::Missing { .. })));
    }

    #[test]
    fn users_are_found_with_their_groups_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/var/www:/bin/false\n";
        let group = "web:x:34:\nlog:x:50:web,root\nno:x:51:webber\n";
        for name in ["web", "33"] {
            let user = find(name, passwd, group).unwrap();
            assert_eq!(user.credentials, Credentials { uid: 33, gid: 34, groups: vec![34, 50] });
            assert_eq!(user.home.as_deref(), Some("/var/www"));
        }
        assert_eq!(find("4711", passwd, group).unwrap().credentials.uid, 4711);
        assert_eq!(find("nobody-here", passwd, group), None);
    }
}
