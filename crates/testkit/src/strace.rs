//! What a program did to files and their names, in order, as strace saw it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const CALLS: &str = "openat,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,symlink,symlinkat";

/// A call that succeeded, at the moment at which it returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file, a folder or a link that was not there.
    Made(PathBuf),
    Synced(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
}

/// Whether it is installed. Says so when it is not.
pub fn is_there() -> bool {
    let there = Command::new("strace").arg("-V").output().is_ok();
    if !there {
        println!("skipped: strace is not installed");
    }
    there
}

/// Runs a program, which must succeed, and gives its steps below a folder.
#[track_caller]
pub fn steps_below(folder: &Path, program: &Path, args: &[&OsStr], env: &[(&str, &str)]) -> Vec<Step> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-s", "4096", "-e", &format!("trace={CALLS}"), "-o"]);
    strace.arg(log.path()).arg(program).args(args).envs(env.iter().copied());
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{strace:?}: {output:?}");
    let text = fs::read_to_string(log.path()).unwrap();
    let mut unfinished = HashMap::new();
    let mut steps: Vec<Step> = text.lines().filter_map(|line| step(line, &mut unfinished)).collect();
    steps.retain(|step| {
        let (Step::Made(path) | Step::Synced(path) | Step::Renamed { to: path, .. }) = step;
        path.starts_with(folder)
    });
    steps
}

/// One line, such as `71 renameat(3</d>, "a", 3</d>, "b") = 0`. A call during which another thread was heard has two.
fn step<'a>(line: &'a str, unfinished: &mut HashMap<&'a str, &'a str>) -> Option<Step> {
    let (pid, call) = line.split_once(' ')?;
    let call = call.trim_start();
    if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
        unfinished.insert(pid, begun);
        return None;
    }
    let whole = match call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
        Some((_, rest)) => format!("{}{rest}", unfinished.remove(pid)?),
        None => call.to_owned(),
    };
    let (name, rest) = whole.split_once('(')?;
    let (args, result) = rest.rsplit_once(") ")?;
    if !result.trim_start().starts_with("= ") || result.contains("= -1") {
        return None;
    }
    let paths = paths(args);
    match (name, paths.as_slice()) {
        ("fsync" | "fdatasync", [path]) => Some(Step::Synced(path.clone())),
        ("openat", [path]) if args.contains("O_CREAT") => Some(Step::Made(path.clone())),
        ("mkdir" | "mkdirat", [path]) => Some(Step::Made(path.clone())),
        ("symlink" | "symlinkat", [_, path]) => Some(Step::Made(path.clone())),
        ("rename" | "renameat" | "renameat2", [from, to]) => {
            Some(Step::Renamed { from: from.clone(), to: to.clone() })
        }
        _ => None,
    }
}

/// The paths among the arguments: a name in quotes counts from the folder of the descriptor before it, and a
/// descriptor alone (`3</d/a>`) is what it stands for.
fn paths(args: &str) -> Vec<PathBuf> {
    let (mut found, mut folder) = (Vec::new(), None);
    for arg in args.split(", ") {
        if let Some(name) = arg.strip_prefix('"') {
            let name = name.trim_end_matches('"');
            found.push(folder.take().map_or_else(|| name.into(), |folder: PathBuf| folder.join(name)));
        } else if let Some((_, path)) = arg.split_once('<') {
            folder = Some(PathBuf::from(path.trim_end_matches('>')));
        }
    }
    found.extend(folder.filter(|_| found.is_empty()));
    found
}

/// That every rename is one of something that is wholly on the disk (itself and all that was made below it), and that
/// its new name is on the disk in the end; links hold nothing that could be lost. Gives the names.
#[track_caller]
pub fn assert_durable_renames(steps: &[Step]) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let synced = |path: &Path, steps: &[Step]| steps.iter().any(|step| *step == Step::Synced(path.into()));
    for (at, step) in steps.iter().enumerate() {
        let Step::Renamed { from, to } = step else { continue };
        let (before, after) = steps.split_at(at);
        let made = before.iter().enumerate().filter_map(|(at, step)| match step {
            Step::Made(path) if path.starts_with(from) => Some((at, path)),
            Step::Made(_) | Step::Synced(_) | Step::Renamed { .. } => None,
        });
        for (made_at, path) in made.filter(|(_, path)| !is_link(to, from, path)) {
            assert!(
                synced(path, &before[made_at..]),
                "{} is not on the disk when {} becomes {}:\n{steps:#?}",
                path.display(),
                from.display(),
                to.display()
            );
        }
        let folder = to.parent().unwrap();
        assert!(
            synced(folder, after),
            "the name {} is not on the disk in the end:\n{steps:#?}",
            to.display()
        );
        names.push(to.clone());
    }
    names
}

/// What was made at `path` now lies below `to`.
fn is_link(to: &Path, from: &Path, path: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(from) else { return false };
    let now = if inner.as_os_str().is_empty() { to.to_path_buf() } else { to.join(inner) };
    now.is_symlink()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_their_folders_and_over_two_lines() {
        let log = "\
7 openat(3</d>, \"a b\", O_RDWR|O_CREAT|O_EXCL, 0600) = 4</d/a b>
7 fsync(4</d/a b> <unfinished ...>
8 rename(\"/d/x\", \"/d/y\") = -1 ENOENT (No such file or directory)
8 rename(\"/d/x\", \"/d/y\" <unfinished ...>
7 <... fsync resumed>) = 0
8 <... rename resumed>) = 0
8 renameat2(3</d>, \"y\", 5</e>, \"z\", RENAME_NOREPLACE) = 0
9 symlinkat(\"z\", 5</e>, \"current\") = 0";
        let mut unfinished = HashMap::new();
        let steps: Vec<Step> = log.lines().filter_map(|line| step(line, &mut unfinished)).collect();
        let renamed = |from: &str, to: &str| Step::Renamed { from: from.into(), to: to.into() };
        let expected = [
            Step::Made("/d/a b".into()),
            Step::Synced("/d/a b".into()),
            renamed("/d/x", "/d/y"),
            renamed("/d/y", "/e/z"),
            Step::Made("/e/current".into()),
        ];
        assert_eq!(steps, expected);
    }
}
