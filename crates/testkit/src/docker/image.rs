//! Images FROM scratch around one static program, written down byte by byte instead of built: an image is there in
//! milliseconds, leaves nothing in an engine, and may also say what no builder would write.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{engine::Engine, registry::Registry};

const SOURCE: &str = include_str!("../../images/app.rs");

/// The program in the images, compiled when its source is new.
pub fn app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => PathBuf::from(target),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        };
        let folder = target.join("testkit");
        let app = folder.join(format!("app-{}", &sha256(SOURCE.as_bytes())[..16]));
        if !app.exists() {
            fs::create_dir_all(&folder).unwrap();
            // Of several tests that need it at once, one makes it.
            let lock = fs::File::create(folder.join("lock")).unwrap();
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
            if !app.exists() {
                compile(&folder, &app);
            }
        }
        app
    })
}

fn compile(folder: &Path, app: &Path) {
    let own = folder.join("making");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("app.rs"), SOURCE).unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(&own).args(["--edition", "2024", "-C", "target-feature=+crt-static"]);
    rustc.args(["-C", "opt-level=s", "-C", "strip=symbols", "-C", "panic=abort", "-o", "app", "app.rs"]);
    let output = rustc.output().unwrap();
    assert!(output.status.success(), "app.rs: {}", String::from_utf8_lossy(&output.stderr));
    // Whole or not at all, for whoever looks meanwhile.
    fs::rename(own.join("app"), app).unwrap();
    fs::remove_dir_all(own).unwrap();
}

/// An image as a test describes it.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    env: Vec<String>,
    config: Map<String, Value>,
    files: Vec<(String, Vec<u8>)>,
}

/// Where an image lies in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest, `sha256:…`: what a release pins.
    pub digest: String,
    /// `HOST:PORT/REPOSITORY@DIGEST`
    pub pinned: String,
    /// Of its configuration, `sha256:…`: how an engine calls the image.
    pub id: String,
}

impl Image {
    /// The program, which answers with `version` on port 8080. The reference is whole, as `REPOSITORY:TAG` or
    /// [`Registry::image`] of that.
    pub fn new(reference: &str, version: &str) -> Self {
        let program = fs::read(app()).unwrap();
        let config = json!({
            "Entrypoint": ["/app"], "Cmd": [version], "ExposedPorts": { "8080/tcp": {} },
        });
        let Value::Object(config) = config else { unreachable!("an object was written") };
        Self { reference: reference.into(), env: Vec::new(), config, files: vec![("app".into(), program)] }
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|known| !known.starts_with(&format!("{name}=")));
        self.env.push(format!("{name}={value}"));
        self
    }

    /// A field of the image's configuration, as the engine's interface calls it: `User`, `WorkingDir`, `Cmd`,
    /// `StopSignal`, `Labels`, `Volumes`.
    #[must_use]
    pub fn config(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.into(), value);
        self
    }

    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let labels = self.config.entry("Labels").or_insert_with(|| json!({}));
        labels[name] = value.into();
        self
    }

    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.config("User", user.into())
    }

    #[must_use]
    pub fn workdir(self, folder: &str) -> Self {
        self.config("WorkingDir", folder.into())
    }

    /// A check of `/healthz` by the program itself, every so many milliseconds.
    #[must_use]
    pub fn healthcheck(self, every_ms: u64) -> Self {
        let interval = every_ms * 1_000_000;
        let check = json!({
            "Test": ["CMD", "/app", "check"], "Interval": interval, "Timeout": 1_000_000_000_u64, "Retries": 2,
        });
        self.config("Healthcheck", check)
    }

    /// A file besides the program, by its path without the first slash.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), bytes.into()));
        self
    }

    /// Puts it into the registry that its reference names.
    #[track_caller]
    pub fn push(&self, registry: &Registry) -> Pushed {
        let place = self.reference.strip_prefix(&registry.image(""));
        let named = place.and_then(|place| place.rsplit_once(':'));
        let (repository, tag) = named.unwrap_or_else(|| panic!("{} is not there", self.reference));
        let parts = self.parts();
        upload(registry, repository, &parts.layer);
        upload(registry, repository, parts.config.as_bytes());
        let manifest = parts.manifest();
        let path = format!("/v2/{repository}/manifests/{tag}");
        let request = registry.request("PUT", &path).header("Content-Type", MANIFEST);
        let answer = registry.send(request.body(manifest.clone()));
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        let digest = digest(manifest.as_bytes());
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        let pinned = format!("{}@{digest}", registry.image(repository));
        Pushed { digest, pinned, id: self::digest(parts.config.as_bytes()) }
    }

    /// Puts it into an engine and into no registry; its id.
    #[track_caller]
    pub fn build(&self, engine: &Engine) -> String {
        let parts = self.parts();
        let config = format!("{}.json", sha256(parts.config.as_bytes()));
        let list =
            json!([{ "Config": config, "RepoTags": [self.reference], "Layers": ["layer.tar"] }]).to_string();
        engine.api().load(archive(&[
            (&config, parts.config.as_bytes(), 0o644),
            ("layer.tar", &parts.layer, 0o644),
            ("manifest.json", list.as_bytes(), 0o644),
        ]));
        digest(parts.config.as_bytes())
    }

    fn parts(&self) -> Parts {
        let files: Vec<(&str, &[u8], u32)> =
            self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice(), 0o755)).collect();
        let layer = archive(&files);
        let mut config = self.config.clone();
        config.insert("Env".into(), json!(self.env));
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        Parts { layer, config: config.to_string() }
    }
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

struct Parts {
    /// Not compressed, whatever its media type: engines look at the bytes.
    layer: Vec<u8>,
    config: String,
}

impl Parts {
    fn manifest(&self) -> String {
        let part = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.docker.{kind}");
            json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) })
        };
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part("container.image.v1+json", self.config.as_bytes()),
            "layers": [part("image.rootfs.diff.tar.gzip", &self.layer)],
        })
        .to_string()
    }
}

#[track_caller]
fn upload(registry: &Registry, repository: &str, bytes: &[u8]) {
    let digest = digest(bytes);
    let known = registry.request("HEAD", &format!("/v2/{repository}/blobs/{digest}"));
    if registry.send(known).status == 200 {
        return;
    }
    let begun = registry.send(registry.request("POST", &format!("/v2/{repository}/blobs/uploads/")));
    let place = begun.header("location").unwrap_or_else(|| panic!("{}: {}", begun.status, begun.text()));
    let path = place.trim_start_matches(&format!("http://{}", registry.host())).to_owned();
    let path = format!("{path}{}digest={digest}", if path.contains('?') { '&' } else { '?' });
    let request = registry.request("PUT", &path).header("Content-Type", "application/octet-stream");
    let done = registry.send(request.body(bytes));
    assert_eq!(done.status, 201, "{path}: {}", done.text());
}

/// The same bytes for the same files: no time, no owner.
fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}
