//! A command run beside a process, and what processes use.

use testkit::{
    fixture::{QUICK, demo},
    proc,
    setpoint::SOON,
    until,
};

use crate::setpoint;

#[test]
fn a_command_runs_with_the_env_the_folder_and_the_exit_status_of_its_own() {
    let setpoint = setpoint().manifest(&demo(2, &[("COLOUR", "blue")], QUICK)).start();
    let api = setpoint.wait_until_converged("api");
    let script = "echo $COLOUR $SETPOINT_INSTANCE; pwd; echo oops >&2; exit 7";
    let first = setpoint.fed(&["exec", "api", "--", "sh", "-c", script], b"");
    assert_eq!((first.code, first.stderr.as_str()), (7, "oops\n"), "{first:?}");
    let instance = api["instances"][0]["id"].as_str().unwrap();
    assert!(first.stdout.starts_with(&format!("blue {instance}\n")), "{first:?}");
    assert!(first.stdout.contains(setpoint.data().to_str().unwrap()), "its own folder: {first:?}");
    let second = api["instances"][1]["id"].as_str().unwrap();
    let other = setpoint.fed(&["exec", second, "sh", "-c", "echo $SETPOINT_INSTANCE"], b"").stdout;
    assert_eq!(other.trim(), second);
    let fed = setpoint.fed(&["exec", "-i", "api", "--", "sh", "-c", "cat; echo end"], b"in\x00\xff\n");
    assert_eq!(fed.code, 0, "{fed:?}");
    assert!(fed.stdout.starts_with("in\0") && fed.stdout.ends_with("end\n"), "{fed:?}");
    let closed = setpoint.fed(&["exec", "api", "cat"], b"not passed on");
    assert_eq!((closed.code, closed.stdout.as_str()), (0, ""), "without -i there is no input");
    let killed = setpoint.fed(&["exec", "api", "--", "sh", "-c", "kill -9 $$"], b"");
    assert_eq!(killed.code, 137, "{killed:?}");
    let audit = setpoint.json(&["audit"]);
    let rows = audit["audit"].as_array().unwrap();
    let row = rows.iter().find(|row| row["action"] == "exec").unwrap();
    assert_eq!((&row["subject"], &row["detail"]["program"]), (&instance.into(), &"sh".into()), "{row}");
    assert!(!audit.to_string().contains("echo"), "arguments may hold secrets");
}

#[test]
fn what_cannot_be_run_is_said() {
    let setpoint = setpoint()
        .file("site/index.html", "here")
        .manifest(&format!("{}  docs:\n    static: ./site\n", demo(1, &[], QUICK)))
        .start();
    setpoint.wait_until_converged("api");
    let docs = setpoint.wait_until_converged("docs");
    let fails = |args: &[&str], words: &str| {
        let output = setpoint.fed(args, b"");
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(words) && output.stdout.is_empty(), "{args:?}: {output:?}");
    };
    fails(&["exec", "api", "no-such-program"], "no-such-program");
    fails(&["exec", "nothing", "true"], "not_declared");
    fails(&["exec", "default.api.0.99", "true"], "no_such_instance");
    fails(&["exec", docs["instances"][0]["id"].as_str().unwrap(), "true"], "is a site");
    fails(&["exec", "-t", "api", "true"], "leave -t out");
    let none = setpoint.fed(&["exec", "api"], b"");
    assert_eq!(none.code, 2, "{none:?}");
    setpoint.ok(&["stop", "api", "--wait"]);
    fails(&["exec", "api", "true"], "nothing of default/api runs");
}

#[test]
fn a_command_ends_with_whoever_asked_for_it() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let pid_file = setpoint.work().join("pid");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid_file.display());
    let mut asked = setpoint.asking(&["exec", "api", "--", "sh", "-c", &script]).spawn().unwrap();
    let pid = until("it runs", SOON, || std::fs::read_to_string(&pid_file).ok()?.trim().parse::<u32>().ok());
    asked.kill().unwrap();
    asked.wait().unwrap();
    until("it is gone with all that it started", SOON, || (!proc::is_alive(pid)).then_some(()));
}

#[test]
fn much_output_and_much_input_pass_at_once_and_whole() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| b"abcdefgh\n"[(n % 9) as usize]).collect();
    // It answers while it reads: neither direction may wait for the other.
    let output = setpoint.fed(&["exec", "-i", "api", "cat"], &input);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.as_bytes() == input, "{} of {} bytes", output.stdout.len(), input.len());
}

#[test]
fn stats_tell_what_each_process_uses() {
    let yaml = "services:\n  busy:\n    command: [sh, -c, 'while :; do :; done']\n    resources: { memory: 64MiB }\n    \
                stop: { grace: 1s }\n  calm:\n    command: [sleep, \"1000\"]\n    stop: { grace: 1s }\n";
    let setpoint = setpoint().manifest(yaml).start();
    let busy = setpoint.wait_until_converged("busy");
    setpoint.wait_until_converged("calm");
    let usage = setpoint.json(&["stats"]);
    let of = |name: &str| {
        let rows = usage["usage"].as_array().unwrap();
        rows.iter().find(|row| row["service"] == name).unwrap_or_else(|| panic!("{usage}")).clone()
    };
    let (busy_uses, calm_uses) = (of("busy"), of("calm"));
    assert_eq!(busy_uses["instance"], busy["instances"][0]["id"]);
    assert!(busy_uses["cpus"].as_f64().unwrap() > 10.0 * calm_uses["cpus"].as_f64().unwrap(), "{usage}");
    assert_eq!((&busy_uses["memory_limit"], &calm_uses["memory_limit"]), (&(64 << 20).into(), &().into()));
    assert!(calm_uses["memory"].as_u64().unwrap() > 0 && calm_uses["processes"] == 1, "{usage}");
    let table = setpoint.ok(&["stats", "busy"]);
    assert!(table.contains("64.0MiB") && !table.contains("calm"), "{table}");
    assert_eq!(setpoint.cli(&["stats", "nothing"]).code, 1);
}
