//! What sites are made of, made ready where the command runs: fetched, unpacked, built.
//!
//! Owns: the way from a declared source to a folder or an archive that can be taken in. Refuses to know: how that is sent,
//! and what becomes of it.

mod git;
mod run;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    ArtifactDigest, ServiceKey,
    artifact::{Artifact, RelPath},
    manifest::{SiteSource, SourceFrom},
    source::{Origin, Repository},
    spec::{Site, Workload},
};
use server::views;
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    client::{self, Client},
    progress::Display,
    text, upload,
};

/// One command of a build; a build that takes longer waits for something that will not come.
const BUILD_WITHIN: Duration = Duration::from_secs(3600);
/// The folder in the scratch that holds the source.
const SOURCE: &str = "source";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Git(#[from] git::Error),
    #[error("`{}`: {source}", text::line(.command))]
    Build { command: String, source: run::Error },
    #[error("{}: {source}", text::line(&.path.display().to_string()))]
    Folder { path: PathBuf, source: io::Error },
    #[error("the source has no folder `{}`{}", .output, made(*.built))]
    NoOutput { output: RelPath, built: bool },
    #[error("`{}` of the source is a link, which may lead anywhere: name the folder itself", .link)]
    Link { link: RelPath },
    #[error(transparent)]
    Archive(upload::BrokenArchive),
    #[error(transparent)]
    Client(#[from] client::Error),
}

fn made(built: bool) -> &'static str {
    if built { ": the build did not make it" } else { "" }
}

impl Error {
    /// The key of a site that is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Git(_) => "git",
            Self::Build { .. } => "build",
            Self::NoOutput { .. } | Self::Link { .. } => "output",
            Self::Archive(_) => "archive",
            Self::Folder { .. } | Self::Client(_) => "path",
        }
    }

    /// What the program that failed said last.
    pub fn last(&self) -> &[String] {
        match self {
            Self::Git(git::Error::Fetch { source, .. }) | Self::Build { source, .. } => source.last(),
            _ => &[],
        }
    }
}

/// A source that can be taken in, for as long as this is kept.
#[derive(Debug)]
pub struct Ready {
    pub content: Content,
    /// For a repository.
    pub origin: Option<Origin>,
    _scratch: Option<TempDir>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder or an archive here.
    At(PathBuf),
    /// The server has it.
    Known(ArtifactDigest),
}

/// What cannot become ready, told before anything is fetched or built.
pub fn check(source: &SiteSource) -> Result<(), Error> {
    match &source.from {
        SourceFrom::Path(path) if source.build.is_empty() => {
            upload::check(&below(path.into(), source.output.as_ref())).map_err(Error::Archive)
        }
        SourceFrom::Path(path) | SourceFrom::Archive(path) => {
            upload::check(path.as_ref()).map_err(Error::Archive)
        }
        SourceFrom::Git(_) => Ok(()),
    }
}

/// What can be looked at without running anything: a folder or an archive that is taken as it stands, or as it was built
/// last.
pub fn as_it_stands(source: &SiteSource) -> Option<PathBuf> {
    match &source.from {
        SourceFrom::Path(path) => {
            Some(below(path.into(), source.output.as_ref())).filter(|path| path.exists())
        }
        SourceFrom::Archive(path) => is_whole(source).then(|| path.into()),
        SourceFrom::Git(_) => None,
    }
}

/// Whether there is something to fetch or to build.
pub fn takes_work(source: &SiteSource) -> bool {
    matches!(source.from, SourceFrom::Git(_)) || !source.build.is_empty()
}

/// Whether the source is what is taken in.
fn is_whole(source: &SiteSource) -> bool {
    source.build.is_empty() && source.output.is_none()
}

fn below(folder: PathBuf, output: Option<&RelPath>) -> PathBuf {
    output.map_or(folder.clone(), |output| folder.join(output))
}

/// Makes sources ready for one server.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    pub client: &'a Client,
    pub display: &'a Display,
    pub commit: Commit,
}

/// Which commit of a repository is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The one that the service is declared with, as long as the declaration names the same repository and build.
    Declared,
    /// The one that its name stands for now.
    Newest,
    /// The same, and fetched although the server should have it.
    NewestAnew,
}

impl Maker<'_> {
    pub async fn make(&self, key: &ServiceKey, source: &SiteSource) -> Result<Ready, Error> {
        match &source.from {
            SourceFrom::Path(path) => {
                let path = Path::new(path);
                self.build(key, path, source, None).await?;
                // Links in one's own folder are one's own.
                let content = Content::At(is_there(below(path.into(), source.output.as_ref()), source)?);
                Ok(Ready { content, origin: None, _scratch: None })
            }
            SourceFrom::Archive(path) if is_whole(source) => {
                Ok(Ready { content: Content::At(path.into()), origin: None, _scratch: None })
            }
            SourceFrom::Archive(path) => {
                let scratch = scratch()?;
                let folder = unpack(path.into(), scratch.path()).await?;
                self.build(key, &folder, source, None).await?;
                let content = Content::At(output(&folder, source)?);
                Ok(Ready { content, origin: None, _scratch: Some(scratch) })
            }
            SourceFrom::Git(repository) => self.fetch(key, repository, source).await,
        }
    }

    async fn fetch(
        &self,
        key: &ServiceKey,
        repository: &Repository,
        source: &SiteSource,
    ) -> Result<Ready, Error> {
        let declared =
            declared(self.client, key).await?.and_then(|site| Some((site.artifact?, site.origin?)));
        let declared =
            declared.filter(|(_, origin)| origin.is_of(repository, &source.build, source.output.as_ref()));
        let declared = declared.filter(|_| self.commit != Commit::NewestAnew);
        let known = |(artifact, origin)| Ready {
            content: Content::Known(artifact),
            origin: Some(origin),
            _scratch: None,
        };
        if let Some(declared) = declared.clone().filter(|_| self.commit == Commit::Declared) {
            return Ok(known(declared));
        }
        let commit = git::resolve(repository).await?;
        let mut origin = Origin {
            repository: repository.clone(),
            commit: commit.id.clone(),
            build: source.build.clone(),
            output: source.output.clone(),
        };
        if let Some(same) = declared.filter(|(_, declared)| *declared == origin) {
            return Ok(known(same));
        }
        self.say(key, &format!("fetching {} of {}", origin.commit, repository.url));
        let scratch = scratch()?;
        let folder = scratch.path().join(SOURCE);
        fs::create_dir(&folder).map_err(at(&folder))?;
        let objects = scratch.path().join("git");
        origin.commit = git::fetch(repository, &commit, &objects, &folder, &mut self.tell(key)).await?;
        self.build(key, &folder, source, Some(&origin.commit)).await?;
        let content = Content::At(output(&folder, source)?);
        Ok(Ready { content, origin: Some(origin), _scratch: Some(scratch) })
    }

    async fn build(
        &self,
        key: &ServiceKey,
        folder: &Path,
        source: &SiteSource,
        commit: Option<&str>,
    ) -> Result<(), Error> {
        for line in &source.build {
            self.say(key, &format!("building: {line}"));
            let mut command = Command::new("sh");
            command.args(["-c", line]).current_dir(folder);
            command.envs(commit.map(|commit| ("SETPOINT_COMMIT", commit)));
            let ended = run::run("it", command, BUILD_WITHIN, &mut self.tell(key)).await;
            ended.map_err(|source| Error::Build { command: line.clone(), source })?;
        }
        Ok(())
    }

    fn say(&self, key: &ServiceKey, words: &str) {
        self.display.say(&text::line(&format!("{key}: {words}")));
    }

    fn tell(&self, key: &ServiceKey) -> impl FnMut(&str) + Send + use<> {
        let (display, key) = (self.display.clone(), key.clone());
        move |line| display.say(&format!("{key} | {line}"))
    }
}

/// The site that the service is declared as. `None`: it is not declared, is none, or this token may not see it.
pub async fn declared(client: &Client, key: &ServiceKey) -> Result<Option<Site>, client::Error> {
    let told = match client.view::<views::Spec>(&format!("/services/{key}/spec")).await {
        Err(error) if matches!(error.status(), Some(403 | 404)) => return Ok(None),
        told => told?,
    };
    Ok(match told.spec.workload {
        Workload::Site(site) => Some(site),
        Workload::Process(_) | Workload::Container(_) => None,
    })
}

/// The folder to take of what others wrote: no link of theirs leads out of it.
fn output(folder: &Path, source: &SiteSource) -> Result<PathBuf, Error> {
    let path = below(folder.into(), source.output.as_ref());
    if let Some(output) = &source.output {
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if path.ancestors().take_while(|above| *above != folder).any(is_link) {
            return Err(Error::Link { link: output.clone() });
        }
    }
    is_there(path, source)
}

fn is_there(path: PathBuf, source: &SiteSource) -> Result<PathBuf, Error> {
    match &source.output {
        Some(output) if !path.is_dir() => {
            Err(Error::NoOutput { output: output.clone(), built: !source.build.is_empty() })
        }
        Some(_) | None => Ok(path),
    }
}

/// The part of an archive that is taken, looked at without building anything.
pub fn part_of(archive: &Path, source: &SiteSource) -> Result<Artifact, Error> {
    let scratch = scratch()?;
    upload::unpack(archive, scratch.path(), SOURCE).map_err(Error::Archive)?;
    upload::look(&output(&scratch.path().join(SOURCE), source)?).map_err(Error::Archive)
}

fn scratch() -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix("setpoint-source-").tempdir();
    made.map_err(at(&std::env::temp_dir()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Folder { path: path.into(), source }
}

/// Unpacks an archive as it would be taken in; gives the folder.
async fn unpack(archive: PathBuf, scratch: &Path) -> Result<PathBuf, Error> {
    let (path, parent) = (archive.clone(), scratch.to_owned());
    let unpacked = tokio::task::spawn_blocking(move || upload::unpack(&path, &parent, SOURCE)).await;
    match unpacked {
        Ok(unpacked) => unpacked.map_err(Error::Archive)?,
        Err(broken) => return Err(at(&archive)(io::Error::other(broken))),
    }
    Ok(scratch.join(SOURCE))
}
