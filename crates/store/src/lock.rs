//! One Setpoint per data folder: an exclusive lock that the kernel drops with the process that holds it.
//! Knows nothing of what the folder holds.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// So long a lock may outlive the process that took it.
const LEFT_BY_THE_DEAD: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Holds the data folder until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    /// flock, not fcntl: the close of another handle of the same file must not drop it. Opened close-on-exec by
    /// std: a child that inherited it would block the next start.
    file: File,
    path: PathBuf,
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "the data folder {} is in use by another Setpoint{}: stop that one, or choose another folder with --data",
        .dir.display(),
        .pid.as_deref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse { dir: PathBuf, pid: Option<String> },
    #[error("{} was replaced while it was being locked: try again", .path.display())]
    Replaced { path: PathBuf },
    #[error("cannot lock {}: {source}. Check that the folder exists and that this user may write to it", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl LockError {
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Replaced { .. } => true,
            Self::Io { .. } => false,
        }
    }
}

impl DataLock {
    /// Takes `<dir>/server.lock`, or says at once who has it.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        Self::lock(dir, "server.lock")
    }

    /// Takes `<dir>/edge/edge.lock`, for the one edge that runs apart beside the server of this folder.
    pub fn acquire_edge(dir: &Path) -> Result<Self, LockError> {
        Self::lock(dir, "edge/edge.lock")
    }

    /// What holds it beyond its holder's death is a child of that which has not closed what it inherited yet: it is
    /// waited for.
    fn lock(dir: &Path, name: &str) -> Result<Self, LockError> {
        let until = Instant::now() + LEFT_BY_THE_DEAD;
        loop {
            match Self::at(dir.join(name), dir) {
                Err(LockError::InUse { pid: Some(pid), .. })
                    if !Path::new("/proc").join(&pid).exists() && Instant::now() < until =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                locked => return locked,
            }
        }
    }

    fn at(path: PathBuf, dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.clone(), source };
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::InUse { dir: dir.into(), pid: pid_in(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // A lock on a file that is no longer at the path would exclude nobody.
        if !same_file(&file, &path).map_err(io)? {
            return Err(LockError::Replaced { path });
        }
        write_pid(&mut file).map_err(io)?;
        Ok(Self { file, path, dir: dir.into() })
    }

    /// Somebody may have removed or replaced the lock file, from when on a second Setpoint could start: it is put back,
    /// unless that has happened. Asked for often, since nobody tells.
    pub fn keep(&mut self) -> Result<(), LockError> {
        if !same_file(&self.file, &self.path).unwrap_or(false) {
            *self = Self::at(self.path.clone(), &self.dir)?;
        }
        Ok(())
    }
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let (held, there) = (file.metadata()?, path.metadata()?);
    Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
}

fn pid_in(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())).then(|| pid.to_owned())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_folder_and_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(dir.path()).unwrap();
        let error = DataLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        DataLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_whose_file_is_gone_is_put_back_unless_another_was_faster() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.lock");
        let mut lock = DataLock::acquire(dir.path()).unwrap();
        lock.keep().unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        lock.keep().unwrap();
        assert!(matches!(DataLock::acquire(dir.path()), Err(LockError::InUse { .. })), "it is held again");
        std::fs::remove_file(&path).unwrap();
        let other = DataLock::acquire(dir.path()).unwrap();
        assert!(matches!(lock.keep(), Err(LockError::InUse { .. })), "another holds it");
        drop(other);
    }

    /// A child between its fork and its exec, say.
    #[test]
    fn what_holds_the_lock_of_a_process_that_has_died_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataLock::acquire(dir.path()).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        std::fs::write(dir.path().join("server.lock"), child.id().to_string()).unwrap();
        let refused = DataLock::at(dir.path().join("server.lock"), dir.path());
        assert!(matches!(refused, Err(LockError::InUse { .. })), "it is held");
        let path = dir.path().to_owned();
        let (began, begins) = std::sync::mpsc::channel();
        let next = std::thread::spawn(move || {
            began.send(()).unwrap();
            DataLock::acquire(&path)
        });
        begins.recv().unwrap();
        drop(held);
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = DataLock::acquire(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(matches!(&error, LockError::Io { path, .. } if path.starts_with("/nowhere")), "{error}");
    }
}
