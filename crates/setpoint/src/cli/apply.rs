//! Declaring from files: read them, take in what their sites are made of, ask the server. `up` begins with this too.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::{
    ArtifactDigest, ProjectName, ServiceKey,
    manifest::{self, Declared, SiteSource, SourceFrom},
    spec::Workload,
};
use server::views::{self, Applied};

use super::{
    client::{self, Answer, Client},
    files,
    progress::Display,
    text, upload,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error("{service}: {source}")]
    Upload { service: ServiceKey, source: client::Error },
    #[error(transparent)]
    Client(#[from] client::Error),
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Delete what the files' projects have and the files do not.
    pub prune: bool,
    pub display: Display,
}

/// What was declared and what the server made of it.
#[derive(Debug)]
pub struct Outcome {
    pub applied: Applied,
    /// The same, as the server wrote it.
    pub answer: Answer,
    /// What the author may not have thought of, service by service.
    pub notes: Vec<(ServiceKey, manifest::Note)>,
    /// What the files declare; whatever else is in `applied` was pruned.
    pub declared: BTreeSet<ServiceKey>,
}

/// Declares everything in the files. When this returns, it is recorded; nothing need have converged yet.
pub async fn apply_files(client: &Client, paths: &[PathBuf], options: &Options) -> Result<Outcome, Error> {
    let declared = files::read(paths)?;
    let first = client.post("/apply", &request(client, &declared, options, Contents::Missing).await?).await;
    let answer = match first {
        // What the server had was collected in between, because nothing named it.
        Err(error) if error.code() == Some("missing_artifact") => {
            client.post("/apply", &request(client, &declared, options, Contents::All).await?).await?
        }
        answer => answer?,
    };
    let notes = notes(&declared);
    let declared = declared.into_iter().map(|service| service.key).collect();
    Ok(Outcome { applied: answer.view()?, answer, notes, declared })
}

/// What applying the files would change. A site's content is taken in, since only its digest tells whether it differs.
pub async fn plan_files(client: &Client, paths: &[PathBuf], options: &Options) -> Result<Answer, Error> {
    let declared = files::read(paths)?;
    let request = request(client, &declared, options, Contents::Missing).await?;
    Ok(client.post("/plan", &request).await?)
}

/// Which contents are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    Missing,
    All,
}

async fn request(
    client: &Client,
    declared: &[Declared],
    options: &Options,
    send: Contents,
) -> Result<views::Apply, Error> {
    let sources: Vec<_> = declared.iter().map(|service| (service, local_source(service))).collect();
    // Every refusal comes before the first upload.
    for (service, source) in &sources {
        let refused =
            |broken| Error::Upload { service: service.key.clone(), source: client::Error::Archive(broken) };
        source.as_deref().map_or(Ok(()), upload::check).map_err(refused)?;
    }
    let mut services = Vec::new();
    for (service, source) in sources {
        let artifact = match source {
            Some(path) => Some(take_in(client, &service.key, &path, &options.display, send).await?),
            None => None,
        };
        services.push(with_content(service, artifact));
    }
    let projects: BTreeSet<ProjectName> =
        declared.iter().map(|service| service.key.project.clone()).collect();
    let prune = if options.prune { projects.into_iter().collect() } else { Vec::new() };
    Ok(views::Apply { services, prune })
}

async fn take_in(
    client: &Client,
    key: &ServiceKey,
    path: &Path,
    display: &Display,
    send: Contents,
) -> Result<ArtifactDigest, Error> {
    if send == Contents::Missing
        && let Some(artifact) = upload::known(client, path, display, key).await
    {
        return Ok(artifact);
    }
    let taken = upload::upload(client, path, display.transfer(&format!("{key}: {}", path.display()))).await;
    taken.map(|artifact| artifact.digest).map_err(|source| Error::Upload { service: key.clone(), source })
}

fn with_content(service: &Declared, artifact: Option<ArtifactDigest>) -> views::Declared {
    let mut spec = service.spec.clone();
    if let Workload::Site(site) = &mut spec.workload {
        site.artifact = artifact;
    }
    views::Declared { key: service.key.clone(), spec }
}

/// The folder or archive to take in; `None` for a process, and for a site whose content comes by `deploy`.
pub fn local_source(service: &Declared) -> Option<PathBuf> {
    let SiteSource { from, output } = service.source.as_ref()?;
    let (SourceFrom::Path(path) | SourceFrom::Archive(path)) = from;
    Some(output.iter().fold(path.into(), |folder: PathBuf, output| folder.join(output)))
}

pub fn notes(declared: &[Declared]) -> Vec<(ServiceKey, manifest::Note)> {
    let of = |service: &Declared| {
        manifest::notes(&service.spec).into_iter().map(|note| (service.key.clone(), note)).collect()
    };
    declared.iter().flat_map(|service| -> Vec<_> { of(service) }).collect()
}

impl Outcome {
    /// One line per service, then the notes.
    pub fn lines(&self) -> Vec<String> {
        let services = self.applied.services.iter().map(|service| {
            let word = if service.changed { "changed" } else { "unchanged" };
            line(&format!("{}/{}", service.project, service.name), word, &service.message)
        });
        let notes = self.notes.iter().map(|(key, note)| line(&key.to_string(), "note", &note.to_string()));
        services.chain(notes).collect()
    }
}

/// `default/api  changed    deploying`
pub fn line(subject: &str, word: &str, message: &str) -> String {
    text::line(format!("{subject:<24} {word:<10} {message}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_of(site: &str) -> Option<PathBuf> {
        let text = format!("services:\n  docs:\n    static: {site}\n");
        let parsed = manifest::parse(&text, "m.yaml", "/srv").unwrap_or_else(|errors| panic!("{errors}"));
        local_source(&parsed.services[0])
    }

    #[test]
    fn a_folder_its_output_and_an_archive_can_be_taken_in() {
        assert_eq!(source_of("./site"), Some("/srv/site".into()));
        assert_eq!(source_of("{path: ./site, output: dist}"), Some("/srv/site/dist".into()));
        assert_eq!(source_of("{archive: ./site.tar.gz}"), Some("/srv/site.tar.gz".into()));
    }
}
