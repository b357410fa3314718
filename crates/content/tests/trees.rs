//! Random trees through the whole way, and random damage to what was placed.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use content::{
    Blobs, Kind,
    blobs::Verdict,
    intake, pack,
    place::{self, Damage, DamageKind, Depth},
};
use model::{Digest, artifact::Artifact};
use proptest::{collection, prelude::*};

/// Files by path, with content and the executable bit.
type Files = BTreeMap<String, (Vec<u8>, bool)>;

/// Folder names and file names never meet, so that every draw is a tree.
fn trees() -> impl Strategy<Value = Files> {
    let folder = "(d[a-c]/){0,3}";
    let path = (folder, "f[a-e]( ü)?").prop_map(|(folder, name)| folder + &name);
    let content = prop_oneof![
        collection::vec(any::<u8>(), 0..64),
        (any::<u8>(), 0_usize..200_000).prop_map(|(byte, n)| vec![byte; n]),
    ];
    collection::btree_map(path, (content, any::<bool>()), 1..24)
}

fn write(root: &Path, files: &Files) {
    for (path, (content, executable)) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, mode(if *executable { 0o700 } else { 0o600 })).unwrap();
    }
}

fn mode(mode: u32) -> fs::Permissions {
    fs::Permissions::from_mode(mode)
}

/// A placed deployment with everything around it.
struct Placed {
    dir: tempfile::TempDir,
    blobs: Blobs,
    artifact: Artifact,
    folder: PathBuf,
}

fn placed(files: &Files) -> Placed {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    write(&source, files);
    let blobs = Blobs::open(&dir.path().join("store")).unwrap();
    let artifact = intake::from_folder(&blobs, &source, &mut |_| {}).unwrap();
    let site = dir.path().join("site");
    place::stage(&blobs, &artifact, &site, "deployment-1", &mut |_| {}).unwrap();
    Placed { folder: site.join("deployment-1"), dir, blobs, artifact }
}

impl Placed {
    fn check(&self) -> Vec<Damage> {
        place::check(&self.folder, &self.artifact, Depth::Whole).unwrap()
    }

    fn repair(&self, damage: &[Damage]) {
        place::repair(&self.blobs, &self.folder, &self.artifact, damage).unwrap();
    }

    fn digest(&self, path: &str) -> Digest {
        self.artifact.files[&path.parse().unwrap()].digest
    }

    fn site(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn sample() -> Files {
    let file = |text: &str| (text.as_bytes().to_vec(), false);
    [
        ("index.html".into(), file("index")),
        ("css/app.css".into(), file("css")),
        ("css/deep/more.css".into(), file("more")),
        ("run.sh".into(), (b"run".to_vec(), true)),
    ]
    .into()
}

/// What a hand may do to one file of a deployment.
#[derive(Debug, Clone, Copy)]
enum Hand {
    Removes,
    Writes,
    FlipsOneBit,
    MakesItALink,
    MakesItAFolder,
    ChangesItsMode,
    PutsOneBeside,
    PutsALinkBeside,
}

fn hands() -> impl Strategy<Value = Hand> {
    use Hand::*;
    prop::sample::select(vec![
        Removes,
        Writes,
        FlipsOneBit,
        MakesItALink,
        MakesItAFolder,
        ChangesItsMode,
        PutsOneBeside,
        PutsALinkBeside,
    ])
}

/// Does it, and says what a check must then find.
fn damage(placed: &Placed, path: &str, hand: Hand) -> Damage {
    let file = placed.folder.join(path);
    let declared = placed.digest(path);
    let beside = format!("{path}.extra");
    let changed = |content: Vec<u8>| {
        fs::write(&file, &content).unwrap();
        (path, DamageKind::Changed { declared, observed: Digest::of_bytes(&content) })
    };
    let wrong = |found| (path, DamageKind::WrongType { declared: Some(declared), found });
    let (path, kind) = match hand {
        Hand::Removes => {
            fs::remove_file(&file).unwrap();
            (path, DamageKind::Missing { declared: Some(declared) })
        }
        Hand::Writes => changed([fs::read(&file).unwrap(), b"!".to_vec()].concat()),
        Hand::FlipsOneBit => {
            // Size and times stay, so that only the hash can tell.
            let times = fs::metadata(&file).unwrap().modified().unwrap();
            let mut content = fs::read(&file).unwrap();
            match content.last_mut() {
                Some(byte) => *byte ^= 1,
                None => content.push(0),
            }
            let damage = changed(content);
            fs::File::options().append(true).open(&file).unwrap().set_modified(times).unwrap();
            damage
        }
        Hand::MakesItALink => {
            fs::remove_file(&file).unwrap();
            symlink("/etc/passwd", &file).unwrap();
            wrong(Kind::Symlink)
        }
        Hand::MakesItAFolder => {
            fs::remove_file(&file).unwrap();
            fs::create_dir_all(file.join("deep/er")).unwrap();
            fs::write(file.join("deep/x"), "x").unwrap();
            wrong(Kind::Directory)
        }
        Hand::ChangesItsMode => {
            let right = if placed.artifact.files[&path.parse().unwrap()].executable { 0o755 } else { 0o644 };
            fs::set_permissions(&file, mode(0o666)).unwrap();
            (path, DamageKind::WrongMode { declared: right, observed: 0o666 })
        }
        Hand::PutsOneBeside => {
            fs::write(placed.folder.join(&beside), "x").unwrap();
            (beside.as_str(), DamageKind::Extra { found: Kind::File })
        }
        Hand::PutsALinkBeside => {
            symlink("/etc", placed.folder.join(&beside)).unwrap();
            (beside.as_str(), DamageKind::Extra { found: Kind::Symlink })
        }
    };
    Damage { path: path.into(), kind }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_folder_placed_is_whole_and_packed_is_the_same(files in trees()) {
        let placed = placed(&files);
        prop_assert_eq!(placed.check(), []);
        prop_assert_eq!(placed.artifact.files.len(), files.len());
        let mut packed = Vec::new();
        pack(&placed.dir.path().join("source"), &mut packed, &mut |_| {}).unwrap();
        let mut again = Vec::new();
        pack(&placed.folder, &mut again, &mut |_| {}).unwrap();
        prop_assert_eq!(&packed, &again, "packing is deterministic");
        let taken = intake::from_archive(&placed.blobs, &mut packed.as_slice(), None, &mut |_| {}).unwrap();
        prop_assert_eq!(taken.digest(), placed.artifact.digest());
    }

    #[test]
    fn damage_is_named_exactly_and_repaired(
        files in trees(),
        hands in collection::vec((any::<prop::sample::Index>(), hands()), 1..6),
    ) {
        let placed = placed(&files);
        let paths: Vec<&String> = files.keys().collect();
        let by_file: BTreeMap<&str, Hand> =
            hands.iter().map(|(index, hand)| (index.get(&paths).as_str(), *hand)).collect();
        let mut expected: Vec<Damage> =
            by_file.iter().map(|(path, hand)| damage(&placed, path, *hand)).collect();
        expected.sort();
        let found = placed.check();
        prop_assert_eq!(&found, &expected);
        let hints: BTreeSet<PathBuf> = expected.iter().map(|damage| placed.folder.join(&damage.path)).collect();
        let hinted = place::check(&placed.folder, &placed.artifact, Depth::Only(&hints)).unwrap();
        prop_assert_eq!(&hinted, &expected, "hints are enough to find it");
        placed.repair(&found);
        prop_assert_eq!(placed.check(), []);
        prop_assert_eq!(placed.site(), [".manifest-deployment-1.json", "deployment-1"]);
    }
}

#[test]
fn damage_in_a_deployment_never_reaches_the_store() {
    let placed = placed(&sample());
    for path in placed.artifact.files.keys() {
        fs::write(placed.folder.join(path), "overwritten in place").unwrap();
    }
    for file in placed.artifact.files.values() {
        assert_eq!(placed.blobs.verify(&file.digest).unwrap(), Verdict::Ok);
    }
}

#[test]
fn a_planted_symlink_is_replaced_without_touching_its_target() {
    let placed = placed(&sample());
    let outside = placed.dir.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    for file in ["app.css", "deep/more.css", "precious"] {
        fs::write(outside.join(file), "precious").unwrap();
    }
    fs::remove_dir_all(placed.folder.join("css")).unwrap();
    symlink(&outside, placed.folder.join("css")).unwrap();
    symlink(&outside, placed.folder.join("extra")).unwrap();

    let found = placed.check();
    let css = DamageKind::WrongType { declared: None, found: Kind::Symlink };
    let extra = DamageKind::Extra { found: Kind::Symlink };
    assert_eq!(found.iter().map(|d| d.kind.clone()).collect::<Vec<_>>(), [css, extra]);
    placed.repair(&found);

    assert_eq!(placed.check(), []);
    for file in ["app.css", "deep/more.css", "precious"] {
        assert_eq!(fs::read_to_string(outside.join(file)).unwrap(), "precious");
    }
}

#[test]
fn missing_and_replaced_folders_come_back() {
    let placed = placed(&sample());
    let missing = |path: &str| Damage { path: path.into(), kind: DamageKind::Missing { declared: None } };

    fs::remove_dir_all(placed.folder.join("css")).unwrap();
    assert_eq!(placed.check(), [missing("css")]);
    placed.repair(&placed.check());
    assert_eq!(placed.check(), []);

    fs::remove_dir_all(&placed.folder).unwrap();
    assert_eq!(placed.check(), [missing("")]);
    placed.repair(&placed.check());
    assert_eq!(placed.check(), []);

    fs::rename(&placed.folder, placed.dir.path().join("elsewhere")).unwrap();
    symlink(placed.dir.path().join("elsewhere"), &placed.folder).unwrap();
    let kind = DamageKind::WrongType { declared: None, found: Kind::Symlink };
    assert_eq!(placed.check(), [Damage { path: PathBuf::new(), kind }]);
    placed.repair(&placed.check());
    assert_eq!(placed.check(), []);
    assert!(placed.dir.path().join("elsewhere/index.html").exists(), "what it pointed to is left alone");
    assert_eq!(placed.site(), [".manifest-deployment-1.json", "deployment-1", "deployment-1.damaged-1"]);

    fs::remove_dir_all(placed.folder.parent().unwrap()).unwrap();
    placed.repair(&placed.check());
    assert_eq!(placed.check(), []);
}

#[test]
fn a_folder_with_wrong_modes_and_worse_inside_is_healed_in_rounds() {
    let placed = placed(&sample());
    fs::write(placed.folder.join("css/app.css"), "changed").unwrap();
    fs::set_permissions(placed.folder.join("css"), mode(0o000)).unwrap();
    fs::set_permissions(&placed.folder, mode(0o777)).unwrap();
    let found = place::heal(&placed.blobs, &placed.folder, &placed.artifact, Depth::Whole).unwrap();
    assert!(found.len() >= 2, "{found:?}");
    assert_eq!(placed.check(), []);
}

#[test]
fn staging_keeps_what_is_whole_and_moves_aside_what_is_not() {
    let placed = placed(&sample());
    let site = placed.folder.parent().unwrap();
    let stage = || place::stage(&placed.blobs, &placed.artifact, site, "deployment-1", &mut |_| {}).unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&placed.folder).unwrap());

    let before = inode();
    stage();
    assert_eq!(inode(), before, "a whole folder is kept");

    // Half-done work of a crash, and a folder that has as many files as declared.
    fs::create_dir(site.join(".staging-deployment-1")).unwrap();
    fs::write(site.join(".staging-deployment-1/index.html"), "half").unwrap();
    fs::write(placed.folder.join("index.html"), "wrong").unwrap();
    stage();
    assert_eq!(placed.check(), []);
    let aside = site.join("deployment-1.damaged-1/index.html");
    assert_eq!(fs::read_to_string(aside).unwrap(), "wrong");

    place::remove(site, "deployment-1").unwrap();
    assert_eq!(placed.site(), [""; 0], "removal leaves nothing");
}

#[test]
fn a_damaged_blob_is_named_and_a_new_upload_repairs_it() {
    let placed = placed(&sample());
    let digest = placed.digest("index.html");
    let hex = digest.hex();
    let blob = placed.dir.path().join("store/blobs").join(&hex[..2]).join(&hex);
    fs::write(&blob, "INDEX").unwrap(); // same size
    assert_eq!(placed.blobs.verify(&digest).unwrap(), Verdict::Corrupt);
    fs::remove_dir_all(&placed.folder).unwrap();
    let site = placed.folder.parent().unwrap();
    let stage = || place::stage(&placed.blobs, &placed.artifact, site, "deployment-1", &mut |_| {});

    let error = stage().unwrap_err();
    assert!(error.needs_content() && error.to_string().contains("index.html"), "{error}");
    assert!(!placed.folder.exists(), "nothing half is shown");

    intake::from_folder(&placed.blobs, &placed.dir.path().join("source"), &mut |_| {}).unwrap();
    stage().unwrap();
    assert_eq!(placed.check(), []);
}

#[test]
fn collection_spares_what_is_kept_and_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let (kept, size) = blobs.put(&mut &b"kept"[..]).unwrap();
    let (old, _) = blobs.put(&mut &b"old content"[..]).unwrap();
    assert_eq!(size, 4);
    let keep = BTreeSet::from([kept]);
    assert_eq!(blobs.gc(&keep, false).unwrap(), 0, "both are new");
    assert_eq!(blobs.gc(&keep, false).unwrap(), 0, "still sparing, a record may be on its way");
    assert_eq!(blobs.gc(&keep, true).unwrap(), 11, "a dry run tells");
    assert!(blobs.contains(&old), "and removes nothing");
    assert_eq!(blobs.gc(&keep, false).unwrap(), 11);
    assert!(blobs.contains(&kept) && !blobs.contains(&old));

    drop(blobs);
    fs::create_dir(dir.path().join("tmp/7")).unwrap();
    fs::write(dir.path().join("tmp/7/0"), "a crash's leftover").unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(blobs.verify(&kept).unwrap(), Verdict::Ok);
}

#[test]
fn what_is_no_plain_file_in_a_folder_is_refused_by_name() {
    use intake::Code;
    type Plant = fn(&Path);
    let cases: [(&str, Plant, Code, &str); 7] = [
        ("symlink", |root| symlink("index.html", root.join("link")).unwrap(), Code::Link, "link"),
        ("symlinked folder", |root| symlink("/etc", root.join("css/l")).unwrap(), Code::Link, "css/l"),
        (
            "socket",
            |root| drop(std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap()),
            Code::Device,
            "sock",
        ),
        ("backslash", |root| fs::write(root.join("a\\b"), "").unwrap(), Code::Backslash, "a\\b"),
        ("newline", |root| fs::write(root.join("a\nb"), "").unwrap(), Code::InvalidName, "a\\nb"),
        ("case", |root| fs::write(root.join("INDEX.html"), "").unwrap(), Code::CaseCollision, "index.html"),
        (
            "huge",
            |root| fs::File::create(root.join("huge")).unwrap().set_len((1 << 30) + 1).unwrap(),
            Code::TooLarge,
            "huge",
        ),
    ];
    for (story, plant, code, name) in cases {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        write(&source, &sample());
        plant(&source);
        let blobs = Blobs::open(&dir.path().join("store")).unwrap();
        let error = intake::from_folder(&blobs, &source, &mut |_| {}).expect_err(story);
        assert_eq!(error.code, code, "{story}: {error}");
        assert!(error.entry.as_deref().unwrap().ends_with(name), "{story}: {error}");
        assert_eq!(fs::read_dir(dir.path().join("store/blobs")).unwrap().count(), 0, "{story}");
    }
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&dir.path().join("store")).unwrap();
    let code = |path: &Path| intake::from_folder(&blobs, path, &mut |_| {}).unwrap_err().code;
    assert_eq!(code(&dir.path().join("nowhere")), Code::NotAFolder);
    assert_eq!(code(Path::new("/etc/passwd")), Code::NotAFolder);
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert_eq!(code(&dir.path().join("empty")), Code::Empty);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    write(&source, &[("a".into(), (vec![1], false)), ("b".into(), (vec![2], false))].into());
    let blobs = Blobs::open(&dir.path().join("store")).unwrap();
    // Progress is told after a file is taken and before its second look.
    let error = intake::from_folder(&blobs, &source, &mut |progress| {
        if progress.files == 2 {
            fs::write(source.join("b"), "grown").unwrap();
        }
    })
    .unwrap_err();
    assert_eq!(error.code, intake::Code::Changed);
    assert!(error.entry.unwrap().ends_with("/b"));
}
