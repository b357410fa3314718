//! Rendered files of a process: written into its folder, and compared with what is there.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use model::{Digest, artifact::RelPath};

use crate::ledger::files::{Durable, write_bytes};

#[derive(Debug, thiserror::Error)]
#[error("the file `{file}` cannot be written: {error}; check the disk's space and the folder's owner")]
pub struct Error {
    file: RelPath,
    error: io::Error,
}

/// One file that is not as rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub file: RelPath,
    pub declared: String,
    /// `None`: it is missing.
    pub observed: Option<String>,
}

/// How a file that differs is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Whole or not at all, for this user, or for ours.
    Replace { owner: Option<(u32, u32)> },
    /// A container sees the file itself and not its name: another in its place would not be seen. Readable by whoever the
    /// container runs as; the folder above it lets nobody else pass.
    InPlace,
}

/// Writes each file that differs.
pub fn put(
    folder: &Path,
    files: &BTreeMap<RelPath, Vec<u8>>,
    writing: Writing,
) -> Result<Vec<Difference>, Error> {
    let different = compare(folder, files);
    for difference in &different {
        if let Some(bytes) = files.get(&difference.file) {
            put_one(folder, &difference.file, bytes, writing)
                .map_err(|error| Error { file: difference.file.clone(), error })?;
        }
    }
    Ok(different)
}

fn put_one(folder: &Path, file: &RelPath, bytes: &[u8], writing: Writing) -> io::Result<()> {
    let path = folder.join(file);
    let owner = match writing {
        Writing::Replace { owner } => owner,
        Writing::InPlace => None,
    };
    if let Some(parent) = Path::new(file.as_str()).parent() {
        make_folders(folder, parent, owner)?;
    }
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
        move_aside(&path)?;
    }
    if writing == Writing::InPlace {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
            return fs::write(&path, bytes);
        }
        return write_bytes(&path, bytes, 0o644, Durable::No);
    }
    write_bytes(&path, bytes, 0o600, Durable::No)?;
    if let Some((uid, gid)) = owner {
        chown(&path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Real folders only: a link in the way could lead out of the instance's folder, and is moved aside.
fn make_folders(root: &Path, below: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut here = root.to_owned();
    for part in below.components() {
        here.push(part);
        match fs::symlink_metadata(&here) {
            Ok(meta) if meta.is_dir() => continue,
            Ok(_) => move_aside(&here)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(&here)?;
        if let Some((uid, gid)) = owner {
            chown(&here, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// What stands in the way may be somebody's work: it is kept under another name.
fn move_aside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..1000).map(|n| path.with_file_name(format!("{name}.aside-{n}"))).find(|p| !p.exists());
    fs::rename(path, free.ok_or(io::ErrorKind::AlreadyExists)?)
}

/// Every file whose content (never its size or time) is not as rendered.
pub fn compare(folder: &Path, files: &BTreeMap<RelPath, Vec<u8>>) -> Vec<Difference> {
    let different = files.iter().filter_map(|(file, bytes)| {
        let declared = Digest::of_bytes(bytes);
        let observed = match observe(folder, file) {
            Ok(Some(digest)) if digest == declared => return None,
            Ok(Some(digest)) => Some(digest.to_string()),
            Ok(None) => None,
            Err(what) => Some(what),
        };
        Some(Difference { file: file.clone(), declared: declared.to_string(), observed })
    });
    different.collect()
}

/// Its digest, `None` when it is missing, or in words what is there instead.
fn observe(folder: &Path, file: &RelPath) -> Result<Option<Digest>, String> {
    let path = folder.join(file);
    let meta = match fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    if meta.is_dir() {
        return Err("a directory".into());
    }
    if meta.is_symlink() {
        return Err("a symlink".into());
    }
    if !meta.is_file() {
        return Err("a socket, pipe or device".into());
    }
    fs::read(&path).map(|bytes| Some(Digest::of_bytes(&bytes))).map_err(|error| error.to_string())
}

/// What a cheap look sees: when it is unchanged, hashing can wait for the full pass.
pub type Look = Vec<Option<(u64, i64, i64, u64)>>;

pub fn look(folder: &Path, files: &[RelPath]) -> Look {
    let one = |path: PathBuf| {
        let meta = fs::symlink_metadata(path).ok()?;
        Some((meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len()))
    };
    files.iter().map(|file| one(folder.join(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_seen_and_put_back() {
        let files: BTreeMap<RelPath, Vec<u8>> =
            [("a.yaml", "a: 1\n"), ("etc/b", "b"), ("c", "c"), ("d", "d"), ("e", "e")]
                .map(|(path, text)| (path.parse().unwrap(), text.into()))
                .into();
        let dir = tempfile::tempdir().unwrap();
        let at = |file: &str| dir.path().join(file);
        assert_eq!(put(dir.path(), &files, Writing::Replace { owner: None }).unwrap().len(), 5);
        assert_eq!(put(dir.path(), &files, Writing::Replace { owner: None }).unwrap(), []);
        fs::write(at("a.yaml"), "a: 2\n").unwrap();
        fs::remove_dir_all(at("etc")).unwrap();
        fs::write(at("etc"), "in the way").unwrap();
        fs::remove_file(at("c")).unwrap();
        fs::create_dir(at("c")).unwrap();
        fs::remove_file(at("d")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("d")).unwrap();
        fs::remove_file(at("e")).unwrap();
        let observed: Vec<_> =
            compare(dir.path(), &files).into_iter().map(|d| (d.file.to_string(), d.observed)).collect();
        let changed = Digest::of_bytes(b"a: 2\n").to_string();
        let expected = [
            ("a.yaml", Some(changed.as_str())),
            ("c", Some("a directory")),
            ("d", Some("a symlink")),
            ("e", None),
            ("etc/b", None),
        ];
        assert_eq!(observed, expected.map(|(file, saw)| (file.to_owned(), saw.map(str::to_owned))));
        put(dir.path(), &files, Writing::Replace { owner: None }).unwrap();
        assert_eq!(compare(dir.path(), &files), []);
        assert!(at("c.aside-1").is_dir(), "a directory in the way is kept");
        assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"), "no link was followed");
    }

    #[test]
    fn what_a_container_sees_is_mended_in_the_file_that_it_sees() {
        let files: BTreeMap<RelPath, Vec<u8>> = [("a".parse().unwrap(), b"a".to_vec())].into();
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &files, Writing::InPlace).unwrap();
        let inode = || fs::metadata(dir.path().join("a")).unwrap().ino();
        let before = inode();
        fs::write(dir.path().join("a"), "changed").unwrap();
        put(dir.path(), &files, Writing::InPlace).unwrap();
        assert_eq!((compare(dir.path(), &files), inode()), (vec![], before));
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777, 0o644);
    }
}
