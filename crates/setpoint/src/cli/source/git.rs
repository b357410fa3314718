//! A repository, read with the Git of whoever runs the command: its keys, its proxies, its known hosts.
//!
//! Only https, http and ssh are spoken, nobody is asked for a password, and nothing of the repository is run: no hook, no
//! filter, no submodule. A checkout has no `.git`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use model::{
    manifest::nearest,
    source::{Repository, is_commit},
};
use tokio::process::Command;

use super::run::{self, run};
use crate::cli::text;

/// For the list of branches and tags.
const LIST_WITHIN: Duration = Duration::from_secs(60);
/// For the commit itself, however large.
const FETCH_WITHIN: Duration = Duration::from_secs(1800);
/// Of a repository with more names, some may not be found.
const MAX_NAMES: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no `git` here; install it (Debian: apt-get install git)")]
    NoGit,
    #[error("{} cannot be read: {source}{}", text::line(.url), advice(.source))]
    Fetch { url: String, source: run::Error },
    #[error(
        "{} has no branch or tag `{}`, and a commit needs its whole id in small letters{}",
        text::line(.url), text::line(.wanted), meant(.nearest)
    )]
    NoSuchReference { url: String, wanted: String, nearest: Option<String> },
    #[error("{}: {source}", text::line(&.path.display().to_string()))]
    Scratch { path: PathBuf, source: io::Error },
    #[error("{} has no branch: push a commit first, if it is a repository at all", text::line(.url))]
    Empty { url: String },
}

/// What to do where Git was not let in.
fn advice(source: &run::Error) -> &'static str {
    let asks =
        |line: &String| line.contains("could not read Username") || line.contains("Authentication failed");
    if source.last().iter().any(asks) { "; log in with Git's credential helper, or use ssh" } else { "" }
}

fn meant(nearest: &Option<String>) -> String {
    nearest.iter().map(|name| format!("; did you mean `{}`?", text::line(name))).collect()
}

/// A commit, and the name by which it can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub id: String,
    name: String,
}

/// What the reference stands for now.
pub async fn resolve(repository: &Repository) -> Result<Commit, Error> {
    let Repository { url, reference } = repository;
    let peeled = reference.as_ref().map(|reference| format!("{reference}^{{}}"));
    let wanted = reference.as_deref().unwrap_or("HEAD");
    let names = list(url, [Some(wanted), peeled.as_deref()].into_iter().flatten()).await?;
    if let Some(commit) = choose(wanted, &names) {
        return Ok(commit);
    }
    if reference.is_none() {
        return Err(Error::Empty { url: url.clone() });
    }
    let all = list(url, []).await?;
    let short = all.keys().filter_map(|name| {
        name.strip_prefix("refs/heads/").or(name.strip_prefix("refs/tags/")).filter(|n| !n.ends_with("^{}"))
    });
    let nearest = nearest(wanted, short).map(str::to_owned);
    Err(Error::NoSuchReference { url: url.clone(), wanted: wanted.into(), nearest })
}

/// A branch comes before a tag of its name; of a tag, the commit that it names; what is a whole id is taken as one.
fn choose(wanted: &str, names: &BTreeMap<String, String>) -> Option<Commit> {
    let (branch, tag) = (format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}"));
    for name in [&branch, &tag, wanted] {
        let id = names.get(&format!("{name}^{{}}")).or_else(|| names.get(name));
        if let Some(id) = id {
            return Some(Commit { id: id.clone(), name: name.into() });
        }
    }
    is_commit(wanted).then(|| Commit { id: wanted.into(), name: wanted.into() })
}

/// Names with what they stand for.
async fn list<'a>(
    url: &str,
    patterns: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut names = BTreeMap::new();
    let mut git = git();
    git.args(["ls-remote", "--quiet", "--", url]).args(patterns);
    let mut take = |line: &str| {
        if let Some((id, name)) = line.split_once('\t').filter(|(id, _)| is_commit(id))
            && names.len() < MAX_NAMES
        {
            names.insert(name.to_owned(), id.to_owned());
        }
    };
    run("git ls-remote", git, LIST_WITHIN, &mut take).await.map_err(|source| failed(url, source))?;
    Ok(names)
}

/// Checks the commit out into `folder`, which is empty, with `scratch`, which is not there yet, for what is fetched. Gives
/// the commit, which is a later one where the name has moved in between.
pub async fn fetch(
    repository: &Repository,
    commit: &Commit,
    scratch: &Path,
    folder: &Path,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<String, Error> {
    let url = repository.url.as_str();
    let failed = |source| failed(url, source);
    let format = if commit.id.len() == 64 { "sha256" } else { "sha1" };
    let mut init = git();
    init.args(["init", "--quiet", "--bare", "--template="])
        .arg(format!("--object-format={format}"))
        .arg(scratch);
    run("git init", init, LIST_WITHIN, tell).await.map_err(failed)?;
    // These come before what the repository says: no program of its choice sees a file.
    let info = scratch.join("info");
    let written = fs::create_dir_all(&info)
        .and_then(|()| fs::write(info.join("attributes"), "* -filter -ident -working-tree-encoding\n"));
    written.map_err(|source| Error::Scratch { path: info, source })?;
    let shallow = fetch_with(scratch, url, &["--depth=1"], &[&commit.name], tell).await;
    let id = match shallow {
        Ok(()) => head(scratch).await.map_err(failed)?,
        // Some servers cannot give a part, and some give no commit that is no branch's or tag's latest.
        Err(error) if is_about_a_part(&error) => {
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            fetch_with(scratch, url, &[], &all, tell).await.map_err(failed)?;
            commit.id.clone()
        }
        Err(error) => return Err(failed(error)),
    };
    let mut checkout = at(scratch);
    checkout.arg("--work-tree").arg(folder);
    checkout.args(["checkout", "--quiet", "--force", "--detach"]).arg(format!("{id}^{{commit}}"));
    match run("git checkout", checkout, FETCH_WITHIN, tell).await {
        Ok(()) => Ok(id),
        Err(_) if !has(scratch, &id).await => {
            Err(Error::NoSuchReference { url: url.into(), wanted: id, nearest: None })
        }
        Err(source) => Err(failed(source)),
    }
}

fn is_about_a_part(error: &run::Error) -> bool {
    const REFUSALS: [&str; 4] =
        ["shallow capabilities", "not our ref", "unadvertised object", "remote error: upload-pack"];
    error.last().iter().any(|line| REFUSALS.iter().any(|refusal| line.contains(refusal)))
}

async fn fetch_with(
    scratch: &Path,
    url: &str,
    options: &[&str],
    names: &[&str],
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<(), run::Error> {
    let mut fetch = at(scratch);
    fetch.args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"]);
    fetch.args(options).args(["--", url]).args(names);
    run("git fetch", fetch, FETCH_WITHIN, tell).await
}

/// The commit that was fetched last.
async fn head(scratch: &Path) -> Result<String, run::Error> {
    let mut id = String::new();
    let mut parse = at(scratch);
    parse.args(["rev-parse", "--verify", "--end-of-options", "FETCH_HEAD^{commit}"]);
    let mut take = |line: &str| {
        if is_commit(line) {
            line.clone_into(&mut id);
        }
    };
    run("git rev-parse", parse, LIST_WITHIN, &mut take).await?;
    Ok(id)
}

async fn has(scratch: &Path, id: &str) -> bool {
    let mut look = at(scratch);
    look.args(["cat-file", "-e"]).arg(format!("{id}^{{commit}}"));
    run("git cat-file", look, LIST_WITHIN, &mut |_| {}).await.is_ok()
}

fn failed(url: &str, source: run::Error) -> Error {
    if source.is_absence() { Error::NoGit } else { Error::Fetch { url: url.into(), source } }
}

fn at(repository: &Path) -> Command {
    let mut git = git();
    git.arg("--git-dir").arg(repository);
    git
}

/// What nobody may set from outside, where the command runs inside a hook, say.
const OF_ANOTHER: [&str; 9] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
];

/// Whether the user says how ssh is to be run; ours only keeps it from asking.
fn has_ssh_of_its_own() -> bool {
    static TOLD: OnceLock<bool> = OnceLock::new();
    *TOLD.get_or_init(|| {
        let named = ["GIT_SSH_COMMAND", "GIT_SSH"].iter().any(|name| std::env::var_os(name).is_some());
        let mut config = std::process::Command::new("git");
        config.args(["config", "--get", "core.sshCommand"]).stdin(Stdio::null()).stderr(Stdio::null());
        named || config.output().is_ok_and(|said| !said.stdout.is_empty())
    })
}

fn git() -> Command {
    let mut git = Command::new("git");
    for name in OF_ANOTHER {
        git.env_remove(name);
    }
    git.env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "https:http:ssh")
        .env("GIT_LFS_SKIP_SMUDGE", "1");
    if !has_ssh_of_its_own() {
        git.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20");
    }
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.autocrlf=false",
        "filter.lfs.smudge=",
        "filter.lfs.process=",
        "filter.lfs.required=false",
        // Not a byte for two minutes: it hangs. One that packs a large repository is silent for a while.
        "http.lowSpeedLimit=1",
        "http.lowSpeedTime=120",
    ] {
        git.args([OsStr::new("-c"), OsStr::new(setting)]);
    }
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn chosen(wanted: &str, names: &[(&str, &str)]) -> Option<(String, String)> {
        let names = names.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
        choose(wanted, &names).map(|commit| (commit.name, commit.id))
    }

    #[test]
    fn a_branch_comes_before_a_tag_and_a_tag_is_its_commit() {
        let of = |name: &str, id: &str| Some((name.to_owned(), id.to_owned()));
        let both = [("refs/heads/v1", ONE), ("refs/tags/v1", TWO)];
        assert_eq!(chosen("v1", &both), of("refs/heads/v1", ONE));
        let annotated = [("refs/tags/v1", ONE), ("refs/tags/v1^{}", TWO)];
        assert_eq!(chosen("v1", &annotated), of("refs/tags/v1", TWO));
        // The list holds whatever ends with the name.
        assert_eq!(chosen("v1", &[("refs/heads/old/v1", ONE)]), None);
        assert_eq!(chosen("refs/pull/1/head", &[("refs/pull/1/head", ONE)]), of("refs/pull/1/head", ONE));
        assert_eq!(chosen("HEAD", &[("HEAD", ONE)]), of("HEAD", ONE));
        assert_eq!(chosen(TWO, &[]), of(TWO, TWO));
        assert_eq!(chosen(&TWO[..7], &[]), None);
    }
}
