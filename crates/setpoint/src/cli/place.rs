//! Where the API is and which token it takes: flags, then the environment, then the data folder.

use std::{fs, io, path::PathBuf};

use super::{
    args::{Connection, Data},
    client::{self, Client},
    text,
};

const DEFAULT_API: &str = "http://127.0.0.1:7400";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no home folder to find the data in: name the data folder with --data or SETPOINT_DATA")]
    NoHome,
    #[error("{} cannot be read: {source}; give the token with --token or SETPOINT_TOKEN", text::line(&.path.display().to_string()))]
    Token { path: PathBuf, source: io::Error },
    #[error(
        "{} is not there: a server writes it at its first start; name its data folder with --data",
        text::line(&.0.display().to_string())
    )]
    NoToken(PathBuf),
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl Data {
    /// The data folder: as told, else `~/.local/share/setpoint`.
    pub fn folder(&self) -> Result<PathBuf, Error> {
        if let Some(folder) = &self.data {
            return Ok(folder.clone());
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(Error::NoHome)?;
        Ok(PathBuf::from(home).join(".local/share/setpoint"))
    }

    /// The token in the data folder; `None` when there is none.
    pub fn token(&self) -> Result<Option<String>, Error> {
        let path = self.folder()?.join("token");
        match fs::read_to_string(&path) {
            Ok(token) => Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Token { path, source }),
        }
    }

    pub fn required_token(&self) -> Result<String, Error> {
        let path = self.folder()?.join("token");
        self.token()?.ok_or(Error::NoToken(path))
    }

    /// The address that the server of this data folder has written down. A hint: one that is stale says that
    /// nobody answers there.
    fn api(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder().ok()?.join("api")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

impl Connection {
    /// Whether a flag or the environment says where the API is.
    pub fn names_a_server(&self) -> bool {
        self.api.as_ref().is_some_and(|api| !api.is_empty())
    }

    pub fn client(&self) -> Result<Client, Error> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let api = given(&self.api).or_else(|| self.data.api()).unwrap_or_else(|| DEFAULT_API.into());
        let token = match given(&self.token) {
            Some(token) => Some(token),
            // Without a home there is simply no token; the server says so.
            None => self.data.folder().is_ok().then(|| self.data.token()).transpose()?.flatten(),
        };
        Ok(Client::new(&api, token.as_deref())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(folder: &std::path::Path) -> Connection {
        Connection { api: None, token: None, data: Data { data: Some(folder.into()) } }
    }

    #[test]
    fn the_data_folder_tells_address_and_token() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(connection(dir.path()).client().unwrap().url(), DEFAULT_API);
        fs::write(dir.path().join("api"), "http://127.0.0.1:7999\n").unwrap();
        fs::write(dir.path().join("token"), "sp_x\n").unwrap();
        assert_eq!(connection(dir.path()).client().unwrap().url(), "http://127.0.0.1:7999");
        assert_eq!(connection(dir.path()).data.required_token().unwrap(), "sp_x");
    }

    #[test]
    fn what_is_told_wins_over_the_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("api"), "http://127.0.0.1:7999\n").unwrap();
        let told = Connection { api: Some("http://127.0.0.1:1".into()), ..connection(dir.path()) };
        assert_eq!(told.client().unwrap().url(), "http://127.0.0.1:1");
    }
}
