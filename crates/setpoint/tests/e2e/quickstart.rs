//! What the README promises first: one command, and both services answer under `*.localhost`.

use std::path::{Path, PathBuf};

use testkit::setpoint::SOON;

use crate::setpoint;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_first_command_of_the_readme_serves_a_site_and_two_replicas() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let command = "cargo run --release -- up -f examples/quickstart.yaml";
    assert!(readme.contains(command), "the README names `{command}`");
    let example = repository().join("examples/quickstart.yaml");
    let setpoint = setpoint().any_ports().arg("-f").arg(example.to_str().unwrap()).start();

    let docs = setpoint.wait_until_converged("docs");
    let api = setpoint.wait_until_converged("api");
    assert_eq!((&docs["kind"], &api["kind"]), (&"static".into(), &"process".into()));
    assert_eq!(api["replicas"], serde_json::json!({"desired": 2, "ready": 2}));
    let port = setpoint.edge().port();
    assert_eq!(api["urls"], serde_json::json!([format!("http://api.localhost:{port}")]));
    assert_eq!(setpoint.get(&format!("api.localhost:{port}"), "/healthz").status, 200);
    let page = std::fs::read_to_string(repository().join("examples/site/index.html")).unwrap();
    let served = setpoint.get(&format!("docs.localhost:{port}"), "/");
    assert_eq!((served.status, served.text()), (200, page));
}

/// The lines of the first block of code behind a heading, without what they say about themselves.
fn commands(readme: &str, heading: &str) -> Vec<String> {
    let behind = readme.split_once(heading).unwrap_or_else(|| panic!("no `{heading}`")).1;
    let block = behind.split("```").nth(1).unwrap();
    let lines = block.lines().map(|line| line.split("  # ").next().unwrap().trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_ten_more_lines_of_the_readme_do_what_they_say() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let mut lines = commands(&readme, "## Ten more lines");
    assert_eq!(lines.remove(0), "export PATH=\"$PWD/target/release:$PATH\"");
    assert_eq!(lines.len(), 10, "{lines:#?}");
    let bin = tempfile::tempdir().unwrap();
    let bin = bin.path();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_setpoint"), bin.join("setpoint")).unwrap();
    let example = repository().join("examples/quickstart.yaml");
    let setpoint = setpoint().any_ports().arg("-f").arg(example.to_str().unwrap()).start();
    setpoint.wait_until_converged("docs");
    setpoint.wait_until_converged("api");
    let deployed = std::fs::read_to_string(repository().join("examples/spa/index.html")).unwrap();
    // Other tests run the demo app as well: here, ours alone are found.
    let pids: Vec<String> = setpoint.workloads().iter().map(|workload| workload.pid.to_string()).collect();
    testkit::fixture::script(&bin.join("pgrep"), &format!("echo '{}'", pids.join("\n")));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for line in &lines {
        println!("$ {line}");
        // It would follow for ever.
        let line = if line.contains("events -f") { format!("timeout 2 {line}") } else { line.clone() };
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &line]).current_dir(repository()).env("PATH", &path);
        shell.env("SETPOINT_DATA", setpoint.data()).env("SETPOINT_API", format!("http://{}", setpoint.api()));
        let output = testkit::command::bounded(shell);
        let fine = match line.as_str() {
            line if line.starts_with("timeout") => {
                output.code == 124 && output.stdout.contains("instance.exited")
            }
            line if line.contains(" plan ") => output.code == 3,
            _ => output.code == 0,
        };
        assert!(fine, "{line}: {output:?}");
        if line.contains("deploy docs") {
            assert_eq!(setpoint.get("docs.localhost", "/").text(), deployed);
        }
        if line.contains("kill -9") {
            setpoint.wait_for_event("instance.exited", &[]);
        }
        setpoint.wait_until_converged("api");
        setpoint.wait_until_converged("docs");
    }
    assert_ne!(setpoint.get("docs.localhost", "/").text(), deployed, "the folder before it");
    setpoint.wait_until_converged("worker");
}

#[test]
fn off_a_terminal_stdout_is_the_ready_line_alone_and_comes_before_convergence() {
    let slow = testkit::fixture::demo(1, &[("BOOT_DELAY_MS", "1500")], testkit::fixture::QUICK);
    let setpoint = setpoint().manifest(&slow).start();
    assert_eq!(
        setpoint.ready_line(),
        format!("ready api=http://{} edge=http://{}", setpoint.api(), setpoint.edge())
    );
    // What was in the file is recorded by then, and on its way.
    assert_eq!(setpoint.service("api")["state"], "progressing");
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.further_stdout(), Vec::<String>::new());
    let told = testkit::until("progress on stderr", SOON, || {
        let stderr = setpoint.stderr();
        (stderr.contains("api") && stderr.contains("active")).then_some(stderr)
    });
    assert!(told.lines().count() > 2, "{told}");
}

const COLUMNS: usize = 110;

/// The lines that a terminal has shown, without what moves its cursor or colours them.
fn shown(raw: &str) -> Vec<String> {
    let mut text = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().skip(1).find(char::is_ascii_alphabetic)),
            '\r' => text.push('\n'),
            c => text.push(c),
        }
    }
    // What fills a row goes on in the next without a line end.
    let rows = text.lines().flat_map(|line| {
        let line: Vec<char> = line.chars().collect();
        line.chunks(COLUMNS)
            .map(|row| row.iter().collect::<String>().trim_end().to_owned())
            .collect::<Vec<_>>()
    });
    rows.filter(|row| !row.is_empty()).collect()
}

#[test]
fn a_terminal_shows_what_the_readme_shows_and_ctrl_c_ends_everything() {
    use std::io::{Read, Write};
    let data = tempfile::tempdir().unwrap();
    let [api, edge] = [testkit::setpoint::free_port(), testkit::setpoint::free_port()];
    let up = format!(
        "stty cols {COLUMNS} rows 50; exec '{}' up --data '{}' --api {api} --edge {edge} -f examples/quickstart.yaml",
        env!("CARGO_BIN_EXE_setpoint"),
        data.path().display(),
    );
    let mut script = std::process::Command::new("script");
    script.args(["-qefc", &up, "/dev/null"]).current_dir(repository()).env_remove("NO_COLOR");
    script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut script = script.spawn().unwrap();
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut bytes) {
            let _ = tell.send(bytes[..read].to_vec());
        }
    });
    let mut raw = Vec::new();
    let lines = testkit::until("both services are in the table", SOON, || {
        raw.extend(told.try_iter().flatten());
        let lines = shown(&String::from_utf8_lossy(&raw));
        let converged = |name: &str| {
            lines.iter().any(|line| {
                line.starts_with(name) && line.contains(" converged ") && line.contains("#1 active")
            })
        };
        let instances = lines.iter().any(|line| line.starts_with("default.docs.0.0 "));
        (converged("default/docs ") && converged("default/api ") && instances).then_some(lines)
    });
    // What is painted once stays painted: SINCE moves while nothing happens.
    let painted = raw.len();
    testkit::until("it is painted anew, in its place", SOON, || {
        raw.extend(told.try_iter().flatten());
        let more = String::from_utf8_lossy(&raw[painted..]).into_owned();
        (more.contains("default.api.0.0") && more.contains("A\r\u{1b}[J")).then_some(())
    });
    assert!(!String::from_utf8_lossy(&raw).contains("\u{1b}[H"), "what stands above is not wiped");
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (api, edge) = (format!("{api}"), format!("{edge}"));
    let port = edge.rsplit(':').next().unwrap();
    let mut seen = lines.iter();
    for line in
        ["brings up a static site", "and then, for as long"].iter().flat_map(|from| commands(&readme, from))
    {
        // Ports are of another width, and of an instance no two starts tell the same but its name and how it is.
        let known =
            line.replace("127.0.0.1:7400", &api).replace("127.0.0.1:8080", &edge).replace("8080", port);
        let count = if line.starts_with("default.") { 4 } else { usize::MAX };
        // The folder's own place is another.
        let known = known.split_once("…/examples").map_or(known.clone(), |(_, rest)| rest.to_owned());
        let words = |line: &str| line.split_whitespace().take(count).map(str::to_owned).collect::<Vec<_>>();
        assert!(
            seen.any(
                |shown| words(shown) == words(&known) || (known.starts_with('/') && shown.ends_with(&known))
            ),
            "`{known}` is not shown, or not in this order:\n{}",
            lines.join("\n")
        );
    }
    keys.write_all(b"\x03").unwrap();
    let ended = testkit::until("it has ended", SOON, || script.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert_eq!(testkit::proc::workloads(data.path()), []);
}
