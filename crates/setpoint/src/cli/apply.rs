//! Declaring from files: read them, take in what their sites are made of, ask the server. `up` begins with this too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use model::{
    ArtifactDigest, ProjectName, ServiceKey,
    artifact::Artifact,
    manifest::{self, Declared, SiteSource, SourceFrom},
    spec::Workload,
};
use server::views::{self, Applied};

use super::{
    client::{self, Answer, Client},
    files::{self, Fault, Manifests},
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
pub async fn apply_files(client: &Client, files: &Manifests, options: &Options) -> Result<Outcome, Error> {
    let first = client.post("/apply", &request(client, files, options, Contents::Missing).await?).await;
    let answer = match first {
        // What the server had was collected in between, because nothing named it.
        Err(error) if error.code() == Some("missing_artifact") => {
            client.post("/apply", &request(client, files, options, Contents::All).await?).await
        }
        answer => answer,
    };
    let answer = answer.map_err(|error| refused(files, error))?;
    let notes = notes(&files.services);
    let declared = files.services.iter().map(|service| service.key.clone()).collect();
    Ok(Outcome { applied: answer.view()?, answer, notes, declared })
}

/// What applying the files would change. Of a site's content the server is told no more than what it is.
pub async fn plan_files(client: &Client, files: &Manifests, prune: bool) -> Result<Answer, Error> {
    client.post("/plan", &described(files, prune)?).await.map_err(|error| refused(files, error))
}

/// What the files declare, with what their contents are, none of which is sent.
pub fn described(files: &Manifests, prune: bool) -> Result<views::Apply, Error> {
    check_contents(files)?;
    let (mut services, mut entries) = (Vec::new(), BTreeMap::new());
    for service in &files.services {
        let found = local_source(service).map(|path| upload::look(&path)).transpose();
        let found = found.map_err(|broken| files.mistakes(&[of_content(service, broken.to_string())]))?;
        services.push(with_content(service, found.as_ref().map(Artifact::digest)));
        entries.extend(found.map(|found| (found.digest(), found.top_entries().map(str::to_owned).collect())));
    }
    Ok(views::Apply { services, prune: pruned(files, prune), entries })
}

fn pruned(files: &Manifests, prune: bool) -> Vec<ProjectName> {
    let projects = files.services.iter().map(|service| service.key.project.clone());
    if prune { projects.collect::<BTreeSet<_>>().into_iter().collect() } else { Vec::new() }
}

/// A refusal is drawn where the files have what is refused.
pub fn refused(files: &Manifests, error: client::Error) -> Error {
    let client::Error::Refused(problem) = &error else { return error.into() };
    let fault = |fault: &views::Fault| {
        let service = fault.service.clone()?;
        let field = fault.field.as_deref()?.strip_prefix(&format!("services.{}.", service.name))?.to_owned();
        let message = format!("{}: {}", fault.code, fault.message);
        Some(Fault { service, field, message, help: fault.help.clone() })
    };
    let faults: Option<Vec<Fault>> = problem.errors.iter().map(fault).collect();
    match faults.filter(|faults| !faults.is_empty()) {
        Some(faults) => files.mistakes(&faults).into(),
        None => error.into(),
    }
}

/// What is wrong with the contents that the files name, before any of it is sent.
pub fn check_contents(files: &Manifests) -> Result<(), Error> {
    let mut faults = Vec::new();
    for service in &files.services {
        if let Some(path) = local_source(service)
            && let Err(broken) = upload::check(&path)
        {
            faults.push(of_content(service, broken.to_string()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(files.mistakes(&faults).into()) }
}

/// At the place where the content is named.
fn of_content(service: &Declared, message: String) -> Fault {
    let field = match service.source.as_ref().map(|source| &source.from) {
        Some(SourceFrom::Archive(_)) => "static.archive",
        _ => "static.path",
    };
    Fault { service: service.key.clone(), field: field.into(), message, help: None }
}

/// Which contents are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    Missing,
    All,
}

async fn request(
    client: &Client,
    files: &Manifests,
    options: &Options,
    send: Contents,
) -> Result<views::Apply, Error> {
    // Every refusal comes before the first upload.
    check_contents(files)?;
    let mut services = Vec::new();
    for service in &files.services {
        let artifact = match local_source(service) {
            Some(path) => {
                let taken = take_in(client, &service.key, &path, &options.display, send).await;
                Some(taken.map_err(|error| untaken(files, service, &path, error))?)
            }
            None => None,
        };
        services.push(with_content(service, artifact));
    }
    Ok(views::Apply { services, prune: pruned(files, options.prune), entries: BTreeMap::new() })
}

async fn take_in(
    client: &Client,
    key: &ServiceKey,
    path: &Path,
    display: &Display,
    send: Contents,
) -> Result<ArtifactDigest, client::Error> {
    if send == Contents::Missing
        && let Some(artifact) = upload::known(client, path, display, key).await
    {
        return Ok(artifact);
    }
    let taken = upload::upload(client, path, display.transfer(&format!("{key}: {}", path.display()))).await;
    taken.map(|artifact| artifact.digest)
}

/// Content that is refused is a mistake of the file that names it; a server that does not answer is none.
fn untaken(files: &Manifests, service: &Declared, path: &Path, error: client::Error) -> Error {
    let message = match &error {
        client::Error::Archive(broken) => Some(broken.to_string()),
        client::Error::Refused(problem) if problem.status == 413 || problem.status == 422 => {
            Some(text::line(&format!("{}: {error}", path.display())))
        }
        _ => None,
    };
    match message {
        Some(message) => files.mistakes(&[of_content(service, message)]).into(),
        None => Error::Upload { service: service.key.clone(), source: error },
    }
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
