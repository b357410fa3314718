//! Making one: from the server that runs, or from a data folder whose server does not.

use std::{
    fs::File,
    io::{BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use content::{Blobs, bundle::List};
use server::backup::{About, Backup, DATABASE};
use store::{DataLock, LockError, Store};
use tempfile::NamedTempFile;

use super::{Error, at, check};
use crate::cli::{args::Connection, progress::Display, text};

/// Writes a backup to `to`, which has its earlier content until the new one is whole. Gives what is in it, and its
/// size.
pub async fn make(
    connection: &Connection,
    to: &Path,
    display: &Display,
) -> Result<(List<About>, u64), Error> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // For its owner alone: the secrets of the cluster are in it.
    let mut file = NamedTempFile::with_prefix_in(".setpoint-backup-", folder).map_err(at(folder))?;
    let shown = to.display().to_string();
    match stopped(connection)? {
        Some((data, _lock)) => write(&data, file.as_file(), to, display).await?,
        None => fetch(connection, &mut file, &shown, display).await?,
    }
    file.as_file().sync_all().map_err(at(file.path()))?;
    file.rewind().map_err(at(to))?;
    let checking = display.transfer(&shown);
    let checked = check(&file, &checking);
    checking.done(if checked.is_ok() { "checked" } else { "read" });
    let list = checked.map_err(|source| Error::Made { to: to.into(), source })?;
    let size = file.as_file().metadata().map_err(at(to))?.len();
    file.persist(to).map_err(|error| at(to)(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
    Ok((list, size))
}

/// The data folder, when it holds a database and no server runs on it; held so that none begins meanwhile.
fn stopped(connection: &Connection) -> Result<Option<(PathBuf, DataLock)>, Error> {
    if connection.names_a_server() {
        return Ok(None);
    }
    let data = connection.data.folder()?;
    if !data.join(DATABASE).is_file() {
        return Ok(None);
    }
    match DataLock::acquire(&data) {
        Ok(lock) => Ok(Some((data, lock))),
        Err(LockError::InUse { .. } | LockError::Replaced { .. }) => Ok(None),
        Err(error @ LockError::Io { .. }) => Err(error.into()),
    }
}

async fn write(data: &Path, file: &File, to: &Path, display: &Display) -> Result<(), Error> {
    let blobs = Blobs::open(&data.join("blobs"))?;
    let store = Store::open(&data.join(DATABASE)).await?;
    let now = text::now().max(store.max_time().await?);
    let backup = Backup::of(&store, &blobs, data, now, |_| {}).await?;
    store.close().await;
    let writing = display.transfer(&to.display().to_string());
    let mut writer = BufWriter::new(file);
    let written = backup.write(&mut writer, &mut |done| writing.at(done));
    writing.done(if written.is_ok() { "wrote" } else { "read" });
    written.map_err(|source| Error::Made { to: to.into(), source })?;
    writer.flush().map_err(at(to))
}

async fn fetch(
    connection: &Connection,
    file: &mut NamedTempFile,
    shown: &str,
    display: &Display,
) -> Result<(), Error> {
    let client = connection.client()?;
    let mut pieces = client.download("/backup").await?;
    let fetching = display.transfer(shown);
    let mut done = content::Progress { files: 1, bytes: 0 };
    while let Some(piece) = pieces.next().await? {
        file.write_all(&piece).map_err(at(Path::new(shown)))?;
        done.bytes += piece.len() as u64;
        fetching.at(done);
    }
    fetching.done("received");
    Ok(())
}
