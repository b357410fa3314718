//! What [`crate::node::step`] stands on, whatever carries its operations out: the same statements of processes, of
//! containers of a real engine, and of the simulator's model of both. Each is a function over a [`Ground`] of its own.
//!
//! Refuses to know: how a node is started, and what time it runs in.

use std::sync::Arc;

use model::{
    Generation, InstanceId, Millis, Timestamp,
    assignment::Assigned,
    observation::{ExitStatus, InstanceReport, State},
    release::Release,
    route::EndpointHealth,
    spec::RestartPolicy,
};

/// Tries each statement: `$try! { name … }` is expanded once, so that one who tries them tries all. Behind them come
/// those that only the caller's runtimes keep.
#[macro_export]
macro_rules! each_statement_of_runtimes {
    ($try:ident $($own:ident)*) => {
        $try! {
            comes_up_and_goes_when_it_is_no_longer_assigned
            is_back_when_it_was_killed_and_left_the_routes_first
            outlives_the_node_and_is_adopted_as_it_is
            that_died_without_the_node_is_restarted_from_the_ledger_and_counted
            that_keeps_dying_fails_with_its_status
            that_had_failed_is_counted_on_when_the_node_comes_back_without_it
            that_is_deaf_is_killed_after_its_grace
            that_is_ill_lives_and_is_not_ready
            that_is_no_longer_assigned_while_it_starts_leaves_nothing
            is_kept_when_an_older_assignment_comes_late
            $($own)*
        }
    };
}

/// How a program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Good,
    /// Ends at once, with a status of its own that is not 0.
    Dies,
    /// Good, and does nothing about SIGTERM.
    Deaf,
    /// Answers every probe with 503.
    Ill,
    /// Does not answer within the time of any test.
    Late,
}

/// What a node says of an instance.
#[derive(Debug)]
pub struct Told {
    /// By the node's clock.
    pub at: Timestamp,
    /// `None`: it has looked at everything, and there is no such instance.
    pub report: Option<Arc<InstanceReport>>,
}

/// A node with nothing on it, and a hand on its machine. Every wait has a bound, after which it panics.
#[expect(async_fn_in_trait, reason = "only tests call it, and none from another thread")]
pub trait Ground {
    /// Of a release with probes of all three purposes.
    fn program(&self, is: Program) -> Assigned;
    /// The node comes up, with what it has written down.
    async fn begin(&mut self);
    /// It dies; what runs on it runs on.
    async fn leave(&mut self);
    /// Whether it takes the assignment, which names these alone.
    async fn assign(&mut self, generation: Generation, instances: &[Assigned]) -> bool;
    /// The node looks at everything.
    async fn look(&mut self);
    async fn until(
        &mut self,
        id: &InstanceId,
        what: &str,
        holds: impl Fn(Option<&InstanceReport>) -> bool,
    ) -> Told;
    /// What edges were told since this was asked last.
    fn said(&mut self) -> Vec<EndpointHealth>;
    /// Starts since the node came up.
    fn starts(&mut self) -> usize;
    fn lives(&self, pid: u32) -> bool;
    fn answers(&self, address: &str) -> bool;
    fn has_files(&self, of: &Assigned) -> bool;
    /// With SIGKILL, past the node. Returns when it is dead.
    async fn kill(&mut self, pid: u32);
    /// Somebody removes what an ended one has left in its runtime. `false`: that keeps nothing of it.
    async fn removed(&mut self, left: &InstanceReport) -> bool;
}

async fn told(
    ground: &mut impl Ground,
    of: &Assigned,
    what: &str,
    holds: impl Fn(&InstanceReport) -> bool,
) -> Arc<InstanceReport> {
    let told = ground.until(&of.id, what, |report| report.is_some_and(&holds)).await;
    told.report.expect("it is told of")
}

async fn ready(ground: &mut impl Ground, of: &Assigned) -> Arc<InstanceReport> {
    told(ground, of, "it is ready", |report| report.ready).await
}

async fn assigned(ground: &mut impl Ground, one: &Assigned) {
    ground.begin().await;
    assert!(ground.assign(Generation(2), std::slice::from_ref(one)).await, "it is newer");
}

/// A good one, and what is told of it when it is ready.
async fn up(ground: &mut impl Ground) -> (Assigned, Arc<InstanceReport>) {
    let web = ground.program(Program::Good);
    assigned(ground, &web).await;
    let report = ready(ground, &web).await;
    (web, report)
}

/// No longer assigned, and nothing of it is left. Says when that was told.
async fn cleared(ground: &mut impl Ground, one: &Assigned) -> Timestamp {
    assert!(ground.assign(Generation(3), &[]).await, "it is newer");
    gone(ground, one).await
}

async fn gone(ground: &mut impl Ground, one: &Assigned) -> Timestamp {
    let told = ground.until(&one.id, "it is gone", |report| report.is_none()).await;
    assert!(!ground.has_files(one), "its files go with it");
    told.at
}

fn pid(report: &InstanceReport) -> u32 {
    report.pid.expect("it has a process")
}

fn dies_with(report: &InstanceReport) -> ExitStatus {
    report.last_exit.as_ref().expect("it has ended").status
}

pub async fn comes_up_and_goes_when_it_is_no_longer_assigned(ground: &mut impl Ground) {
    let (web, report) = up(ground).await;
    assert_eq!((&report.state, report.attempts.total), (&State::Running, 0));
    assert!(ground.answers(report.address.as_ref().expect("it has an address")));
    assert!(ground.lives(pid(&report)) && ground.has_files(&web));
    cleared(ground, &web).await;
    assert!(!ground.lives(pid(&report)), "gone is said when it is gone");
    assert_eq!(ground.said().last(), Some(&EndpointHealth::Down));
}

pub async fn is_back_when_it_was_killed_and_left_the_routes_first(ground: &mut impl Ground) {
    let (web, before) = up(ground).await;
    ground.said();
    ground.kill(pid(&before)).await;
    let after = told(ground, &web, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!((after.attempts.total, after.attempts.at.len()), (1, 1));
    assert_eq!(dies_with(&after), ExitStatus::Signal(9));
    let said = ground.said();
    assert_eq!((said.first(), said.last()), (Some(&EndpointHealth::Down), Some(&EndpointHealth::Ready)));
    cleared(ground, &web).await;
}

pub async fn outlives_the_node_and_is_adopted_as_it_is(ground: &mut impl Ground) {
    let (web, before) = up(ground).await;
    ground.leave().await;
    assert!(ground.lives(pid(&before)));
    ground.begin().await;
    let after = ready(ground, &web).await;
    assert_eq!((after.pid, &after.address, after.attempts.total), (before.pid, &before.address, 0));
    assert_eq!(ground.starts(), 0);
    cleared(ground, &web).await;
    assert!(!ground.lives(pid(&before)));
}

pub async fn that_died_without_the_node_is_restarted_from_the_ledger_and_counted(ground: &mut impl Ground) {
    let (web, before) = up(ground).await;
    ground.leave().await;
    ground.kill(pid(&before)).await;
    ground.begin().await;
    let after = told(ground, &web, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(after.attempts.total, 1);
    assert_ne!(dies_with(&after), ExitStatus::Code(0), "never guessed to be well");
    cleared(ground, &web).await;
}

pub async fn that_keeps_dying_fails_with_its_status(ground: &mut impl Ground) {
    let mut dies = ground.program(Program::Dies);
    dies.restart = RestartPolicy { attempts: 2, backoff: Millis(5), ..RestartPolicy::default() };
    assigned(ground, &dies).await;
    let failed = told(ground, &dies, "it has failed", |report| report.state.is_failed()).await;
    assert_eq!((failed.attempts.at.len(), ground.starts()), (2, 3), "started once, and twice again");
    let status = dies_with(&failed);
    assert!(matches!(status, ExitStatus::Code(code) if code != 0), "{status}");
    assert!(failed.message.contains(&status.to_string()), "{}", failed.message);
    cleared(ground, &dies).await;
}

/// What it was is gone, or still there: its next start is no first one.
pub async fn that_had_failed_is_counted_on_when_the_node_comes_back_without_it(ground: &mut impl Ground) {
    let mut dies = ground.program(Program::Dies);
    dies.restart = RestartPolicy {
        attempts: 1,
        backoff: Millis(5),
        window: Millis::secs(8),
        ..RestartPolicy::default()
    };
    assigned(ground, &dies).await;
    let failed = told(ground, &dies, "it has failed", |report| report.state.is_failed()).await;
    assert_eq!(failed.attempts.total, 1);
    if ground.removed(&failed).await {
        told(ground, &dies, "that it is gone is seen", |report| report.container.is_none()).await;
    }
    ground.leave().await;
    ground.begin().await;
    let again = |report: &InstanceReport| report.state.is_failed() && report.attempts.total == 2;
    told(ground, &dies, "it has failed again", again).await;
    assert_eq!(ground.starts(), 1, "one attempt, one start");
    cleared(ground, &dies).await;
}

pub async fn that_is_deaf_is_killed_after_its_grace(ground: &mut impl Ground) {
    let deaf = ground.program(Program::Deaf);
    assigned(ground, &deaf).await;
    let report = ready(ground, &deaf).await;
    assert!(ground.assign(Generation(3), &[]).await, "it is newer");
    let is_stopping = |report: &InstanceReport| matches!(report.state, State::Stopping { .. });
    let stopping = told(ground, &deaf, "it is stopping", is_stopping).await;
    let State::Stopping { since } = stopping.state else { unreachable!("it was waited for") };
    let lasted = gone(ground, &deaf).await.since(since);
    assert!(lasted >= deaf.content.stop.grace, "it had {lasted}");
    assert!(!ground.lives(pid(&report)));
}

pub async fn that_is_ill_lives_and_is_not_ready(ground: &mut impl Ground) {
    let ill = with(ground.program(Program::Ill), |release| {
        // Nothing ends it; it is only not ready.
        (release.health.startup, release.health.liveness) = (None, None);
    });
    assigned(ground, &ill).await;
    let report = told(ground, &ill, "its probes say why", |report| report.message.contains("503")).await;
    assert!(!report.ready && ground.lives(pid(&report)), "{report:#?}");
    assert_eq!(ground.said(), [], "no edge was told that it is ready");
    cleared(ground, &ill).await;
}

pub async fn that_is_no_longer_assigned_while_it_starts_leaves_nothing(ground: &mut impl Ground) {
    let late = ground.program(Program::Late);
    assigned(ground, &late).await;
    let report = told(ground, &late, "it has a process", |report| report.pid.is_some()).await;
    assert!(!report.ready);
    cleared(ground, &late).await;
    assert!(!ground.lives(pid(&report)));
}

pub async fn is_kept_when_an_older_assignment_comes_late(ground: &mut impl Ground) {
    let (web, before) = up(ground).await;
    assert!(!ground.assign(Generation(1), &[]).await, "it is refused");
    ground.look().await;
    let after = ready(ground, &web).await;
    assert_eq!(after.pid, before.pid);
    assert!(ground.lives(pid(&before)));
    cleared(ground, &web).await;
}

/// Changes the release and keeps its digest true.
fn with(mut assigned: Assigned, change: impl FnOnce(&mut Release)) -> Assigned {
    let mut release = (*assigned.content).clone();
    change(&mut release);
    assigned.release = release.digest();
    assigned.content = Arc::new(release);
    assigned
}
