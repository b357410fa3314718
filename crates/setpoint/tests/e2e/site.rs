//! Static sites: deployed, switched under load, taken back, and kept within bounds.

use std::{fs, path::Path};

use testkit::{
    Setpoint,
    fixture::{Entry, tar, versioned_site},
    setpoint::SOON,
};

use crate::setpoint;

const SITE: &str = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n    retain: 2\n";

fn started(yaml: &str) -> Setpoint {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "v1", 3);
    let setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    setpoint
}

#[track_caller]
fn deploy(setpoint: &Setpoint, version: &str) {
    let folder = setpoint.work().join(version);
    versioned_site(&folder, version, 3);
    setpoint.ok(&["deploy", "docs", folder.to_str().unwrap(), "--wait"]);
}

fn current(setpoint: &Setpoint) -> String {
    let link = setpoint.data().join("sites/default/docs/current");
    fs::read_link(link).unwrap().to_str().unwrap().to_owned()
}

fn folders(setpoint: &Setpoint) -> usize {
    let entries = fs::read_dir(setpoint.data().join("sites/default/docs")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("deployment-"))
        .count()
}

#[test]
fn a_site_is_served_from_an_immutable_folder_beside_a_relative_link() {
    let setpoint = started(SITE);
    let docs = setpoint.service("docs");
    assert_eq!(current(&setpoint), format!("deployment-{}", docs["deployment"]["id"].as_str().unwrap()));
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v1");
    let part = setpoint.get("docs.localhost", "/part/2.txt");
    assert_eq!((part.status, part.text().as_str()), (200, "v1 2\n"));
    assert!(part.header("content-type").unwrap().starts_with("text/plain"));
    assert_eq!(setpoint.get("docs.localhost", "/nothing").status, 404);
    for path in ["/../token", "/..%2f..%2ftoken", "/%2e%2e/token", "/part/../../../../token", "//etc/passwd"]
    {
        let answer = setpoint.get("docs.localhost", path);
        assert!(matches!(answer.status, 400 | 404) || answer.text() == "v1", "{path}: {}", answer.status);
        assert!(!answer.text().contains("sp_"), "{path}");
    }
}

#[test]
fn switching_under_load_shows_each_reader_one_version_and_no_error() {
    let setpoint = started(SITE);
    // Long enough that a reader who saw two versions in one answer would show it.
    let page = |version: &str| {
        let folder = setpoint.work().join(version);
        testkit::fixture::folder(&folder, &[("index.html", &version.repeat(100_000))]);
        setpoint.ok(&["deploy", "docs", folder.to_str().unwrap(), "--wait"]);
    };
    page("a");
    let check = |response: &testkit::Response| {
        let first = response.body.first().copied().unwrap_or(b'?');
        let whole = response.body.len() == 100_000 && response.body.iter().all(|byte| *byte == first);
        match (response.status, whole) {
            (200, true) => Ok(char::from(first).to_string()),
            (status, _) => Err(format!("{status} with {} bytes, not of one version", response.body.len())),
        }
    };
    let kept = setpoint.load("docs.localhost", "/").rate(200).check(check).start();
    let closing = setpoint.load("docs.localhost", "/index.html").rate(100).closing().check(check).start();
    for version in ["b", "c", "a", "d", "b"] {
        page(version);
        let now = check(&setpoint.get("docs.localhost", "/")).unwrap();
        assert_eq!(now, version, "`deploy --wait` returns when every edge serves it");
        kept.go_on_for(20);
    }
    let report = kept.stop();
    report.assert_clean(100);
    closing.stop().assert_clean(50);
    let order = report.sequence();
    assert_eq!((order.first(), order.last()), (Some(&"a"), Some(&"b")), "{order:?}");
}

#[test]
fn current_resolves_to_a_whole_deployment_at_every_moment_of_a_switch() {
    let setpoint = started(SITE);
    let current = setpoint.data().join("sites/default/docs/current");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = {
        let stop = std::sync::Arc::clone(&stop);
        std::thread::spawn(move || -> Result<u64, String> {
            let mut reads = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                read_one(&current)?;
                reads += 1;
                std::thread::yield_now();
            }
            Ok(reads)
        })
    };
    for version in ["v2", "v3", "v4"] {
        deploy(&setpoint, version);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let reads = reader.join().unwrap().unwrap();
    assert!(reads > 100, "{reads}");
}

/// An opened folder stays one version; opening it never fails.
fn read_one(current: &Path) -> Result<(), String> {
    let folder = fs::canonicalize(current).map_err(|error| format!("current: {error}"))?;
    let shown = fs::read_to_string(folder.join("index.html")).map_err(|error| error.to_string())?;
    let part = fs::read_to_string(folder.join("part/2.txt")).map_err(|error| error.to_string())?;
    if part == format!("{shown} 2\n") { Ok(()) } else { Err(format!("{shown} and {part}")) }
}

#[test]
fn a_site_is_rolled_back_whole() {
    let setpoint = started(SITE);
    let first = current(&setpoint);
    deploy(&setpoint, "v2");
    assert_ne!(current(&setpoint), first);
    let load = setpoint.load("docs.localhost", "/").start();
    setpoint.ok(&["rollback", "docs", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v1");
    load.go_on_for(10);
    load.stop().assert_clean(10);
    assert_eq!(current(&setpoint), first, "the kept folder is taken up again");
    let statuses: Vec<_> =
        setpoint.deployments("docs").iter().map(|d| d["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(statuses, ["active", "rolled_back", "superseded"]);
}

#[test]
fn so_many_earlier_releases_are_kept_and_no_more() {
    let mut setpoint = started(SITE);
    for version in ["v2", "v3", "v4", "v5"] {
        deploy(&setpoint, version);
    }
    // The first one is what the file declares, and stays for as long as it does.
    let second = setpoint.deployments("docs")[3]["id"].as_str().unwrap().to_owned();
    testkit::until("the target and two more", SOON, || (folders(&setpoint) == 3).then_some(()));
    // What is beyond `retain` is collected at a start, and every ten minutes.
    setpoint.stop();
    setpoint.set_args(&[]);
    setpoint.restart();
    setpoint.wait_until_converged("docs");
    let expired = setpoint.cli(&["rollback", "docs", "--to", &second]);
    assert_eq!(expired.code, 1, "{expired:?}");
    assert!(expired.stderr.contains("retain"), "it says why: {expired:?}");
    let third = setpoint.deployments("docs")[2]["id"].as_str().unwrap().to_owned();
    setpoint.ok(&["rollback", "docs", "--to", &third, "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v3");
}

#[test]
fn an_archive_is_deployed_and_the_same_content_is_no_new_release() {
    let setpoint = started(SITE);
    let archive = setpoint.work().join("site.tar");
    fs::write(
        &archive,
        tar(&[Entry::File("index.html", b"from an archive"), Entry::File("a/b.txt", b"deep")]),
    )
    .unwrap();
    setpoint.ok(&["deploy", "docs", "site.tar", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "from an archive");
    assert_eq!(setpoint.get("docs.localhost", "/a/b.txt").text(), "deep");
    let release = |setpoint: &Setpoint| setpoint.deployments("docs")[0]["release"].clone();
    let before = release(&setpoint);
    let same = setpoint.work().join("same");
    testkit::fixture::folder(&same, &[("index.html", "from an archive"), ("a/b.txt", "deep")]);
    setpoint.ok(&["deploy", "docs", "same", "--wait"]);
    assert_eq!(release(&setpoint), before, "content is what counts");
}

#[test]
fn a_webroot_shows_the_active_deployment_and_nothing_of_its_owner_is_touched() {
    let builder = setpoint();
    let www = builder.work().join("www");
    versioned_site(&builder.work().join("site"), "v1", 3);
    fs::create_dir_all(&www).unwrap();
    fs::write(www.join("mine.txt"), "not Setpoint's").unwrap();
    let yaml = format!(
        "services:\n  docs:\n    static: {{ path: ./site, webroot: {} }}\n    domains: [docs.localhost]\n",
        www.display()
    );
    let setpoint = builder.manifest(&yaml).start();
    setpoint.wait_until_converged("docs");
    let linked = |file: &str| fs::read_to_string(www.join(file)).unwrap();
    assert_eq!((linked("index.html").as_str(), linked("part/1.txt").as_str()), ("v1", "v1 1\n"));
    deploy(&setpoint, "v2");
    assert_eq!(linked("index.html"), "v2");
    setpoint.ok(&["delete", "docs", "--wait"]);
    testkit::until("its links are gone", SOON, || (!www.join("index.html").is_symlink()).then_some(()));
    assert_eq!(linked("mine.txt"), "not Setpoint's");
}

#[test]
fn two_sites_share_a_webroot_until_their_entries_collide() {
    let builder = setpoint();
    let www = builder.work().join("www");
    let site = |name: &str, file: &str| {
        testkit::fixture::folder(&builder.work().join(name), &[(file, name)]);
        format!("  {name}: {{ static: {{ path: ./{name}, webroot: {} }} }}\n", www.display())
    };
    let yaml = format!("services:\n{}{}", site("docs", "docs.html"), site("blog", "blog.html"));
    let setpoint = builder.manifest(&yaml).start();
    setpoint.wait_until_converged("docs");
    setpoint.wait_until_converged("blog");
    let linked = |file: &str| fs::read_to_string(www.join(file)).unwrap();
    assert_eq!((linked("docs.html").as_str(), linked("blog.html").as_str()), ("docs", "blog"));

    testkit::fixture::folder(&setpoint.work().join("blog"), &[("docs.html", "mine")]);
    let refused = setpoint.cli(&["deploy", "blog", "blog", "--wait"]);
    assert_eq!(refused.code, 1);
    for part in ["docs.html", "default/docs"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert_eq!(setpoint.cli(&["apply", "-f", "app.yaml"]).code, 1);
    assert_eq!((linked("docs.html").as_str(), linked("blog.html").as_str()), ("docs", "blog"));
}

#[test]
fn stopped_and_started_a_site_is_the_same_folder() {
    let setpoint = started(SITE);
    let before = current(&setpoint);
    setpoint.ok(&["stop", "docs", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").status, 503);
    setpoint.ok(&["start", "docs", "--wait"]);
    setpoint.wait_until_converged("docs");
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v1");
    assert_eq!(current(&setpoint), before);
}

#[test]
fn files_are_served_in_ranges_and_only_when_they_have_changed() {
    let setpoint = started(SITE);
    let ask = |headers: &[(&str, &str)], path: &str| {
        let request = testkit::http::Request::new("GET", "docs.localhost", path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        testkit::http::send(setpoint.edge(), request).unwrap()
    };
    let whole = ask(&[], "/part/2.txt");
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(ask(&[("If-None-Match", &tag)], "/part/2.txt").status, 304);
    let part = ask(&[("Range", "bytes=3-")], "/part/2.txt");
    assert_eq!((part.status, part.text().as_str()), (206, "2\n"));
    assert_eq!(part.header("content-range"), Some("bytes 3-4/5"));
    assert_eq!(ask(&[("Range", "bytes=99-")], "/part/2.txt").status, 416);
    deploy(&setpoint, "v2");
    let changed = ask(&[("If-None-Match", &tag)], "/part/2.txt");
    assert_eq!((changed.status, changed.text().as_str()), (200, "v2 2\n"));
    // A range of what no longer is comes whole: never the end of one version after the beginning of another.
    let mixed = ask(&[("Range", "bytes=3-"), ("If-Range", &tag)], "/part/2.txt");
    assert_eq!((mixed.status, mixed.text().as_str()), (200, "v2 2\n"));
}

#[test]
fn a_single_page_application_answers_unknown_paths_with_its_page() {
    let setpoint = started(&SITE.replace("static: ./site", "static: { path: ./site, spa: true }"));
    let page = setpoint.get("docs.localhost", "/some/route");
    assert_eq!((page.status, page.text().as_str()), (200, "v1"));
    assert_eq!(setpoint.get("docs.localhost", "/part/1.txt").text(), "v1 1\n");
}
