//! What cannot be done, said so that one knows what to do next.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use testkit::fixture::{QUICK, demo};

use crate::setpoint;

#[test]
fn a_second_setpoint_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let output = setpoint.cli(&["up", "--api", "127.0.0.1:0", "--edge", "127.0.0.1:0"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(output.stdout, "");
    let data = setpoint.data();
    assert!(output.stderr.contains(data.to_str().unwrap()), "it names the folder: {}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert_eq!(setpoint.get("api.localhost", "/").status, 200);
    assert_eq!(setpoint.workloads().len(), 1);
}

#[test]
fn a_lock_file_that_somebody_removed_is_put_back() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let lock = setpoint.data().join("server.lock");
    fs::remove_file(&lock).unwrap();
    testkit::until("it is put back", testkit::setpoint::SOON, || lock.exists().then_some(()));
    let output = setpoint.cli(&["up", "--api", "127.0.0.1:0", "--edge", "127.0.0.1:0"]);
    assert!(output.code == 1 && output.stderr.contains("in use by another Setpoint"), "{output:?}");
    assert_eq!(setpoint.get("api.localhost", "/").status, 200);
}

#[test]
fn one_whose_folder_another_has_taken_leaves_at_once_and_its_workloads_live_on() {
    let mut setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let theirs = setpoint.data().join("theirs");
    let held = fs::File::create(&theirs).unwrap();
    held.try_lock().unwrap();
    fs::rename(&theirs, setpoint.data().join("server.lock")).unwrap();
    assert!(!setpoint.wait_for_end(testkit::setpoint::SOON).success());
    let told = setpoint.tail();
    assert!(told.contains("lock on the data folder was removed"), "{told}");
    assert_eq!(setpoint.workloads().len(), 1, "whoever has the folder adopts it");
    drop(held);
    setpoint.restart();
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.workloads().len(), 1);
}

#[test]
fn a_taken_port_is_named_with_what_to_do_and_nothing_is_started() {
    for flag in ["--api", "--edge"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).described();
        let other = if flag == "--api" { "--edge" } else { "--api" };
        let output = setpoint.cli(&["up", "-f", "app.yaml", flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(&address) && output.stderr.contains(flag), "{}", output.stderr);
        assert_eq!(setpoint.workloads(), []);
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_tls() {
    let setpoint = setpoint().described();
    let output = setpoint.cli(&["up", "--api", "0.0.0.0:0", "--edge", "127.0.0.1:0"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("0.0.0.0"), "{}", output.stderr);
}

#[test]
fn a_missing_program_is_named() {
    let setpoint = setpoint().start();
    let path = "services:\n  gone:\n    command: [./not-here, --port, \"${PORT}\"]\n    \
                restart: { attempts: 1, backoff: 50ms }\n";
    let output = setpoint.apply(path, &["--wait=30s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("not-here"), "{said}");
    let search = "services:\n  gone:\n    command: [no-such-program-anywhere]\n    restart: { attempts: 1, backoff: 50ms }\n";
    let output = setpoint.apply(search, &["--wait=30s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("no-such-program-anywhere"), "{said}");
}

/// What is written, and what the error must hold.
const BAD_MANIFESTS: &[(&str, &str, &[&str])] = &[
    (
        "an unknown key",
        "services:\n  api:\n    command: [sh]\n    replica: 2\n",
        &["app.yaml", "4:5", "replicas"],
    ),
    (
        "a wrong type",
        "services:\n  api:\n    command: [sh]\n    replicas: two\n",
        &["app.yaml", "4:", "replicas"],
    ),
    ("too many replicas", "services:\n  api:\n    command: [sh]\n    replicas: 10001\n", &["4:", "10000"]),
    ("a negative number", "services:\n  api:\n    command: [sh]\n    replicas: -1\n", &["4:", "replicas"]),
    ("a key twice", "services:\n  api:\n    command: [sh]\n    command: [ls]\n", &["4:", "command"]),
    ("no service", "project: demo\n", &["app.yaml", "service"]),
    ("an unknown name", "services:\n  api:\n    command: [sh, \"${NOPE}\"]\n", &["3:", "NOPE"]),
    ("a name that climbs out", "services:\n  \"../x\":\n    command: [sh]\n", &["2:", "../x"]),
    (
        "an env that loads code",
        "services:\n  a:\n    command: [sh]\n    env: { LD_PRELOAD: x }\n",
        &["4:", "LD_PRELOAD"],
    ),
    ("no YAML", "services: [\n", &["app.yaml"]),
    ("a bad duration", "services:\n  a:\n    command: [sh]\n    stop: { grace: soon }\n", &["4:", "grace"]),
    (
        "one domain twice",
        "services:\n  a:\n    command: [sh]\n    domains: [x.localhost]\n  b:\n    command: [sh]\n    domains: [x.localhost]\n",
        &["x.localhost"],
    ),
    ("a folder that is not there", "services:\n  a:\n    static: ./nowhere\n", &["app.yaml:3:13", "nowhere"]),
];

#[test]
fn bad_manifests_name_their_place_and_change_nothing() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let before = setpoint.status();
    for (what, yaml, expected) in BAD_MANIFESTS {
        for command in ["apply", "plan"] {
            fs::write(setpoint.work().join("app.yaml"), yaml).unwrap();
            let output = setpoint.cli(&[command, "-f", "app.yaml"]);
            assert_eq!(output.code, 1, "{what}: {output:?}");
            for word in *expected {
                assert!(output.stderr.contains(word), "{what}: `{word}` is not in {}", output.stderr);
            }
            assert!(!output.stderr.contains("panicked"), "{what}: {}", output.stderr);
        }
    }
    assert_eq!(setpoint.status(), before);
}

/// What is found only by those who look at the disk, at other services, at the machine: what is written beside
/// `services`, where it is, and what the error must hold.
const REFUSED: &[(&str, &str, &[&str])] = &[
    ("static: ./notes.txt\n", "4:13", &["notes.txt", "tar.gz"]),
    ("static:\n      archive: ./notes.txt\n", "5:16", &["notes.txt", "tar.gz"]),
    ("static: ./linked\n", "4:13", &["link", "linked"]),
    (
        "static: ./other\n    domains:\n      - b.localhost\n      - api.localhost\n",
        "7:9",
        &["domain_taken", "default/api"],
    ),
    ("static: {path: ./other, webroot: ./www}\n", "4:38", &["webroot_taken", "index.html", "default/docs"]),
    ("image: acme/web:1\n    network: host\n", "5:14", &["forbidden_by_policy", "containers.host_network"]),
    (
        "image: acme/web:1\n    volumes:\n      - a:/a\n      - /etc:/b\n",
        "7:9",
        &["forbidden_by_policy", "/etc"],
    ),
    ("image: acme/web:1\n", "4:12", &["no_engine"]),
];

#[test]
fn what_is_refused_is_shown_where_the_file_says_it() {
    let first = "services:\n  docs:\n    static: {path: ./site, webroot: ./www}\n  api:\n    command: [sleep, '100']\n    \
                 domains: [api.localhost]\n";
    let setpoint = setpoint().env("DOCKER_HOST", "unix:///nowhere/docker.sock").start();
    for site in ["site", "other", "linked"] {
        fs::create_dir(setpoint.work().join(site)).unwrap();
        fs::write(setpoint.work().join(site).join("index.html"), site).unwrap();
    }
    std::os::unix::fs::symlink("index.html", setpoint.work().join("linked/link.html")).unwrap();
    fs::write(setpoint.work().join("notes.txt"), "no archive").unwrap();
    setpoint.apply_ok(first, &[]);
    for (service, place, words) in REFUSED {
        fs::write(setpoint.work().join("b.yaml"), format!("project: b\nservices:\n  x:\n    {service}"))
            .unwrap();
        for command in ["apply", "plan"] {
            let output = setpoint.cli(&[command, "-f", "b.yaml"]);
            assert_eq!(output.code, 1, "{service}: {output:?}");
            for word in
                [&format!("b.yaml:{place}"), "services.x."].iter().copied().chain(words.iter().copied())
            {
                assert!(output.stderr.contains(word), "{service}: `{word}` is not in {}", output.stderr);
            }
        }
    }
    let both = "services:\n  a:\n    static: ./nowhere\n  b:\n    static: ./nor-there\n";
    fs::write(setpoint.work().join("b.yaml"), both).unwrap();
    let output = setpoint.cli(&["plan", "--offline", "-f", "b.yaml"]);
    assert!(output.stderr.contains("b.yaml:3:13") && output.stderr.contains("b.yaml:5:13"), "{output:?}");
}

#[test]
fn a_bomb_of_aliases_is_refused_at_once() {
    let setpoint = setpoint().start();
    let mut yaml = String::from("x-a: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        yaml.push_str(&format!("x-a{level}: &a{level} [{}]\n", vec![before; 9].join(", ")));
    }
    yaml.push_str("services:\n  a:\n    command: [sh]\n");
    let began = std::time::Instant::now();
    let output = setpoint.apply(&yaml, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

#[test]
fn a_bad_manifest_at_the_start_ends_up_before_ready() {
    let failed = setpoint().manifest("services:\n  api:\n    comand: [sh]\n").try_start();
    let (setpoint, failed) = failed.err().unwrap();
    assert_eq!(failed.status.and_then(|status| status.code()), Some(1));
    assert!(failed.stderr.contains("command") && failed.stderr.contains("3:5"), "{}", failed.stderr);
    assert_eq!(setpoint.workloads(), []);
}

#[test]
fn the_data_folder_is_passed_through_by_others_and_read_by_its_owner_alone() {
    let mut setpoint = setpoint().start();
    let mode = |path: &str| fs::metadata(setpoint.data().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("token"), mode("")), (0o600, 0o711));
    let token = setpoint.token();
    assert!(token.len() >= 43, "256 bits at the least");
    setpoint.stop();
    setpoint.restart();
    assert_eq!(setpoint.token(), token, "it stays");
    assert_eq!(setpoint.ok(&["token", "show"]).trim(), token);
    assert!(!setpoint.stderr().contains(&token), "it is in no log");
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let setpoint = setpoint().described();
    fs::write(setpoint.work().join("file"), "no folder").unwrap();
    let output =
        setpoint.bare(&["up", "--data", "file/below", "--api", "127.0.0.1:0", "--edge", "127.0.0.1:0"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("file/below") || output.stderr.contains("--data"), "{}", output.stderr);
}

#[test]
fn commands_without_a_server_say_how_to_start_one() {
    let setpoint = setpoint().described();
    let output = setpoint.cli(&["status", "--api", "http://127.0.0.1:9"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("setpoint up"), "{}", output.stderr);
    for usage in [&["nonsense"][..], &["scale", "api"], &["apply"], &["status", "--nope"], &[]] {
        assert_eq!(setpoint.bare(usage).code, 2, "{usage:?}");
    }
}

/// Another project has the domain: that only the server can know.
#[test]
fn a_manifest_that_is_refused_at_the_start_changes_nothing_of_what_lives_on() {
    let mut setpoint = setpoint().manifest(&demo(2, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let other = demo(1, &[], QUICK).replace("services:", "project: other\nservices:");
    let taken = other.replace("api.localhost", "other.localhost");
    setpoint.apply_ok(&taken, &["--wait"]);
    let lives = |setpoint: &testkit::Setpoint| {
        let mut pids: Vec<u32> = setpoint.workloads().into_iter().map(|workload| workload.pid).collect();
        pids.sort_unstable();
        pids
    };
    let before = lives(&setpoint);
    assert_eq!(before.len(), 3);
    let yaml = demo(2, &[], QUICK).replace("api.localhost", "other.localhost");
    fs::write(setpoint.work().join("app.yaml"), &yaml).unwrap();
    setpoint.kill9();
    let refused = setpoint.start().unwrap_err();
    assert!(refused.stderr.contains("other.localhost"), "{}", refused.stderr);
    assert_eq!(lives(&setpoint), before, "nothing was changed");
    fs::write(setpoint.work().join("app.yaml"), demo(2, &[], QUICK)).unwrap();
    setpoint.restart();
    setpoint.wait_until_converged("api");
    assert_eq!(lives(&setpoint), before, "they were adopted");
    // What was brought up for this start alone goes with it.
    setpoint.stop();
    fs::write(setpoint.work().join("app.yaml"), &yaml).unwrap();
    setpoint.start().unwrap_err();
    assert_eq!(lives(&setpoint), Vec::<u32>::new());
}
