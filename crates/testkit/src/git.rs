//! A Git repository behind HTTP, as a host of repositories serves it: Git's own CGI program and nothing else.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use tempfile::TempDir;

/// One repository, served for as long as this is kept.
#[derive(Debug)]
pub struct Repository {
    root: TempDir,
    address: SocketAddr,
    fetches: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Default for Repository {
    fn default() -> Self {
        Self::new()
    }
}

impl Repository {
    /// With a branch `main` that has no commit yet.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let repository = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            fetches: Arc::default(),
            ends: Arc::default(),
            root,
        };
        git(repository.root.path(), &["init", "--quiet", "--initial-branch=main", "work"]);
        repository.serve()
    }

    fn serve(mut self) -> Self {
        let listener = TcpListener::bind(self.address).expect("a port");
        self.address = listener.local_addr().expect("an address");
        let (root, fetches, ends) = (self.root.path().to_owned(), self.fetches.clone(), self.ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (root, fetches) = (root.clone(), fetches.clone());
                // Whoever breaks off has its reasons.
                thread::spawn(move || answer(stream, &root, &fetches));
            }
        });
        self
    }

    pub fn url(&self) -> String {
        format!("http://{}/work/.git", self.address)
    }

    /// The folder whose files are committed.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Writes the files and commits everything; gives the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.folder().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=a change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Git in the repository; gives what it prints.
    pub fn git(&self, args: &[&str]) -> String {
        git(&self.folder(), args)
    }

    /// How often objects were asked for.
    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Without anything that the machine's own settings say.
fn git(folder: &Path, args: &[&str]) -> String {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "a tester").env(format!("GIT_{who}_EMAIL"), "tester@example.com");
    }
    let done = git.current_dir(folder).args(args).output().expect("git is installed");
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// One request, one answer, one run of `git http-backend`.
fn answer(mut stream: TcpStream, root: &Path, fetches: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let header =
        |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let length: u64 = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    if body.windows(13).any(|words| words == b"command=fetch") {
        fetches.fetch_add(1, Ordering::Relaxed);
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git");
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_LENGTH", length.to_string())
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default());
    let child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.ok()?;
    let mut stdin = child.stdin.take()?;
    let written = thread::spawn(move || stdin.write_all(&body));
    let said = child.wait_with_output().ok()?.stdout;
    let _ = written.join();
    let end = said.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let body = &said[end + 4..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .ok()?;
    stream.write_all(body).ok()
}
