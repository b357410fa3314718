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
use decide::{status, world::World};

use super::{Api, show};

/// One metric with all its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// With the prefix `setpoint_`.
    pub name: &'static str,
    pub help: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Labels with their values, and the value.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge", samples: Vec::new() }
    }

    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "counter", samples: Vec::new() }
    }

    #[must_use]
    pub fn with(mut self, labels: Vec<(&'static str, String)>, value: f64) -> Self {
        self.samples.push((labels, value));
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
    let mut families = of_passes(&api);
    families.extend(of_worlds(&api));
    families.push(api.answers.family());
    families.extend(api.more_metrics.iter().flat_map(|more| more()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text(&families)).into_response()
}

fn of_passes(api: &Api) -> Vec<Family> {
    let passes = api.control.pass_stats();
    let one = |family: Family, value: f64| family.with(Vec::new(), value);
    let last_at = passes.last_at.map_or(0.0, |at| at.0 as f64 / 1000.0);
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    vec![
        Family::gauge("setpoint_build_info", "The running version.").with(version, 1.0),
        one(
            Family::gauge("setpoint_leader", "1 while this server decides."),
            f64::from(u8::from(api.control.is_leader())),
        ),
        one(Family::counter("setpoint_passes_total", "Passes since the start."), passes.passes as f64),
        one(
            Family::counter("setpoint_pass_errors_total", "Passes that failed since the start."),
            passes.errors as f64,
        ),
        one(
            Family::gauge("setpoint_pass_duration_seconds", "How long the last pass took."),
            passes.last_took.as_secs_f64(),
        ),
        one(
            Family::gauge(
                "setpoint_pass_timestamp_seconds",
                "When the last pass was, in seconds since 1970.",
            ),
            last_at,
        ),
        one(
            Family::gauge("setpoint_pass_checked_services", "Services that the last pass planned."),
            passes.last.checked as f64,
        ),
        one(
            Family::gauge("setpoint_pass_changed_services", "Services that the last pass changed."),
            passes.last.changed as f64,
        ),
    ]
}

fn of_worlds(api: &Api) -> Vec<Family> {
    let worlds: Vec<Arc<World>> = api.control.with_brain(|brain| brain.worlds().cloned().collect());
    let (mut states, mut instances, mut deployments) =
        (Counts::default(), Counts::default(), Counts::default());
    let mut restarts =
        Family::gauge("setpoint_service_restarts", "Restarts of a service's present instances.");
    let mut drift = 0;
    for world in &worlds {
        states.add(status::summary(world).state.to_string());
        for placement in world.plan.placements.values() {
            instances.add(show::instance(world, placement).state);
            drift += world.report(&placement.id).map_or(0, |report| report.drift.len());
        }
        for deployment in &world.deployments {
            deployments.add(deployment.phase.to_string());
        }
        let restarted: u64 = world.plan.placements.values().map(|p| show::instance(world, p).restarts).sum();
        if restarted > 0 {
            let labels =
                vec![("project", world.key.project.to_string()), ("service", world.key.name.to_string())];
            restarts = restarts.with(labels, restarted as f64);
        }
    }
    vec![
        states.family(Family::gauge("setpoint_services", "Services by state."), "state"),
        instances.family(Family::gauge("setpoint_instances", "Instances by state."), "state"),
        deployments.family(Family::gauge("setpoint_deployments", "Known deployments by phase."), "phase"),
        restarts,
        Family::gauge("setpoint_drift", "Differences from what is declared.").with(Vec::new(), drift as f64),
    ]
}

#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, word: String) {
        *self.0.entry(word).or_default() += 1;
    }

    fn family(self, family: Family, label: &'static str) -> Family {
        self.0
            .into_iter()
            .fold(family, |family, (word, count)| family.with(vec![(label, word)], count as f64))
    }
}

fn text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, help, kind, samples } in families {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{} {value}", labelled(labels));
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
