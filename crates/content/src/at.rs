//! Folders by file descriptor. Nothing here follows a symlink below the descriptor it was given, so that a link
//! planted in a folder never leads a copy, a comparison or a deletion out of it.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Up to this many files are synced one by one; more are cheaper in one sync of their filesystem.
pub(crate) const FEW: usize = 64;

/// What a directory entry is, links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    /// A socket, pipe or device.
    Special,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Symlink => "a symlink",
            Self::Special => "a socket, pipe or device",
        })
    }
}

impl Kind {
    pub(crate) fn of_mode(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// Opens a folder that the caller vouches for; links on the way to it are followed.
pub(crate) fn open_trusted(folder: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(fs::openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// Opens a regular file for reading. `NONBLOCK` so that a pipe in its place cannot hang us.
pub(crate) fn open_file(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(parent, name, flags, Mode::empty())?))
}

pub(crate) fn create_file(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(fs::openat(parent, name, flags, Mode::from_raw_mode(mode))?);
    fs::fchmod(&file, Mode::from_raw_mode(mode))?; // whatever the umask
    Ok(file)
}

/// What is there and its mode; `None` when nothing is.
pub(crate) fn look(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<(Kind, u32)>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((Kind::of_mode(stat.st_mode), stat.st_mode & 0o7777))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

/// Makes a directory with mode 0755 and opens it; one that is there already is taken.
pub(crate) fn make_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    match fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            let dir = open_dir(parent, name)?;
            fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
            Ok(dir)
        }
        Err(Errno::EXIST) => open_dir(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory `path` below `root`, component by component.
pub(crate) fn descend(root: BorrowedFd<'_>, path: &Path, make: bool) -> io::Result<OwnedFd> {
    let mut dir = root.try_clone_to_owned()?;
    for component in path.components() {
        let Component::Normal(name) = component else { return Err(Errno::INVAL.into()) };
        dir = if make { make_dir(dir.as_fd(), name)? } else { open_dir(dir.as_fd(), name)? };
    }
    Ok(dir)
}

/// Sets a directory's mode, also one that we may not open.
pub(crate) fn chmod_dir(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::openat(parent, name, flags, Mode::empty())?;
    fs::chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Removes whatever `name` is; links are removed, never followed. Nothing there is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match look(parent, name)? {
        None => Ok(()),
        Some((Kind::Directory, _)) => remove_dir(parent, name),
        Some(_) => absent_is_fine(fs::unlinkat(parent, name, AtFlags::empty())),
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let dir = match open_dir(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            chmod_dir(parent, name, 0o700)?;
            open_dir(parent, name)?
        }
        opened => opened?,
    };
    for entry in names(dir.as_fd())? {
        match remove(dir.as_fd(), &entry) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::fchmod(&dir, Mode::from_raw_mode(0o700))?;
                remove(dir.as_fd(), &entry)?;
            }
            removed => removed?,
        }
    }
    absent_is_fine(fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
}

fn absent_is_fine(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Renames `name` to the first free `<name>.<word>-<n>`; tells the new name. Never replaces anything.
pub(crate) fn move_aside(parent: BorrowedFd<'_>, name: &OsStr, word: &str) -> io::Result<OsString> {
    for n in 1..=u32::MAX {
        let mut aside = name.to_owned();
        aside.push(format!(".{word}-{n}"));
        match fs::renameat_with(parent, name, parent, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// Writes a small file whole: a reader sees the old or the new, also after a power loss.
pub(crate) fn write_whole(parent: BorrowedFd<'_>, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(".tmp");
    remove(parent, &unfinished)?;
    let mut file = create_file(parent, &unfinished, 0o644)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::renameat(parent, &unfinished, parent, name)?;
    fs::fsync(parent)?;
    Ok(())
}

/// The folder and the name of a path; refused when it names none.
pub(crate) fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((parent, name))
}

/// A name for people: control characters and broken UTF-8 escaped, so that no terminal is steered by it.
pub(crate) fn printable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    if text.chars().count() > 300 {
        text = text.chars().take(300).chain("…".chars()).collect();
    }
    text
}
