//! Several files as one that can be checked: a tar.zst that begins with the list of what must be in it, each with its
//! size and hash. What is cut off, altered or left out is found, and named, before anybody relies on it.
//!
//! Refuses to know: what the files are for. Contents stream; only the list is held.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use model::{Digest, artifact::RelPath};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Progress;

/// The first entry.
const LIST: &str = "list.json";
/// The last entry of a bundle that could not be finished: why. Its reader may be far away from its writer.
const BROKEN: &str = "broken.txt";
const FORMAT: &str = "setpoint-bundle/1";
const LEVEL: i32 = 3;
/// A million files have a list of about 150 MB.
const MAX_LIST: u64 = 512 << 20;
const MAX_REASON: u64 = 64 << 10;
const BUFFER: usize = 128 * 1024;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List<T> {
    format: String,
    /// What it is a bundle of.
    pub about: T,
    pub files: BTreeMap<RelPath, Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub size: u64,
    pub digest: Digest,
}

impl<T> List<T> {
    pub fn new(about: T, files: BTreeMap<RelPath, Member>) -> Self {
        Self { format: FORMAT.into(), about, files }
    }

    pub fn total(&self) -> Progress {
        let bytes = self.files.values().map(|member| member.size).sum();
        Progress { files: self.files.len() as u64, bytes }
    }
}

/// Size and digest of what a reader gives.
pub fn member(reader: &mut dyn Read) -> io::Result<Member> {
    let (digest, size) = crate::blobs::hash(reader)?;
    Ok(Member { size, digest })
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is no bundle of this kind: {0}")]
    Foreign(String),
    #[error("it ends too early ({0})")]
    Truncated(String),
    #[error("it is damaged or was altered: {0}")]
    Altered(String),
    #[error("whoever wrote it could not finish: {0}")]
    Broken(String),
    /// A file that goes in, or the place where files go to.
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("cannot be written: {0}")]
    Write(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Writes every file of the list. When one is not as the list says, the bundle ends with the reason, so that no reader
/// takes it for whole.
pub fn write<T: Serialize>(
    list: &List<T>,
    writer: impl Write,
    open: &mut dyn FnMut(&RelPath) -> io::Result<Box<dyn Read>>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let mut encoder = zstd::Encoder::new(writer, LEVEL).map_err(Error::Write)?;
    encoder.include_checksum(true).map_err(Error::Write)?;
    let mut archive = tar::Builder::new(encoder);
    let text = serde_json::to_vec(list).map_err(|error| Error::Refused(error.to_string()))?;
    append(&mut archive, LIST, text.len() as u64, &mut text.as_slice())?;
    let mut done = Progress::default();
    let mut broken = None;
    for (path, member) in &list.files {
        if let Err(error) = append_member(&mut archive, path, *member, open) {
            broken = Some(error);
            break;
        }
        done = Progress { files: done.files + 1, bytes: done.bytes + member.size };
        progress(done);
    }
    if let Some(error) = &broken {
        let reason = error.to_string();
        append(&mut archive, BROKEN, reason.len() as u64, &mut reason.as_bytes())?;
    }
    let ended = archive.into_inner().and_then(zstd::Encoder::finish).and_then(|mut writer| writer.flush());
    ended.map_err(Error::Write)?;
    broken.map_or(Ok(()), Err)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: &mut dyn Read,
) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, content).map_err(Error::Write)
}

fn append_member(
    archive: &mut tar::Builder<impl Write>,
    path: &RelPath,
    member: Member,
    open: &mut dyn FnMut(&RelPath) -> io::Result<Box<dyn Read>>,
) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_string(), source };
    let mut source = open(path).map_err(failed)?;
    let mut exact = Exact { source: &mut *source, left: member.size, hasher: Sha256::new(), broken: None };
    append(archive, path.as_str(), member.size, &mut exact)?;
    let Exact { hasher, broken, .. } = exact;
    if let Some(error) = broken {
        return Err(failed(error));
    }
    if Digest::from_array(hasher.finalize().into()) != member.digest {
        return Err(failed(io::Error::other("its content is not what it was stored as: it is damaged here")));
    }
    Ok(())
}

/// Gives exactly as many bytes as were promised, so that the archive around them stays readable whatever happens.
struct Exact<'a> {
    source: &'a mut dyn Read,
    left: u64,
    hasher: Sha256,
    broken: Option<io::Error>,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let n = if self.broken.is_some() { 0 } else { self.fill(buffer) };
        if n == 0 {
            buffer.fill(0);
        }
        let n = if n == 0 { most } else { n };
        self.left -= n as u64;
        Ok(n)
    }
}

impl Exact<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        if buffer.is_empty() {
            return 0;
        }
        match self.source.read(buffer) {
            Ok(0) => {
                self.broken = Some(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"));
                0
            }
            Ok(n) => {
                self.hasher.update(&buffer[..n]);
                n
            }
            Err(error) => {
                self.broken = Some(error);
                0
            }
        }
    }
}

/// What a reader of bundles is told.
pub trait Taker<T> {
    /// The list, before anything else. A refusal ends the reading.
    fn list(&mut self, list: &List<T>) -> Result<(), Error>;
    /// One file; it is compared with the list after this. What is not read of it is passed over.
    fn file(&mut self, path: &RelPath, content: &mut dyn Read) -> io::Result<()>;
    fn progress(&mut self, done: Progress);
}

/// Reads a bundle to its end and compares everything with its list.
pub fn read<T: for<'de> Deserialize<'de>>(
    reader: impl Read,
    taker: &mut impl Taker<T>,
) -> Result<List<T>, Error> {
    let decoder = zstd::Decoder::new(reader).map_err(|error| Error::Foreign(error.to_string()))?;
    let mut archive = tar::Archive::new(decoder);
    let mut list: Option<List<T>> = None;
    let mut missing = BTreeMap::new();
    let mut done = Progress::default();
    let mut mismatch = None;
    for entry in archive.entries().map_err(|error| unreadable(&error, list.is_some()))? {
        let mut entry = entry.map_err(|error| unreadable(&error, list.is_some()))?;
        let name = name_of(&entry)?;
        if list.is_none() {
            let read = read_list(&name, &mut entry)?;
            taker.list(&read)?;
            missing.clone_from(&read.files);
            list = Some(read);
            continue;
        }
        if name == BROKEN {
            return Err(Error::Broken(reason(&mut entry)));
        }
        // Its writer may have seen the same, and says in the next entry where.
        if let Some(error) = mismatch {
            return Err(error);
        }
        let (path, member) =
            name.parse().ok().and_then(|path: RelPath| missing.remove_entry(&path)).ok_or_else(|| {
                Error::Altered(format!("{} is not in its list", model::id::printable(&name)))
            })?;
        mismatch = match take(&path, member, &mut entry, taker) {
            Err(error @ Error::Altered(_)) => Some(error),
            taken => taken.map(|()| None)?,
        };
        done = Progress { files: done.files + 1, bytes: done.bytes + member.size };
        taker.progress(done);
    }
    let list = list.ok_or_else(|| Error::Foreign("it is empty".into()))?;
    // What comes after the archive: nothing, and the checksum of the whole.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| unreadable(&error, true))?;
    if let Some(error) = mismatch {
        return Err(error);
    }
    match missing.into_keys().next() {
        Some(path) => Err(Error::Truncated(format!("{path} is missing"))),
        None => Ok(list),
    }
}

fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, Error> {
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(Error::Altered("it holds something that is no file".into()));
    }
    let name = String::from_utf8(entry.path_bytes().into_owned());
    name.map_err(|_| Error::Altered("it holds a name that is no text".into()))
}

fn read_list<T: for<'de> Deserialize<'de>>(name: &str, entry: &mut impl Read) -> Result<List<T>, Error> {
    if name != LIST {
        return Err(Error::Foreign("it does not begin with a list of its files".into()));
    }
    let mut text = Vec::new();
    entry.take(MAX_LIST).read_to_end(&mut text).map_err(|error| unreadable(&error, true))?;
    let list: List<T> = serde_json::from_slice(&text)
        .map_err(|error| Error::Foreign(format!("its list is of another version, or damaged: {error}")))?;
    if list.format != FORMAT {
        let format = model::id::printable(&list.format);
        return Err(Error::Foreign(format!("its format is {format}, this Setpoint reads {FORMAT}")));
    }
    Ok(list)
}

fn take<T>(
    path: &RelPath,
    member: Member,
    entry: &mut impl Read,
    taker: &mut impl Taker<T>,
) -> Result<(), Error> {
    let mut hashed = Hashed { source: entry, hasher: Sha256::new(), size: 0, broken: None };
    let taken = taker.file(path, &mut hashed).and_then(|()| io::copy(&mut hashed, &mut io::sink()));
    // A source that broke off looks to the taker like an error of its own.
    if let Some(error) = hashed.broken {
        return Err(unreadable(&error, true));
    }
    taken.map_err(|source| Error::File { path: path.to_string(), source })?;
    if hashed.size != member.size || Digest::from_array(hashed.hasher.finalize().into()) != member.digest {
        return Err(Error::Altered(format!("{path} does not match its hash")));
    }
    Ok(())
}

struct Hashed<'a, R> {
    source: &'a mut R,
    hasher: Sha256,
    size: u64,
    broken: Option<io::Error>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(BUFFER);
        match self.source.read(&mut buffer[..most]) {
            Ok(n) => {
                self.hasher.update(&buffer[..n]);
                self.size += n as u64;
                Ok(n)
            }
            Err(error) => {
                self.broken = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

fn reason(entry: &mut impl Read) -> String {
    let mut text = Vec::new();
    // A reason that is cut off is still one.
    let _ = entry.take(MAX_REASON).read_to_end(&mut text);
    String::from_utf8_lossy(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn unreadable(error: &io::Error, begun: bool) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated(error.to_string()),
        _ if begun => Error::Altered(error.to_string()),
        _ => Error::Foreign(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 3] = [("a.db", "the database"), ("blobs/1", "one"), ("blobs/2", "")];

    fn list() -> List<String> {
        let files =
            FILES.iter().map(|(path, text)| (path.parse().unwrap(), member(&mut text.as_bytes()).unwrap()));
        List::new("a test".into(), files.collect())
    }

    fn content(path: &RelPath) -> &'static str {
        FILES.iter().find(|(name, _)| *name == path.as_str()).unwrap().1
    }

    fn bundle() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&list(), &mut bytes, &mut |path| Ok(Box::new(content(path).as_bytes())), &mut |_| {}).unwrap();
        bytes
    }

    #[derive(Default)]
    struct Taken(BTreeMap<String, String>);

    impl Taker<String> for Taken {
        fn list(&mut self, _: &List<String>) -> Result<(), Error> {
            Ok(())
        }

        fn file(&mut self, path: &RelPath, content: &mut dyn Read) -> io::Result<()> {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            self.0.insert(path.to_string(), text);
            Ok(())
        }

        fn progress(&mut self, _: Progress) {}
    }

    fn read_back(bytes: &[u8]) -> Result<BTreeMap<String, String>, Error> {
        let mut taken = Taken::default();
        read(bytes, &mut taken)?;
        Ok(taken.0)
    }

    #[test]
    fn what_went_in_comes_out() {
        let taken = read_back(&bundle()).unwrap();
        assert_eq!(taken, FILES.map(|(path, text)| (path.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_found() {
        let whole = bundle();
        for end in 0..whole.len() {
            assert!(read_back(&whole[..end]).is_err(), "cut to {end} of {}", whole.len());
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x10;
            // A bit that nothing depends on, such as the size of a buffer, changes nothing.
            if let Ok(taken) = read_back(&altered) {
                assert_eq!(taken, read_back(&whole).unwrap(), "byte {at} of {}", whole.len());
            }
        }
        let longer = [whole.as_slice(), b"more"].concat();
        assert!(read_back(&longer).is_err(), "something was appended");
    }

    #[test]
    fn a_source_that_is_not_as_it_was_ends_the_bundle_with_the_reason() {
        for (now, word) in [("the databasf", "damaged"), ("the", "shorter")] {
            let mut bytes = Vec::new();
            let open = &mut |path: &RelPath| -> io::Result<Box<dyn Read>> {
                let text = if path.as_str() == "a.db" { now } else { content(path) };
                Ok(Box::new(text.as_bytes()))
            };
            let written = write(&list(), &mut bytes, open, &mut |_| {}).unwrap_err().to_string();
            assert!(written.contains("a.db") && written.contains(word), "{written}");
            let read = read_back(&bytes).unwrap_err();
            assert!(matches!(&read, Error::Broken(why) if why.contains("a.db")), "{read}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_opened_is_told_to_the_reader() {
        let mut bytes = Vec::new();
        let open = &mut |path: &RelPath| -> io::Result<Box<dyn Read>> {
            match path.as_str() {
                "blobs/2" => Err(io::Error::other("it is gone")),
                _ => Ok(Box::new(content(path).as_bytes())),
            }
        };
        write(&list(), &mut bytes, open, &mut |_| {}).unwrap_err();
        let error = read_back(&bytes).unwrap_err();
        assert!(matches!(&error, Error::Broken(why) if why.contains("blobs/2: it is gone")), "{error}");
    }

    #[test]
    fn what_is_no_bundle_is_called_so() {
        let other_archive = {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).unwrap());
            append(&mut archive, "index.html", 2, &mut b"hi".as_slice()).unwrap();
            archive.into_inner().unwrap().finish().unwrap()
        };
        for (bytes, name) in [(b"plain text".to_vec(), "text"), (other_archive, "site")] {
            let error = read_back(&bytes).unwrap_err();
            assert!(matches!(error, Error::Foreign(_)), "{name}: {error}");
        }
    }
}
