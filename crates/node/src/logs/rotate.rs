//! Cuts an output file that a workload is writing, without the workload noticing.
//!
//! The writer holds the file open for append, so the file must stay the same one: a rename would take the writer
//! along. The old part is copied out, then taken off the front: by FALLOC_FL_COLLAPSE_RANGE where the file system
//! can (ext4, xfs), which loses nothing, whatever is written meanwhile. Elsewhere the file is truncated, and
//! what was written between the last copy and the truncation (microseconds) is lost; docs/decisions/logs.md.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

/// What has been taken off the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut(pub u64);

/// Whether it is to be cut; one that cannot be looked at is looked at by [`cut`], which says why.
pub fn is_long(path: &Path, limit: u64) -> bool {
    match std::fs::metadata(path) {
        Ok(meta) => meta.len() > limit,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Cuts `path` when it is longer than `limit`. Older parts are `<path>.1`, `.2` …, `files - 1` of them. Of what a fast
/// writer, or one whom nobody watched, wrote beyond the limit, the end is kept.
pub fn cut(path: &Path, limit: u64, files: u32) -> io::Result<Option<Cut>> {
    let size = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta => meta?.len(),
    };
    if size <= limit {
        return Ok(None);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    shift(path, files)?;
    let mut older = OpenOptions::new().append(true).create_new(true).mode(0o600).open(numbered(path, 1))?;
    let block = block_size(&file);
    let whole = size / block * block;
    let kept = whole.min(limit / block * block + 2 * block);
    copy(&mut file, &mut older, whole - kept, kept)?;
    // The whole of the file cannot be collapsed, only what is before its end.
    let collapsed = whole > 0
        && whole < file.metadata()?.len()
        && fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, whole).is_ok();
    if collapsed {
        return Ok(Some(Cut(whole)));
    }
    truncate(&mut file, &mut older, whole).map(|taken| Some(Cut(taken)))
}

/// Copies until nothing more has come, then truncates.
fn truncate(file: &mut File, older: &mut File, mut copied: u64) -> io::Result<u64> {
    // A writer that is faster than this for ten rounds loses the rest.
    for _ in 0..10 {
        let size = file.metadata()?.len();
        if size <= copied {
            break;
        }
        copy(file, older, copied, size - copied)?;
        copied = size;
    }
    file.set_len(0)?;
    Ok(copied)
}

fn copy(from: &mut File, to: &mut File, offset: u64, length: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(offset))?;
    io::copy(&mut from.take(length), to).map(|_| ())
}

fn shift(path: &Path, files: u32) -> io::Result<()> {
    for n in (1..files).rev() {
        let (from, to) = (numbered(path, n), numbered(path, n + 1));
        let moved = if n + 1 >= files { std::fs::remove_file(&from) } else { std::fs::rename(&from, &to) };
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn block_size(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map_or(4096, |meta| meta.blksize()).max(4096)
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// All files of an output, oldest first.
pub fn all(path: &Path, files: u32) -> Vec<PathBuf> {
    (1..files).rev().map(|n| numbered(path, n)).chain([path.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_writer_goes_on_and_nothing_that_it_wrote_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let (mut written, mut cuts, mut gone) = (Vec::new(), 0, 0);
        for n in 0..4000 {
            let line = format!("line {n} {}\n", "x".repeat(20));
            writer.write_all(line.as_bytes()).unwrap();
            written.extend(line.into_bytes());
            if let Some(Cut(bytes)) = cut(&path, 20_000, 1000).unwrap() {
                cuts += 1;
                gone += bytes;
            }
        }
        let there: Vec<u8> =
            all(&path, 1000).iter().flat_map(|f| std::fs::read(f).unwrap_or_default()).collect();
        assert!(cuts > 3);
        assert!(there == written, "byte for byte");
        assert_eq!(gone + std::fs::metadata(&path).unwrap().len(), written.len() as u64);
    }

    #[test]
    fn of_a_long_backlog_the_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        cut(&path, 20_000, 3).unwrap().unwrap();
        let there: String =
            all(&path, 3).iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
        assert!(there.len() >= 20_000 && there.len() < 40_000, "{}", there.len());
        assert!(text.ends_with(&there), "the end, in a row");
    }

    #[test]
    fn only_so_many_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for _ in 0..10 {
            writer.write_all(&[b'x'; 9000]).unwrap();
            cut(&path, 5000, 3).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_short_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        assert_eq!(cut(&path, 10, 3).unwrap(), None);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(cut(&path, 10, 3).unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }
}
