//! The last lines of an output file, and what comes after them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use model::InstanceId;

/// No answer is longer, whatever the lines are.
pub const MAX_TAIL: u64 = 4 << 20;
const CHUNK: u64 = 64 << 10;
/// More cuts in a row than these while one reads are no chance.
const CUTS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no output of {0} is kept here; `setpoint status` lists the instances")]
    Unknown(InstanceId),
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Engine(#[from] crate::container::engine::Error),
    #[error("the node has been shut down")]
    Ended,
}

/// The last `lines` lines of the output, older files among it. `files` are oldest first and are read as one: a cut may
/// have split a line. A last line without an end counts as one. Of the newest file, only what is before `end` is read.
pub fn tail(files: &[PathBuf], lines: usize, end: u64) -> Result<Vec<u8>, Error> {
    // One that is cut between a look at its length and the reading is read again.
    for _ in 0..CUTS {
        match tail_once(files, lines, end) {
            Err(Error::Unreadable { error, .. }) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            told => return told,
        }
    }
    tail_once(files, lines, end)
}

fn tail_once(files: &[PathBuf], lines: usize, mut end: u64) -> Result<Vec<u8>, Error> {
    let mut tail = Tail { chunks: Vec::new(), ends_left: lines, room: MAX_TAIL, begun: false };
    for path in files.iter().rev() {
        if lines == 0 || tail.is_whole() {
            break;
        }
        match tail.read(path, std::mem::replace(&mut end, u64::MAX)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Unreadable { path: path.clone(), error });
            }
            _ => {}
        }
    }
    Ok(tail.chunks.into_iter().rev().flatten().collect())
}

/// The last lines as text, the newest of them within so many bytes. What cannot be read is no line.
pub fn last_lines(files: &[PathBuf], lines: usize, bytes: usize) -> Vec<String> {
    within(&tail(files, lines, u64::MAX).unwrap_or_default(), bytes)
}

/// Lines as text. Where all of them are more than so many bytes, the long ones are cut, so that each has its share:
/// the last line of what died says most, and one that is long would hide all others.
pub fn within(output: &[u8], bytes: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    let share = bytes / lines.len().max(1);
    let fits = text.len() <= bytes;
    lines.into_iter().map(|line| if fits { line.to_owned() } else { cut_short(line, share) }).collect()
}

fn cut_short(line: &str, most: usize) -> String {
    if line.len() <= most {
        return line.to_owned();
    }
    let mark = "…";
    let end = (0..=most.saturating_sub(mark.len())).rev().find(|end| line.is_char_boundary(*end));
    format!("{}{mark}", &line[..end.unwrap_or_default()])
}

/// Grows backwards, newest chunk first, until so many line ends are passed.
struct Tail {
    chunks: Vec<Vec<u8>>,
    ends_left: usize,
    room: u64,
    /// The end that closes the last line has been seen (or found missing): it begins no line of its own.
    begun: bool,
}

impl Tail {
    fn is_whole(&self) -> bool {
        self.room == 0 || (self.begun && self.ends_left == 0)
    }

    fn read(&mut self, path: &Path, end: u64) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut begin = file.seek(SeekFrom::End(0))?.min(end);
        while begin > 0 && !self.is_whole() {
            let size = CHUNK.min(begin).min(self.room);
            begin -= size;
            file.seek(SeekFrom::Start(begin))?;
            let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_exact(&mut chunk)?;
            self.room -= size;
            self.take(chunk);
        }
        Ok(())
    }

    fn take(&mut self, mut chunk: Vec<u8>) {
        let mut end = chunk.len();
        if !self.begun {
            self.begun = true;
            end -= usize::from(chunk.last() == Some(&b'\n'));
        }
        while let Some(at) = chunk[..end].iter().rposition(|byte| *byte == b'\n') {
            self.ends_left -= 1;
            if self.ends_left == 0 {
                chunk.drain(..=at);
                break;
            }
            end = at;
        }
        self.chunks.push(chunk);
    }
}

/// Reads on where it left off. Where it left off is counted from the instance's first byte, so that cutting the file
/// meanwhile repeats and loses nothing.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    position: u64,
}

impl Follow {
    /// From the current end on, which is given too: what is before it is for [`tail`].
    pub fn from_end(path: PathBuf, discarded: u64) -> (Self, u64) {
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        (Self { path, position: discarded + size }, size)
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
        String::from_utf8(tail(&files, lines, u64::MAX).unwrap()).unwrap()
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
        assert_eq!(last("1\nlong ", "line\n", 1), "long line\n", "a cut has split it");
        assert_eq!(last("1\n2\n", "\n", 2), "2\n\n");
    }

    #[test]
    fn last_lines_are_bounded_in_number_and_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let text: String = (0..300).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let last = |lines, bytes| last_lines(std::slice::from_ref(&path), lines, bytes);
        let hundred = last(100, 16 << 10);
        assert_eq!((hundred.len(), hundred[0].as_str(), hundred[99].as_str()), (100, "line 200", "line 299"));
        assert_eq!(last(2, 20), ["line 298", "line 299"]);
        std::fs::write(&path, format!("first\n{}\n{}end\n", "x".repeat(5000), "ä".repeat(5000))).unwrap();
        let cut = last(100, 900);
        assert_eq!((cut.len(), cut[0].as_str()), (3, "first"));
        assert!(cut.iter().all(|line| line.len() <= 300) && cut[2].ends_with("ä…"), "{cut:?}");
        std::fs::write(&path, b"\xff\xfe not text\n").unwrap();
        assert_eq!(last(5, 100).len(), 1);
        assert_eq!(last_lines(&[dir.path().join("none")], 5, 100), Vec::<String>::new());
    }

    #[test]
    fn lines_longer_than_a_chunk_come_whole() {
        let long = "x".repeat(300_000);
        assert_eq!(last("", &format!("a\n{long}\nb\n"), 2), format!("{long}\nb\n"));
    }
}
