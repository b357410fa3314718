//! How `up` and its workloads are ended, and what does not end them.

use std::fs;

use testkit::{
    fixture::{QUICK, demo, script},
    proc,
    setpoint::SOON,
};

use crate::setpoint;

fn version(version: &str) -> String {
    demo(1, &[("VERSION", version)], QUICK)
}

#[test]
fn ctrl_c_and_the_end_of_the_terminal_end_it_with_its_workloads() {
    for end in [proc::interrupt, proc::hang_up] {
        let mut setpoint = setpoint().manifest(&version("v1")).start();
        setpoint.wait_until_converged("api");
        end(setpoint.pid());
        let status = setpoint.wait_for_end(std::time::Duration::from_secs(30));
        assert!(status.success(), "{status}");
        assert_eq!(setpoint.workloads(), []);
    }
}

#[test]
fn under_nohup_it_outlives_its_terminal() {
    let setpoint = setpoint().under(&["nohup"]).manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    proc::hang_up(setpoint.pid());
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    assert!(setpoint.get("api.localhost", "/").text().contains("version v2"));
}

#[test]
fn a_workload_gets_the_signal_that_it_names_and_no_other() {
    let builder = setpoint();
    let traps = "for name in TERM INT HUP USR1 USR2; do trap \"echo $name >> told\" $name; done";
    let waits = "trap 'echo USR1 >> told; exit 0' USR1\ntouch up\nwhile :; do sleep 0.02; done";
    script(&builder.work().join("job.sh"), &format!("cd \"$(dirname \"$0\")\"\n{traps}\n{waits}"));
    let yaml = "services:\n  job:\n    command: [./job.sh]\n    stop: { signal: SIGUSR1, grace: 10s }\n";
    let setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("job");
    let work = setpoint.work();
    testkit::until("its traps are set", SOON, || work.join("up").exists().then_some(()));
    setpoint.ok(&["stop", "job", "--wait"]);
    assert_eq!(fs::read_to_string(work.join("told")).unwrap(), "USR1\n");
    assert_eq!(setpoint.workloads(), []);
}
