//! Output of workloads that write much: bounded on the disk, whole at its end, whoever is away.

use std::{fs, path::PathBuf, time::Duration};

use testkit::{
    Followed, Setpoint,
    setpoint::{SOON, pids},
};

use crate::setpoint;

/// Twice the limit and what may come between two looks, on a busy machine.
const BOUND: u64 = 400 << 20;
/// Far beyond what is kept of a backlog, and far below what grows when nobody cuts.
const CUT_TO: u64 = 120 << 20;

/// Numbered lines, as fast as a shell's `seq` can; a pause now and then leaves time to others.
const WRITER: &str = "services:\n  writer:\n    command: [sh, -c, 'n=0; while :; do \
    seq -f \"line %.0f of the fastest writer that we have at hand\" $$n $$((n+50000)); n=$$((n+50001)); sleep 0.02; done']\n    \
    stop: { grace: 1s }\n";

fn size(setpoint: &Setpoint) -> u64 {
    let logs: Vec<PathBuf> = fs::read_dir(setpoint.data().join("node/instances"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("log"))
        .collect();
    let files = logs.into_iter().flat_map(|log| fs::read_dir(log).into_iter().flatten());
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

/// All but the last line, of which the writer may have written no more than a part.
fn numbers(logs: &str) -> Vec<u64> {
    let number = |line: &str| line.split("line ").nth(1)?.split(' ').next()?.parse().ok();
    let mut numbers: Vec<u64> = logs.lines().filter_map(number).collect();
    numbers.pop();
    numbers
}

#[track_caller]
fn assert_in_a_row(setpoint: &Setpoint, lines: &str) -> u64 {
    let numbers = numbers(&setpoint.ok(&["logs", "writer", "--tail", lines]));
    assert!(numbers.len() > 100, "{}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost, doubled or torn");
    *numbers.last().unwrap()
}

#[test]
fn output_is_followed_over_restarts_and_releases_until_the_service_is_gone() {
    let says = |words: &str| {
        format!(
            "services:\n  talker:\n    command: [sh, -c, 'echo {words} by $$$$; exec sleep 1000']\n    \
             stop: {{ grace: 1s }}\n    restart: {{ backoff: 100ms }}\n"
        )
    };
    let setpoint = setpoint().manifest(&says("first")).start();
    let pid = pids(&setpoint.wait_until_converged("talker"))[0];
    let mut followed = Followed::of(setpoint.asking(&["logs", "-f", "talker"]));
    followed.wait_for(&format!("first by {pid}"));
    testkit::proc::kill9(pid);
    let again = setpoint.wait_for_service("talker", "it is restarted", |talker| {
        talker["instances"][0]["restarts"] == 1 && talker["state"] == "converged"
    });
    followed.wait_for(&format!("first by {}", pids(&again)[0]));
    setpoint.apply_ok(&says("second"), &["--wait"]);
    followed.wait_for("second by");
    setpoint.ok(&["stop", "talker", "--wait"]);
    setpoint.ok(&["start", "talker", "--wait"]);
    setpoint.ok(&["delete", "talker", "--wait"]);
    followed.wait_for_end();
    let mut once = followed.seen().to_vec();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), followed.seen().len(), "nothing is told twice: {:#?}", followed.seen());
}

#[test]
fn a_fast_writer_is_cut_while_it_writes_and_after_setpoint_was_away() {
    let mut setpoint = setpoint().manifest(WRITER).start();
    let before = pids(&setpoint.wait_until_converged("writer"));
    let mut written = 0;
    let mut largest = 0;
    testkit::until("it has written much more than is kept", Duration::from_secs(90), || {
        largest = largest.max(size(&setpoint));
        written = assert_in_a_row_if_any(&setpoint);
        (written > 2_000_000).then_some(())
    });
    assert!(largest < BOUND, "{largest}");
    // Nobody cuts while Setpoint is away; nobody is held up by that either.
    setpoint.kill9();
    testkit::until("it goes on writing", SOON, || (size(&setpoint) > CUT_TO).then_some(()));
    setpoint.set_args(&[]);
    setpoint.restart();
    assert_eq!(pids(&setpoint.wait_until_converged("writer")), before);
    testkit::until("it is cut again", SOON, || (size(&setpoint) < CUT_TO).then_some(()));
    assert!(assert_in_a_row(&setpoint, "20000") > written);
    assert!(size(&setpoint) < BOUND);
}

fn assert_in_a_row_if_any(setpoint: &Setpoint) -> u64 {
    let numbers = numbers(&setpoint.ok(&["logs", "writer", "--tail", "200"]));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    numbers.last().copied().unwrap_or(0)
}
