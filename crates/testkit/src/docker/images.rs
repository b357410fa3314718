//! Images for tests: FROM scratch around one statically linked program of ours, so that nothing is pulled from anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Engine;

const SOURCE: &str = include_str!("../../images/app.rs");

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Image {
    tag: String,
    version: String,
    lines: Vec<String>,
}

impl Image {
    /// `tag` is the whole reference; `version` is what the program answers.
    pub fn new(tag: &str, version: &str) -> Self {
        Self { tag: tag.into(), version: version.into(), lines: Vec::new() }
    }

    /// A further line of its Dockerfile.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Builds it; its id.
    #[track_caller]
    pub fn build(&self, engine: &Engine) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(program(), dir.path().join("app")).unwrap();
        let more = self.lines.join("\n");
        let file = format!(
            "FROM scratch\nCOPY app /app\n{more}\nENTRYPOINT [\"/app\"]\nCMD [\"{}\"]\n",
            self.version
        );
        fs::write(dir.path().join("Dockerfile"), file).unwrap();
        engine.docker(&["build", "-q", "-t", &self.tag, &dir.path().display().to_string()])
    }

    /// Builds it, pushes it, and forgets it here: it must be pulled. Its digest in the registry.
    #[track_caller]
    pub fn push(&self, engine: &Engine) -> String {
        self.build(engine);
        let pushed = engine.docker(&["push", &self.tag]);
        engine.docker(&["rmi", "-f", &self.tag]);
        let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.expect("a push tells the digest").to_owned()
    }
}

/// The program, compiled once for each state of its source.
fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testkit-image");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join(format!("app-{:016x}", hash(SOURCE)));
    if !program.exists() {
        let source = folder.join(format!("app-{}.rs", std::process::id()));
        let unfinished = folder.join(format!("app-{}.new", std::process::id()));
        fs::write(&source, SOURCE).unwrap();
        let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
        rustc.args([
            "--edition",
            "2021",
            "-C",
            "opt-level=s",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ]);
        let output = rustc.arg(&source).arg("-o").arg(&unfinished).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&unfinished, &program).unwrap();
        let _ = fs::remove_file(&source);
    }
    program
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
