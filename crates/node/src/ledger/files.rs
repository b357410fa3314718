//! Small files, replaced whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use model::Knowledge;
use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// Whether a write must survive a power loss before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// It survives our own death: enough for what a power loss makes void anyway.
    No,
    Yes,
}

pub fn write<T: Serialize>(path: &Path, value: &T, durable: Durable) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error { path: path.into(), cause: e.to_string() })?;
    write_bytes(path, &bytes, 0o600, durable).map_err(Error::at(path))
}

/// Writes a temporary name, then renames. Readers see the old or the new content, whole.
pub fn write_bytes(path: &Path, bytes: &[u8], mode: u32, durable: Durable) -> io::Result<()> {
    let unfinished = unfinished(path);
    let mut file = match create(&unfinished, mode) {
        // Left by a crash, maybe with another owner or as another kind of file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&unfinished)?;
            create(&unfinished, mode)?
        }
        file => file?,
    };
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_all()?;
    }
    fs::rename(&unfinished, path)?;
    if durable == Durable::Yes {
        sync_folder_of(path)?;
    }
    Ok(())
}

/// What one write to the page cache replaces at once: no kill of ours comes in between.
const PAGE: usize = 4096;

/// Replaces a small file where it is: for the files on the way between a death and its repair, where replacing by
/// rename costs milliseconds on ext4 (it writes the new file out to survive a power loss, which we do not need there).
/// Torn it can be by a power loss alone, and that is seen by the boot id. docs/decisions/ledger.md.
pub fn overwrite<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error { path: path.into(), cause: e.to_string() })?;
    match overwrite_bytes(path, bytes.clone()) {
        Ok(true) => Ok(()),
        // Missing, or too long for one write: the long way.
        Ok(false) => write_bytes(path, &bytes, 0o600, Durable::No).map_err(Error::at(path)),
        Err(error) => Err(Error::at(path)(error)),
    }
}

fn overwrite_bytes(path: &Path, mut bytes: Vec<u8>) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let before = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if bytes.len() > PAGE || before > PAGE {
        return Ok(false);
    }
    // Spaces after a value change nothing of it; cutting the file would be a second step.
    bytes.resize(bytes.len().max(before), b' ');
    let written = std::os::unix::fs::FileExt::write_at(&file, &bytes, 0)?;
    Ok(written == bytes.len())
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// `Absent` only when there certainly is no such file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::at(path)(error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error { path: path.into(), cause: e.to_string() })
}

/// As `read`, as knowledge.
pub fn know<T: DeserializeOwned>(path: &Path, now: model::Timestamp) -> Knowledge<T> {
    match read(path) {
        Ok(Some(value)) => Knowledge::Known(value),
        Ok(None) => Knowledge::Absent,
        Err(error) => Knowledge::Unknown { since: now, cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_is_unknown_and_a_missing_one_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value.json");
        assert!(know::<u64>(&path, model::Timestamp(1)).is_absent());
        write(&path, &7u64, Durable::Yes).unwrap();
        assert_eq!(know::<u64>(&path, model::Timestamp(1)).known(), Some(&7));
        fs::write(&path, "").unwrap();
        assert!(know::<u64>(&path, model::Timestamp(1)).is_unknown());
    }

    #[test]
    fn overwriting_gives_the_new_value_whatever_the_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value.json");
        for length in [10, 200, 3, 5000, 4, 4094, 4095, 0] {
            let value = "x".repeat(length);
            overwrite(&path, &value).unwrap();
            assert_eq!(read::<String>(&path).unwrap(), Some(value));
        }
    }

    #[test]
    fn a_leftover_of_a_crash_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value.json");
        fs::write(unfinished(&path), "half").unwrap();
        write(&path, &8u64, Durable::No).unwrap();
        assert_eq!(read::<u64>(&path).unwrap(), Some(8));
        assert!(!unfinished(&path).exists());
    }
}
