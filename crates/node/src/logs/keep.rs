//! Output of instances that failed and are gone: the end of it, of so many, for people.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::InstanceId;

use super::read;
use crate::config::LogLimits;

/// Lines kept at the most; the limit in bytes holds too.
const LINES: usize = 10_000;

#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
    limits: LogLimits,
}

impl Kept {
    pub fn new(data: &Path, limits: LogLimits) -> Self {
        Self { folder: data.join("kept-logs"), limits }
    }

    pub fn path(&self, id: &InstanceId) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    /// Keeps the end of the output, and drops the oldest others.
    pub fn keep(&self, id: &InstanceId, files: &[PathBuf]) -> io::Result<()> {
        let mut bytes = read::tail(files, LINES, u64::MAX).map_err(io::Error::other)?;
        let limit = usize::try_from(self.limits.kept_bytes).unwrap_or(usize::MAX);
        if bytes.len() > limit {
            bytes.drain(..bytes.len() - limit);
        }
        fs::create_dir_all(&self.folder)?;
        crate::ledger::files::write_bytes(&self.path(id), &bytes, 0o600, crate::ledger::files::Durable::No)?;
        self.drop_oldest()
    }

    fn drop_oldest(&self) -> io::Result<()> {
        let mut files: Vec<_> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
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
            kept.keep(id, std::slice::from_ref(&output)).unwrap();
        }
        assert_eq!(fs::read(kept.path(&ids[2])).unwrap(), b"bcd\n");
        assert_eq!(fs::read_dir(dir.path().join("kept-logs")).unwrap().count(), 2);
    }
}
