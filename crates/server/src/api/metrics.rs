//! `/metrics`: numbers about passes, services, instances, deployments and the API itself, in the text format of
//! Prometheus. Read from the snapshot when they are asked for; only answers are counted as they happen.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use decide::{
    monitor::{self, Tally},
    world::World,
};
use model::{instance::Placement, observation::Observation};

use super::{Api, monitoring::Seen, show};
use crate::Histogram;

/// One metric with all its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// With the prefix `setpoint_`.
    pub name: &'static str,
    pub help: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub samples: Vec<Sample>,
}

/// Label names with their values. Values come from small sets or name a project or a service, never an instance: each
/// combination is a series that lives for as long as somebody keeps the history.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Debug, Clone)]
pub struct Sample {
    /// What follows the name of the family; only a histogram has such parts.
    part: &'static str,
    labels: Labels,
    value: f64,
}

impl Family {
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge", samples: Vec::new() }
    }

    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "counter", samples: Vec::new() }
    }

    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "histogram", samples: Vec::new() }
    }

    #[must_use]
    pub fn with(mut self, labels: Labels, value: f64) -> Self {
        self.samples.push(Sample { part: "", labels, value });
        self
    }

    /// One sample without labels.
    #[must_use]
    pub fn of(self, value: f64) -> Self {
        self.with(Labels::new(), value)
    }

    #[must_use]
    fn with_histogram(mut self, labels: &Labels, counted: &Histogram) -> Self {
        let within = |bound: String| labels.iter().cloned().chain([("le", bound)]).collect();
        for (bound, count) in counted.buckets() {
            let labels = within(bound.to_string());
            self.samples.push(Sample { part: "_bucket", labels, value: count as f64 });
        }
        let all = counted.count() as f64;
        self.samples.push(Sample { part: "_bucket", labels: within("+Inf".into()), value: all });
        self.samples.push(Sample { part: "_sum", labels: labels.clone(), value: counted.sum() });
        self.samples.push(Sample { part: "_count", labels: labels.clone(), value: all });
        self
    }
}

/// More families from other parts, such as the edge.
pub type MoreMetrics = Arc<dyn Fn() -> Vec<Family> + Send + Sync>;

/// Answers of the API by method, route and status. Bounded: routes are those of the table.
#[derive(Debug, Default)]
pub struct Answers(Mutex<BTreeMap<(&'static str, String, u16), u64>>);

impl Answers {
    pub fn count(&self, method: &Method, route: String, status: StatusCode) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry((method, route, status.as_u16())).or_default() += 1;
    }

    fn family(&self) -> Family {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = Family::counter("setpoint_api_requests_total", "Requests to the API by their answer.");
        counted.iter().fold(answers, |family, ((method, route, status), count)| {
            let labels =
                vec![("method", (*method).into()), ("route", route.clone()), ("status", status.to_string())];
            family.with(labels, *count as f64)
        })
    }
}

/// The route as the table has it; never the path as it was sent, which has no bound.
pub fn route_of(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or_else(|| "none".into(), |path| path.as_str().into())
}

pub async fn metrics(State(api): State<Api>) -> Response {
    let seen = Seen::of(&api).await;
    let mut families = of_server(&api);
    families.extend(of_passes(&api));
    families.extend(of_services(&seen));
    families.extend(of_deployments(&api, &seen));
    families.extend(of_nodes(&api, &seen));
    families.push(api.answers.family());
    families.extend(api.more_metrics.iter().flat_map(|more| more()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text(&families)).into_response()
}

fn of_server(api: &Api) -> Vec<Family> {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    vec![
        Family::gauge("setpoint_build_info", "The running version.").with(version, 1.0),
        Family::gauge("setpoint_leader", "1 while this server decides.")
            .of(f64::from(u8::from(api.control.is_leader()))),
    ]
}

fn of_passes(api: &Api) -> Vec<Family> {
    let passes = api.control.pass_stats();
    let Tally { checked: _, drift, repaired, restarted: _, removed, skipped: _, failed: _ } = passes.happened;
    let mut timestamp =
        Family::gauge("setpoint_pass_timestamp_seconds", "When the last pass was, in seconds since 1970.");
    // Before the first there is none: 1970 would be an alert.
    if let Some(at) = passes.last_at {
        timestamp = timestamp.of(at.0 as f64 / 1000.0);
    }
    vec![
        Family::counter("setpoint_passes_total", "Passes since the start.").of(passes.passes as f64),
        Family::counter("setpoint_pass_errors_total", "Passes that failed since the start.")
            .of(passes.errors as f64),
        Family::histogram("setpoint_pass_duration_seconds", "How long passes took.")
            .with_histogram(&Labels::new(), &passes.durations),
        timestamp,
        Family::gauge("setpoint_pass_checked_services", "Services that the last pass looked at.")
            .of(passes.last.checked as f64),
        Family::gauge("setpoint_pass_changed_services", "Services that the last pass changed.")
            .of(passes.last.changed as f64),
        Family::counter("setpoint_drift_found_total", "Differences from what is declared that were found.")
            .of(drift as f64),
        Family::counter("setpoint_repairs_total", "Differences that were put right.").of(repaired as f64),
        Family::counter(
            "setpoint_removed_instances_total",
            "Instances that are gone, confirmed by their nodes.",
        )
        .of(removed as f64),
    ]
}

fn of_services(seen: &Seen) -> Vec<Family> {
    let (mut states, mut instances) = (Counts::default(), Counts::default());
    let mut health = Family::gauge(
        "setpoint_service_health",
        "1 for the word that says how the service is: healthy, degraded, unhealthy, stopped or unknown.",
    );
    let mut restarts = Family::counter(
        "setpoint_restarts_total",
        "Restarts of a service's instances since it was declared.",
    );
    let mut alerts = Family::gauge(
        "setpoint_restart_alerts",
        "Instances of a service that were restarted more than three times within ten minutes.",
    );
    let mut drift = 0;
    for world in &seen.worlds {
        for placement in world.plan.placements.values() {
            let state = show::instance(world, placement).state;
            instances.add([("kind", kind_of(world, placement)), ("state", state)]);
            drift += world.report(&placement.id).map_or(0, |report| report.drift.len());
        }
        if world.service.is_absent() {
            continue;
        }
        let checkup = monitor::check(world, seen.now);
        states.add([("state", checkup.summary.state.to_string())]);
        let named = || -> Labels {
            vec![("project", world.key.project.to_string()), ("service", world.key.name.to_string())]
        };
        let word = ("health", checkup.health.word().to_owned());
        health = health.with(named().into_iter().chain([word]).collect(), 1.0);
        restarts = restarts.with(named(), checkup.restarts.total as f64);
        alerts = alerts.with(named(), checkup.alerts.len() as f64);
    }
    let broken = seen.broken();
    vec![
        states.family(Family::gauge("setpoint_services", "Services by state.")),
        health,
        instances.family(Family::gauge("setpoint_instances", "Instances by kind and state.")),
        restarts,
        alerts,
        Family::gauge("setpoint_drift", "Differences from what is declared, now.").of(drift as f64),
        Family::gauge(
            "setpoint_site_broken_links",
            "Links of sites, `current` among them, that are missing or point elsewhere.",
        )
        .of(broken.links as f64),
        Family::gauge("setpoint_site_missing_deployments", "Folders of deployed sites that are not there.")
            .of(broken.missing as f64),
        Family::gauge("setpoint_site_damaged_files", "Files of deployed sites that differ.")
            .of(broken.files as f64),
    ]
}

/// By its own release: the declaration may have become another kind meanwhile.
fn kind_of(world: &World, placement: &Placement) -> String {
    let release = world.releases.get(&placement.release).map(|release| release.workload.kind());
    let declared = || world.service.known().map(|service| service.spec.kind());
    release.or_else(declared).map_or_else(|| "unknown".into(), |kind| kind.to_string())
}

fn of_deployments(api: &Api, seen: &Seen) -> Vec<Family> {
    let mut phases = Counts::default();
    for deployment in seen.worlds.iter().flat_map(|world| &world.deployments) {
        phases.add([("phase", deployment.phase.to_string())]);
    }
    let stuck = seen.worlds.iter().filter(|world| monitor::stuck(world, seen.now).is_some()).count();
    let mut outcomes = Family::counter(
        "setpoint_deployments_ended_total",
        "Deployments that ended since the start, by how.",
    );
    let mut durations = Family::histogram(
        "setpoint_deployment_duration_seconds",
        "From the beginning of a deployment to its outcome, for those that ended since the start.",
    );
    let ended = api.control.with_brain(|brain| brain.ended().clone());
    for (outcome, counted) in &ended {
        let labels = vec![("outcome", outcome.word().to_owned())];
        outcomes = outcomes.with(labels.clone(), counted.count() as f64);
        durations = durations.with_histogram(&labels, counted);
    }
    vec![
        phases.family(Family::gauge("setpoint_deployments", "Known deployments by phase.")),
        Family::gauge(
            "setpoint_deployments_stuck",
            "Open deployments without progress for five minutes, or past their deadline.",
        )
        .of(stuck as f64),
        outcomes,
        durations,
    ]
}

fn of_nodes(api: &Api, seen: &Seen) -> Vec<Family> {
    let nodes: Vec<Arc<Observation>> =
        api.control.with_brain(|brain| brain.observations().cloned().collect());
    let mut engines = Family::gauge(
        "setpoint_engine_up",
        "1 while the container engine of a node answers, 0 while it does not.",
    );
    for observation in &nodes {
        if let Some(engine) = &observation.engine {
            let up = engine.away().is_none();
            engines = engines.with(vec![("node", observation.node.to_string())], f64::from(u8::from(up)));
        }
    }
    let zombies = Family::gauge(
        "setpoint_zombies",
        "What bears Setpoint's marks and nobody needs: strangers, and images, networks and volumes that are left over.",
    );
    let zombies =
        seen.zombies.by_kind().into_iter().fold(zombies, |family, (kind, count)| {
            family.with(vec![("kind", kind.to_owned())], count as f64)
        });
    vec![zombies, engines]
}

/// How many there are of each combination of labels.
#[derive(Default)]
struct Counts(BTreeMap<Labels, u64>);

impl Counts {
    fn add(&mut self, labels: impl Into<Labels>) {
        *self.0.entry(labels.into()).or_default() += 1;
    }

    fn family(self, family: Family) -> Family {
        self.0.into_iter().fold(family, |family, (labels, count)| family.with(labels, count as f64))
    }
}

fn text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, help, kind, samples } in families {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for Sample { part, labels, value } in samples {
            let _ = writeln!(out, "{name}{part}{} {value}", labelled(labels));
        }
    }
    out
}

fn labelled(labels: &[(&'static str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let shown: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let family =
            Family::gauge("setpoint_x", "X.").with(vec![("a", "q\"\\\n".into()), ("b", "c".into())], 1.5);
        assert_eq!(
            text(&[family]),
            "# HELP setpoint_x X.\n# TYPE setpoint_x gauge\nsetpoint_x{a=\"q\\\"\\\\\\n\",b=\"c\"} 1.5\n"
        );
    }
}
