//! Registries: what a name stands for, and images on their way here. Credentials are those that `docker login` has
//! stored for the user that runs Setpoint; they are read when they are needed and go to the engine alone.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bollard::{auth::DockerCredentials, models::ImageInspect, query_parameters::CreateImageOptionsBuilder};
use futures_util::StreamExt;
use model::{
    Digest,
    image::{ImagePin, ImageRef},
};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::engine::{Engine, Error, QUESTION};

/// The registry behind the engine.
const REGISTRY: Duration = Duration::from_secs(20);
/// A pull of which nothing more comes for this long has ended.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a name could not be resolved.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Unresolved {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Registry(String),
    #[error(transparent)]
    Engine(Error),
}

/// What the name stands for now. An image that is in no registry stands for itself; where the registry cannot be
/// asked, what was pulled from it before does.
pub async fn resolve(engine: &Engine, image: &ImageRef) -> Result<ImagePin, Unresolved> {
    let local = match inspect(engine, image.as_str()).await {
        Ok(local) => local,
        Err(error) => return Err(Unresolved::Engine(error)),
    };
    if let Some(own) = local.as_ref().and_then(|local| only_local(local, image)) {
        return Ok(own);
    }
    let client = engine.client().await.map_err(Unresolved::Engine)?;
    let asked = client.inspect_registry_image(image.as_str(), stored(image.registry()).await);
    let failed = match engine.within(REGISTRY, asked).await {
        Ok(answer) => match answer.descriptor.digest.as_deref().map(str::parse::<Digest>) {
            Some(Ok(digest)) => return Ok(ImagePin::Registry(digest)),
            Some(Err(_)) | None => Unresolved::Registry("its answer has no digest".into()),
        },
        Err(error) => {
            // Not the engine but what is behind it: ask the engine itself.
            if error.is_away() {
                engine.ping().await.map_err(Unresolved::Engine)?;
                Unresolved::Registry(format!(
                    "the registry {} does not answer: nothing within {} s; check that it is up",
                    image.registry(),
                    REGISTRY.as_secs()
                ))
            } else {
                of_failure(&error)
            }
        }
    };
    match local.as_ref().and_then(|local| pulled(local, image)) {
        Some(digest) if matches!(failed, Unresolved::Registry(_)) => Ok(ImagePin::Registry(digest)),
        Some(_) | None => Err(failed),
    }
}

/// The engine passes on the registry's words, with a status that says little.
fn of_failure(error: &Error) -> Unresolved {
    let text = error.to_string();
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["manifest unknown", "not found", "name unknown"]) || error.is_not_found() {
        Unresolved::NotFound(text)
    } else if says(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
        Unresolved::Denied(text)
    } else {
        Unresolved::Registry(text)
    }
}

/// `None`: the engine has no such image.
pub async fn inspect(engine: &Engine, name: &str) -> Result<Option<ImageInspect>, Error> {
    let client = engine.client().await?;
    match engine.within(QUESTION, client.inspect_image(name)).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same content may have come from another repository; under this name it was made here.
fn only_local(local: &ImageInspect, image: &ImageRef) -> Option<ImagePin> {
    let id = local.id.as_deref()?.parse().ok()?;
    pulled(local, image).is_none().then_some(ImagePin::Local(id))
}

fn pulled(local: &ImageInspect, image: &ImageRef) -> Option<Digest> {
    let of_repository = |name: &&String| {
        let repository = name.split('@').next().unwrap_or_default();
        whole(repository) == whole(image.repository())
    };
    let name = local.repo_digests.as_ref()?.iter().find(of_repository)?;
    name.split_once('@')?.1.parse().ok()
}

/// Without what an engine leaves out of names of its default registry, or does not.
fn whole(repository: &str) -> &str {
    let own = repository.strip_prefix("docker.io/").unwrap_or(repository);
    own.strip_prefix("library/").unwrap_or(own)
}

/// How far a pull has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub layers: u64,
    pub layers_fetched: u64,
    pub layers_done: u64,
    pub bytes: u64,
    /// Of those, unpacked: with a large layer on a slow disk this takes longer than fetching it.
    pub bytes_unpacked: u64,
    pub bytes_total: u64,
}

impl Progress {
    /// Everything that was done, in bytes: each is fetched and unpacked.
    pub fn done(&self) -> u64 {
        self.bytes + self.bytes_unpacked
    }

    /// In words; `None` before the first byte.
    pub fn told(&self) -> Option<String> {
        let mib = |bytes: u64| bytes >> 20;
        let (does, bytes) = match self.layers_fetched == self.layers {
            true => ("unpacking", self.bytes_unpacked),
            false => ("fetching", self.bytes),
        };
        (self.bytes_total > 0)
            .then(|| format!("{does} its image: {} of {} MiB", mib(bytes), mib(self.bytes_total)))
    }
}

/// Fetches `repository@digest`. It may take as long as it goes on.
pub async fn pull(
    engine: &Engine,
    image: &ImageRef,
    digest: Digest,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), Error> {
    let client = engine.client().await?;
    let options =
        CreateImageOptionsBuilder::default().from_image(image.repository()).tag(&digest.to_string()).build();
    let mut stream = Box::pin(client.create_image(Some(options), None, stored(image.registry()).await));
    let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
    loop {
        let next = tokio::time::timeout(SILENCE, stream.next()).await;
        let next = next.map_err(|_| Error::Refused {
            status: 504,
            message: format!(
                "the registry {} has sent nothing for {} s",
                image.registry(),
                SILENCE.as_secs()
            ),
        })?;
        let Some(step) = next else { return Ok(()) };
        let step = step.map_err(|error| engine.error(error))?;
        let (Some(id), Some(status)) = (step.id, step.status) else { continue };
        let detail = step.progress_detail.unwrap_or_default();
        if layers.entry(id).or_default().advance(&status, detail.current, detail.total) {
            progress(sum(&layers));
        }
    }
}

#[derive(Debug, Default)]
struct Layer {
    known: bool,
    fetched: bool,
    done: bool,
    bytes: u64,
    unpacked: u64,
    total: u64,
}

impl Layer {
    fn advance(&mut self, status: &str, current: Option<i64>, total: Option<i64>) -> bool {
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        match status {
            "Pulling fs layer" | "Waiting" => self.known = true,
            "Downloading" => {
                self.known = true;
                self.bytes = number(current).unwrap_or(self.bytes);
                self.total = number(total).unwrap_or(self.total);
            }
            "Download complete" | "Verifying Checksum" => {
                (self.known, self.fetched) = (true, true);
                self.bytes = self.total;
            }
            "Extracting" => {
                (self.known, self.fetched) = (true, true);
                self.bytes = self.total;
                // Some engines count seconds, of no total: that it goes on is all they tell.
                let unit = if total.is_some() { 1 } else { 1 << 20 };
                let current = number(current).map(|current| current.saturating_mul(unit));
                self.unpacked = current.unwrap_or(self.unpacked).min(self.total);
            }
            "Pull complete" | "Already exists" => {
                (self.known, self.fetched, self.done) = (true, true, true);
                (self.bytes, self.unpacked) = (self.total, self.total);
            }
            _ => return false,
        }
        true
    }
}

fn sum(layers: &BTreeMap<String, Layer>) -> Progress {
    let known: Vec<&Layer> = layers.values().filter(|layer| layer.known).collect();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Progress {
        layers: count(known.len()),
        layers_fetched: count(known.iter().filter(|layer| layer.fetched).count()),
        layers_done: count(known.iter().filter(|layer| layer.done).count()),
        bytes: known.iter().map(|layer| layer.bytes).sum(),
        bytes_unpacked: known.iter().map(|layer| layer.unpacked).sum(),
        bytes_total: known.iter().map(|layer| layer.total).sum(),
    }
}

/// `config.json`, as `docker login` writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What is stored for a registry. A helper is somebody's program, and may hang: then it is ended.
async fn stored(registry: &str) -> Option<DockerCredentials> {
    match tokio::time::timeout(REGISTRY, credentials(registry)).await {
        Ok(found) => found,
        Err(_) => {
            tracing::warn!(%registry, "its stored credentials could not be had in time; it is asked without");
            None
        }
    }
}

/// `None`: nothing is stored.
async fn credentials(registry: &str) -> Option<DockerCredentials> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let text = tokio::fs::read(folder.join("config.json")).await.ok()?;
    let config: Config = serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(%error, "docker's config.json cannot be read; registries are asked without it"))
        .ok()?;
    match of_config(&config, registry) {
        Some(found) => Some(found),
        None => of_helper(&config, registry).await,
    }
}

const DOCKER_HUB: &str = "docker.io";
/// Under which `docker login` keeps what Docker Hub is asked with.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The names under which one registry may be stored.
fn stored_as(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    if registry == DOCKER_HUB {
        names.push(DOCKER_HUB_KEY.into());
    }
    names
}

fn of_config(config: &Config, registry: &str) -> Option<DockerCredentials> {
    let names = stored_as(registry);
    let (name, auth) = names.iter().find_map(|name| Some((name, config.auths.get(name)?)))?;
    let decoded = data_encoding::BASE64.decode(auth.auth.as_deref()?.as_bytes()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.into()),
        password: Some(password.trim_end_matches('\0').into())
            .filter(|password: &String| !password.is_empty()),
        identitytoken: auth.identitytoken.clone(),
        serveraddress: Some(name.clone()),
        ..DockerCredentials::default()
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// A program that keeps credentials: it is asked on its standard input, never by arguments.
async fn of_helper(config: &Config, registry: &str) -> Option<DockerCredentials> {
    let helper = config.cred_helpers.get(registry).or(config.creds_store.as_ref())?;
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return None;
    }
    // As the engine's own command line asks.
    let name = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry }.to_owned();
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .kill_on_drop(true)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(name.as_bytes()).await.ok()?;
    let answer = child.wait_with_output().await.ok()?;
    let Helped { username, secret } = serde_json::from_slice(&answer.stdout).ok()?;
    let token = username == "<token>";
    Some(DockerCredentials {
        username: (!token).then_some(username),
        password: (!token).then(|| secret.clone()),
        identitytoken: token.then_some(secret),
        serveraddress: Some(name),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_came_from_another_repository_too_is_local_under_its_own_name() {
        let (id, digest) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
        let local = |repository: &str| ImageInspect {
            id: Some(id.clone()),
            repo_digests: Some(vec![format!("{repository}@{digest}")]),
            ..ImageInspect::default()
        };
        let pinned = |repository: &str, image: &str| only_local(&local(repository), &image.parse().unwrap());
        let own = Some(ImagePin::Local(id.parse().unwrap()));
        assert_eq!(pinned("127.0.0.1:5000/slow", "setpoint-test/app:v2"), own);
        assert_eq!(pinned("127.0.0.1:5000/acme/app", "acme/app:v2"), own, "another registry");
        assert_eq!(pinned("acme/app", "acme/app:v2"), None);
        assert_eq!(pinned("docker.io/library/nginx", "nginx:1"), None);
        assert_eq!(pinned("nginx", "docker.io/library/nginx:1"), None);
        assert_eq!(pinned("127.0.0.1:5000/slow", "127.0.0.1:5000/slow:2"), None);
    }

    #[test]
    fn what_docker_login_stored_is_found_and_only_for_its_registry() {
        let auth = data_encoding::BASE64.encode(b"me:p:w");
        let text = format!(
            r#"{{"auths":{{"127.0.0.1:5000":{{"auth":"{auth}"}},"https://index.docker.io/v1/":{{"auth":"{auth}"}}}}}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        for (registry, found) in [("127.0.0.1:5000", true), ("docker.io", true), ("other.example.com", false)]
        {
            assert_eq!(of_config(&config, registry).is_some(), found, "{registry}");
        }
        let found = of_config(&config, "127.0.0.1:5000").unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("p:w")));
    }

    #[test]
    fn the_registrys_words_say_whose_fault_it_is() {
        let refused = |message: &str| Error::Refused { status: 500, message: message.into() };
        for (message, expected) in [
            ("manifest unknown: manifest unknown", "not found"),
            ("unauthorized: authentication required", "denied"),
            ("Get \"https://127.0.0.1:1/v2/\": dial tcp: connection refused", "registry"),
        ] {
            let found = match of_failure(&refused(message)) {
                Unresolved::NotFound(_) => "not found",
                Unresolved::Denied(_) => "denied",
                Unresolved::Registry(_) => "registry",
                Unresolved::Engine(_) => "engine",
            };
            assert_eq!(found, expected, "{message}");
        }
    }

    #[test]
    fn a_pull_is_as_far_as_its_layers() {
        let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
        let (layers_done, bytes_total) = (1, 10);
        for (id, status, current, bytes, bytes_unpacked) in [
            ("b", "Already exists", None, 0, 0),
            ("a", "Pulling fs layer", None, 0, 0),
            ("a", "Downloading", Some(5), 5, 0),
            ("latest", "Pulling from acme/web", None, 5, 0),
            ("a", "Download complete", None, 10, 0),
            ("a", "Extracting", Some(3), 10, 3),
            // Blocks of its own, the last of them not full.
            ("a", "Extracting", Some(12), 10, 10),
        ] {
            layers.entry(id.into()).or_default().advance(status, current, current.map(|_| 10));
            let seen = sum(&layers);
            assert_eq!((seen.bytes, seen.bytes_unpacked), (bytes, bytes_unpacked), "{id}: {status}");
            let fetching = seen.layers_fetched < seen.layers;
            assert_eq!(fetching, seen.bytes < bytes_total && seen.layers == 2, "{id}: {status}");
        }
        assert_eq!(
            sum(&layers),
            Progress {
                layers: 2,
                layers_fetched: 2,
                layers_done,
                bytes: 10,
                bytes_unpacked: 10,
                bytes_total
            }
        );
    }
}
