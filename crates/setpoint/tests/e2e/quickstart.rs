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
    let lines = block.lines().map(|line| line.split("  #").next().unwrap().trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_ten_more_lines_of_the_readme_do_what_they_say() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let lines = commands(&readme, "## Ten more lines");
    assert_eq!(lines.len(), 10, "{lines:#?}");
    let builder = setpoint().any_ports();
    let (work, bin) = (builder.work(), builder.work().join("bin"));
    let example = repository().join("examples");
    let quickstart = std::fs::read_to_string(example.join("quickstart.yaml")).unwrap();
    let site = example.join("site").to_str().unwrap().to_owned();
    let changed =
        quickstart.replace("./site", &site).replace("replicas: 2", "replicas: 2\n    env: { LOG: debug }");
    assert!(changed.contains(&site) && changed.contains("LOG: debug"), "{quickstart}");
    testkit::fixture::folder(&work, &[("app.yaml", &changed), ("public/index.html", "mine")]);
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_setpoint"), bin.join("setpoint")).unwrap();
    let setpoint = builder.arg("-f").arg(example.join("quickstart.yaml").to_str().unwrap()).start();
    setpoint.wait_until_converged("docs");
    setpoint.wait_until_converged("api");
    // Other tests run the demo app as well: here, ours alone are found.
    let pids: Vec<String> = setpoint.workloads().iter().map(|workload| workload.pid.to_string()).collect();
    testkit::fixture::script(&bin.join("pgrep"), &format!("echo '{}'", pids.join("\n")));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for line in &lines {
        println!("$ {line}");
        // It would follow for ever.
        let line = if line.contains("events -f") { format!("timeout 2 {line}") } else { line.clone() };
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &line]).current_dir(&work).env("PATH", &path).env("SETPOINT_DATA", setpoint.data());
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
            assert_eq!(setpoint.get("docs.localhost", "/").text(), "mine");
        }
        if line.contains("kill -9") {
            setpoint.wait_for_event("instance.exited", &[]);
        }
        setpoint.wait_until_converged("api");
        setpoint.wait_until_converged("docs");
    }
    assert_ne!(setpoint.get("docs.localhost", "/").text(), "mine", "the folder before it");
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
    text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_terminal_shows_what_the_readme_shows_and_ctrl_c_ends_everything() {
    use std::io::{Read, Write};
    let data = tempfile::tempdir().unwrap();
    let [api, edge] = [testkit::setpoint::free_port(), testkit::setpoint::free_port()];
    let up = format!(
        "stty cols 110; exec '{}' up --data '{}' --api {api} --edge {edge} -f examples/quickstart.yaml",
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
        let converged =
            |name: &str| lines.iter().any(|line| line.starts_with(name) && line.contains("#1 active"));
        (converged("default/docs ") && converged("default/api ")).then_some(lines)
    });
    let all = lines.join("\n");
    assert!(all.contains(&format!("ready api=http://{api} edge=http://{edge}")), "{all}");
    let bar = |line: &&String| {
        line.starts_with("default/api ") && line.contains("] ") && line.contains("% deployment #1: ")
    };
    assert!(lines.iter().any(|line| bar(&line)), "{all}");
    assert!(lines.iter().any(|line| line.contains("/site: sent ") && line.contains("files, ")), "{all}");
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let port = edge.port().to_string();
    for line in lines.iter().filter(|line| line.starts_with("SERVICE ") || line.contains("#1 active")) {
        // Ports are of another width.
        let words: Vec<_> = line.split_whitespace().map(|word| word.replace(&port, "8080")).collect();
        let is_there =
            readme.lines().any(|known| known.split_whitespace().eq(words.iter().map(String::as_str)));
        assert!(is_there, "the README does not show `{line}`");
    }
    keys.write_all(b"\x03").unwrap();
    let ended = testkit::until("it has ended", SOON, || script.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert_eq!(testkit::proc::workloads(data.path()), []);
}
