//! A command run in a container, and what containers use.

use testkit::{docker::Engine, proc, setpoint::SOON, until};

use crate::{container, image, setpoint, web};

#[test]
fn a_command_in_a_container_has_its_input_its_streams_and_its_exit_status() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "env: { COLOUR: blue }")).start();
    let service = setpoint.wait_until_converged("web");
    let fed = setpoint.fed(&["exec", "-i", "web", "/app", "upper"], b"one\ntwo\n");
    assert_eq!((fed.code, fed.stdout.as_str(), fed.stderr.as_str()), (5, "ONE\nTWO\n", "2 lines\n"));
    let unfed = setpoint.fed(&["exec", "web", "/app", "upper"], b"one\n");
    assert_eq!((unfed.code, unfed.stdout.as_str()), (5, ""), "without -i there is no input");
    let second = service["instances"][1]["id"].as_str().unwrap();
    let called = setpoint.fed(&["exec", second, "/app", "call", "127.0.0.1:8080/instance"], b"").stdout;
    assert_eq!(called.trim(), second, "the instance that was named");
    assert_eq!(setpoint.fed(&["exec", "web", "/app", "exit", "42"], b"").code, 42);
    let missing = setpoint.fed(&["exec", "web", "no-such-program"], b"");
    assert!(missing.code != 0, "{missing:?}");
    assert!(format!("{missing:?}").contains("no-such-program"), "{missing:?}");
    let after = setpoint.service("web");
    assert_eq!(
        after["instances"][0]["restarts"], service["instances"][0]["restarts"],
        "the service saw nothing"
    );
    assert_eq!(after["state"], "converged", "{after}");
}

#[test]
fn a_terminal_is_given_where_one_is_asked_for() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    let plain = setpoint.fed(&["exec", "web", "/app", "terminal"], b"").stdout;
    assert_eq!(plain, "terminal: false\n");
    // `script` gives us a terminal to pass on.
    let exec = setpoint.asking(&["exec", "-it", "web", "/app", "terminal"]);
    let words: Vec<_> = std::iter::once(exec.get_program()).chain(exec.get_args()).collect();
    let line = words.iter().map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = testkit::command::bounded(script);
    assert!(output.stdout.contains("terminal: true"), "{output:?}");
}

#[test]
fn a_command_in_a_container_ends_with_whoever_asked_for_it() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let inside = || -> Vec<u32> {
        let top = engine.docker(&["top", &id, "-eo", "pid,args"]);
        top.lines()
            .filter(|line| line.contains("/app stay"))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect()
    };
    let mut asked = setpoint.asking(&["exec", "web", "/app", "stay"]).spawn().unwrap();
    let pid = until("it runs", SOON, || inside().first().copied());
    asked.kill().unwrap();
    asked.wait().unwrap();
    until("it is gone", SOON, || (!proc::is_alive(pid)).then_some(()));
    assert_eq!(setpoint.wait_until_converged("web")["instances"][0]["restarts"], 0);
}

#[test]
fn stats_tell_what_each_container_uses() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "env: { ALLOCATE_MB: \"20\" }\nresources: { memory: 64MiB }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, more)).start();
    let service = setpoint.wait_until_converged("web");
    let usage = setpoint.json(&["stats", "web"]);
    let row = &usage["usage"][0];
    assert_eq!(row["instance"], service["instances"][0]["id"]);
    assert!((20 << 20..64 << 20).contains(&row["memory"].as_u64().unwrap()), "{usage}");
    assert_eq!(
        (&row["memory_limit"], row["processes"].as_u64() > Some(0)),
        (&(64 << 20).into(), true),
        "{usage}"
    );
}
