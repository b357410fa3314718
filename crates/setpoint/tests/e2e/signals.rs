//! How `up` is ended, and what does not end it.

use testkit::{
    fixture::{QUICK, demo},
    proc,
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
