//! Declaring from files: read them, take in what their sites are made of, ask the server. `up` begins with this too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::{
    ArtifactDigest, Digest, ProjectName, ServiceKey,
    artifact::Artifact,
    manifest::{self, Declared, SiteSource, SourceFrom},
    source::Origin,
    spec::{Site, Workload},
};
use server::views::{self, Applied};

use super::{
    client::{self, Answer, Client},
    files::{self, Fault, Manifests},
    progress::Display,
    source::{self, Commit, Content, Maker},
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
    // What is refused anyway is fetched and built for nobody.
    check_contents(files)?;
    if files.services.iter().filter_map(|service| service.source.as_ref()).any(source::takes_work) {
        let sites = declared_sites(client, files).await?;
        let described = described(files, options.prune, &sites, &|_| ())?;
        client.post("/plan", &described).await.map_err(|error| refused(files, error))?;
    }
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
pub async fn plan_files(
    client: &Client,
    files: &Manifests,
    prune: bool,
    display: &Display,
) -> Result<Answer, Error> {
    let sites = declared_sites(client, files).await?;
    let described = described(files, prune, &sites, &|line| display.say(line))?;
    client.post("/plan", &described).await.map_err(|error| refused(files, error))
}

/// The sites of the files that come from a repository, as they are declared now.
async fn declared_sites(client: &Client, files: &Manifests) -> Result<BTreeMap<ServiceKey, Site>, Error> {
    let mut sites = BTreeMap::new();
    for service in files.services.iter().filter(|service| service.source.as_ref().is_some_and(is_fetched)) {
        let declared = source::declared(client, &service.key).await?;
        sites.extend(declared.map(|site| (service.key.clone(), site)));
    }
    Ok(sites)
}

fn is_fetched(source: &SiteSource) -> bool {
    matches!(source.from, SourceFrom::Git(_))
}

/// What the files declare, with what their contents are, none of which is sent. Nothing is fetched or built for it: what
/// only that could tell is said.
pub fn described(
    files: &Manifests,
    prune: bool,
    known: &BTreeMap<ServiceKey, Site>,
    say: &dyn Fn(&str),
) -> Result<views::Apply, Error> {
    check_contents(files)?;
    let (mut services, mut entries) = (Vec::new(), BTreeMap::new());
    for service in &files.services {
        let content = match &service.source {
            None => None,
            Some(source) => Some(foreseen(files, service, source, known, say)?),
        };
        if let Some(Foreseen { artifact: Some(found), .. }) = &content {
            entries.insert(found.digest(), found.top_entries().map(str::to_owned).collect());
        }
        services.push(with_content(service, content.map(|content| (content.digest, content.origin))));
    }
    Ok(views::Apply { services, prune: pruned(files, prune), entries })
}

/// What a site's content will be, as far as that can be told beforehand.
struct Foreseen {
    digest: ArtifactDigest,
    origin: Option<Origin>,
    artifact: Option<Artifact>,
}

fn foreseen(
    files: &Manifests,
    service: &Declared,
    source: &SiteSource,
    known: &BTreeMap<ServiceKey, Site>,
    say: &dyn Fn(&str),
) -> Result<Foreseen, Error> {
    let say = |words: &str| say(&text::line(&format!("{}: {words}", service.key)));
    let faulty = |key: &str, broken: String| files.mistakes(&[of_content(service, key, broken)]);
    if let (SourceFrom::Archive(archive), true, true) =
        (&source.from, source.build.is_empty(), source.output.is_some())
    {
        let found = source::part_of(archive.as_ref(), source);
        let found = found.map_err(|broken| faulty(broken.key(), broken.to_string()))?;
        return Ok(Foreseen { digest: found.digest(), origin: None, artifact: Some(found) });
    }
    if let Some(path) = source::as_it_stands(source) {
        if !source.build.is_empty() {
            say("a plan builds nothing; this is with what was built last");
        }
        let found = upload::look(&path);
        let found = found.map_err(|broken| faulty(broken_key(service), broken.to_string()))?;
        return Ok(Foreseen { digest: found.digest(), origin: None, artifact: Some(found) });
    }
    let declared = known.get(&service.key).and_then(|site| Some((site.artifact?, site.origin.clone()?)));
    let same = declared.filter(|(_, origin)| match &source.from {
        SourceFrom::Git(repository) => origin.is_of(repository, &source.build, source.output.as_ref()),
        SourceFrom::Path(_) | SourceFrom::Archive(_) => false,
    });
    if let Some((digest, origin)) = same {
        return Ok(Foreseen { digest, origin: Some(origin), artifact: None });
    }
    say("a plan fetches and builds nothing: its content is known when it is applied");
    Ok(Foreseen { digest: Digest::of_value(&service.key), origin: None, artifact: None })
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
        Some(Fault { service, field, message, help: fault.help.clone(), log: Vec::new() })
    };
    let faults: Option<Vec<Fault>> = problem.errors.iter().map(fault).collect();
    match faults.filter(|faults| !faults.is_empty()) {
        Some(faults) => files.mistakes(&faults).into(),
        None => error.into(),
    }
}

/// What is wrong with the contents that the files name, before any of it is fetched, built or sent.
pub fn check_contents(files: &Manifests) -> Result<(), Error> {
    let broken = |service: &Declared| {
        let broken = source::check(service.source.as_ref()?).err()?;
        Some(of_content(service, broken_key(service), broken.to_string()))
    };
    let faults: Vec<Fault> = files.services.iter().filter_map(broken).collect();
    if faults.is_empty() { Ok(()) } else { Err(files.mistakes(&faults).into()) }
}

/// Where the content is named.
fn broken_key(service: &Declared) -> &'static str {
    match service.source.as_ref().map(|source| &source.from) {
        Some(SourceFrom::Archive(_)) => "archive",
        Some(SourceFrom::Git(_)) => "git",
        Some(SourceFrom::Path(_)) | None => "path",
    }
}

fn of_content(service: &Declared, key: &str, message: String) -> Fault {
    let field = format!("static.{key}");
    Fault { service: service.key.clone(), field, message, help: None, log: Vec::new() }
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
    let commit = match send {
        Contents::Missing => Commit::Declared,
        Contents::All => Commit::NewestAnew,
    };
    let maker = Maker { client, display: &options.display, commit };
    let mut services = Vec::new();
    for service in &files.services {
        let content = match &service.source {
            Some(source) => Some(content(&maker, files, service, source, send).await?),
            None => None,
        };
        services.push(with_content(service, content));
    }
    Ok(views::Apply { services, prune: pruned(files, options.prune), entries: BTreeMap::new() })
}

/// Makes a site's content ready and takes it in.
async fn content(
    maker: &Maker<'_>,
    files: &Manifests,
    service: &Declared,
    source: &SiteSource,
    send: Contents,
) -> Result<(ArtifactDigest, Option<Origin>), Error> {
    let ready = maker.make(&service.key, source).await;
    let ready = ready.map_err(|broken| match broken {
        source::Error::Client(error) => Error::Client(error),
        broken => {
            let log = broken.last().to_vec();
            let fault = of_content(service, broken.key(), broken.to_string());
            files.mistakes(&[Fault { log, ..fault }]).into()
        }
    })?;
    let artifact = match &ready.content {
        Content::Known(artifact) => *artifact,
        Content::At(path) => {
            let taken = take_in(maker.client, &service.key, path, maker.display, send).await;
            taken.map_err(|error| untaken(files, service, path, error))?
        }
    };
    Ok((artifact, ready.origin))
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
        Some(message) => files.mistakes(&[of_content(service, broken_key(service), message)]).into(),
        None => Error::Upload { service: service.key.clone(), source: error },
    }
}

fn with_content(service: &Declared, content: Option<(ArtifactDigest, Option<Origin>)>) -> views::Declared {
    let mut spec = service.spec.clone();
    if let (Workload::Site(site), Some((artifact, origin))) = (&mut spec.workload, content) {
        (site.artifact, site.origin) = (Some(artifact), origin);
    }
    views::Declared { key: service.key.clone(), spec }
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
