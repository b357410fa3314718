//! One instance in the agent's memory, and what is said of it: to `decide` and in the observation.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use decide::{
    health::Health,
    node::{self, Busy, Install, Local, Step},
    outage::Outage,
};
use model::{
    InstanceId, Timestamp,
    assignment::Assigned,
    container::Container,
    drift::Drift,
    observation::{Copied, Exit, InstanceReport},
    spec::{self, Check, Port, Process, Workload},
};
use tokio::sync::Notify;

use crate::{
    container::{
        Record,
        deeds::{Deeds, RUNNING_PATH},
        look::Judged,
    },
    ledger::{Folder, State},
    life::{Ending, Life},
    process::{Live, start::Prepared},
    site::{self, Site},
};

#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    /// What was assigned last.
    pub assigned: Arc<Assigned>,
    /// False: it shall go.
    pub wanted: bool,
    pub folder: Folder,
    pub state: State,
    pub install: Install,
    pub run: Run,
    pub busy: Option<Busy>,
    pub site: Option<Site>,
    /// For a container: whose it is and how it was last seen.
    pub held: Option<Box<Held>>,
    /// Its engine does not answer: since when, and why.
    pub away: Option<(Timestamp, String)>,
    /// When its engine did not answer last.
    pub outage: Option<Outage>,
    pub drift: BTreeMap<String, Drift>,
    /// Drifted paths that may be put back: ours, and not ignored.
    pub correctable: bool,
    pub current: bool,
    pub copied: Option<Copied>,
    pub check: Checking,
    /// Probes under way, by what they check.
    pub probing: Vec<(Check, tokio::task::AbortHandle)>,
    /// Why its present run is being ended by us to begin anew.
    pub ended_for: Option<String>,
    /// Checks that could not be made at last, and why.
    pub not_probed: Vec<(Check, String)>,
    pub prepared: Option<Arc<Prepared>>,
    /// Operations in a row that failed: each pauses longer before the next.
    pub failures: u32,
    /// The last update failed; until then none is made, and whatever else happens to it is seen.
    pub rests_until: Option<Timestamp>,
    /// What the last failed operation said.
    pub trouble: Option<String>,
    /// What its process was declared to have and was not given; a sentence.
    pub without: Option<String>,
    /// Why its last start came to nothing, until one comes to something.
    pub unstarted: Option<String>,
    pub last_lines: LastLines,
    /// Ends the pause after a failure.
    pub hurry: Arc<Notify>,
    /// Ends what is only worth its while when the instance comes to run: a pull.
    pub unwanted: Arc<Notify>,
    pub report: Option<Arc<InstanceReport>>,
    pub wake_at: Option<Timestamp>,
}

#[derive(Debug)]
pub enum Run {
    NotStarted,
    Alive { life: Life, health: Health },
    Ended { started: Option<Timestamp>, exit: Exit },
    Unknown { since: Timestamp, cause: String },
}

/// The end of the output of a run that ended.
#[derive(Debug, Default)]
pub struct LastLines {
    pub run: u64,
    pub lines: Vec<String>,
}

/// What is remembered of a container.
#[derive(Debug, Default)]
pub struct Held {
    /// As in the ledger; `None` before anything was asked of an engine.
    pub record: Option<Record>,
    /// As the engine's list showed it last.
    pub glance: String,
    /// A look is under way; asked for again meanwhile, also at its image.
    pub looking: bool,
    pub look_again: bool,
    pub look_at_image: bool,
    /// Its image was not there at the last look.
    pub image_missing: bool,
    /// What could not be put right.
    pub rests: Rests,
    /// What the engine told that was done to it.
    pub deeds: Deeds,
    /// After a start of the node, until its engine has been asked: since when.
    pub unasked: Option<Timestamp>,
    /// When the kernel said that its run has ended, where the engine did not say how.
    pub ended_at: Option<Timestamp>,
    /// It lives, and nobody reaches it.
    pub off_network: bool,
    /// Looks made because of that, and when the next is due: of what gives it an address nobody may hear.
    pub off_looks: Option<(u32, Timestamp)>,
    /// What the engine's own probing said last.
    pub judged: Option<Judged>,
    /// Instead of the declared probes, where the image has its own.
    pub health: Option<spec::Health>,
}

/// What could not be put right rests for a while, each thing for itself: nothing else waits for it.
#[derive(Debug, Default)]
pub struct Rests(BTreeMap<String, (u32, Timestamp)>);

impl Rests {
    /// These were tried and failed; all others did not, or are over.
    pub fn take(&mut self, failed: impl Iterator<Item = String>, now: Timestamp) {
        let before = std::mem::take(&mut self.0);
        self.0 = failed
            .map(|path| {
                let times = before.get(&path).map_or(0, |(times, _)| *times);
                (path, (times + 1, now + node::rest_after(times)))
            })
            .chain(
                before
                    .iter()
                    .filter(|(_, (_, until))| *until > now)
                    .map(|(path, rest)| (path.clone(), *rest)),
            )
            .collect();
    }

    pub fn holds(&self, path: &str, now: Timestamp) -> bool {
        self.0.get(path).is_some_and(|(_, until)| *until > now)
    }

    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

/// Where comparing it with what is declared stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checking {
    pub running: bool,
    /// Asked for meanwhile: these paths, or all when `whole`.
    pub paths: std::collections::BTreeSet<PathBuf>,
    pub whole: bool,
    /// It has been compared at least once.
    pub done: bool,
    /// How often something of it was put back, or that was tried.
    pub put_back: u64,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop_probing();
    }
}

impl Instance {
    pub fn new(assigned: Arc<Assigned>, folder: Folder, sites: &std::path::Path) -> Self {
        Self {
            id: assigned.id.clone(),
            wanted: true,
            site: Site::of(sites, &assigned),
            held: matches!(assigned.content.workload, Workload::Container(_)).then(Box::default),
            away: None,
            outage: None,
            state: State::default(),
            install: Install::Absent,
            run: Run::NotStarted,
            busy: None,
            drift: BTreeMap::new(),
            correctable: false,
            current: false,
            copied: None,
            check: Checking::default(),
            probing: Vec::new(),
            prepared: None,
            failures: 0,
            rests_until: None,
            trouble: None,
            ended_for: None,
            not_probed: Vec::new(),
            without: None,
            unstarted: None,
            hurry: Arc::default(),
            unwanted: Arc::default(),
            last_lines: LastLines::default(),
            report: None,
            wake_at: None,
            assigned,
            folder,
        }
    }

    /// Probes of a run that is over say nothing about the next, and must not hold it up.
    pub fn stop_probing(&mut self) {
        for (_, probe) in self.probing.drain(..) {
            probe.abort();
        }
        self.not_probed.clear();
    }

    pub fn process(&self) -> Option<&Process> {
        match &self.assigned.content.workload {
            Workload::Process(process) => Some(process),
            Workload::Site(_) | Workload::Container(_) => None,
        }
    }

    pub fn container(&self) -> Option<&Container> {
        match &self.assigned.content.workload {
            Workload::Container(container) => Some(container),
            Workload::Site(_) | Workload::Process(_) => None,
        }
    }

    /// It lives, and is known to be where nobody reaches it.
    pub fn is_off_network(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.off_network)
    }

    /// It lives and dies, and takes requests by its address.
    pub fn runs(&self) -> bool {
        self.assigned.content.workload.kind().runs()
    }

    /// Takes whether it is off its network, as a look has found it.
    pub fn note_network(&mut self, is_off: bool, now: Timestamp) {
        let Some(held) = &mut self.held else { return };
        held.off_network = is_off;
        let first = (0, now + node::rest_after(0));
        held.off_looks = is_off.then(|| held.off_looks.unwrap_or(first));
    }

    /// When it is to be looked at whether it is on its network again.
    pub fn next_network_look(&self) -> Option<Timestamp> {
        let held = self.held.as_ref().filter(|held| self.busy.is_none() && !held.looking)?;
        held.off_looks.map(|(_, at)| at)
    }

    /// One is made now; the next comes later.
    pub fn looks_for_network(&mut self, now: Timestamp) {
        if let Some((times, at)) = self.held.as_mut().and_then(|held| held.off_looks.as_mut()) {
            *times = times.saturating_add(1);
            *at = now + node::rest_after(*times);
        }
    }

    /// The probes that count.
    pub fn health(&self) -> &spec::Health {
        let own = self.held.as_ref().and_then(|held| held.health.as_ref());
        own.unwrap_or(&self.assigned.content.health)
    }

    /// Takes what the ledger says of its container from now on.
    pub fn hold(&mut self, record: Record) {
        let declared = &self.assigned.content.health;
        if let Some(held) = &mut self.held {
            held.health = record.image_check.then(|| decide::health::with_image_check(declared));
            held.record = Some(record);
        }
    }

    pub fn record(&self) -> Option<&Record> {
        self.held.as_ref().and_then(|held| held.record.as_ref())
    }

    pub fn address(&self, host: &str) -> Option<String> {
        if let (Some(container), Some(record)) = (self.container(), self.record())
            && record.direct
        {
            return record
                .address
                .as_ref()
                .zip(container.port)
                .map(|(address, port)| format!("{address}:{port}"));
        }
        self.state.port.map(|port| format!("{host}:{port}"))
    }

    pub fn has_dynamic_port(&self) -> bool {
        self.assigned.content.port == Some(Port::Dynamic)
    }

    /// Its process, if it is one.
    pub fn live(&self) -> Option<&Live> {
        match self.life() {
            Some(Life::Process(live)) => Some(live),
            Some(Life::Container { .. }) | None => None,
        }
    }

    /// What is needed to end what lives, which is ended by us from here on.
    pub fn ending(&mut self) -> Option<Ending> {
        let life = self.life()?;
        let (run, ending) = (life.run(), life.ending());
        self.state.asked_to_end = self.held.is_some().then_some(run);
        Some(ending)
    }

    pub fn life(&self) -> Option<&Life> {
        match &self.run {
            Run::Alive { life, .. } => Some(life),
            Run::NotStarted | Run::Ended { .. } | Run::Unknown { .. } => None,
        }
    }

    /// Not before what the failed one has left was looked at.
    fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.rests_until?;
        Some(if self.check.running { until.max(now + node::rest_after(0)) } else { until })
    }

    /// Paths that differ and that the policy lets us put back.
    pub fn to_put_back(&self) -> Vec<String> {
        let policy = node::drift_policy(&self.assigned, self.assigned.current);
        self.drift.keys().filter(|path| site::corrects(&policy, path)).cloned().collect()
    }

    /// Takes why what was tried could not be put back; about all else nothing is said.
    pub fn note_stuck(&mut self, tried: &[String], why: impl Fn(&str) -> Option<String>) {
        for path in tried {
            if let Some(drift) = self.drift.get_mut(path) {
                drift.stuck = why(path);
            }
        }
    }

    /// Of a container: drifted paths that the policy lets us put back, and that do not rest.
    pub fn to_repair(&self, now: Timestamp) -> Vec<String> {
        let Some(held) = &self.held else { return Vec::new() };
        // What does not run is started, not repaired.
        let due = |path: &String| path != RUNNING_PATH && !held.rests.holds(path, now);
        self.to_put_back().into_iter().filter(due).collect()
    }

    /// When something is to be put right that rests now.
    pub fn next_repair(&self, now: Timestamp) -> Option<Timestamp> {
        let held = self.held.as_ref().filter(|_| self.busy.is_none() && !self.drift.is_empty())?;
        held.rests.next(now)
    }

    pub fn step(&self, now: Timestamp) -> Step {
        let local = Local {
            id: self.id.clone(),
            install: self.install.clone(),
            run: match &self.run {
                Run::NotStarted => node::Run::NotStarted,
                Run::Alive { health, .. } => node::Run::Alive { health: health.clone() },
                Run::Ended { started, exit } => node::Run::Ended { started: *started, exit: exit.clone() },
                Run::Unknown { since, .. } => node::Run::Unknown { since: *since },
            },
            attempts: self.state.attempts.clone(),
            granted: self.state.granted,
            drifted: self.correctable && (self.held.is_none() || !self.to_repair(now).is_empty()),
            // Led elsewhere by hand after it was switched, it is drift, and the drift policy decides.
            current: self.current
                || (self.state.switched && !site::corrects(&self.assigned.drift, "site/current")),
            busy: self.busy,
            away: self.away.as_ref().map(|(since, _)| *since),
            outage: self.outage,
            off_network: self.is_off_network(),
            unstarted: self.unstarted.clone(),
            rests_until: self.rests_until(now),
        };
        node::step(self.wanted.then_some(&*self.assigned), &local, now)
    }

    /// The report that a step gives, against the one before it.
    pub fn report(&self, step: &Step, host: &str, now: Timestamp) -> InstanceReport {
        let before = self.report.as_deref();
        let same = before.filter(|report| report.ready == step.ready);
        InstanceReport {
            id: self.id.clone(),
            release: self.assigned.release,
            state: step.state.clone(),
            ready: step.ready,
            ready_since: same.map_or(now, |report| report.ready_since),
            pid: self.life().and_then(Life::pid),
            container: self.record().and_then(|record| record.id.clone()),
            address: self.address(host),
            folder: self.site.as_ref().map(|site| site.folder().display().to_string()),
            current: self.current,
            started_at: self.state.started_at,
            attempts: self.state.attempts.clone(),
            last_exit: self.state.last_exit.clone(),
            message: self.message(step),
            without: self.without.clone().filter(|_| self.runs() && self.life().is_some()),
            last_lines: self.last_lines.lines.clone(),
            copied: self.copied,
            drift: self.drift.values().cloned().collect(),
        }
    }

    fn message(&self, step: &Step) -> String {
        if let Some((_, cause)) = &self.away {
            return cause.clone();
        }
        match (&self.run, self.trouble.as_ref().or(self.not_probed.first().map(|(_, why)| why))) {
            (Run::Unknown { cause, .. }, _) => format!("{}: {cause}", step.message),
            (_, Some(trouble)) if step.message.is_empty() || step.message == *trouble => trouble.clone(),
            (_, Some(trouble)) => format!("{}; {trouble}", step.message),
            (_, None) => step.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_rests_longer_each_time_and_holds_up_nothing_else() {
        let mut rests = Rests::default();
        let at = |millis: u64| Timestamp(1_000_000 + millis);
        let failed = |path: &str| std::iter::once(path.to_owned());
        rests.take(failed("name"), at(0));
        assert!(
            rests.holds("name", at(499)) && !rests.holds("name", at(500)) && !rests.holds("memory", at(0))
        );
        assert_eq!(rests.next(at(0)), Some(at(500)));
        rests.take(failed("name"), at(500));
        assert_eq!(rests.next(at(500)), Some(at(1500)));
        // Another is tried meanwhile.
        rests.take(failed("memory"), at(600));
        assert!(rests.holds("name", at(1499)) && rests.holds("memory", at(1099)));
        for _ in 0..20 {
            let now = rests.next(at(600)).unwrap();
            rests.take(failed("name"), now);
        }
        assert_eq!(rests.next(at(600)).unwrap(), rests.0["name"].1);
        rests.take(std::iter::empty(), rests.0["name"].1);
        assert!(rests.0.is_empty(), "it is over");
    }
}
