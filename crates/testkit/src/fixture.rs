//! Folders of a site, archives good and hostile, manifests.

use std::{fs, io::Write, path::Path};

/// Writes files below a folder, and the folders on the way.
pub fn folder(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A site of `files` files, of which each says its version: all of one deployment say the same.
pub fn versioned_site(root: &Path, version: &str, files: usize) {
    let _ = fs::remove_dir_all(root);
    folder(root, &[("index.html", version)]);
    for number in 0..files {
        folder(root, &[(&format!("part/{number}.txt"), &format!("{version} {number}\n"))]);
    }
}

/// An entry of an archive, also one that no honest archive has.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Fifo(&'a str),
    Device(&'a str),
    /// A size in the header, so many bytes of zeros in the archive.
    Zeros(&'a str, u64),
}

/// A tar archive whose names are written as they are.
pub fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        append(&mut builder, *entry);
    }
    builder.into_inner().unwrap()
}

/// The same files in each form of archive that is taken, by the ending of its name.
pub fn archives(files: &[(&str, &[u8])]) -> [(&'static str, Vec<u8>); 4] {
    let entries: Vec<Entry<'_>> = files.iter().map(|(name, body)| Entry::File(name, body)).collect();
    let plain = tar(&entries);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&plain).unwrap();
    let zst = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, body) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(body).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();
    [("tar", plain), ("tar.gz", gz.finish().unwrap()), ("tar.zst", zst), ("zip", zip)]
}

fn append(builder: &mut tar::Builder<Vec<u8>>, entry: Entry<'_>) {
    let (name, kind, link, body): (&str, tar::EntryType, &str, Vec<u8>) = match entry {
        Entry::File(name, body) => (name, tar::EntryType::Regular, "", body.into()),
        Entry::Symlink(name, to) => (name, tar::EntryType::Symlink, to, Vec::new()),
        Entry::Hardlink(name, to) => (name, tar::EntryType::Link, to, Vec::new()),
        Entry::Fifo(name) => (name, tar::EntryType::Fifo, "", Vec::new()),
        Entry::Device(name) => (name, tar::EntryType::Char, "", Vec::new()),
        Entry::Zeros(name, size) => (name, tar::EntryType::Regular, "", vec![0; size as usize]),
    };
    let mut header = tar::Header::new_ustar();
    // The crate's own setters refuse what a hostile archive holds.
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(body.len() as u64);
    header.set_cksum();
    builder.append(&header, body.as_slice()).unwrap();
}

/// A file beside the manifest that a shell can run.
pub fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mut file = fs::File::create(path).unwrap();
    writeln!(file, "#!/bin/sh\n{text}").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
}

/// The manifest of one process service `api` that runs the demo program, at `api.localhost`. What is told beside the
/// environment is written as further keys of the service.
pub fn demo(replicas: u32, env: &[(&str, &str)], more: &str) -> String {
    let env: String = env.iter().map(|(name, value)| format!("      {name}: \"{value}\"\n")).collect();
    let env = if env.is_empty() { String::new() } else { format!("    env:\n{env}") };
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "services:\n  api:\n    command: [\"${{SETPOINT}}\", demo-app]\n    replicas: {replicas}\n    \
         health: /healthz\n    domains: [api.localhost]\n{env}{more}"
    )
}

/// A rollout that does not hold for long after the switch, and drains quickly: for tests that are about other things.
pub const QUICK: &str = "deploy: { min_healthy: 200ms, drain: 5s }\nstop: { grace: 2s }";
