//! The loop: load what changed, plan, lint, commit, publish. Events only say *look now*; a full pass every so often
//! finds what they missed, which should be nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use decide::{
    compose, lint,
    monitor::{self, Tally},
    plan::{self, Scope},
    world::{Cluster, World},
};
use model::{
    NodeId, ServiceKey, Timestamp,
    assignment::{Assigned, Assignment, Stamp},
    event::{Event, Kind},
    plan::{Plan, Report},
    route::RouteTable,
};
use serde::{Deserialize, Serialize};
use store::{Changed, CommitError, JournalEntry, Loaded, StoreError};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    Brain, Histogram,
    control::{Asked, Shared},
    counting, failpoints,
};

/// A burst of changes is one pass.
const GATHER: Duration = Duration::from_millis(1);
/// After a failure of the store.
const RETRY: Duration = Duration::from_millis(500);
/// Passes made again at once because they came too late.
const LATE_AT_ONCE: u32 = 16;

/// All that a replay of a pass over one service needs beside its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    pub cluster: Cluster,
    pub world: World,
}

/// Sums over the passes since the start.
#[derive(Debug, Clone)]
pub struct PassStats {
    pub passes: u64,
    pub errors: u64,
    pub last_at: Option<Timestamp>,
    /// When a pass last went through.
    pub last_through: Option<Timestamp>,
    pub last_took: Duration,
    pub durations: Histogram,
    pub last: PassSummary,
    /// All that passes came to.
    pub happened: Tally,
    /// Objections or a store that failed, in words, until a pass succeeds.
    pub trouble: Option<String>,
}

impl Default for PassStats {
    fn default() -> Self {
        Self {
            passes: 0,
            errors: 0,
            last_at: None,
            last_through: None,
            last_took: Duration::ZERO,
            durations: Histogram::new(counting::PASSES),
            last: PassSummary::default(),
            happened: Tally::default(),
            trouble: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PassSummary {
    pub checked: usize,
    pub changed: usize,
    pub skipped: usize,
}

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("the plan was not committed: {0}")]
    Objection(String),
}

/// Runs until the server ends, or until another holds the term.
pub(crate) async fn run(shared: Arc<Shared>, every: Duration) {
    let mut changes = shared.store.changes();
    let mut last_full = Instant::now();
    loop {
        let wait = next_wait(&shared, every.saturating_sub(last_full.elapsed()));
        tokio::select! {
            () = shared.wake.notified() => {}
            change = changes.recv() => match change {
                Ok(changed) => shared.note_changed(&changed),
                Err(RecvError::Lagged(_)) => shared.note_all_changed(),
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(wait) => {}
            () = shared.stopping.notified() => return,
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(changed) = changes.try_recv() {
            shared.note_changed(&changed);
        }
        let Asked { full, confirmed, count } = shared.take_asked();
        let full = full || last_full.elapsed() >= every;
        if full {
            last_full = Instant::now();
        }
        settle(&shared, full, confirmed).await;
        shared.end_round(count);
        summarise(&shared).await;
    }
}

fn next_wait(shared: &Shared, until_full: Duration) -> Duration {
    let wake_at = shared.brain().next_wake();
    let until_wake = wake_at.map(|at| at.since((shared.clock)()).as_duration());
    let until_told = shared.untold().wait(Instant::now());
    [until_wake, until_told].into_iter().flatten().fold(until_full, Duration::min)
}

/// Says what passes came to, in the log and as an event; only when something happened.
async fn summarise(shared: &Shared) {
    let Some(tally) = shared.untold().take(Instant::now()) else { return };
    tracing::info!(
        checked = tally.checked,
        drift = tally.drift,
        repaired = tally.repaired,
        restarted = tally.restarted,
        removed = tally.removed,
        skipped = tally.skipped,
        failed = tally.failed,
        "a pass went through"
    );
    let told = Event {
        kind: Kind::PassSummary,
        service: None,
        instance: None,
        deployment: None,
        message: format!("a pass went through: {tally}"),
    };
    if let Err(error) = shared.store.append_events(vec![told], (shared.clock)()).await {
        tracing::warn!(%error, "the summary of a pass was not recorded");
    }
}

/// Passes until nothing more follows from what was decided. A confirmation is for what was asked for just now, and is
/// used up by the first removal that it lets through.
async fn settle(shared: &Shared, full: bool, confirmed: bool) {
    let (mut full, mut confirmed, mut late) = (full, confirmed, 0);
    loop {
        let began = Instant::now();
        let result = pass(shared, full, confirmed).await;
        let outcome = Outcome::of(&result);
        note_failed(shared, &outcome);
        shared.note_pass(began.elapsed(), outcome);
        full = false;
        match result {
            Ok(Pass { settled: true, .. }) => return,
            Ok(Pass { confirmed: used, .. }) => {
                confirmed &= !used;
                late = 0;
            }
            // Should it come too late for ever, others are not kept from writing.
            Err(PassError::Commit(error)) if is_late(&error) && late < LATE_AT_ONCE => {
                late += 1;
                tracing::debug!(%error, "a pass came too late and is made again");
            }
            Err(PassError::Commit(error @ CommitError::StaleTerm { .. })) => {
                tracing::error!(%error, "another Setpoint leads; this one stops deciding");
                shared.stop();
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a pass failed; it is tried again");
                tokio::time::sleep(RETRY).await;
                shared.wake.notify_one();
                return;
            }
        }
    }
}

/// Somebody else wrote between the look and the commit.
fn is_late(error: &CommitError) -> bool {
    match error {
        CommitError::Conflict { .. }
        | CommitError::StaleGeneration { .. }
        | CommitError::StaleRoutes { .. } => true,
        CommitError::StaleTerm { .. } | CommitError::Refused { .. } | CommitError::Store(_) => false,
    }
}

/// How a pass counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Through(PassSummary),
    /// Something was written while it was decided: it is made again and has not failed.
    Late,
    Failed(String),
}

impl Outcome {
    fn of(result: &Result<Pass, PassError>) -> Self {
        match result {
            Ok(pass) => Self::Through(pass.summary),
            Err(PassError::Commit(error)) if is_late(error) => Self::Late,
            Err(error @ (PassError::Store(_) | PassError::Commit(_) | PassError::Objection(_))) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl PassStats {
    pub(crate) fn note(&mut self, at: Timestamp, took: Duration, outcome: Outcome) {
        self.passes += 1;
        self.last_at = Some(at);
        self.last_took = took;
        self.durations.observe(took);
        match outcome {
            Outcome::Through(summary) => {
                self.last = summary;
                self.last_through = Some(at);
                self.trouble = None;
            }
            Outcome::Late => {}
            Outcome::Failed(trouble) => {
                self.errors += 1;
                self.trouble = Some(trouble);
            }
        }
    }
}

/// A pass that cannot be carried out is tried again and again; it is told once.
fn note_failed(shared: &Shared, outcome: &Outcome) {
    if let Outcome::Failed(trouble) = outcome
        && shared.is_new_trouble(trouble)
    {
        shared.untold().add(Tally { failed: 1, ..Tally::default() });
    }
}

struct Pass {
    summary: PassSummary,
    /// Nothing was decided, so nothing follows.
    settled: bool,
    /// It was carried out because somebody had confirmed it.
    confirmed: bool,
}

async fn pass(shared: &Shared, full: bool, confirmed: bool) -> Result<Pass, PassError> {
    reload(shared).await?;
    let (plan, reports, inputs, summary) = decide(shared, full);
    let verdict = examine(shared, &plan, confirmed);
    let journal = journal(shared, &plan, &reports, inputs);
    // What is held is part of what is handed out, so it needs a generation and a revision of its own.
    let held = shared.brain().held();
    let newly_held = shared.pending().held != held;
    let plan = if newly_held {
        Plan { route_revision: shared.brain().snapshot.cluster.route_revision.next(), ..plan }
    } else {
        plan
    };
    if plan.decisions.is_empty() && !newly_held {
        for entry in journal {
            shared.store.append_journal(entry).await?;
        }
        publish(shared, &BTreeSet::new());
        return Ok(Pass { summary, settled: true, confirmed: false });
    }
    if let Err(objection) = &verdict {
        note_waiting(shared, &plan, &reports, objection);
        tell_paused(shared, objection, plan.at).await?;
        return Err(PassError::Objection(objection.clone()));
    }
    let plan = Arc::new(plan);
    failpoints::at(&reports, "before");
    if let Err(error) = shared.store.commit_plan(Arc::clone(&plan), journal).await {
        shared.note_stale(&plan, &error);
        note_waiting(shared, &plan, &reports, &error.to_string());
        return Err(error.into());
    }
    failpoints::at(&reports, "after_commit");
    {
        let mut brain = shared.brain();
        shared.untold().add(monitor::tally(&plan, &brain.snapshot));
        for (key, report) in decided_reports(&plan, &reports) {
            brain.note(key, report.clone(), true);
        }
        brain.committed(&plan);
    }
    if newly_held {
        shared.pending().held = held;
        publish(shared, &BTreeSet::new());
    } else {
        publish(shared, &plan.decisions.iter().map(|d| d.key.clone()).collect());
    }
    failpoints::at(&reports, "after_effect");
    Ok(Pass { summary, settled: false, confirmed: verdict == Ok(Confirmed::Used) })
}

/// Reads again what the store says has changed.
async fn reload(shared: &Shared) -> Result<(), StoreError> {
    let (keys, all) = shared.take_changed();
    if all {
        let rows = shared.store.load_all().await?;
        let counters = shared.store.counters().await?;
        let mut brain = shared.brain();
        take_all(&mut brain, rows);
        brain.at(counters.generation, counters.route_revision);
        return Ok(());
    }
    for key in keys {
        shared.reload(&key).await?;
    }
    Ok(())
}

pub(crate) fn take_all(brain: &mut Brain, rows: Vec<Loaded>) {
    for row in rows {
        match &row {
            Loaded::Read(read) => {
                let key = read.service.key.clone();
                brain.take_row(&key, Some(row));
            }
            Loaded::Unreadable { key, .. } => {
                let key = key.clone();
                brain.take_row(&key, Some(row));
            }
            Loaded::Nameless { text, cause } => brain.incomplete = Some(format!("{text}: {cause}")),
        }
    }
    brain.count();
}

type Decided = (Plan, BTreeMap<ServiceKey, Report>, BTreeMap<ServiceKey, Input>, PassSummary);

fn decide(shared: &Shared, full: bool) -> Decided {
    let mut brain = shared.brain();
    brain.snapshot.now = (shared.clock)();
    if full {
        brain.forget_lost_edges();
        brain.look_at_everything();
    }
    let due = brain.due();
    let (plan, reports) = plan::plan(&brain.snapshot, Scope::Only(&due));
    let summary = looked(&brain, full, &plan, &reports);
    shared.untold().add(Tally {
        checked: summary.checked as u64,
        skipped: summary.skipped as u64,
        ..Tally::default()
    });
    let decided: BTreeSet<&ServiceKey> = plan.decisions.iter().map(|d| &d.key).collect();
    let mut inputs = BTreeMap::new();
    for (key, report) in &reports {
        // What was decided is noted once it is committed.
        let is_decided = decided.contains(key);
        let is_new = is_decided || brain.note(key, report.clone(), false);
        if is_new && let Some(world) = brain.world(key) {
            let input = Input { cluster: brain.snapshot.cluster.clone(), world: (**world).clone() };
            inputs.insert(key.clone(), input);
        }
    }
    (plan, reports, inputs, summary)
}

/// A full pass looks at everything; what came out as it was before needs no new decision. What cannot be read cannot be
/// looked at.
fn looked(brain: &Brain, full: bool, plan: &Plan, reports: &BTreeMap<ServiceKey, Report>) -> PassSummary {
    let held = brain.held();
    let all = brain.snapshot.worlds.len();
    let checked =
        if full { all - held.len() } else { reports.keys().filter(|key| !held.contains(*key)).count() };
    PassSummary { checked, changed: plan.decisions.len(), skipped: all - checked }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    NotNeeded,
    Used,
}

/// A plan that the lint objects to is not committed, but for a large removal that somebody has confirmed. Gives the
/// objections in words.
fn examine(shared: &Shared, plan: &Plan, confirmed: bool) -> Result<Confirmed, String> {
    let objections = lint::lint(&shared.brain().snapshot, plan);
    let (blasts, others): (Vec<_>, Vec<_>) =
        objections.into_iter().partition(|objection| matches!(objection, lint::Objection::Blast { .. }));
    let standing = others.iter().chain(blasts.iter().filter(|_| !confirmed));
    let standing: Vec<String> = standing.map(ToString::to_string).collect();
    match (standing.is_empty(), blasts.is_empty()) {
        (false, _) => Err(standing.join("; ")),
        (true, false) => Ok(Confirmed::Used),
        (true, true) => Ok(Confirmed::NotNeeded),
    }
}

async fn tell_paused(shared: &Shared, objection: &str, at: Timestamp) -> Result<(), StoreError> {
    // As the pass will be told of, else it would be new each time that it is tried.
    if !shared.is_new_trouble(&PassError::Objection(objection.into()).to_string()) {
        return Ok(());
    }
    let told = Event {
        kind: Kind::PassPaused,
        service: None,
        instance: None,
        deployment: None,
        message: objection.into(),
    };
    shared.store.append_events(vec![told], at).await.map(drop)
}

fn decided_reports<'a>(
    plan: &'a Plan,
    reports: &'a BTreeMap<ServiceKey, Report>,
) -> impl Iterator<Item = (&'a ServiceKey, &'a Report)> {
    plan.decisions.iter().filter_map(|decision| Some((&decision.key, reports.get(&decision.key)?)))
}

/// What was decided and is not recorded has not happened: it waits.
fn note_waiting(shared: &Shared, plan: &Plan, reports: &BTreeMap<ServiceKey, Report>, cause: &str) {
    let mut brain = shared.brain();
    for (key, report) in decided_reports(plan, reports) {
        brain.note(key, report.not_committed(cause), true);
    }
}

fn journal(
    shared: &Shared,
    plan: &Plan,
    reports: &BTreeMap<ServiceKey, Report>,
    inputs: BTreeMap<ServiceKey, Input>,
) -> Vec<JournalEntry> {
    inputs
        .into_iter()
        .filter_map(|(key, input)| {
            let decision = plan.decisions.iter().find(|d| d.key == key).cloned();
            if decision.is_none() && !shared.may_journal(&key, plan.at) {
                return None;
            }
            let world = serde_json::to_vec(&input).ok()?;
            let report = reports.get(&key)?.clone();
            let world_digest = model::Digest::of_bytes(&world);
            Some(JournalEntry { key, at: plan.at, world_digest, world, decision, report })
        })
        .collect()
}

/// Hands out what was committed: to every node its whole assignment, to the edges the whole table.
pub(crate) fn publish(shared: &Shared, decided: &BTreeSet<ServiceKey>) {
    let brain = shared.brain();
    if let Some(cause) = &brain.incomplete {
        tracing::error!(%cause, "a service row does not say whose it is; nothing is published, so nothing is lost");
        return;
    }
    let cluster = &brain.snapshot.cluster;
    shared.assignments.send_if_modified(|assignments| {
        let mut changed = false;
        for node in cluster.nodes.keys() {
            let stamp = Stamp {
                term: brain.snapshot.term,
                holder: brain.snapshot.holder.clone(),
                generation: cluster.generation,
            };
            let before = assignments.get(node);
            if before.is_some_and(|before| before.stamp == stamp) {
                continue;
            }
            let next = match before {
                Some(before) if !decided.is_empty() => amend(before, &brain, node, stamp, decided),
                Some(_) | None => {
                    let worlds = brain.worlds().map(|world| &**world);
                    compose::assignment(shared.store.cluster_id(), node, stamp, worlds)
                }
            };
            assignments.insert(node.clone(), Arc::new(next));
            changed = true;
        }
        changed
    });
    shared.routes.send_if_modified(|table| {
        if table.revision == cluster.route_revision && shared.routes_published() {
            return false;
        }
        *table = Arc::new(routes(table, &brain, decided));
        true
    });
}

/// The assignment before, with the decided services' parts replaced: the cost follows the change.
fn amend(
    before: &Assignment,
    brain: &Brain,
    node: &NodeId,
    stamp: Stamp,
    decided: &BTreeSet<ServiceKey>,
) -> Assignment {
    let mut next = Assignment { stamp, ..before.clone() };
    for key in decided {
        let assigned: Result<Vec<Arc<Assigned>>, ServiceKey> = match brain.world(key) {
            Some(world) => compose::assigned(world, node),
            None => Ok(Vec::new()),
        };
        next.instances.retain(|id, _| id.service != *key);
        next.held.remove(key);
        match assigned {
            Ok(assigned) => next.instances.extend(assigned.into_iter().map(|a| (a.id.clone(), a))),
            Err(held) => {
                next.held.insert(held);
            }
        }
    }
    next
}

fn routes(before: &RouteTable, brain: &Brain, decided: &BTreeSet<ServiceKey>) -> RouteTable {
    let revision = brain.snapshot.cluster.route_revision;
    if decided.is_empty() || before.services.is_empty() {
        return compose::route_table(revision, brain.worlds().map(|world| &**world));
    }
    let mut next = RouteTable { revision, ..before.clone() };
    for key in decided {
        match brain.world(key).and_then(|world| world.plan.route.clone()) {
            Some(route) => next.services.insert(key.clone(), route),
            None => next.services.remove(key),
        };
    }
    next
}

impl Shared {
    fn note_changed(&self, changed: &Changed) {
        // Plans are committed by this loop alone, which has taken them in already.
        if let Changed::Intents(keys) = changed {
            self.pending().keys.extend(keys.iter().cloned());
        }
    }

    fn note_all_changed(&self) {
        self.pending().all = true;
    }

    /// A plan that came too late: what it stood on is read again.
    fn note_stale(&self, plan: &Plan, error: &CommitError) {
        let mut pending = self.pending();
        match error {
            CommitError::StaleGeneration { .. } | CommitError::StaleRoutes { .. } => pending.all = true,
            _ => pending.keys.extend(plan.decisions.iter().map(|d| d.key.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Generation, RouteRevision};

    use super::*;

    fn counted(stats: &mut PassStats, error: impl Into<PassError>) -> u64 {
        stats.note(Timestamp(1), Duration::ZERO, Outcome::of(&Err(error.into())));
        stats.errors
    }

    #[test]
    fn a_pass_that_came_too_late_is_no_error_and_one_that_failed_is() {
        let mut stats = PassStats::default();
        let late = CommitError::StaleGeneration { asked: Generation(1), next: Generation(2) };
        assert_eq!(counted(&mut stats, late), 0);
        assert_eq!((stats.passes, stats.trouble.is_some()), (1, false));
        let stale = CommitError::StaleRoutes { asked: RouteRevision(1), stored: RouteRevision(2) };
        assert_eq!(counted(&mut stats, stale), 0);
        assert_eq!(counted(&mut stats, StoreError::Full { cause: "test".into() }), 1);
        assert!(stats.trouble.is_some());
        assert_eq!(stats.last_through, None, "none has gone through");
        let through = Outcome::Through(PassSummary::default());
        stats.note(Timestamp(2), Duration::ZERO, through);
        assert_eq!((stats.errors, stats.trouble.clone()), (1, None));
        assert_eq!(counted(&mut stats, StoreError::Full { cause: "test".into() }), 2);
        assert_eq!(stats.last_through, Some(Timestamp(2)));
    }
}
