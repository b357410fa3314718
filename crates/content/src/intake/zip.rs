//! Zip archives, read by their directory alone. What lies before, after or beside it refuses the whole.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::{Code, Collector, Error, archive, entry_path};
use crate::{Kind, at};

const END: &[u8] = b"PK\x05\x06";
const END_SIZE: u64 = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCATOR_64_SIZE: u64 = 20;
/// The directory is held in memory while the archive is read.
const MAX_DIRECTORY: u64 = 128 << 20;

type Archive = ZipArchive<BufReader<File>>;

pub(super) fn read(collector: &mut Collector<'_>, file: File) -> Result<(), Error> {
    let mut raw = file.try_clone().map_err(Error::reading)?;
    if directory_size(&mut raw)? > MAX_DIRECTORY {
        return Err(Error::new(Code::TooManyEntries, "the archive's directory is too long; split the site"));
    }
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    check_frame(&archive, &mut raw)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(broken)?;
        let shown = at::printable(std::os::unix::ffi::OsStrExt::from_bytes(entry.name_raw()));
        take(collector, &mut entry).map_err(|error| error.about(shown))?;
    }
    Ok(())
}

fn take(collector: &mut Collector<'_>, entry: &mut ZipFile<'_, BufReader<File>>) -> Result<(), Error> {
    if entry.encrypted() {
        return Err(Error::new(Code::Encrypted, "is encrypted; pack it without a password"));
    }
    // As it is written, whatever system it says it was made on: `unix_mode` hides links and setuid of some.
    let mode = entry.external_attributes() >> 16;
    let kind = if mode & 0o170_000 == 0 { None } else { Some(Kind::of_mode(mode)) };
    let is_dir = entry.name_raw().ends_with(b"/");
    match (kind, is_dir) {
        (Some(Kind::Symlink), _) => {
            return Err(Error::new(Code::Link, "is a link; pack the file itself instead"));
        }
        (Some(Kind::Special), _) => {
            return Err(Error::new(
                Code::Device,
                "is a device, pipe or socket; only files and folders are taken",
            ));
        }
        (Some(Kind::Directory), false) | (Some(Kind::File), true) => {
            return Err(Error::new(
                Code::FileAndDirectory,
                "is both a file and a folder; make the archive again",
            ));
        }
        (None | Some(Kind::Directory), true) | (None | Some(Kind::File), false) => {}
    }
    let path = entry_path(entry.name_raw())?;
    if is_dir {
        return path.map_or(Ok(()), |path| collector.directory(&path));
    }
    if mode & 0o6000 != 0 {
        return Err(Error::new(Code::Setuid, "is setuid or setgid; remove that bit with chmod"));
    }
    let path = path.ok_or_else(|| Error::new(Code::InvalidName, "is a file without a name"))?;
    let size = entry.size();
    // One byte more than announced, so that a content that is longer is seen and one that is a bomb is not read.
    collector.file(path, mode & 0o100 != 0, size, &mut entry.take(size.saturating_add(1)))
}

/// The directory must end where the file ends, begin without anything before the archive, and name each entry
/// once: the reader finds entries by name, so a second one of the same name would silently win.
fn check_frame(archive: &Archive, raw: &mut File) -> Result<(), Error> {
    let length = raw.seek(SeekFrom::End(0)).map_err(Error::reading)?;
    let tail = END_SIZE + archive.comment().len() as u64;
    let end = length.checked_sub(tail).ok_or_else(Error::truncated)?;
    if read_at::<4>(raw, end)? != *END || archive.offset() != 0 {
        return Err(archive::trailing());
    }
    if count_entries(raw, archive.central_directory_start())? != archive.len() {
        return Err(Error::new(Code::Duplicate, "a name comes twice; make the archive again"));
    }
    Ok(())
}

/// How long the directory says it is, the larger of two where there are two.
fn directory_size(raw: &mut File) -> Result<u64, Error> {
    let length = raw.seek(SeekFrom::End(0)).map_err(Error::reading)?;
    let start = length.saturating_sub(END_SIZE + u64::from(u16::MAX));
    raw.seek(SeekFrom::Start(start)).map_err(Error::reading)?;
    let mut tail = Vec::new();
    raw.read_to_end(&mut tail).map_err(Error::reading)?;
    let ends_here = |at: usize| {
        let comment = tail.get(at + 20..at + 22).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
        comment.is_some_and(|comment| at + END_SIZE as usize + comment == tail.len())
    };
    let last = tail.len().saturating_sub(END_SIZE as usize);
    let found = (0..=last).rev().find(|at| tail[*at..].starts_with(END) && ends_here(*at));
    let Some(at) = found else {
        // Bytes after the end, or no end at all.
        let whole = tail.windows(END.len()).any(|window| window == END);
        return Err(if whole { archive::trailing() } else { Error::truncated() });
    };
    let size = u32::from_le_bytes(read_at(raw, start + at as u64 + 12)?);
    Ok(u64::from(size).max(directory_size_64(raw, start + at as u64)?))
}

fn directory_size_64(raw: &mut File, end: u64) -> Result<u64, Error> {
    let Some(locator) = end.checked_sub(LOCATOR_64_SIZE) else { return Ok(0) };
    if read_at::<4>(raw, locator)? != *LOCATOR_64 {
        return Ok(0);
    }
    let record = u64::from_le_bytes(read_at(raw, locator + 8)?);
    let size = record.checked_add(40).ok_or_else(Error::truncated)?;
    Ok(u64::from_le_bytes(read_at(raw, size)?))
}

fn count_entries(raw: &mut File, start: u64) -> Result<usize, Error> {
    raw.seek(SeekFrom::Start(start)).map_err(Error::reading)?;
    let mut reader = BufReader::new(raw);
    let mut count = 0;
    loop {
        let mut header = [0; 46];
        let n = archive::fill(&mut reader, &mut header).map_err(Error::reading)?;
        if n < header.len() || !header.starts_with(ENTRY) {
            return Ok(count);
        }
        let length = |at: usize| i64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        reader.seek_relative(length(28) + length(30) + length(32)).map_err(Error::reading)?;
        count += 1;
    }
}

fn read_at<const N: usize>(raw: &mut File, at: u64) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    raw.seek(SeekFrom::Start(at)).and_then(|_| raw.read_exact(&mut bytes)).map_err(Error::reading)?;
    Ok(bytes)
}

fn broken(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => Error::reading(error),
        ZipError::UnsupportedArchive(why) if why == ZipError::PASSWORD_REQUIRED => {
            Error::new(Code::Encrypted, "is encrypted; pack it without a password")
        }
        ZipError::UnsupportedArchive(why) => {
            Error::new(Code::Unsupported, format!("{why}; pack with deflate or without compression"))
        }
        other => Error::new(Code::Corrupt, format!("{other}; make the archive again")),
    }
}
