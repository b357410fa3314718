//! Archives that no honest tool makes, and some that every tool makes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    io::{self, Cursor, Read, Write},
    path::Path,
};

use content::{
    Blobs,
    intake::{self, Code, Format},
};
use model::artifact::Artifact;

/// One tar member from its raw parts, whatever they are.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    size: u64,
    content: Vec<u8>,
    link: &'static str,
}

fn file(name: &str, content: &str) -> Member {
    Member {
        name: name.into(),
        kind: b'0',
        mode: 0o644,
        size: content.len() as u64,
        content: content.into(),
        link: "",
    }
}

fn kind(kind: u8, name: &str, link: &'static str) -> Member {
    Member { kind, link, ..file(name, "") }
}

fn pax(kind: u8, records: &[(&str, &str)]) -> Member {
    let mut content = String::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let digits = (1..4).find(|d| (bare + d).to_string().len() == *d).unwrap();
        content.push_str(&format!("{} {key}={value}\n", bare + digits));
    }
    Member { kind, ..file("PaxHeaders/x", &content) }
}

impl Member {
    fn bytes(&self) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..self.name.len()].copy_from_slice(&self.name);
        bytes[157..157 + self.link.len()].copy_from_slice(self.link.as_bytes());
        bytes[156] = self.kind;
        header.set_mode(self.mode);
        header.set_size(self.size);
        header.set_cksum();
        let mut all = header.as_bytes().to_vec();
        all.extend(&self.content);
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mut all: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    all.extend([0; 1024]);
    all
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

struct Zip(zip::ZipWriter<Cursor<Vec<u8>>>);

impl Zip {
    fn new() -> Self {
        Self(zip::ZipWriter::new(Cursor::default()))
    }

    fn file(mut self, name: &str, mode: u32, content: &[u8]) -> Self {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(mode);
        self.0.start_file(name, options).unwrap();
        self.0.write_all(content).unwrap();
        self
    }

    fn symlink(mut self, name: &str, target: &str) -> Self {
        self.0.add_symlink(name, target, zip::write::SimpleFileOptions::default()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap().into_inner()
    }
}

/// Replaces every occurrence; for names that a writer would not write.
fn patched(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|w| w == from.as_bytes()) {
        bytes[at + found..at + found + to.len()].copy_from_slice(to.as_bytes());
        at += found + 1;
    }
    assert!(at > 0, "{from} is not in there");
    bytes
}

/// The last entry's mode made setuid; the writer would not.
fn setuid(mut bytes: Vec<u8>) -> Vec<u8> {
    let entry = last_entry(&bytes);
    assert_eq!(bytes[entry + 40..entry + 42], 0o100_755_u16.to_le_bytes());
    bytes[entry + 40..entry + 42].copy_from_slice(&0o104_755_u16.to_le_bytes());
    bytes
}

/// The last entry's unpacked size as the directory announces it, changed.
fn announcing(mut bytes: Vec<u8>, size: u32) -> Vec<u8> {
    let entry = last_entry(&bytes);
    bytes[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
    bytes
}

fn last_entry(zip: &[u8]) -> usize {
    zip.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap()
}

fn take(root: &Path, archive: &mut dyn Read) -> Result<Artifact, intake::Error> {
    let blobs = Blobs::open(root).unwrap();
    let result = intake::from_archive(&blobs, archive, None, &mut |_| {});
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0, "nothing is left behind");
    if result.is_err() {
        assert_eq!(fs::read_dir(root.join("blobs")).unwrap().count(), 0, "nothing of it is kept");
    }
    result
}

fn refused(story: &str, archive: &mut dyn Read, code: Code, entry: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let error = take(dir.path(), archive).expect_err(story);
    assert_eq!(error.code, code, "{story}: {error}");
    assert!(error.is_callers(), "{story}");
    if let Some(entry) = entry {
        assert_eq!(error.entry.as_deref(), Some(entry), "{story}: {error}");
    }
}

#[test]
fn hostile_tars_are_refused_whole() {
    let good = file("index.html", "hello");
    let with = |bad: Member| tar(&[good.clone(), bad]);
    let deep = "d/".repeat(101) + "x";
    let longer = |name: &str| tar(&[pax(b'x', &[("path", name)]), file("short", "x")]);
    let cases: Vec<(&str, Vec<u8>, Code, Option<&str>)> = vec![
        ("climbs out", with(file("../x", "x")), Code::Traversal, Some("../x")),
        ("climbs within", with(file("a/../../x", "x")), Code::Traversal, None),
        ("absolute", with(file("/etc/x", "x")), Code::Absolute, Some("/etc/x")),
        ("climbs by a long name", longer("a/../../x"), Code::Traversal, None),
        ("absolute by a long name", longer("/etc/passwd"), Code::Absolute, None),
        ("backslash", with(file("a\\b", "x")), Code::Backslash, Some("a\\b")),
        ("control character", with(file("a\x1b[2Jb", "x")), Code::InvalidName, Some("a\\u{1b}[2Jb")),
        (
            "not UTF-8",
            with(Member { name: vec![b'a', 0xff], ..good.clone() }),
            Code::InvalidName,
            Some("a\\xff"),
        ),
        ("double slash", with(file("a//b", "x")), Code::InvalidName, None),
        ("symlink", with(kind(b'2', "l", "/etc/passwd")), Code::Link, Some("l")),
        ("hard link", with(kind(b'1', "l", "index.html")), Code::Link, Some("l")),
        ("long link name", with(kind(b'K', "l", "")), Code::Link, None),
        ("character device", with(kind(b'3', "d", "")), Code::Device, Some("d")),
        ("block device", with(kind(b'4', "d", "")), Code::Device, Some("d")),
        ("pipe", with(kind(b'6', "d", "")), Code::Device, Some("d")),
        ("setuid", with(Member { mode: 0o4755, ..file("s", "x") }), Code::Setuid, Some("s")),
        ("setgid", with(Member { mode: 0o2755, ..file("s", "x") }), Code::Setuid, Some("s")),
        ("unknown type", with(kind(b'Z', "z", "")), Code::Unsupported, Some("z")),
        ("GNU sparse", with(kind(b'S', "s", "")), Code::Sparse, Some("s")),
        ("PAX sparse", with(pax(b'x', &[("GNU.sparse.major", "1")])), Code::Sparse, None),
        ("twice", with(good.clone()), Code::Duplicate, Some("index.html")),
        ("twice, dressed up", with(file("./index.html", "x")), Code::Duplicate, Some("index.html")),
        ("case", with(file("INDEX.html", "x")), Code::CaseCollision, Some("INDEX.html")),
        ("case of a folder", tar(&[file("A/x", "x"), file("a/y", "y")]), Code::CaseCollision, Some("a/y")),
        ("file, then folder", tar(&[file("a", "x"), file("a/b", "y")]), Code::FileAndDirectory, Some("a/b")),
        ("folder, then file", tar(&[file("a/b", "x"), file("a", "y")]), Code::FileAndDirectory, Some("a")),
        (
            "empty folder, then file",
            tar(&[kind(b'5', "a", ""), file("a", "y")]),
            Code::FileAndDirectory,
            None,
        ),
        (
            "two sizes",
            tar(&[pax(b'x', &[("size", "1")]), file("a", &"x".repeat(1024))]),
            Code::SizeMismatch,
            Some("a"),
        ),
        ("a name for all", tar(&[pax(b'g', &[("path", "x")]), file("a", "x")]), Code::Corrupt, None),
        ("two long names", with(pax(b'x', &[("path", "a"), ("path", "b")])), Code::Corrupt, None),
        ("huge", with(Member { size: (1 << 30) + 1, ..file("h", "") }), Code::TooLarge, Some("h")),
        ("huge header", with(Member { size: 1 << 30, ..kind(b'x', "h", "") }), Code::TooLarge, None),
        ("deep", longer(&deep), Code::TooDeep, None),
        ("nothing", tar(&[]), Code::Empty, None),
        ("only a folder", tar(&[kind(b'5', "a/", "")]), Code::Empty, None),
        ("text", b"hello, world".to_vec(), Code::UnknownFormat, None),
        ("no bytes", Vec::new(), Code::UnknownFormat, None),
        (
            "bytes after the end",
            [tar(std::slice::from_ref(&good)), tar(&[file("b", "x")])].concat(),
            Code::TrailingData,
            None,
        ),
        (
            "odd bytes after the end",
            [tar(std::slice::from_ref(&good)), vec![7]].concat(),
            Code::TrailingData,
            None,
        ),
        ("cut in a file", with(file("b", &"x".repeat(600)))[..1800].to_vec(), Code::Truncated, None),
        ("cut between files", good.bytes(), Code::Truncated, None),
        ("cut in a header", with(good.clone())[..1300].to_vec(), Code::Truncated, None),
    ];
    for (story, bytes, code, entry) in cases {
        refused(story, &mut bytes.as_slice(), code, entry);
        if code != Code::UnknownFormat {
            refused(&format!("{story}, gz"), &mut gz(&bytes).as_slice(), code, entry);
            refused(&format!("{story}, zst"), &mut zst(&bytes).as_slice(), code, entry);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_found() {
    let mut bytes = tar(&[file("a", "x"), file("b", "y")]);
    bytes[1024] ^= 1;
    refused("flipped", &mut bytes.as_slice(), Code::Corrupt, None);
}

#[test]
fn packed_streams_that_are_cut_or_continued_are_refused() {
    let whole = tar(&[file("a", "hello")]);
    for (story, packed) in [("gz", gz(&whole)), ("zst", zst(&whole))] {
        for cut in [packed.len() - 1, packed.len() - 5, packed.len() / 2] {
            refused(&format!("{story} cut at {cut}"), &mut &packed[..cut], Code::Truncated, None);
        }
        let continued = [packed, b"garbage that is no stream".to_vec()].concat();
        refused(&format!("{story} continued"), &mut continued.as_slice(), Code::TrailingData, None);
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    // Zeros after the end marker are honest padding in small numbers; there is no announced size to trust.
    let zeros = |n: u64| io::repeat(0).take(n);
    let start = tar(&[file("a", "x")]);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut start.as_slice().chain(zeros(256 << 20)), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20, "it is a bomb: {}", bomb.len());
    refused("zeros without end", &mut bomb.as_slice(), Code::TooLarge, None);
}

#[test]
fn a_million_entries_are_refused() {
    struct Endless(u64, Vec<u8>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.is_empty() {
                self.1 = kind(b'5', &format!("d{}/", self.0), "").bytes();
                self.0 += 1;
            }
            let n = buffer.len().min(self.1.len());
            buffer[..n].copy_from_slice(&self.1[..n]);
            self.1.drain(..n);
            Ok(n)
        }
    }
    refused("folders without end", &mut Endless(0, Vec::new()), Code::TooManyEntries, None);
}

#[test]
fn hostile_zips_are_refused_whole() {
    let good = || Zip::new().file("index.html", 0o644, b"hello");
    let end = |mut bytes: Vec<u8>, more: &[u8]| {
        bytes.extend(more);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("climbs out", patched(good().file("XX/x", 0o644, b"x").bytes(), "XX/x", "../x"), Code::Traversal),
        ("absolute", patched(good().file("Xetc/x", 0o644, b"x").bytes(), "Xetc/x", "/etc/x"), Code::Absolute),
        ("backslash", patched(good().file("aXb", 0o644, b"x").bytes(), "aXb", "a\\b"), Code::Backslash),
        ("symlink", good().symlink("l", "/etc/passwd").bytes(), Code::Link),
        ("setuid", setuid(good().file("s", 0o755, b"x").bytes()), Code::Setuid),
        ("case", good().file("INDEX.html", 0o644, b"x").bytes(), Code::CaseCollision),
        ("twice", patched(good().file("XXdex.html", 0o644, b"x").bytes(), "XXdex", "index"), Code::Duplicate),
        ("file and folder", good().file("index.html/x", 0o644, b"x").bytes(), Code::FileAndDirectory),
        ("bytes after the end", end(good().bytes(), b"garbage"), Code::TrailingData),
        ("two archives", end(good().bytes(), &good().bytes()), Code::TrailingData),
        ("nothing", Zip::new().bytes(), Code::Empty),
    ];
    for (story, bytes, code) in cases {
        refused(story, &mut bytes.as_slice(), code, None);
    }
    let whole = good().bytes();
    let dir = tempfile::tempdir().unwrap();
    for cut in [whole.len() - 1, whole.len() / 2, 5] {
        take(dir.path(), &mut &whole[..cut]).expect_err("a cut zip");
    }
    for stub in [&b"PK\x05\x06"[..], b"PK\x05\x06x", b"PK\x03\x04", &whole[whole.len() - 22..]] {
        take(dir.path(), &mut &stub[..]).expect_err("a stub of a zip");
    }
    let mut flipped = whole.clone();
    let at = whole.windows(10).position(|w| w == b"index.html").unwrap() + 10;
    flipped[at] ^= 0x55;
    take(dir.path(), &mut flipped.as_slice()).expect_err("content that fails its checksum");
}

#[test]
fn zips_that_unpack_to_other_sizes_than_announced_are_refused() {
    let zip = || Zip::new().file("zeros", 0o644, &vec![0; 1 << 20]).bytes();
    let huge = announcing(zip(), (1 << 30) + 1);
    refused("announced too large", &mut huge.as_slice(), Code::TooLarge, Some("zeros"));
    let mut long = zip();
    let at = long.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap() + 12;
    long[at..at + 4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    refused("a directory of 1 GiB", &mut long.as_slice(), Code::TooManyEntries, None);
    for size in [0, 10, (1 << 20) - 1, (1 << 20) + 1] {
        let dir = tempfile::tempdir().unwrap();
        let error = take(dir.path(), &mut announcing(zip(), size).as_slice()).expect_err("another size");
        assert!(matches!(error.code, Code::SizeMismatch | Code::Corrupt), "{size}: {error}");
    }
}

#[test]
fn honest_archives_in_every_format_are_the_same_artifact() {
    let members = [
        pax(b'g', &[("comment", "a commit")]),
        kind(b'5', "./", ""),
        kind(b'5', "./css/", ""),
        Member { mode: 0o755, ..file("./css/run.sh", "#!/bin/sh\n") },
        file("./index.html", "hello"),
        pax(b'x', &[("path", "über.html"), ("mtime", "1.5")]),
        file("uber.html", "long"),
    ];
    let tar = tar(&members);
    let zip = Zip::new()
        .file("css/run.sh", 0o755, b"#!/bin/sh\n")
        .file("index.html", 0o644, b"hello")
        .file("über.html", 0o600, b"long")
        .bytes();
    let archives = [
        (Format::Tar, tar.clone()),
        (Format::TarGz, gz(&tar)),
        (Format::TarZst, zst(&tar)),
        (Format::Zip, zip),
    ];
    let mut seen = Vec::new();
    for (format, bytes) in archives {
        assert_eq!(Format::detect(&bytes), Some(format));
        let dir = tempfile::tempdir().unwrap();
        let artifact = take(dir.path(), &mut bytes.as_slice()).unwrap_or_else(|e| panic!("{format}: {e}"));
        let executable: Vec<_> =
            artifact.files.iter().filter(|(_, f)| f.executable).map(|(p, _)| p.as_str()).collect();
        assert_eq!(executable, ["css/run.sh"], "{format}");
        seen.push(artifact);
    }
    assert_eq!(seen[0].files.len(), 3);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}
