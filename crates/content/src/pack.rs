//! A folder as one stream for upload. The same folder always gives the same bytes: names sorted, no owners, no
//! times, one of two modes.

use std::{io::Write, path::Path};

use model::artifact::{Artifact, File};

use crate::{
    Progress,
    blobs::hash,
    intake::{Code, Error, Found, Tree, walk},
};

const LEVEL: i32 = 3;

/// Writes the folder as tar.zst. Refuses what an intake would refuse, so that the person who packs reads why.
pub fn pack(folder: &Path, writer: impl Write, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let mut encoder = zstd::Encoder::new(writer, LEVEL).map_err(unwritable)?;
    encoder.include_checksum(true).map_err(unwritable)?;
    let mut archive = tar::Builder::new(encoder);
    let mut tree = Tree::default();
    let mut done = Progress::default();
    walk(folder, &mut |found| {
        let Found::File { path, executable, size, content } = found else { return Ok(()) };
        tree.add_file(&path)?;
        let mut header = header(executable, size);
        archive.append_data(&mut header, path.as_str(), content).map_err(unwritable)?;
        done = Progress { files: done.files + 1, bytes: done.bytes + size };
        progress(done);
        Ok(())
    })?;
    archive.into_inner().and_then(zstd::Encoder::finish).and_then(|mut w| w.flush()).map_err(unwritable)
}

/// The artifact that the folder would become, without storing anything.
pub fn artifact_of(folder: &Path) -> Result<Artifact, Error> {
    let (mut tree, mut artifact) = (Tree::default(), Artifact::default());
    walk(folder, &mut |found| {
        let Found::File { path, executable, size: _, content } = found else { return Ok(()) };
        tree.add_file(&path)?;
        let (digest, size) = hash(content).map_err(|error| Error::reading(error).about(path.as_str()))?;
        artifact.files.insert(path, File { digest, size, executable });
        Ok(())
    })?;
    Ok(artifact)
}

fn header(executable: bool, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn unwritable(error: std::io::Error) -> Error {
    Error::new(Code::Storage, format!("the archive cannot be written ({error}); try again"))
}
