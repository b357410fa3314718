//! What a site is made of: fetched from a repository, unpacked from an archive, built, where the command runs.

use std::{fs, process::Stdio};

use serde_json::Value;
use testkit::{Output, Setpoint, fixture::Entry, git::Repository, setpoint::SOON, until};

use crate::setpoint;

/// A site whose pages a command makes from what is in its repository.
const BUILT: &str =
    "mkdir -p dist && cat index.txt > dist/index.html && echo $SETPOINT_COMMIT > dist/commit.txt";

fn manifest(source: &str) -> String {
    format!("services:\n  docs:\n    static:\n{source}\n    domains: [docs.localhost]\n")
}

fn built_of(repository: &Repository, reference: &str) -> String {
    manifest(&format!(
        "      git: {{ url: \"{}\", ref: {reference} }}\n      build: [\"{BUILT}\"]\n      output: dist",
        repository.url()
    ))
}

#[track_caller]
fn newest(setpoint: &Setpoint) -> Value {
    setpoint.deployments("docs").into_iter().next().unwrap()
}

/// What nothing was changed for.
#[track_caller]
fn refused(setpoint: &Setpoint, output: &Output, words: &[&str]) {
    assert_eq!(output.code, 1, "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "`{word}` is not in: {}", output.stderr);
    }
    assert!(output.stderr.contains("nothing was changed"), "{}", output.stderr);
    assert_eq!(setpoint.ask("GET", "/api/v1/services", None).json()["services"], Value::Array(Vec::new()));
}

#[test]
fn a_repository_is_fetched_built_and_served_and_its_commit_stays_until_somebody_deploys() {
    let repository = Repository::new();
    let first = repository.commit(&[("index.txt", "one")]);
    let setpoint = setpoint().start();
    let yaml = built_of(&repository, "main");
    setpoint.apply_ok(&yaml, &["--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "one");
    assert_eq!(setpoint.get("docs.localhost", "/commit.txt").text().trim(), first);
    assert_eq!(setpoint.get("docs.localhost", "/index.txt").status, 404, "its output alone is served");
    let deployment = newest(&setpoint);
    assert_eq!(deployment["metadata"]["source_commit"], first);
    assert_eq!(deployment["metadata"]["source_ref"], "main");
    assert_eq!((deployment["cause"].as_str(), repository.fetches()), (Some("apply"), 1));

    let again = setpoint.apply_ok(&yaml, &["--wait"]);
    assert!(again.stdout.contains("unchanged"), "{again:?}");
    assert_eq!(repository.fetches(), 1, "the commit is the same");

    let second = repository.commit(&[("index.txt", "two")]);
    let again = setpoint.apply_ok(&yaml, &["--wait"]);
    assert!(again.stdout.contains("unchanged"), "a commit stays until somebody deploys: {again:?}");
    setpoint.ok(&["deploy", "docs", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "two");
    assert_eq!(newest(&setpoint)["metadata"]["source_commit"], second);
    let yaml = format!("{yaml}    retain: 3\n");
    let other = setpoint.apply_ok(&yaml, &["--wait"]);
    assert!(other.stdout.contains("changed") && repository.fetches() == 2, "{other:?}");
    assert_eq!(
        setpoint.get("docs.localhost", "/").text(),
        "two",
        "another field brings no older commit back"
    );
    setpoint.ok(&["rollback", "docs", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "one");
    assert_eq!(newest(&setpoint)["metadata"]["source_commit"], first);
    let pinned = setpoint.apply_ok(&yaml, &[]);
    assert!(pinned.stdout.contains("is pinned by deployment"), "{pinned:?}");
}

#[test]
fn deploy_fetches_the_newest_commit_or_the_one_that_is_named() {
    let repository = Repository::new();
    let first = repository.commit(&[("index.txt", "one")]);
    let setpoint = setpoint().start();
    setpoint.apply_ok(&built_of(&repository, "main"), &["--wait"]);
    let second = repository.commit(&[("index.txt", "two")]);
    setpoint.ok(&["deploy", "docs", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/commit.txt").text().trim(), second);
    setpoint.ok(&["deploy", "docs", "--wait"]);
    assert_eq!(repository.fetches(), 2, "the same commit is not fetched again");
    for (reference, commit, text) in [(first.as_str(), &first, "one"), ("v2", &second, "two")] {
        if reference == "v2" {
            repository.git(&["tag", "--annotate", "--message=two", "v2"]);
        }
        setpoint.ok(&["deploy", "docs", "--git", &format!("{}#{reference}", repository.url()), "--wait"]);
        assert_eq!(setpoint.get("docs.localhost", "/").text(), text, "built as it is declared");
        let deployment = newest(&setpoint);
        assert_eq!(deployment["metadata"]["source_commit"], **commit);
        assert_eq!(deployment["metadata"]["source_ref"], reference);
        assert_eq!(deployment["cause"], "deploy");
    }
}

#[test]
fn a_repository_without_a_build_is_served_as_it_is_and_nothing_of_it_is_run() {
    let repository = Repository::new();
    repository.commit(&[("index.html", "plain"), ("hooks/post-checkout", "#!/bin/sh\ntouch /tmp/never\n")]);
    repository.git(&["config", "core.hooksPath", "hooks"]);
    let setpoint = setpoint().start();
    setpoint.apply_ok(&manifest(&format!("      git: \"{}\"", repository.url())), &["--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "plain");
    assert_eq!(setpoint.get("docs.localhost", "/.git/config").status, 404);
    let deployment = newest(&setpoint);
    assert_eq!(deployment["metadata"]["source_url"], repository.url());
    assert_eq!(deployment["metadata"]["source_ref"], Value::Null);
}

#[test]
fn what_cannot_be_fetched_or_built_is_told_at_its_line_and_nothing_is_changed() {
    let repository = Repository::new();
    repository.commit(&[("index.txt", "one")]);
    repository.git(&["branch", "release"]);
    let setpoint = setpoint().start();
    let url = repository.url();
    let try_it = |source: &str| setpoint.apply(&manifest(source), &[]);
    refused(
        &setpoint,
        &try_it(&format!("      git: {{ url: \"{url}\", ref: relaese }}")),
        &["app.yaml:4:", "`relaese`", "did you mean `release`?"],
    );
    refused(
        &setpoint,
        &try_it(&format!("      git: \"{}\"", url.replace("work", "none"))),
        &["app.yaml:4:", "cannot be read", "git ls-remote ended with exit code"],
    );
    refused(
        &setpoint,
        &try_it(&format!(
            "      git: \"{url}\"\n      build: [\"echo some; echo words >&2; exit 7\", \"touch never\"]"
        )),
        &["app.yaml:5:", "exit code 7", "\n    some\n    words\n"],
    );
    refused(
        &setpoint,
        &try_it(&format!("      git: \"{url}\"\n      build: [\"true\"]\n      output: dist")),
        &["app.yaml:6:", "no folder `dist`", "the build did not make it"],
    );
    refused(&setpoint, &try_it("      git: \"https://token:s3cret@example.com/x\""), &["credential helper"]);
    repository.git(&["checkout", "--quiet", "--orphan", "links"]);
    std::os::unix::fs::symlink("/etc/passwd", repository.folder().join("passwd")).unwrap();
    std::os::unix::fs::symlink("/etc", repository.folder().join("etc")).unwrap();
    repository.commit(&[]);
    refused(&setpoint, &try_it(&format!("      git: \"{url}#links\"")), &["app.yaml:4:", "etc"]);
    for output in ["etc", "etc/apt"] {
        let source = format!("      git: \"{url}#links\"\n      output: {output}");
        refused(&setpoint, &try_it(&source), &["app.yaml:5:", "is a link"]);
    }
}

#[test]
fn what_the_server_refuses_is_not_fetched_and_one_that_does_not_answer_is_told_first() {
    let repository = Repository::new();
    repository.commit(&[("index.html", "one")]);
    let mut setpoint = setpoint().start();
    let source = format!("      git: \"{}\"", repository.url());
    setpoint.apply_ok(
        "services:\n  other:\n    command: [\"${SETPOINT}\", demo-app]\n    domains: [docs.localhost]\n",
        &["--wait"],
    );
    let taken = setpoint.apply(&manifest(&source), &[]);
    assert_eq!(taken.code, 1, "{taken:?}");
    assert!(taken.stderr.contains("docs.localhost"), "{taken:?}");
    let deployed = setpoint.cli(&["deploy", "other", "--git", &repository.url()]);
    assert_eq!(deployed.code, 1, "{deployed:?}");
    setpoint.kill9();
    let gone = setpoint.apply(&manifest(&source), &[]);
    assert!(gone.code == 1 && gone.stderr.contains("no Setpoint answers"), "{gone:?}");
    assert_eq!(repository.fetches(), 0);
    setpoint.restart();
}

#[test]
fn nothing_that_a_repository_names_is_run_when_it_is_checked_out() {
    let repository = Repository::new();
    repository.commit(&[("index.html", "one"), (".gitattributes", "* filter=evil\n")]);
    let setpoint = setpoint().start();
    let ran = setpoint.work().join("ran");
    let config = format!("[filter \"evil\"]\n\tsmudge = touch {}; cat\n", ran.display());
    fs::write(setpoint.work().join("gitconfig"), config).unwrap();
    fs::write(setpoint.work().join("app.yaml"), manifest(&format!("      git: \"{}\"", repository.url())))
        .unwrap();
    let data = setpoint.data();
    let mut apply =
        setpoint.command(&["apply", "-f", "app.yaml", "--wait", "--data", data.to_str().unwrap()]);
    let ended = apply.env("GIT_CONFIG_GLOBAL", setpoint.work().join("gitconfig")).status().unwrap();
    assert!(ended.success() && !ran.exists());
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "one");
}

#[test]
fn a_folder_is_built_in_its_place_and_an_archive_in_a_copy() {
    let builder = setpoint();
    let work = builder.work();
    let setpoint = builder.file("site/index.txt", "one").start();
    setpoint.apply_ok(
        &manifest("      path: ./site\n      build: [\"mkdir -p out\", \"cp index.txt out/index.html\"]\n      output: out"),
        &["--wait"],
    );
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "one");
    assert_eq!(setpoint.get("docs.localhost", "/index.txt").status, 404);
    assert!(work.join("site/out/index.html").exists());
    assert_eq!(newest(&setpoint)["metadata"]["source_commit"], Value::Null);

    let entries = [Entry::File("docs/index.html", b"packed"), Entry::File("src/a.txt", b"a")];
    fs::write(work.join("site.tar"), testkit::fixture::tar(&entries)).unwrap();
    setpoint.apply_ok(&manifest("      archive: ./site.tar\n      output: docs"), &["--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "packed");
    let built =
        "      archive: ./site.tar\n      build: [\"cat src/a.txt >> docs/index.html\"]\n      output: docs";
    setpoint.apply_ok(&manifest(built), &["--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "packeda");
}

#[test]
fn a_plan_fetches_and_builds_nothing_and_says_so() {
    let repository = Repository::new();
    repository.commit(&[("index.txt", "one")]);
    let setpoint = setpoint().start();
    let yaml = built_of(&repository, "main");
    fs::write(setpoint.work().join("app.yaml"), &yaml).unwrap();
    let planned = setpoint.cli(&["plan", "-f", "app.yaml"]);
    assert_eq!(planned.code, 3, "{planned:?}");
    assert!(planned.stderr.contains("fetches and builds nothing"), "{planned:?}");
    setpoint.apply_ok(&yaml, &["--wait"]);
    repository.commit(&[("index.txt", "two")]);
    let planned = setpoint.cli(&["plan", "-f", "app.yaml"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    assert!(planned.stdout.contains("unchanged"), "{planned:?}");
    assert_eq!(repository.fetches(), 1);
}

#[test]
fn an_apply_that_is_interrupted_ends_its_build_and_leaves_nothing() {
    let repository = Repository::new();
    repository.commit(&[("index.txt", "one")]);
    let setpoint = setpoint().start();
    let (scratch, pid) = (setpoint.work().join("scratch"), setpoint.work().join("pid"));
    fs::create_dir(&scratch).unwrap();
    let source = format!(
        "      git: \"{}\"\n      build: [\"sleep 600 & echo $! > {}; wait\"]",
        repository.url(),
        pid.display()
    );
    fs::write(setpoint.work().join("app.yaml"), manifest(&source)).unwrap();
    let data = setpoint.data();
    let mut apply = setpoint.command(&["apply", "-f", "app.yaml", "--data", data.to_str().unwrap()]);
    let mut apply = apply.env("TMPDIR", &scratch).stderr(Stdio::null()).spawn().unwrap();
    let sleeper = until("the build runs", SOON, || {
        fs::read_to_string(&pid).ok().filter(|pid| pid.ends_with('\n')).map(|pid| pid.trim().to_owned())
    });
    testkit::proc::interrupt(apply.id());
    assert_eq!(apply.wait().unwrap().code(), Some(130));
    until("the build is dead", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{sleeper}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    assert_eq!(setpoint.ask("GET", "/api/v1/services", None).json()["services"], Value::Array(Vec::new()));
}
