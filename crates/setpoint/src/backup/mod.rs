//! Backups on the disk of whoever asks for them: written under a temporary name, read back and compared before they
//! get their own, and put back whole or not at all.
//!
//! Refuses to know: what a backup is made of (`server::backup`), and how it is transferred.

mod make;
mod restore;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use content::{
    Progress,
    bundle::{self, List, Taker},
};
use model::artifact::RelPath;
use server::backup::{About, BackupError};
use store::{LockError, OpenError, StoreError};

use crate::cli::{client, place, progress::Transfer, text};

pub use make::make;
pub use restore::restore;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", shown(.path))]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the backup was not made: {source}. {} is as it was before", shown(.to)
    )]
    Made { to: PathBuf, source: bundle::Error },
    #[error("{} cannot be restored: {source}. Nothing was changed; take another backup", shown(.file))]
    Bundle { file: PathBuf, source: bundle::Error },
    #[error("{} cannot be restored: {why}. Nothing was changed", shown(.file))]
    Unfit { file: PathBuf, why: String },
    #[error(
        "{} is not empty: restore into an empty folder with --data, or let --force move this one aside; it deletes nothing",
        shown(.0)
    )]
    NotEmpty(PathBuf),
    #[error(
        "{} cannot be replaced: {source}. Where it is a mount point, restore into a folder below it with --data; \
         nothing was changed",
        shown(.path)
    )]
    NotReplaced { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Contents(#[from] content::blobs::Error),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Place(#[from] place::Error),
}

fn shown(path: &Path) -> String {
    text::line(&path.display().to_string())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<'_> {
    move |source| Error::Io { path: path.into(), source }
}

/// Reads a backup to its end and compares everything in it with its hash.
fn check(file: impl Read, progress: &Transfer) -> Result<List<About>, bundle::Error> {
    struct Check<'a>(&'a Transfer);

    impl Taker<About> for Check<'_> {
        fn list(&mut self, _: &List<About>) -> Result<(), bundle::Error> {
            Ok(())
        }

        fn file(&mut self, _: &RelPath, _: &mut dyn Read) -> io::Result<()> {
            Ok(())
        }

        fn progress(&mut self, done: Progress) {
            self.0.at(done);
        }
    }
    bundle::read(io::BufReader::new(file), &mut Check(progress))
}
