//! The data folder: its layout, its token, and the file that tells commands where the API is.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
const TOKEN_PREFIX: &str = "sp_";

#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}. Choose a folder that this user may write to with --data", .path.display())]
pub struct DataError {
    path: PathBuf,
    source: io::Error,
}

impl DataDir {
    /// Makes the folder where it is missing. Others may pass through, to a site that another web server shows or to
    /// the folder of an instance that runs as another user; what else is in it is this user's alone.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError { path: path.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed)?;
        Ok(Self(path.canonicalize().map_err(failed)?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("setpoint.db")
    }

    pub fn edge(&self) -> PathBuf {
        self.0.join("edge")
    }

    pub fn token_file(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The token, made at the first start. One that is empty or open to others is refused rather than used.
    pub fn token(&self) -> Result<String, DataError> {
        let path = self.token_file();
        let failed = |source| DataError { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(token) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
                let token = token.trim().to_owned();
                if token.len() < 16 {
                    let short =
                        io::Error::other("the token is too short; delete the file, and a new one is made");
                    return Err(failed(short));
                }
                Ok(token)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = format!("{TOKEN_PREFIX}{}", random_hex::<TOKEN_BYTES>().map_err(failed)?);
                self.write("token", &format!("{token}\n"), 0o600)?;
                Ok(token)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes a small file whole: temporary name, fsync, rename, fsync of the folder.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), DataError> {
        let path = self.0.join(name);
        let failed = |source| DataError { path: path.clone(), source };
        let temporary = self.0.join(format!(".{name}.tmp"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)?;
        fs::File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    pub fn remove(&self, name: &str) {
        // Only a hint for commands: one that is stale says "nobody answers".
        let _ = fs::remove_file(self.0.join(name));
    }
}

/// From the kernel's generator.
pub fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0u8; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("a/b")).unwrap();
        let token = data.token().unwrap();
        assert_eq!(data.token().unwrap(), token);
        let mode = fs::metadata(data.token_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(token.len() > 60);
    }

    #[test]
    fn an_empty_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        fs::write(data.token_file(), "\n").unwrap();
        assert!(data.token().unwrap_err().to_string().contains("delete the file"));
    }
}
