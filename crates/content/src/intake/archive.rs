//! Which format an archive has, and the streams around it.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
};

use model::artifact::{Artifact, MAX_ARTIFACT_BYTES};

use super::{Bounded, Code, Collector, Error, tar, zip};
use crate::{Blobs, Progress};

/// Room for headers, padding and whatever does not pack well, beside the contents.
const OVERHEAD: u64 = 512 << 20;
const BUFFER: usize = 64 * 1024;
/// A zstd stream may ask for a window of up to 128 MiB; larger ones are refused.
const ZSTD_WINDOW_LOG: u32 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Tar,
    TarGz,
    TarZst,
    Zip,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
            Self::Zip => "zip",
        })
    }
}

impl Format {
    /// By the first bytes, at least 512 of them where there are as many.
    pub fn detect(start: &[u8]) -> Option<Self> {
        if start.starts_with(&[0x1f, 0x8b]) {
            return Some(Self::TarGz);
        }
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Some(Self::TarZst);
        }
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            return Some(Self::Zip);
        }
        tar::looks_like(start).then_some(Self::Tar)
    }
}

/// Takes every file of an archive; `format` is detected when not given. Bounded in memory, in bytes unpacked and
/// in entries.
pub fn from_archive(
    blobs: &Blobs,
    reader: &mut dyn Read,
    format: Option<Format>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Artifact, Error> {
    let mut start = vec![0; 512];
    let n = fill(reader, &mut start).map_err(Error::reading)?;
    start.truncate(n);
    let format = format.or_else(|| Format::detect(&start)).ok_or_else(|| {
        Error::new(
            Code::UnknownFormat,
            "this is no tar, tar.gz, tar.zst or zip archive; pack it as one of these",
        )
    })?;
    let mut whole = BufReader::with_capacity(BUFFER, bounded(start.as_slice().chain(reader)));
    let mut collector = Collector::new(blobs, progress)?;
    match format {
        Format::Tar => tar::read(&mut collector, &mut bounded(whole))?,
        Format::TarGz => {
            // Multi: several members after another are one stream; anything else after a member is an error.
            tar::read(&mut collector, &mut bounded(flate2::bufread::MultiGzDecoder::new(&mut whole)))?;
            at_end(&mut whole)?;
        }
        Format::TarZst => {
            tar::read(&mut collector, &mut bounded(unzstd(&mut whole)?))?;
            at_end(&mut whole)?;
        }
        Format::Zip => zip::read(&mut collector, spool(blobs, &mut whole)?)?,
    }
    collector.finish()
}

fn bounded<R: Read>(inner: R) -> Bounded<R> {
    Bounded { inner, left: MAX_ARTIFACT_BYTES + OVERHEAD }
}

fn unzstd<R: BufRead>(reader: R) -> Result<zstd::Decoder<'static, R>, Error> {
    let mut decoder = zstd::Decoder::with_buffer(reader).map_err(Error::reading)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(Error::reading)?;
    Ok(decoder)
}

fn at_end(reader: &mut dyn BufRead) -> Result<(), Error> {
    match reader.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(trailing()),
        Err(error) => Err(Error::reading(error)),
    }
}

pub(super) fn trailing() -> Error {
    Error::new(Code::TrailingData, "there are bytes after the end of the archive; make it again")
}

/// A zip is read from its end, so it is put into a nameless file first.
fn spool(blobs: &Blobs, reader: &mut dyn Read) -> Result<std::fs::File, Error> {
    let storage = |error: io::Error| Error::new(Code::Storage, format!("cannot keep the upload: {error}"));
    let mut file = blobs.scratch()?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match fill(reader, &mut buffer).map_err(Error::reading)? {
            0 => break,
            n => file.write_all(&buffer[..n]).map_err(storage)?,
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(storage)?;
    Ok(file)
}

/// Reads until `buffer` is full or the end; how much it got.
pub(super) fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
