//! Output of instances that are gone: the end of it, of so many, for people. What failed is kept apart, so that what
//! merely ended never takes its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::InstanceId;

use super::read;
use crate::config::LogLimits;

/// Lines kept at the most; the limit in bytes holds too.
pub const LINES: usize = 10_000;

/// How an instance went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    Failed,
    Ended,
}

#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
    limits: LogLimits,
}

impl Kept {
    pub fn new(data: &Path, limits: LogLimits) -> Self {
        Self { folder: data.join("kept-logs"), limits }
    }

    /// Where its output is kept, if it is.
    pub fn find(&self, id: &InstanceId) -> Option<PathBuf> {
        [Went::Failed, Went::Ended].map(|went| self.path(id, went)).into_iter().find(|path| path.exists())
    }

    fn folder(&self, went: Went) -> PathBuf {
        match went {
            Went::Failed => self.folder.clone(),
            Went::Ended => self.folder.join("ended"),
        }
    }

    fn path(&self, id: &InstanceId, went: Went) -> PathBuf {
        self.folder(went).join(format!("{id}.log"))
    }

    /// Keeps the end of the output, and drops the oldest others that went alike.
    pub fn keep(&self, id: &InstanceId, files: &[PathBuf], went: Went) -> io::Result<()> {
        self.keep_bytes(id, read::tail(files, LINES, u64::MAX).map_err(io::Error::other)?, went)
    }

    /// The same of output that is at hand.
    pub fn keep_bytes(&self, id: &InstanceId, mut bytes: Vec<u8>, went: Went) -> io::Result<()> {
        let limit = usize::try_from(self.limits.kept_bytes).unwrap_or(usize::MAX);
        if bytes.len() > limit {
            bytes.drain(..bytes.len() - limit);
        }
        if bytes.is_empty() && went == Went::Ended {
            return Ok(());
        }
        let folder = self.folder(went);
        fs::create_dir_all(&folder)?;
        let path = self.path(id, went);
        crate::ledger::files::write_bytes(&path, &bytes, 0o600, crate::ledger::files::Durable::No)?;
        self.drop_oldest(&folder)
    }

    fn drop_oldest(&self, folder: &Path) -> io::Result<()> {
        let mut files: Vec<_> = fs::read_dir(folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok()?;
                Some((meta.modified().ok()?, entry.path())).filter(|_| meta.is_file())
            })
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(self.limits.kept_instances);
        files.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept_and_only_their_ends() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { kept_bytes: 4, kept_instances: 2, ..LogLimits::default() };
        let kept = Kept::new(dir.path(), limits);
        let output = dir.path().join("output.log");
        fs::write(&output, "a\nbcd\n").unwrap();
        let ids: Vec<InstanceId> = (0..3).map(|n| format!("default.api.0.{n}").parse().unwrap()).collect();
        for id in &ids {
            kept.keep(id, std::slice::from_ref(&output), Went::Ended).unwrap();
        }
        assert_eq!(fs::read(kept.find(&ids[2]).unwrap()).unwrap(), b"bcd\n");
        assert_eq!(kept.find(&ids[0]), None);
        assert_eq!(fs::read_dir(dir.path().join("kept-logs/ended")).unwrap().count(), 2);
    }

    #[test]
    fn what_merely_ended_takes_no_failed_ones_place() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path(), LogLimits { kept_instances: 1, ..LogLimits::default() });
        let output = dir.path().join("output.log");
        fs::write(&output, "a\n").unwrap();
        let ids = ["default.api.0.0", "default.api.0.1"].map(|id| id.parse::<InstanceId>().unwrap());
        kept.keep(&ids[0], std::slice::from_ref(&output), Went::Failed).unwrap();
        kept.keep(&ids[1], std::slice::from_ref(&output), Went::Ended).unwrap();
        assert!(ids.iter().all(|id| kept.find(id).is_some()));
    }
}
