//! Sites: what a browser may ask of a folder, and what nobody may.

use std::{fs, os::unix::fs::symlink, path::Path};

use model::route::Backend;

use crate::support::*;

const SITE: &str = "default.docs.0.1";

struct Site {
    running: Running,
    dir: tempfile::TempDir,
}

fn backend(folder: &Path, spa: bool) -> Backend {
    Backend::Files { instance: SITE.parse().unwrap(), folder: folder.to_str().unwrap().into(), spa }
}

fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A site at docs.localhost, and the same one below demo.localhost/docs.
async fn site(files: &[(&str, &[u8])], spa: bool) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deployment-1");
    fs::create_dir(&folder).unwrap();
    write(&folder, files);
    write(dir.path(), &[("secret", b"secret")]);
    let running = start().await;
    running.edge.publish(&table(
        1,
        &[
            ("docs", "docs.localhost", backend(&folder, spa)),
            ("below", "demo.localhost/docs", backend(&folder, spa)),
        ],
    ));
    Site { running, dir }
}

impl Site {
    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut client = self.running.client().await;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: docs.localhost\r\n{headers}\r\n")).await;
        client.try_answer(method == "HEAD").await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

#[tokio::test]
async fn files_indexes_and_folders() {
    let site = site(
        &[
            ("index.html", b"home"),
            ("a b/ü.css", b"css"),
            ("docs/index.html", b"docs"),
            ("docs/x.js", b"js"),
            ("empty", b""),
            ("bare/file.txt", b"t"),
            (".well-known/x", b"w"),
        ],
        false,
    )
    .await;
    for (path, status, body, kind) in [
        ("/", 200, "home", "text/html; charset=utf-8"),
        ("/index.html?x=1", 200, "home", "text/html; charset=utf-8"),
        ("/a%20b/%C3%BC.css", 200, "css", "text/css; charset=utf-8"),
        ("/docs/", 200, "docs", "text/html; charset=utf-8"),
        ("/docs/x.js", 200, "js", "text/javascript; charset=utf-8"),
        ("/empty", 200, "", "application/octet-stream"),
        ("/.well-known/x", 200, "w", "application/octet-stream"),
    ] {
        let answer = site.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
    }
    let moved = site.get("/docs?x=1").await;
    assert_eq!((moved.status, moved.header("location")), (301, Some("/docs/?x=1")));
    for missing in
        ["/nope", "/bare", "/bare/", "/index.html/", "/index.html/x", "//index.html", "/docs//x.js"]
    {
        assert_eq!(site.get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn a_site_below_a_path_prefix_is_the_folder_itself() {
    let site = site(&[("index.html", b"home"), ("x.txt", b"x")], false).await;
    for (path, status, body) in [("/docs/", 200, "home"), ("/docs/x.txt", 200, "x")] {
        let answer = site.running.get("demo.localhost", path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
    }
    let moved = site.running.get("demo.localhost", "/docs").await;
    assert_eq!((moved.status, moved.header("location")), (301, Some("/docs/")));
}

#[tokio::test]
async fn head_and_other_methods() {
    let site = site(&[("index.html", b"home")], false).await;
    let head = site.ask("HEAD", "/", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = site.ask(method, "/", "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[tokio::test]
async fn conditions_and_ranges() {
    let site = site(&[("f.txt", b"0123456789")], false).await;
    let whole = site.get("/f.txt").await;
    let etag = whole.header("etag").unwrap();
    let modified = whole.header("last-modified").unwrap();
    for (headers, status, body) in [
        (format!("If-None-Match: {etag}\r\n"), 304, ""),
        (format!("If-None-Match: W/{etag}\r\n"), 304, ""),
        (format!("If-Modified-Since: {modified}\r\n"), 304, ""),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(), 200, "0123456789"),
        (format!("If-Match: {etag}\r\n"), 200, "0123456789"),
        ("Range: bytes=2-4\r\n".into(), 206, "234"),
        ("Range: bytes=-2\r\n".into(), 206, "89"),
        ("Range: bytes=0-1,4-5\r\n".into(), 200, "0123456789"),
        (format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"), 206, "234"),
        (format!("Range: bytes=2-4\r\nIf-Range: {modified}\r\n"), 206, "234"),
        ("Range: bytes=2-4\r\nIf-Range: \"other\"\r\n".into(), 200, "0123456789"),
    ] {
        let answer = site.ask("GET", "/f.txt", &headers).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{headers}");
    }
    let part = site.ask("GET", "/f.txt", "Range: bytes=2-4\r\n").await;
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let beyond = site.ask("GET", "/f.txt", "Range: bytes=10-\r\n").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    for failing in ["If-Match: \"x\"\r\n", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        assert_eq!(site.ask("GET", "/f.txt", failing).await.status, 412, "{failing}");
    }
    assert_eq!(site.ask("HEAD", "/f.txt", "Range: bytes=2-4\r\n").await.status, 200);
}

#[tokio::test]
async fn a_changed_file_has_another_etag() {
    let site = site(&[("f.txt", b"0123456789")], false).await;
    let before = site.get("/f.txt").await.header("etag").unwrap().to_owned();
    let folder = site.dir.path().join("deployment-1");
    fs::write(folder.join("tmp"), b"abcdefghij").unwrap();
    fs::rename(folder.join("tmp"), folder.join("f.txt")).unwrap();
    assert_ne!(site.get("/f.txt").await.header("etag").unwrap(), before);
}

#[tokio::test]
async fn a_large_file_and_its_ranges_arrive_whole() {
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let site = site(&[("large.bin", &bytes)], false).await;
    assert!(site.get("/large.bin").await.body == bytes);
    let part = site.ask("GET", "/large.bin", "Range: bytes=100000-900000\r\n").await;
    assert_eq!(part.status, 206);
    assert!(part.body == bytes[100_000..=900_000]);
}

#[tokio::test]
async fn spa_answers_paths_without_a_file_with_its_index() {
    let site = site(&[("index.html", b"app"), ("app.js", b"js"), ("assets/x.css", b"css")], true).await;
    for (path, body) in
        [("/", "app"), ("/app.js", "js"), ("/users/7", "app"), ("/assets", "app"), ("/assets/", "app")]
    {
        let answer = site.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
    }
    assert_eq!(site.get("/../x").await.status, 400);
}

#[tokio::test]
async fn a_sites_own_404_page_is_served_with_404() {
    let site = site(&[("index.html", b"home"), ("404.html", b"lost?")], false).await;
    let answer = site.get("/nope").await;
    assert_eq!((answer.status, answer.text().as_str()), (404, "lost?"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
}

#[tokio::test]
async fn nobody_leaves_the_folder() {
    let site = site(&[("index.html", b"home"), ("a/b.txt", b"b")], false).await;
    let folder = site.dir.path().join("deployment-1");
    symlink(site.dir.path().join("secret"), folder.join("link")).unwrap();
    symlink("../secret", folder.join("relative")).unwrap();
    symlink(site.dir.path(), folder.join("out")).unwrap();
    symlink("a", folder.join("inside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for path in [
        "/../secret",
        "/a/../../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/..%2fsecret",
        "/a/%2e%2e/%2e%2e/secret",
        "/%252e%252e/secret",
        "/.../secret",
        "/link",
        "/relative",
        "/out/secret",
        "/inside/b.txt",
        "/fifo",
        "/secret%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/a",
    ] {
        let answer = site.get(path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret\0") && answer.text() != "secret", "{path}");
    }
}

#[tokio::test]
async fn a_folder_that_vanished_is_a_503_until_it_is_back() {
    let site = site(&[("index.html", b"home")], false).await;
    let folder = site.dir.path().join("deployment-1");
    fs::remove_dir_all(&folder).unwrap();
    let answer = site.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(!answer.text().contains("deployment-1"), "{}", answer.text());
    symlink("/etc", &folder).unwrap();
    assert_eq!(site.get("/hostname").await.status, 503, "a link in the folder's place is not followed");
    fs::remove_file(&folder).unwrap();
    write(&folder, &[("index.html", b"back")]);
    assert_eq!(site.get("/").await.text(), "back");
}

#[tokio::test]
async fn a_response_is_of_one_version_and_counts_until_it_is_sent() {
    let old: Vec<u8> = vec![b'o'; 8_000_000];
    let site = site(&[("big", &old)], false).await;
    let mut client = site.running.client().await;
    client.send("GET /big HTTP/1.1\r\nHost: docs.localhost\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);

    let next = site.dir.path().join("deployment-2");
    write(&next, &[("big", b"new")]);
    let two = Backend::Files {
        instance: "default.docs.0.2".parse().unwrap(),
        folder: next.to_str().unwrap().into(),
        spa: false,
    };
    site.running.edge.publish(&table(2, &[("docs", "docs.localhost", two)]));
    assert_eq!(site.get("/big").await.text(), "new");
    assert_eq!(in_flight(&site.running.report(), SITE), 1, "the client has not read it all");

    let body = client.exactly(old.len()).await;
    assert!(body == old);
    site.running.until_report("drained", |r| in_flight(r, SITE) == 0).await;
}
