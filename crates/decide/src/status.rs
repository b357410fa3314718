//! A service's state in one word and one sentence, read off its world.

use model::{
    EdgeId, InstanceId, Knowledge, Timestamp,
    deployment::{Cause, Phase},
    instance::Stage,
    observation::State,
    release::Release,
    route::Backend,
    service::Service,
    spec::Port,
    status::ServiceState,
};

use crate::{
    monitor::{self, Alert},
    plan::order,
    world::World,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub state: ServiceState,
    pub message: String,
    pub desired: u32,
    pub ready: u32,
}

pub fn summary(world: &World, now: Timestamp) -> Summary {
    let service = match &world.service {
        Knowledge::Known(service) => service,
        Knowledge::Unknown { cause, .. } => return told(ServiceState::Unknown, cause.clone(), 0, 0),
        Knowledge::Absent => return told(ServiceState::Unknown, "it is not declared".into(), 0, 0),
    };
    let counts = Counts::of(world, service);
    let (state, message) = state(world, service, &counts, &monitor::alerts(world, now));
    told(state, with_obstacles(world, message), counts.wanted, counts.ready)
}

/// What is decided for a node that does not take it, or whose engine does not answer, is not going to happen, whatever
/// else is so.
fn with_obstacles(world: &World, message: String) -> String {
    let obstacles = world.refusals().chain(world.without_engine()).map(|obstacle| obstacle.to_string());
    Some(message)
        .filter(|message| !message.is_empty())
        .into_iter()
        .chain(obstacles)
        .collect::<Vec<_>>()
        .join("; ")
}

fn told(state: ServiceState, message: String, desired: u32, ready: u32) -> Summary {
    Summary { state, message, desired, ready }
}

/// After a rollback it may be of another kind than what is declared.
fn target<'a>(world: &'a World, service: &Service) -> Option<&'a Release> {
    Some(&**world.releases.get(&service.target?)?)
}

struct Counts {
    wanted: u32,
    /// Running, ready and of whatever release: what serves.
    ready: u32,
    /// Not ready, and has been up, died or failed before.
    troubled: Vec<(InstanceId, String)>,
    unknown: u32,
    /// What a node that is heard says of one that it cannot tell of.
    untold: Option<String>,
    /// Outdated, retiring or being removed.
    others: u32,
    missing_or_new: u32,
}

impl Counts {
    fn of(world: &World, service: &Service) -> Self {
        let wanted = order::wanted(service, target(world, service));
        let mut counts = Self {
            wanted,
            ready: 0,
            troubled: Vec::new(),
            unknown: 0,
            untold: None,
            others: 0,
            missing_or_new: 0,
        };
        for placement in world.plan.placements.values() {
            match placement.stage {
                Stage::Kept => {}
                Stage::Retiring { .. } | Stage::Removing { .. } => counts.others += 1,
                Stage::Run => counts.add(world, service, placement),
            }
        }
        counts
    }

    fn add(&mut self, world: &World, service: &Service, placement: &model::instance::Placement) {
        let is_site = order::kind(service, target(world, service)) == model::spec::Kind::Site;
        if Some(placement.release) != service.target
            || (!is_site && placement.restart_epoch < service.restart_epoch)
        {
            self.others += 1;
        }
        if world.is_unknown(&placement.id) {
            self.unknown += 1;
            let seen = world.report(&placement.id).filter(|seen| seen.state.is_unknown());
            self.untold = self.untold.take().or(seen.map(|seen| format!("{}: {}", seen.id, seen.message)));
            return;
        }
        match world.report(&placement.id) {
            Some(seen) if seen.ready && seen.state == State::Running => self.ready += 1,
            // It has come up, and is not ready any more.
            Some(seen)
                if seen.state == State::Running
                    || seen.attempts.total > 0
                    || seen.last_exit.is_some()
                    || seen.state.is_failed() =>
            {
                let trouble = format!("{} {}: {}", seen.id, seen.state.word(), seen.message);
                self.troubled.push((seen.id.clone(), trouble));
            }
            Some(_) | None => self.missing_or_new += 1,
        }
    }
}

/// What is ready and takes no request yet: its routes are to be made, or an edge that lives is to serve them.
fn unrouted(world: &World, counts: &Counts) -> Option<String> {
    let route = world.plan.route.as_ref().filter(|route| !route.domains.is_empty())?;
    let routed = match &route.backend {
        Backend::Proxy { endpoints } => Some(endpoints.len()),
        Backend::Nothing => Some(0),
        Backend::Files { .. } => None,
    };
    if let Some(routed) = routed.filter(|routed| *routed < counts.ready as usize) {
        return Some(format!("{routed} of {} ready instances take requests", counts.ready));
    }
    let behind = |edge: &&EdgeId| {
        world.edges.get(*edge).is_some_and(|seen| !seen.silent && seen.served < route.revision)
    };
    let edge = world.edges.keys().find(behind)?;
    Some(format!("edge {edge} is to serve its routes (revision {})", route.revision))
}

fn state(world: &World, service: &Service, counts: &Counts, alerts: &[Alert]) -> (ServiceState, String) {
    use ServiceState::{Converged, Degraded, Failed, Progressing, Stopped, Unknown};
    let failed = failed_release(world, service);
    let going = counts.others > 0;
    let lost = world.lost().next().map(|lost| lost.to_string());
    if service.deleted.is_some() {
        return (Progressing, "it is being deleted".into());
    }
    if counts.unknown > 0 {
        let message = match (&counts.untold, counts.unknown) {
            (Some(untold), 1) => untold.clone(),
            (Some(untold), unknown) => format!("{untold}; {} others are unknown", unknown - 1),
            (None, unknown) => format!("{unknown} instances have not been heard of"),
        };
        return (Unknown, message);
    }
    if service.stopped {
        let message = "it was stopped; `setpoint start` brings it back";
        return if world.plan.placements.values().any(|p| !matches!(p.stage, Stage::Kept)) {
            (Progressing, "it is being stopped".into())
        } else {
            (Stopped, lost.map_or_else(|| message.into(), |lost| format!("{message}; {lost}")))
        };
    }
    if let Some(open) = world.open_deployment() {
        let stands = format!("deployment #{} {} ({}%)", open.number, open.phase, open.progress());
        let message = match first_word(world, service) {
            Some(word) => format!("{stands}; {word}"),
            None => stands,
        };
        return (Progressing, message);
    }
    if service.target.is_none() {
        return match failed {
            Some(message) => (Failed, message),
            None => (Stopped, "nothing has been deployed yet; `setpoint deploy` gives it a release".into()),
        };
    }
    if counts.wanted == 0 {
        return match lost {
            _ if going => (Progressing, "it is being scaled to 0".into()),
            Some(lost) => (Degraded, lost),
            None => (Converged, String::new()),
        };
    }
    if counts.ready < counts.wanted
        && let Some(lost) = &lost
    {
        return (if counts.ready == 0 { Failed } else { Degraded }, lost.clone());
    }
    // Of what keeps dying, how often and why says more than what it does in this moment.
    let trouble = counts.troubled.first().map(|(instance, trouble)| {
        let alert = alerts.iter().find(|alert| alert.instance == *instance);
        alert.map_or_else(|| trouble.clone(), Alert::to_string)
    });
    if counts.ready == 0 {
        return match (failed, trouble) {
            (Some(message), _) => (Failed, message),
            (None, Some(trouble)) => (Failed, trouble),
            (None, None) => {
                let coming = || "its instances are coming up".into();
                (Progressing, first_word(world, service).unwrap_or_else(coming))
            }
        };
    }
    if let Some(message) = failed {
        return (Degraded, message);
    }
    if let Some(trouble) = trouble {
        return (Degraded, trouble);
    }
    if counts.ready < counts.wanted
        && counts.missing_or_new == 0
        && !going
        && let Some(port) = fixed_port(world, service)
    {
        let message = format!(
            "{} of {} are ready; port {port} is there once at each node",
            counts.ready, counts.wanted
        );
        return (Degraded, message);
    }
    if counts.ready < counts.wanted || counts.missing_or_new > 0 {
        return (Progressing, format!("{} of {} are ready", counts.ready, counts.wanted));
    }
    if going {
        return (Progressing, format!("{} earlier instances are on their way out", counts.others));
    }
    if let Some(message) = unrouted(world, counts) {
        return (Progressing, message);
    }
    if let Some(reason) = lost.or_else(|| monitor::first_drift(world).map(|drift| drift.to_string())) {
        return (Degraded, reason);
    }
    // It is as declared; how it got there, or what it lacks, is told all the same.
    let alert = alerts.first().map(Alert::to_string);
    (Converged, alert.or_else(|| monitor::withouts(world).into_iter().next()).unwrap_or_default())
}

/// What the first instance of the target that is not ready says of itself.
fn first_word(world: &World, service: &Service) -> Option<String> {
    let target = |placement: &&model::instance::Placement| {
        matches!(placement.stage, Stage::Run) && Some(placement.release) == service.target
    };
    let seen = world.plan.placements.values().filter(target).filter_map(|p| world.report(&p.id));
    let mut waiting = seen.filter(|seen| !seen.ready && !seen.message.is_empty());
    waiting.next().map(|seen| format!("{}: {}", seen.id, seen.message))
}

fn fixed_port(world: &World, service: &Service) -> Option<u16> {
    match target(world, service)?.port? {
        Port::Fixed(port) => Some(port),
        Port::Dynamic => None,
    }
}

/// The sentence about the newest asked-for deployment, when it failed and is still wanted: a declaration that has gone
/// back to what runs asks for nothing that failed.
fn failed_release(world: &World, service: &Service) -> Option<String> {
    let newest = world.latest_intended().filter(|d| d.phase == Phase::Failed)?;
    let declared = Release::of(&service.spec).digest();
    if service.target == Some(declared) && newest.release != declared {
        return None;
    }
    let restored = world
        .deployments
        .iter()
        .any(|d| d.cause == Cause::Restore && d.number > newest.number && d.phase == Phase::Active);
    let then = if restored { "; the release before it serves" } else { "" };
    Some(format!("deployment #{} failed: {}{then}", newest.number, newest.message))
}
