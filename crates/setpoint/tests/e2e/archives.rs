//! Archives that lie: refused whole, and nothing is outside of where it belongs.

use std::fs;

use testkit::{
    Setpoint,
    fixture::{Entry, archives, tar, versioned_site},
    http::{self, Request},
};

use crate::setpoint;

fn started() -> Setpoint {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "v1", 2);
    let setpoint =
        builder.manifest("services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n").start();
    setpoint.wait_until_converged("docs");
    setpoint
}

const HOSTILE: &[(&str, &[Entry<'_>])] = &[
    ("a name that climbs out", &[Entry::File("../escaped.txt", b"x")]),
    ("a name that climbs out later", &[Entry::File("a/../../escaped.txt", b"x")]),
    ("an absolute name", &[Entry::File("/tmp/escaped.txt", b"x")]),
    ("a backslash", &[Entry::File("a\\..\\escaped.txt", b"x")]),
    ("a control character", &[Entry::File("a\x1b[31m.txt", b"x")]),
    ("a symlink", &[Entry::File("index.html", b"x"), Entry::Symlink("link", "/etc/passwd")]),
    (
        "a symlink and a file behind it",
        &[Entry::Symlink("dir", "/tmp"), Entry::File("dir/escaped.txt", b"x")],
    ),
    ("a hard link", &[Entry::File("index.html", b"x"), Entry::Hardlink("again", "index.html")]),
    ("a device", &[Entry::Device("null")]),
    ("a pipe", &[Entry::Fifo("pipe")]),
    ("one name twice", &[Entry::File("a", b"1"), Entry::File("a", b"2")]),
    ("names that differ in case alone", &[Entry::File("A.txt", b"1"), Entry::File("a.txt", b"2")]),
    ("a file that is a folder too", &[Entry::File("a", b"1"), Entry::File("a/b", b"2")]),
    ("an empty name", &[Entry::File("", b"1")]),
];

#[test]
fn hostile_archives_are_refused_and_the_site_stays_as_it_was() {
    let setpoint = started();
    let before = setpoint.status();
    for (what, entries) in HOSTILE {
        fs::write(setpoint.work().join("bad.tar"), tar(entries)).unwrap();
        let output = setpoint.cli(&["deploy", "docs", "bad.tar", "--wait"]);
        assert_eq!(output.code, 1, "{what}: {output:?}");
        assert!(output.stderr.trim().len() > 10, "{what}: it says why: {output:?}");
        assert!(!output.stderr.contains('\x1b'), "{what}: {output:?}");
    }
    assert_eq!(setpoint.status(), before, "nothing has changed");
    assert_eq!(setpoint.deployments("docs").len(), 1);
    assert!(!fs::exists("/tmp/escaped.txt").unwrap());
    for folder in [setpoint.work(), setpoint.data(), setpoint.root().into()] {
        assert!(!folder.join("escaped.txt").exists());
    }
}

#[test]
fn damaged_and_foreign_bytes_are_refused_over_http_with_a_problem_document() {
    let setpoint = started();
    let good = tar(&[Entry::File("index.html", b"x")]);
    let cut = good[..700].to_vec();
    let bodies: [(&str, Vec<u8>); 5] = [
        ("nothing", Vec::new()),
        ("no archive", b"hello".repeat(500)),
        ("cut off", cut),
        ("a broken gzip", [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8].to_vec()),
        ("a broken zip", b"PK\x03\x04 and nothing more".to_vec()),
    ];
    for (what, body) in bodies {
        let request = Request::new("POST", &setpoint.api().to_string(), "/api/v1/artifacts")
            .header("Authorization", &format!("Bearer {}", setpoint.token()))
            .header("Content-Type", "application/octet-stream")
            .body(body);
        let answer = http::send(setpoint.api(), request).unwrap();
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        let problem = answer.json();
        assert!(problem["code"].is_string() && problem["message"].is_string(), "{what}: {problem}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    }
}

#[test]
fn a_folder_with_links_in_it_is_refused_and_one_that_is_missing_is_named() {
    let setpoint = started();
    let folder = setpoint.work().join("linked");
    testkit::fixture::folder(&folder, &[("index.html", "x")]);
    std::os::unix::fs::symlink("/etc/passwd", folder.join("passwd")).unwrap();
    let linked = setpoint.cli(&["deploy", "docs", "linked"]);
    assert_eq!(linked.code, 1, "{linked:?}");
    assert!(linked.stderr.contains("passwd"), "{linked:?}");
    let missing = setpoint.cli(&["deploy", "docs", "not-there"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("not-there"), "{missing:?}");
    assert_eq!(setpoint.deployments("docs").len(), 1);
}

#[test]
fn each_form_of_archive_is_declared_and_served_and_a_changed_one_is_a_new_release() {
    let binary: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n * 7 % 253).unwrap()).collect();
    let site = |version: &str| {
        let page = format!("<p>{version}</p>");
        archives(&[
            ("index.html", page.as_bytes()),
            ("deep/er/data.bin", &binary),
            ("deep/style.css", b"p { color: green }"),
            ("empty.txt", b""),
        ])
    };
    let builder = setpoint();
    let write = |work: &std::path::Path, version: &str| {
        for (ending, bytes) in site(version) {
            fs::write(work.join(format!("site.{ending}")), bytes).unwrap();
        }
    };
    write(&builder.work(), "v1");
    let name = |ending: &str| format!("from-{}", ending.replace('.', "-"));
    let services: String = site("v1")
        .iter()
        .map(|(ending, _)| {
            let name = name(ending);
            format!(
                "  {name}:\n    static: {{ archive: ./site.{ending} }}\n    domains: [{name}.localhost]\n"
            )
        })
        .collect();
    let yaml = format!("services:\n{services}");
    let setpoint = builder.manifest(&yaml).start();
    let releases = |number: u64, version: &str| {
        let mut releases = Vec::new();
        for (ending, _) in site(version) {
            let name = name(ending);
            let service = setpoint.wait_until_converged(&name);
            assert_eq!(service["deployment"]["number"], number, "{ending}");
            let host = format!("{name}.localhost");
            for (path, body, kind) in [
                ("/", format!("<p>{version}</p>").into_bytes(), "text/html"),
                ("/deep/er/data.bin", binary.clone(), "application/octet-stream"),
                ("/deep/style.css", b"p { color: green }".to_vec(), "text/css"),
                ("/empty.txt", Vec::new(), "text/plain"),
            ] {
                let answer = setpoint.get(&host, path);
                assert_eq!(answer.status, 200, "{ending} {path}");
                assert!(answer.body == body, "{ending} {path}: {} bytes", answer.body.len());
                assert!(answer.header("content-type").unwrap().starts_with(kind), "{ending} {path}");
            }
            assert_eq!(setpoint.get(&host, "/deep/nothing").status, 404);
            releases.push(setpoint.deployments(&name)[0]["metadata"]["total_files"].clone());
        }
        releases
    };
    assert_eq!(releases(1, "v1"), vec![serde_json::json!(4); 4]);
    setpoint.apply_ok(&yaml, &["--wait"]);
    assert_eq!(setpoint.deployments(&name("zip")).len(), 1, "the same archive is no new release");
    write(&setpoint.work(), "v2");
    setpoint.apply_ok(&yaml, &["--wait"]);
    releases(2, "v2");
}
