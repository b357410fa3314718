//! A disk that is small, so that it can be full.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system of its own, in memory; gone when it is dropped. Let what uses it go first.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, with one line that says so, where this user may not mount.
    pub fn of_mib(size: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("setpoint-disk-").tempdir().unwrap();
        let option = format!("size={size}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(folder.path()).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: only root may mount a small disk ({mounted:?})");
            return None;
        }
        Some(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free until what is returned goes.
    pub fn fill(&self) -> Ballast {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [64 << 10, 4096, 1] {
            let block = vec![b'x'; size];
            while file.write_all(&block).is_ok() {}
        }
        let full = file.write_all(b"x").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        Ballast(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of a test that failed may still be in it.
        let unmounted = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} could not be unmounted", self.folder.path().display());
        }
    }
}

/// What fills a disk.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
