//! A strict reader of tar archives, over blocks.
//!
//! Written out, with the `tar` crate for the fields of a header alone, because every tar reader forgives
//! something: two readers that forgive different things see different files in one archive. This one takes
//! regular files and directories, and refuses whatever could be read in two ways.

use std::io::Read;

use super::{Code, Collector, Error, archive, entry_path};

const BLOCK: usize = 512;
/// Longest extended header or long name that is read into memory.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most zeros after the end marker. Tools fill up to a record, which is 10 KiB mostly.
const MAX_PADDING: u64 = 16 << 20;

/// Whether these first bytes are a tar header with a right checksum, or the end marker of an empty archive.
pub(super) fn looks_like(start: &[u8]) -> bool {
    match <&[u8; BLOCK]>::try_from(start.get(..BLOCK).unwrap_or_default()) {
        Ok(block) => is_zero(block) || checksum_is_right(block),
        Err(_) => false,
    }
}

/// What the headers before an entry said about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

pub(super) fn read(collector: &mut Collector<'_>, reader: &mut dyn Read) -> Result<(), Error> {
    let mut extensions = Extensions::default();
    loop {
        let block = next_block(reader)?;
        if is_zero(&block) {
            return end(reader);
        }
        if !checksum_is_right(&block) {
            return Err(Error::new(Code::Corrupt, "a header's checksum is wrong; make the archive again"));
        }
        let header = tar::Header::from_byte_slice(&block);
        let size = header.entry_size().map_err(|_| corrupt("a header's size is no number"))?;
        match block[156] {
            b'x' => pax(&extension(reader, size)?, &mut extensions)?,
            b'g' => global_pax(&extension(reader, size)?)?,
            b'L' => extensions.path = Some(long_name(extension(reader, size)?)),
            b'K' => return Err(link("(long link name)")),
            _ => entry(collector, reader, header, size, std::mem::take(&mut extensions))?,
        }
    }
}

fn entry(
    collector: &mut Collector<'_>,
    reader: &mut dyn Read,
    header: &tar::Header,
    size: u64,
    extensions: Extensions,
) -> Result<(), Error> {
    let raw = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let shown = crate::at::printable(std::os::unix::ffi::OsStrExt::from_bytes(raw.as_slice()));
    let refuse = |code, why: &str| Err(Error::new(code, why).about(shown.as_str()));
    if extensions.size.is_some_and(|pax| pax != size) {
        return refuse(Code::SizeMismatch, "has two different sizes in its headers; make the archive again");
    }
    let mode = header.mode().map_err(|_| corrupt("a mode is no number").about(shown.as_str()))?;
    match header.as_bytes()[156] {
        b'0' | b'\0' | b'7' if raw.ends_with(b"/") => directory(collector, &raw, size),
        b'0' | b'\0' | b'7' if mode & 0o6000 != 0 => {
            refuse(Code::Setuid, "is setuid or setgid; remove that bit with chmod")
        }
        b'0' | b'\0' | b'7' => file(collector, reader, &raw, mode, size),
        b'5' => directory(collector, &raw, size),
        b'1' | b'2' => Err(link(&shown)),
        b'3' | b'4' | b'6' => refuse(Code::Device, "is a device or a pipe; only files and folders are taken"),
        b'S' => refuse(Code::Sparse, "is stored sparsely; pack it without --sparse"),
        other => {
            let why = format!("has the unknown type {:?}; only files and folders are taken", other as char);
            refuse(Code::Unsupported, &why)
        }
    }
}

fn file(
    collector: &mut Collector<'_>,
    reader: &mut dyn Read,
    raw: &[u8],
    mode: u32,
    size: u64,
) -> Result<(), Error> {
    let Some(path) = entry_path(raw)? else {
        return Err(Error::new(Code::InvalidName, "a file without a name; make the archive again"));
    };
    let mut content = reader.take(size);
    collector.file(path.clone(), mode & 0o100 != 0, size, &mut content).map_err(|error| {
        // Fewer bytes than announced can only mean that the stream has ended.
        if error.code == Code::SizeMismatch { Error::truncated().about(path.as_str()) } else { error }
    })?;
    skip_padding(reader, size)
}

fn directory(collector: &mut Collector<'_>, raw: &[u8], size: u64) -> Result<(), Error> {
    if size != 0 {
        return Err(Error::new(Code::Corrupt, "a folder with content; make the archive again")
            .about(crate::at::printable(std::os::unix::ffi::OsStrExt::from_bytes(raw))));
    }
    match entry_path(raw)? {
        Some(path) => collector.directory(&path),
        None => Ok(()),
    }
}

fn extension(reader: &mut dyn Read, size: u64) -> Result<Vec<u8>, Error> {
    if size > MAX_EXTENSION {
        return Err(Error::new(Code::TooLarge, format!("a header of {size} bytes; make the archive again")));
    }
    let mut content = vec![0; size as usize];
    if archive::fill(reader, &mut content).map_err(Error::reading)? < content.len() {
        return Err(Error::truncated());
    }
    skip_padding(reader, size)?;
    Ok(content)
}

fn pax(content: &[u8], extensions: &mut Extensions) -> Result<(), Error> {
    for record in tar::PaxExtensions::new(content) {
        let record = record.map_err(|_| corrupt("an extended header is broken"))?;
        match record.key_bytes() {
            b"path" if extensions.path.is_some() => return Err(corrupt("an entry with two long names")),
            b"path" => extensions.path = Some(record.value_bytes().to_vec()),
            b"size" => {
                let size = record.value().ok().and_then(|text| text.parse().ok());
                extensions.size =
                    Some(size.ok_or_else(|| corrupt("an extended header's size is no number"))?);
            }
            b"linkpath" => return Err(link("(extended header)")),
            key if key.starts_with(b"GNU.sparse") || key == b"SCHILY.realsize" => {
                return Err(Error::new(Code::Sparse, "a file is stored sparsely; pack it without --sparse"));
            }
            _ => {} // times, owners, comments, attributes: nothing that we keep
        }
    }
    Ok(())
}

/// A header for all that follows; `git archive` writes one with a comment. Names and sizes have no place there.
fn global_pax(content: &[u8]) -> Result<(), Error> {
    let mut said = Extensions::default();
    pax(content, &mut said)?;
    if said.path.is_some() || said.size.is_some() {
        return Err(corrupt("a global header sets a name or a size"));
    }
    Ok(())
}

fn long_name(mut content: Vec<u8>) -> Vec<u8> {
    while content.last() == Some(&0) {
        content.pop();
    }
    content
}

/// After the end marker only zeros may come, to the end of the stream.
fn end(reader: &mut dyn Read) -> Result<(), Error> {
    let mut buffer = vec![0; 64 * 1024];
    let mut padding = 0;
    loop {
        let n = archive::fill(reader, &mut buffer).map_err(after_the_end)?;
        if !is_zero(&buffer[..n]) {
            return Err(archive::trailing());
        }
        padding += n as u64;
        if n == 0 {
            return Ok(());
        }
        if padding > MAX_PADDING {
            return Err(Error::new(
                Code::TooLarge,
                "zeros without end after its files; make the archive again",
            ));
        }
    }
}

/// The packed stream around the tar breaks after the tar is whole: cut off, or followed by something else.
fn after_the_end(error: std::io::Error) -> Error {
    let error = Error::reading(error);
    if error.code == Code::Corrupt { archive::trailing() } else { error }
}

fn next_block(reader: &mut dyn Read) -> Result<[u8; BLOCK], Error> {
    let mut block = [0; BLOCK];
    match archive::fill(reader, &mut block).map_err(Error::reading)? {
        BLOCK => Ok(block),
        _ => Err(Error::truncated()),
    }
}

fn skip_padding(reader: &mut dyn Read, size: u64) -> Result<(), Error> {
    let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    let mut rest = [0; BLOCK];
    match archive::fill(reader, &mut rest[..padding]).map_err(Error::reading)? {
        n if n == padding => Ok(()),
        _ => Err(Error::truncated()),
    }
}

fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let fields = block[..148].iter().chain(&block[156..]);
    let sum = fields.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|told| told == sum)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn corrupt(what: &str) -> Error {
    Error::new(Code::Corrupt, format!("{what}; make the archive again"))
}

fn link(entry: &str) -> Error {
    Error::new(Code::Link, "is a link; pack the file itself instead").about(entry)
}
