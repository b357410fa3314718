//! The last lines of an output file, and what comes after them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use model::InstanceId;

/// No answer is longer, whatever the lines are.
const MAX_TAIL: u64 = 4 << 20;
const CHUNK: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no output of {0} is kept here; `setpoint status` lists the instances")]
    Unknown(InstanceId),
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the node has been shut down")]
    Ended,
}

/// The last `lines` lines of the output, older files among it. `files` are oldest first.
pub fn tail(files: &[PathBuf], lines: usize) -> Result<Vec<u8>, Error> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let (mut left, mut room) = (lines, MAX_TAIL);
    for path in files.iter().rev() {
        if left == 0 || room == 0 {
            break;
        }
        let part = match tail_of(path, left, room, parts.is_empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            part => part.map_err(|error| Error::Unreadable { path: path.clone(), error })?,
        };
        let open = parts.is_empty() && !part.is_empty() && part.last() != Some(&b'\n');
        let ends = part.iter().filter(|b| **b == b'\n').count();
        left = left.saturating_sub(ends + usize::from(open));
        room = room.saturating_sub(part.len() as u64);
        parts.push(part);
    }
    Ok(parts.into_iter().rev().flatten().collect())
}

/// Reads backwards until enough line ends are found. A last line without an end counts as one.
fn tail_of(path: &Path, lines: usize, room: u64, newest: bool) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let (mut begin, mut bytes): (u64, Vec<u8>) = (end, Vec::new());
    while begin > 0 && (bytes.len() as u64) < room {
        let size = CHUNK.min(begin).min(room - bytes.len() as u64);
        begin -= size;
        file.seek(SeekFrom::Start(begin))?;
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact(&mut chunk)?;
        chunk.append(&mut bytes);
        bytes = chunk;
        if let Some(start) = nth_line_from_end(&bytes, lines, newest) {
            return Ok(bytes.split_off(start));
        }
    }
    Ok(bytes)
}

fn nth_line_from_end(bytes: &[u8], lines: usize, newest: bool) -> Option<usize> {
    // The last line's own end does not begin another line.
    let open = newest && bytes.last() != Some(&b'\n');
    let wanted = if open { lines } else { lines + 1 };
    let mut ends = bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    ends.nth(wanted.checked_sub(1)?).map(|(at, _)| at + 1)
}

/// Reads on where it left off. Where it left off is counted from the instance's first byte, so that cutting the file
/// meanwhile repeats and loses nothing.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    position: u64,
}

impl Follow {
    /// From the current end on.
    pub fn from_end(path: PathBuf, discarded: u64) -> Self {
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        Self { path, position: discarded + size }
    }

    /// What has been written since, at most one chunk; empty when nothing has.
    pub fn read(&mut self, discarded: u64) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        // Cut beyond what was read: the rest of the cut part is in the older file, and is passed over.
        self.position = self.position.max(discarded);
        let size = file.seek(SeekFrom::End(0))?;
        let offset = (self.position - discarded).min(size);
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(CHUNK).read_to_end(&mut bytes)?;
        self.position = discarded + offset + bytes.len() as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(older: &str, newer: &str, lines: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|name| dir.path().join(name));
        std::fs::write(&files[0], older).unwrap();
        std::fs::write(&files[1], newer).unwrap();
        String::from_utf8(tail(&files, lines).unwrap()).unwrap()
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        assert_eq!(last("1\n2\n", "3\n4\n", 2), "3\n4\n");
        assert_eq!(last("1\n2\n", "3\n4\n", 3), "2\n3\n4\n");
        assert_eq!(last("1\n2\n", "3\n4", 1), "4");
        assert_eq!(last("1\n2\n", "3\n4", 2), "3\n4");
        assert_eq!(last("1\n2\n", "3\n", 100), "1\n2\n3\n");
        assert_eq!(last("", "", 5), "");
        assert_eq!(last("x", "", 0), "");
    }

    #[test]
    fn lines_longer_than_a_chunk_come_whole() {
        let long = "x".repeat(300_000);
        assert_eq!(last("", &format!("a\n{long}\nb\n"), 2), format!("{long}\nb\n"));
    }
}
