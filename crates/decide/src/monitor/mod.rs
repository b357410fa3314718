//! What an operator asks of many services: which of them somebody has to look at, why, and what happened there. Read
//! off the worlds alone, so that API, metrics and commands say the same, also after a restart.
//!
//! Owns: the words for health, what counts as stuck, broken, restarted too often, an issue. Refuses to know: where the
//! answers are shown, and the clock.

use std::{collections::BTreeMap, fmt, ops::AddAssign};

use crate::{
    plan, retry,
    status::{self, Summary},
    world::World,
};
use model::{
    DeploymentId, InstanceId, Millis, ProjectName, ServiceKey, Timestamp,
    collect::{self, Held},
    deployment::Phase,
    drift::Drift,
    event::Kind,
    instance::{Attempts, Placement, Stage},
    observation::{InstanceReport, Observation, State},
    plan::{Restarts, RestartsAt},
    reason::{Change, Waiting},
    spec::DriftMode,
    status::{ServiceHealth, ServiceState},
};

mod tally;

pub use tally::{Outcome, Tally, average_deployment, ended, tally};

/// Without progress for this long, a deployment counts as stuck.
pub const STUCK_AFTER: Millis = Millis::mins(5);

const HOUR: Millis = Millis::mins(60);
const DAY: Millis = Millis::mins(24 * 60);
/// Restarts of the last hour are told apart when they are this far from one another, older ones by the hour.
const GRAIN: Millis = Millis::secs(10);

/// All that is known about how a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkup {
    pub health: ServiceHealth,
    /// Why somebody has to look at it; empty where nobody has to.
    pub reason: String,
    pub summary: Summary,
    pub restarts: Windows,
    pub alerts: Vec<Alert>,
    pub stuck: Option<Stuck>,
    pub broken: Broken,
}

pub fn check(world: &World, now: Timestamp) -> Checkup {
    let summary = status::summary(world, now);
    let (alerts, stuck) = (alerts(world, now), stuck(world, now));
    let drift = world.lost().chain(world.without_engine()).next().or_else(|| first_drift(world));
    let troubled = stuck.is_some() || !alerts.is_empty() || drift.is_some();
    let by_state = by_state(world, &summary);
    let health = if troubled { by_state.max(ServiceHealth::Degraded) } else { by_state };
    let reason = if health <= ServiceHealth::Healthy {
        String::new()
    } else {
        let sentences = [
            stuck.as_ref().map(Stuck::to_string),
            Some(summary.message.clone()).filter(|message| !message.is_empty()),
            alerts.first().map(Alert::to_string),
            drift.map(|waiting| waiting.to_string()),
        ];
        sentences.into_iter().flatten().next().unwrap_or_default()
    };
    let restarts = Windows::of(&world.plan.restarts, now);
    Checkup { health, reason, summary, restarts, alerts, stuck, broken: Broken::of(world) }
}

/// Ready instances are what counts: a deployment that goes on beside them is no trouble.
fn by_state(world: &World, summary: &Summary) -> ServiceHealth {
    let comes_up_first = world.active_deployment().is_none();
    match summary.state {
        ServiceState::Converged => ServiceHealth::Healthy,
        ServiceState::Degraded => ServiceHealth::Degraded,
        ServiceState::Failed => ServiceHealth::Unhealthy,
        ServiceState::Stopped => ServiceHealth::Stopped,
        ServiceState::Unknown => ServiceHealth::Unknown,
        ServiceState::Progressing if summary.ready >= summary.desired => ServiceHealth::Healthy,
        ServiceState::Progressing if summary.ready > 0 || comes_up_first => ServiceHealth::Degraded,
        ServiceState::Progressing => ServiceHealth::Unhealthy,
    }
}

/// An instance that is restarted too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub instance: InstanceId,
    pub restarts: usize,
    /// How its runs end.
    pub why: String,
}

impl Alert {
    /// `None`: not too often. `attempts` may be newer than those in the report.
    pub fn of(
        instance: &InstanceId,
        attempts: &Attempts,
        seen: Option<&InstanceReport>,
        now: Timestamp,
    ) -> Option<Self> {
        let restarts = retry::recent_restarts(attempts, now);
        let why = || seen.map_or_else(|| "its node does not tell how".into(), why_it_ends);
        (restarts > retry::ALERT_RESTARTS).then(|| Self { instance: instance.clone(), restarts, why: why() })
    }

    pub fn change(&self) -> Change {
        Change::Alert {
            instance: self.instance.clone(),
            restarts: self.restarts,
            within: retry::ALERT_WINDOW,
            message: self.why.clone(),
        }
    }
}

/// The event's own sentence: it is the same fact.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change().fmt(f)
    }
}

/// Between two runs the message is about the last one; while the next one lives it is about that, so the last end is
/// told instead.
fn why_it_ends(seen: &InstanceReport) -> String {
    let between = matches!(seen.state, State::BackingOff { .. } | State::Failed { .. });
    match &seen.last_exit {
        _ if between && !seen.message.is_empty() => seen.message.clone(),
        Some(exit) => format!("it ended with {exit}"),
        None if seen.message.is_empty() => "it gives no reason".into(),
        None => seen.message.clone(),
    }
}

/// The instances of a service that are restarted too often. It is over when the oldest restart leaves the window.
pub fn alerts(world: &World, now: Timestamp) -> Vec<Alert> {
    let of = |placement: &Placement| {
        let seen = world.report(&placement.id);
        let attempts = seen
            .map_or_else(|| placement.attempts.clone(), |report| placement.attempts.floor(&report.attempts));
        Alert::of(&placement.id, &attempts, seen, now)
    };
    world.plan.placements.values().filter(|p| p.stage.is_run()).filter_map(of).collect()
}

/// Restarts of a service's instances, of whatever release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Windows {
    pub ten_minutes: u64,
    pub hour: u64,
    pub day: u64,
    /// Since it was declared.
    pub total: u64,
}

impl Windows {
    pub fn of(restarts: &Restarts, now: Timestamp) -> Self {
        let within = |window: Millis| {
            restarts.recent.iter().filter(|restart| now.since(restart.at) < window).map(|r| r.count).sum()
        };
        Self {
            ten_minutes: within(retry::ALERT_WINDOW),
            hour: within(HOUR),
            day: within(DAY),
            total: restarts.total,
        }
    }
}

/// Takes in that an instance's count has risen.
pub fn note_restarts(restarts: &mut Restarts, before: &Attempts, after: &Attempts, now: Timestamp) {
    let count = after.total.saturating_sub(before.total);
    if count == 0 {
        return;
    }
    restarts.total += count;
    let last = before.at.last().copied();
    let times: Vec<Timestamp> = after.at.iter().copied().filter(|at| last.is_none_or(|l| *at > l)).collect();
    let surplus = times.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    let times = &times[surplus..];
    // More than its node remembers one by one: the others were before those.
    let untimed = count - times.len() as u64;
    let earliest = times.first().copied().unwrap_or(now);
    let untimed = (untimed > 0).then_some(RestartsAt { at: earliest, count: untimed });
    restarts.recent.extend(untimed);
    restarts.recent.extend(times.iter().map(|at| RestartsAt { at: *at, count: 1 }));
    // Two nodes tell of theirs in whatever order.
    restarts.recent.sort_by_key(|restart| restart.at);
    restarts.recent.retain(|restart| now.since(restart.at) < DAY);
    restarts.recent.dedup_by(|later, earlier| {
        let grain = if now.since(later.at) < HOUR { GRAIN } else { HOUR };
        let together = later.at.0 / grain.0 == earlier.at.0 / grain.0;
        if together {
            *earlier = RestartsAt { at: later.at, count: earlier.count + later.count };
        }
        together
    });
}

/// An open deployment that stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub deployment: DeploymentId,
    pub number: u64,
    pub phase: Phase,
    /// When it last came further.
    pub since: Timestamp,
    /// Set when it is past it.
    pub deadline: Option<Millis>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, phase, since, deadline, .. } = self;
        write!(f, "deployment #{number} stands still in {phase} since {since}")?;
        match deadline {
            Some(deadline) => write!(f, ", past its deadline of {deadline}"),
            None => Ok(()),
        }
    }
}

/// Without progress for five minutes, or past its deadline. What holds after it has come up has its time to hold.
pub fn stuck(world: &World, now: Timestamp) -> Option<Stuck> {
    let open = world.open_deployment()?;
    let policy = world.service.known().map(|service| &service.spec.deploy);
    let holds_until = world.plan.rollout.held_since.zip(policy).map(|(since, p)| since + p.min_healthy);
    let held = holds_until.map_or(Timestamp::ZERO, |until| until.min(now));
    let since = world.plan.rollout.progressed_at.max(open.phase_updated_at).max(held);
    let still = now.since(since);
    let deadline = policy.map(|policy| policy.deadline).filter(|deadline| still >= *deadline);
    (still >= STUCK_AFTER || deadline.is_some()).then(|| Stuck {
        deployment: open.id.clone(),
        number: open.number,
        phase: open.phase,
        since,
        deadline,
    })
}

/// What is wrong with sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Broken {
    /// `current`, or a link in a webroot, is missing or points elsewhere.
    pub links: u64,
    /// The folder of a deployment is not there.
    pub missing: u64,
    /// Files in it differ.
    pub files: u64,
}

impl Broken {
    pub fn of(world: &World) -> Self {
        let mut broken = Self::default();
        for drift in reports(world).flat_map(|report| &report.drift) {
            broken.add(drift);
        }
        broken
    }

    fn add(&mut self, drift: &Drift) {
        match drift.path.as_str() {
            "site/current" => self.links += 1,
            path if path.starts_with("webroot/") => self.links += 1,
            "site" if drift.observed.is_none() => self.missing += 1,
            path if path == "site" || path.starts_with("site/") => self.files += 1,
            _ => {}
        }
    }
}

impl AddAssign for Broken {
    fn add_assign(&mut self, other: Self) {
        let Self { links, missing, files } = other;
        self.links += links;
        self.missing += missing;
        self.files += files;
    }
}

fn reports(world: &World) -> impl Iterator<Item = &InstanceReport> {
    let standing = world.plan.placements.values().filter(|p| !matches!(p.stage, Stage::Kept));
    standing.filter_map(|placement| world.report(&placement.id))
}

/// In the planner's own words; what cannot be put back first.
pub(crate) fn first_drift(world: &World) -> Option<Waiting> {
    let corrected = match world.service.known()?.spec.drift.mode {
        DriftMode::Correct => true,
        DriftMode::Warn => false,
        DriftMode::Off => return None,
    };
    let all = || reports(world).flat_map(|report| report.drift.iter().map(move |drift| (report, drift)));
    let (report, drift) = all().find(|(_, drift)| drift.stuck.is_some()).or_else(|| all().next())?;
    Some(plan::drift::waiting(report, drift, corrected))
}

/// What differs and is left so because that was declared, in the planner's own words.
pub fn left_alone(world: &World) -> Option<String> {
    let drift = first_drift(world)?;
    matches!(drift, Waiting::Drift { corrected: false, .. }).then(|| drift.to_string())
}

/// What instances run without though it was declared, a sentence each, in the planner's own words.
pub fn withouts(world: &World) -> Vec<String> {
    let lacks = reports(world).filter_map(|report| {
        let (instance, cause) = (report.id.clone(), report.without.clone()?);
        Some(Waiting::Without { instance, cause }.to_string())
    });
    lacks.collect()
}

/// Instances by what they do. Each is in one of `healthy`, `unhealthy` and `stopped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Instances {
    pub total: u64,
    pub healthy: u64,
    pub unhealthy: u64,
    /// Between two runs.
    pub stopped: u64,
    pub running: u64,
}

impl Instances {
    pub fn of(world: &World) -> Self {
        let mut instances = Self::default();
        for placement in world.plan.placements.values().filter(|p| !matches!(p.stage, Stage::Kept)) {
            instances.add(world.report(&placement.id));
        }
        instances
    }

    fn add(&mut self, report: Option<&InstanceReport>) {
        self.total += 1;
        match report.map(|report| (&report.state, report.ready)) {
            Some((State::BackingOff { .. }, _)) => self.stopped += 1,
            // It is not started again by itself, or not soon: somebody has to look.
            Some((State::Failed { .. }, _)) => self.unhealthy += 1,
            Some((State::Running, ready)) => {
                self.running += 1;
                self.healthy += u64::from(ready);
                self.unhealthy += u64::from(!ready);
            }
            Some((
                State::Installing | State::Starting | State::Stopping { .. } | State::Unknown { .. },
                true,
            )) => self.healthy += 1,
            Some((
                State::Installing | State::Starting | State::Stopping { .. } | State::Unknown { .. },
                false,
            ))
            | None => self.unhealthy += 1,
        }
    }
}

impl AddAssign for Instances {
    fn add_assign(&mut self, other: Self) {
        let Self { total, healthy, unhealthy, stopped, running } = other;
        self.total += total;
        self.healthy += healthy;
        self.unhealthy += unhealthy;
        self.stopped += stopped;
        self.running += running;
    }
}

/// A project is as well as the worst of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub health: ServiceHealth,
    pub services: BTreeMap<ServiceHealth, u64>,
    /// About the worst of them; empty where nobody has to look.
    pub reason: String,
}

pub fn projects<'a>(
    checkups: impl IntoIterator<Item = (&'a ServiceKey, &'a Checkup)>,
) -> BTreeMap<ProjectName, Project> {
    let mut projects: BTreeMap<ProjectName, Project> = BTreeMap::new();
    for (key, checkup) in checkups {
        let project = projects.entry(key.project.clone()).or_insert_with(|| Project {
            health: ServiceHealth::Stopped,
            services: BTreeMap::new(),
            reason: String::new(),
        });
        *project.services.entry(checkup.health).or_default() += 1;
        if checkup.health > project.health {
            project.health = checkup.health;
            project.reason = match checkup.reason.as_str() {
                "" => String::new(),
                reason => format!("{key} is {}: {reason}", checkup.health),
            };
        }
    }
    projects
}

/// Whether an event tells of something that is not as it should be; the newest of a service is its last issue.
pub fn is_issue(kind: Kind) -> bool {
    match kind {
        Kind::ServiceQuarantined
        | Kind::DeploymentFailed
        | Kind::InstanceUnready
        | Kind::InstanceExited
        | Kind::InstanceFailed
        | Kind::DriftFound
        | Kind::RestartAlert
        | Kind::StrangerFound
        | Kind::VolumeLost
        | Kind::EngineAway
        | Kind::PassPaused => true,
        Kind::ServiceApplied
        | Kind::ServiceScaled
        | Kind::ServiceStopped
        | Kind::ServiceStarted
        | Kind::ServiceRestarted
        | Kind::ServiceDeleted
        | Kind::ServicePurged
        | Kind::DeploymentQueued
        | Kind::DeploymentPhase
        | Kind::DeploymentActive
        | Kind::DeploymentCancelled
        | Kind::DeploymentSuperseded
        | Kind::DeploymentRolledBack
        | Kind::InstancePlaced
        | Kind::InstanceStarted
        | Kind::InstanceReady
        | Kind::InstanceAdopted
        | Kind::InstanceRetired
        | Kind::InstanceStopped
        | Kind::InstanceGone
        | Kind::DriftCorrected
        | Kind::VolumeBack
        | Kind::EngineBack
        | Kind::Collected
        | Kind::NodeDraining
        | Kind::NodeUndrained
        | Kind::LeaderElected
        | Kind::PassSummary => false,
    }
}

/// What bears our marks and nobody needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Zombies {
    /// In no ledger: reported, never removed.
    pub strangers: u64,
    /// Of dead deployments, until they are collected.
    pub images: u64,
    pub networks: u64,
    /// Collected only when somebody asks for it.
    pub volumes: u64,
}

impl Zombies {
    /// `leftovers` are what a collection would remove, see [`crate::collect::surplus`].
    pub fn of<'a>(observations: impl IntoIterator<Item = &'a Observation>, leftovers: &[Held]) -> Self {
        let count = |kind| leftovers.iter().filter(|held| held.kind == kind).count() as u64;
        Self {
            strangers: observations.into_iter().map(|seen| seen.strangers.len() as u64).sum(),
            images: count(collect::Kind::Image),
            networks: count(collect::Kind::Network),
            volumes: count(collect::Kind::Volume),
        }
    }

    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        let Self { strangers, images, networks, volumes } = *self;
        [("stranger", strangers), ("image", images), ("network", networks), ("volume", volumes)]
    }

    pub fn total(&self) -> u64 {
        self.by_kind().into_iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn attempts(total: u64, ago: &[Millis]) -> Attempts {
        Attempts { at: ago.iter().map(|ago| NOW - *ago).collect(), fast_crashes: 0, total, free: vec![] }
    }

    #[test]
    fn zombies_are_strangers_and_what_nothing_reaches() {
        let held = |kind| Held { kind, name: "a".into(), bytes: 0, used: false };
        let leftovers = [collect::Kind::Image, collect::Kind::Image, collect::Kind::Volume].map(held);
        let zombies = Zombies::of([], &leftovers);
        assert_eq!(zombies, Zombies { strangers: 0, images: 2, networks: 0, volumes: 1 });
        assert_eq!(zombies.total(), 3);
    }

    #[test]
    fn restarts_are_counted_in_windows() {
        let mut restarts = Restarts::default();
        let ago =
            [Millis::mins(25 * 60), Millis::mins(90), Millis::mins(59), Millis::mins(9), Millis::secs(1)];
        note_restarts(&mut restarts, &Attempts::default(), &attempts(5, &ago), NOW);
        assert_eq!(Windows::of(&restarts, NOW), Windows { ten_minutes: 2, hour: 3, day: 4, total: 5 });
        let later = NOW + Millis::mins(10);
        assert_eq!(Windows::of(&restarts, later), Windows { ten_minutes: 0, hour: 2, day: 4, total: 5 });
    }

    #[test]
    fn a_restart_is_counted_once_however_often_it_is_told() {
        let mut restarts = Restarts::default();
        let (none, one) = (Attempts::default(), attempts(1, &[Millis::secs(60)]));
        let two = attempts(2, &[Millis::secs(60), Millis::secs(20)]);
        note_restarts(&mut restarts, &none, &one, NOW);
        note_restarts(&mut restarts, &one, &one, NOW);
        note_restarts(&mut restarts, &one, &two, NOW);
        note_restarts(&mut restarts, &two, &one, NOW);
        assert_eq!(Windows::of(&restarts, NOW), Windows { ten_minutes: 2, hour: 2, day: 2, total: 2 });
    }

    #[test]
    fn restarts_that_no_node_has_timed_are_counted_too() {
        let mut restarts = Restarts::default();
        note_restarts(&mut restarts, &Attempts::default(), &attempts(7, &[Millis::secs(5)]), NOW);
        assert_eq!(Windows::of(&restarts, NOW).ten_minutes, 7);
        let mut restarts = Restarts::default();
        note_restarts(&mut restarts, &Attempts::default(), &attempts(3, &[]), NOW);
        assert_eq!(Windows::of(&restarts, NOW).total, 3);
    }

    #[test]
    fn what_never_stops_dying_keeps_a_short_record() {
        let (mut restarts, mut before) = (Restarts::default(), Attempts::default());
        // Every 6 seconds for two days.
        for nth in 0..2 * 14_400 {
            let now = NOW + Millis::secs(6 * nth);
            let after = Attempts { at: vec![now], fast_crashes: 0, total: nth + 1, free: vec![] };
            note_restarts(&mut restarts, &before, &after, now);
            before = after;
        }
        let now = NOW + Millis::secs(2 * 86_400);
        assert!(restarts.recent.len() <= 400, "{}", restarts.recent.len());
        let Windows { ten_minutes, hour, day, total } = Windows::of(&restarts, now);
        assert_eq!(total, 28_800);
        assert!((98..=102).contains(&ten_minutes), "{ten_minutes}");
        assert!((598..=602).contains(&hour), "{hour}");
        assert!((14_400 - 600..=14_400 + 600).contains(&day), "{day}");
    }

    #[test]
    fn links_folders_and_files_of_a_site_are_told_apart() {
        let drift = |path: &str, observed: Option<&str>| Drift {
            path: path.into(),
            declared: Some("x".into()),
            observed: observed.map(Into::into),
            since: NOW,
            by: None,
            stuck: None,
        };
        let mut broken = Broken::default();
        for (path, observed) in [
            ("site/current", None),
            ("site/current", Some("elsewhere")),
            ("webroot/index.html", None),
            ("site", None),
            ("site/css/app.css", Some("sha256:aaaa")),
            ("files/config.yaml", None),
            ("process", None),
        ] {
            broken.add(&drift(path, observed));
        }
        assert_eq!(broken, Broken { links: 3, missing: 1, files: 1 });
    }

    #[test]
    fn a_project_is_as_well_as_the_worst_of_its_services() {
        let checkup = |health, reason: &str| Checkup {
            health,
            reason: reason.into(),
            summary: Summary { state: ServiceState::Converged, message: String::new(), desired: 1, ready: 1 },
            restarts: Windows::default(),
            alerts: Vec::new(),
            stuck: None,
            broken: Broken::default(),
        };
        let services = [
            ("shop/a", checkup(ServiceHealth::Healthy, "")),
            ("shop/b", checkup(ServiceHealth::Degraded, "it was restarted 4 times")),
            ("shop/c", checkup(ServiceHealth::Stopped, "")),
            ("idle/a", checkup(ServiceHealth::Stopped, "")),
            ("well/a", checkup(ServiceHealth::Healthy, "")),
        ];
        let keyed: Vec<(ServiceKey, Checkup)> =
            services.into_iter().map(|(key, checkup)| (key.parse().unwrap(), checkup)).collect();
        let projects = projects(keyed.iter().map(|(key, checkup)| (key, checkup)));
        let told = |name: &str| {
            let project = &projects[&name.parse::<ProjectName>().unwrap()];
            (project.health, project.reason.as_str())
        };
        assert_eq!(told("shop"), (ServiceHealth::Degraded, "shop/b is degraded: it was restarted 4 times"));
        assert_eq!(told("idle"), (ServiceHealth::Stopped, ""));
        assert_eq!(told("well"), (ServiceHealth::Healthy, ""));
    }
}
