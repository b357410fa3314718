//! The node's side: from what is assigned and what is there, at most one operation per instance, the state to
//! report, and when to ask again. Drivers only execute.

use model::{
    InstanceId, Millis, Timestamp,
    assignment::Assigned,
    instance::Attempts,
    observation::{Exit, ExitStatus, State},
    spec::{DriftMode, DriftPolicy, Workload},
};

use crate::{
    health::Health,
    outage::{self, Outage},
    planted::Bug,
    retry::{self, Verdict},
};

/// One instance as the node finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub id: InstanceId,
    pub install: Install,
    pub run: Run,
    /// Counted in the ledger.
    pub attempts: Attempts,
    /// The last one counted was for an install, and the start that it was counted for is yet to come.
    pub granted: bool,
    /// Something differs that may be put back without disturbing the workload: a rendered file, a site's file or
    /// link. Ignored paths are not in it.
    pub drifted: bool,
    /// For a site: `current` and `webroot` point here.
    pub current: bool,
    /// An operation is under way; nothing else is begun beside it.
    pub busy: Option<Busy>,
    /// Since when its runtime (the engine of a container) does not answer, or has not told of it since. Nothing can be done
    /// then, and nothing is known but what was seen without it.
    pub away: Option<Timestamp>,
    /// When its runtime did not answer last.
    pub outage: Option<Outage>,
    /// It lives, and is known to be off the network by which it is reached.
    pub off_network: bool,
    /// Why its last start came to nothing, until one comes to something; a whole sentence.
    pub unstarted: Option<String>,
    /// The last update failed: another is made from this time on.
    pub rests_until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Install {
    Absent,
    Whole,
    /// It could not be installed, or its program could not be started, for this reason; a whole sentence.
    Failed {
        at: Timestamp,
        message: String,
    },
    /// Its port is somebody else's for now; a whole sentence. That is no fault of the release and costs no attempt.
    PortTaken {
        at: Timestamp,
        message: String,
    },
    /// Something outside of it is in the way, for this reason; a whole sentence. It is no fault of the release either.
    Prevented {
        at: Timestamp,
        message: String,
    },
    /// Data of its own is not there, for this reason; a whole sentence. No attempt would bring it back: it is tried
    /// again when that is there.
    DataGone {
        message: String,
    },
}

/// Between two looks whether a port is free by now.
const PORT_LOOK: Millis = Millis(1000);
/// Between two tries at what the engine could not do, as for want of room.
const PREVENTED_LOOK: Millis = Millis(5000);

const FIRST_REST: Millis = Millis(500);
const LONGEST_REST: Millis = Millis(10_000);

/// What an operation under way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Installing,
    Updating,
    Starting,
    Stopping { since: Timestamp },
}

/// A process or a container, as far as the node can tell. A site has none and stays `NotStarted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Never started, or ended by Setpoint's own orderly end: starting it is no attempt.
    NotStarted,
    Alive {
        health: Health,
    },
    Ended {
        started: Option<Timestamp>,
        exit: Exit,
    },
    /// It could not be found out whether it lives: nothing is started beside it and nothing is removed.
    Unknown {
        since: Timestamp,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Nothing,
    /// Place its files and give it a port.
    Install {
        attempts: Attempts,
        /// It is one of them, and so is the start that follows.
        granted: bool,
    },
    /// Put back or switch what disturbs nobody.
    Update,
    /// Start its process, ending the one that lives first. The new count is written down before.
    Restart {
        attempts: Attempts,
    },
    /// End it and remove its files.
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub operation: Operation,
    /// What the node reports.
    pub state: State,
    pub ready: bool,
    /// Ask again at this time, even if nothing happens.
    pub wake_at: Option<Timestamp>,
    pub message: String,
}

impl Step {
    fn rest(state: State, message: impl Into<String>) -> Self {
        Self { operation: Operation::Nothing, state, ready: false, wake_at: None, message: message.into() }
    }

    fn act(operation: Operation, state: State) -> Self {
        Self { operation, state, ready: false, wake_at: None, message: String::new() }
    }
}

/// Decides one instance. `assigned` is `None` when the node's assignment does not contain it and its service is not
/// held.
pub fn step(assigned: Option<&Assigned>, local: &Local, now: Timestamp) -> Step {
    if let Some(busy) = local.busy {
        return under_way(busy, assigned, local);
    }
    if let Some(since) = local.away {
        return without_runtime(local, since);
    }
    let Some(assigned) = assigned else { return surplus(local, now) };
    match &local.install {
        Install::Absent => Step::act(
            Operation::Install { attempts: local.attempts.floor(&assigned.attempts), granted: local.granted },
            State::Installing,
        ),
        // What lives goes on, whatever became of an operation on it.
        _ if matches!(local.run, Run::Alive { .. }) => whole(assigned, local, now),
        Install::Failed { at, message } => retry_install(assigned, local, *at, message, now),
        Install::PortTaken { at, message } => wait(assigned, local, *at + PORT_LOOK, message, now),
        Install::Prevented { at, message } => wait(assigned, local, *at + PREVENTED_LOOK, message, now),
        Install::DataGone { message } => Step::rest(State::Failed { until: None }, message),
        Install::Whole => whole(assigned, local, now),
    }
}

fn whole(assigned: &Assigned, local: &Local, now: Timestamp) -> Step {
    match assigned.content.workload {
        Workload::Site(_) => site(assigned, local, now),
        Workload::Process(_) | Workload::Container(_) => runs(assigned, local, now),
    }
}

/// The drift policy is about what is shown: before, a site's folder is made whole whatever it says.
pub fn drift_policy(assigned: &Assigned, shown: bool) -> DriftPolicy {
    let is_site = matches!(assigned.content.workload, Workload::Site(_));
    let mode = if is_site && !shown { DriftMode::Correct } else { assigned.drift.mode };
    DriftPolicy { mode, ..assigned.drift.clone() }
}

fn under_way(busy: Busy, assigned: Option<&Assigned>, local: &Local) -> Step {
    let why = || local.unstarted.clone().unwrap_or_default();
    match busy {
        Busy::Installing => Step::rest(State::Installing, why()),
        Busy::Starting => Step::rest(State::Starting, why()),
        Busy::Stopping { since } => Step::rest(State::Stopping { since }, ""),
        Busy::Updating => match &local.run {
            Run::Alive { health } => alive(local, health),
            Run::NotStarted => {
                let ready = assigned.is_none_or(|assigned| is_shown_or_whole(assigned, local));
                Step { ready, ..Step::rest(State::Running, "") }
            }
            Run::Ended { .. } | Run::Unknown { .. } => Step::rest(State::Running, ""),
        },
    }
}

/// Unknown is not absent: what may live has nothing started beside it, and is not taken for gone. What certainly lives,
/// because the kernel says so, goes on serving.
fn without_runtime(local: &Local, since: Timestamp) -> Step {
    const WHY: &str = "its engine does not answer";
    match &local.run {
        Run::Alive { health } => {
            let mut step = alive(local, health);
            if step.message.is_empty() {
                step.message = WHY.into();
            }
            step
        }
        Run::NotStarted | Run::Ended { .. } | Run::Unknown { .. } => {
            Step::rest(State::Unknown { since }, WHY)
        }
    }
}

/// Not assigned: it goes, unless we cannot tell what is there.
fn surplus(local: &Local, now: Timestamp) -> Step {
    match &local.run {
        Run::Unknown { since } => Step::rest(
            State::Unknown { since: *since },
            "cannot tell whether it lives, so nothing is removed",
        ),
        Run::NotStarted | Run::Alive { .. } | Run::Ended { .. } => {
            Step::act(Operation::Delete, State::Stopping { since: now })
        }
    }
}

fn retry_install(assigned: &Assigned, local: &Local, failed: Timestamp, why: &str, now: Timestamp) -> Step {
    let attempts = local.attempts.floor(&assigned.attempts);
    match retry::after_end(&assigned.restart, &attempts, None, failed, now) {
        Verdict::Now(attempts) => {
            let step = Step::act(Operation::Install { attempts, granted: true }, State::Installing);
            Step { message: why.to_owned(), ..step }
        }
        verdict => not_yet(verdict, why.to_owned()),
    }
}

/// The same is reported at each look, so that waiting is rest.
fn wait(assigned: &Assigned, local: &Local, again: Timestamp, why: &str, now: Timestamp) -> Step {
    let waits = Step::rest(State::Starting, why);
    if now < again {
        return Step { wake_at: Some(again), ..waits };
    }
    let attempts = local.attempts.floor(&assigned.attempts);
    Step { operation: Operation::Install { attempts, granted: local.granted }, ..waits }
}

/// How long an operation rests after as many in a row have failed before.
pub fn rest_after(failures: u32) -> Millis {
    Millis(FIRST_REST.0.saturating_mul(1 << failures.min(10)).min(LONGEST_REST.0))
}

/// What is due is done, or rests until then.
fn update(local: &Local, now: Timestamp) -> (Operation, Option<Timestamp>) {
    match local.rests_until.filter(|until| now < *until) {
        Some(until) => (Operation::Nothing, Some(until)),
        None => (Operation::Update, None),
    }
}

/// A site is whole, or is being made whole.
fn site(assigned: &Assigned, local: &Local, now: Timestamp) -> Step {
    let correct = local.drifted && drift_policy(assigned, assigned.current).mode == DriftMode::Correct;
    let is_due = correct || (assigned.current && !local.current);
    let (operation, wake_at) = if is_due { update(local, now) } else { (Operation::Nothing, None) };
    let ready = is_shown_or_whole(assigned, local);
    Step { operation, state: State::Running, ready, wake_at, message: String::new() }
}

/// What is shown stays in the routes while a file is put back or `current` is switched; what is not yet is shown only
/// once it is whole.
fn is_shown_or_whole(assigned: &Assigned, local: &Local) -> bool {
    assigned.current || !local.drifted
}

/// A process or a container: it lives, or it is between two runs.
fn runs(assigned: &Assigned, local: &Local, now: Timestamp) -> Step {
    let attempts = local.attempts.floor(&assigned.attempts);
    match &local.run {
        Run::Unknown { since } => Step::rest(
            State::Unknown { since: *since },
            "cannot tell whether it lives, so none is started beside it",
        ),
        Run::NotStarted => first_start(assigned, attempts, local, now),
        Run::Ended { started, exit } => {
            // One that was counted, and that its engine's absence prevented, is this one.
            let counted = local.granted.then(|| attempts.clone());
            // The planted bug that the simulator must find: what ended with its engine counts like a crash.
            let is_free =
                outage::is_with_engine(local.outage, *started, exit) && !Bug::CountOutage.is_planted();
            let free = || retry::free(&assigned.restart, &attempts, now).filter(|_| is_free);
            if let Some(attempts) = counted.or_else(free) {
                return Step::act(Operation::Restart { attempts }, State::Starting);
            }
            // The planted bug that the simulator must find: an end while Setpoint itself was being restarted begins the
            // count anew, whatever the assignment says that was counted.
            let forgets = Bug::BudgetReset.is_planted() && exit.status == ExitStatus::Unknown;
            let attempts = if forgets { Attempts::default() } else { attempts };
            match retry::after_end(&assigned.restart, &attempts, *started, exit.at, now) {
                Verdict::Now(attempts) => Step::act(Operation::Restart { attempts }, State::Starting),
                verdict => not_yet(verdict, format!("it ended with {exit}")),
            }
        }
        Run::Alive { health } if !health.live => unhealthy(assigned, &attempts, health, now),
        Run::Alive { health } => {
            let mut step = alive(local, health);
            if local.drifted && assigned.drift.mode == DriftMode::Correct {
                (step.operation, step.wake_at) = update(local, now);
            }
            step
        }
    }
}

/// Not an attempt, but the ones already counted for its slot and release still bind it, unless it is what the last one
/// was counted for.
fn first_start(assigned: &Assigned, attempts: Attempts, local: &Local, now: Timestamp) -> Step {
    let unstarted = local.unstarted.as_deref();
    match retry::spent(&assigned.restart, &attempts, now).filter(|_| !local.granted) {
        Some(until) => {
            not_yet(Verdict::Spent { until: Some(until) }, unstarted.unwrap_or("it kept dying").into())
        }
        None => Step {
            message: unstarted.unwrap_or_default().into(),
            ..Step::act(Operation::Restart { attempts }, State::Starting)
        },
    }
}

/// Whatever its probes said last: nobody reaches what is off its network.
fn alive(local: &Local, health: &Health) -> Step {
    let message = match (local.off_network, health.ready) {
        (true, _) => "it is off its network, where nobody reaches it".into(),
        (false, true) => String::new(),
        (false, false) => health.message.clone(),
    };
    Step {
        operation: Operation::Nothing,
        state: if health.started { State::Running } else { State::Starting },
        ready: health.ready && health.live && !local.off_network,
        wake_at: None,
        message,
    }
}

/// Whether a failure is told. It is, once: unknown in between, and a restart of the node, change nothing of it. `told`: it
/// has been told; returns what is to be remembered of that.
pub fn tells_failure(told: bool, state: &State) -> (bool, bool) {
    match state {
        State::Failed { .. } => (!told, true),
        State::Unknown { .. } => (false, told),
        State::Installing
        | State::Starting
        | State::Running
        | State::BackingOff { .. }
        | State::Stopping { .. } => (false, false),
    }
}

/// It lives and does not work. Restarting it counts like a crash; when the attempts are spent it is left alone,
/// out of the routes, rather than ended for good.
fn unhealthy(assigned: &Assigned, attempts: &Attempts, health: &Health, now: Timestamp) -> Step {
    let why = format!("unhealthy: {}", health.message);
    match retry::after_end(&assigned.restart, attempts, Some(health.began), now, now) {
        Verdict::Now(attempts) => {
            Step { message: why, ..Step::act(Operation::Restart { attempts }, State::Starting) }
        }
        // `ended` was now, so a pause would begin anew at each look; the run's length decides, and it only grows.
        Verdict::At(at) => Step { wake_at: Some(at), ..Step::rest(State::BackingOff { until: at }, why) },
        verdict @ Verdict::Spent { .. } => not_yet(verdict, why),
    }
}

fn not_yet(verdict: Verdict, why: String) -> Step {
    match verdict {
        Verdict::At(until) => Step { wake_at: Some(until), ..Step::rest(State::BackingOff { until }, why) },
        Verdict::Spent { until } => Step { wake_at: until, ..Step::rest(State::Failed { until }, why) },
        Verdict::Now(_) => Step::rest(State::Unknown { since: Timestamp::ZERO }, why),
    }
}
