//! Archives, good and hostile.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;
use testkit::{
    fixture::{Entry, tar},
    http::Response,
};

use super::bench::{Bench, TOKEN};

fn upload(bench: &Bench, archive: &[u8]) -> Response {
    let request =
        bench.request("POST", "/api/v1/artifacts").header("Content-Type", "application/octet-stream");
    bench.send(request.body(archive))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_archive_becomes_a_site() {
    let bench = Bench::start();
    bench.apply(
        "services:\n  docs:\n    static: {}\n    domains: [docs.localhost]\n    deploy: {min_healthy: 0s}\n",
    );
    bench.wait_for_state("default/docs", "stopped");
    let archive = tar(&[Entry::File("index.html", b"hello"), Entry::File("a/b.css", b"p{}")]);
    let taken = upload(&bench, &archive);
    assert_eq!(taken.status, 201, "{}", taken.text());
    assert_eq!((&taken.json()["files"], &taken.json()["bytes"]), (&json!(2), &json!(8)));
    assert_eq!(upload(&bench, &gzip(&archive)).json(), taken.json(), "the same files are the same artifact");
    let digest = taken.json()["digest"].clone();
    assert_eq!(bench.read(&format!("/api/v1/artifacts/{}", digest.as_str().unwrap())), taken.json());

    let deploy = |artifact: serde_json::Value| {
        bench.post("/api/v1/services/default/docs/deploy", &json!({ "artifact": artifact }))
    };
    let missing = deploy(json!(format!("sha256:{}", "0".repeat(64))));
    assert_eq!((missing.status, missing.json()["code"].as_str()), (422, Some("missing_artifact")));
    assert_eq!(deploy(digest).status, 200);
    let site = bench.wait_for_state("default/docs", "converged");
    assert_eq!(site.urls, ["http://docs.localhost:8080"]);
    assert!(site.instances[0].current == Some(true) && site.instances[0].folder.is_some());
    let without = bench.post("/api/v1/services/default/docs/scale", &json!({"replicas": 2}));
    assert_eq!((without.status, without.json()["field"].as_str()), (422, Some("services.docs.replicas")));
}

#[test]
fn hostile_archives_are_refused_whole() {
    let bench = Bench::start();
    let good = Entry::File("index.html", b"hello");
    let before = bench.recorded();
    let bomb = tar(&[good, Entry::Zeros("zeros", 8 << 20)]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (tar(&[good, Entry::File("../out", b"x")]), "path_traversal"),
        (tar(&[good, Entry::File("/etc/out", b"x")]), "absolute_path"),
        (tar(&[good, Entry::File("a\\b", b"x")]), "backslash"),
        (tar(&[good, Entry::Symlink("link", "/etc/passwd")]), "link"),
        (tar(&[good, Entry::Hardlink("link", "index.html")]), "link"),
        (tar(&[good, Entry::Device("tty")]), "device"),
        (tar(&[good, good]), "duplicate_path"),
        (b"not an archive at all, whatever it says it is".to_vec(), "unknown_format"),
        (bomb[..bomb.len() / 2].to_vec(), "truncated_archive"),
    ];
    for (archive, code) in cases {
        let answer = upload(&bench, &archive);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some(code)), "{}", answer.text());
    }
    assert!(matches!(upload(&bench, b"").status, 400 | 422));
    assert_eq!(bench.recorded(), before);
}

#[test]
fn an_archive_that_is_announced_too_large_is_not_read() {
    let bench = Bench::start();
    let mut stream = TcpStream::connect(bench.address).unwrap();
    let head = format!(
        "POST /api/v1/artifacts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 99999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(&answer[9..], b"413");
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let bench = Bench::start();
    let archive = tar(&[Entry::File("index.html", b"hello")]);
    let digest = {
        let artifact: serde_json::Value = upload(&Bench::start(), &archive).json();
        artifact["digest"].as_str().unwrap().to_owned()
    };
    let mut stream = TcpStream::connect(bench.address).unwrap();
    let head = format!(
        "POST /api/v1/artifacts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n",
        archive.len() + 1
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&archive).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(bench.get(&format!("/api/v1/artifacts/{digest}")).status, 404);
}
