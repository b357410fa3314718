//! What `plan` says about a spec that is right, but that its author may not have thought through: assumed
//! probes and avoidable downtime. One sentence for one fact, for CLI and dashboard alike.

use std::fmt;

use crate::spec::{Kind, Order, Port, ServiceSpec, Strategy, Workload};

/// A remark; nothing is refused for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Stable, for programs: `health_assumed`, `downtime` …
    pub code: &'static str,
    pub field: &'static str,
    pub message: String,
    /// What to do about it.
    pub help: &'static str,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.message, self.help)
    }
}

pub fn notes(spec: &ServiceSpec) -> Vec<Note> {
    match spec.workload {
        Workload::Site(_) => Vec::new(),
        Workload::Process(_) => {
            [health_assumed(spec), downtime(spec), own_port(spec)].into_iter().flatten().collect()
        }
        Workload::Container(_) => [health_assumed(spec), downtime(spec)].into_iter().flatten().collect(),
    }
}

fn health_assumed(spec: &ServiceSpec) -> Option<Note> {
    spec.health.assumed.then(|| Note {
        code: "health_assumed",
        field: "health",
        message: match spec.kind() {
            Kind::Container => {
                "no readiness is declared: an instance is ready when its image's HEALTHCHECK says so or, without one, \
                 when its port accepts connections (TCP)"
            }
            Kind::Process | Kind::Site => {
                "no readiness is declared: an instance is ready when its port accepts connections (TCP)"
            }
        }
        .into(),
        help: "declare `health: /path` to probe what it answers",
    })
}

/// The one lint of zero downtime: the first reason, with its own remedy.
fn downtime(spec: &ServiceSpec) -> Option<Note> {
    if spec.port.is_none() || spec.replicas == 0 {
        return None;
    }
    let note = |field, message: String, help| Some(Note { code: "downtime", field, message, help });
    if let Some(Port::Fixed(port)) = spec.port {
        let message = format!(
            "port {port} is held by the old instance until it has ended: each deployment has a gap in service"
        );
        return note("port", message, "remove `port` and give the program \"${PORT}\"");
    }
    let all = spec.deploy.parallelism >= spec.replicas;
    match (spec.deploy.strategy, spec.deploy.order) {
        (Strategy::Recreate, _) => note(
            "deploy.strategy",
            "recreate stops every instance before the first new one starts: each deployment has a gap in service".into(),
            "use `strategy: rolling`",
        ),
        (Strategy::Rolling, Order::StopFirst) if all => note(
            "deploy.order",
            format!(
                "stop-first with {} of {} replicas at a time leaves none serving: each deployment has a gap in service",
                spec.deploy.parallelism.min(spec.replicas),
                spec.replicas
            ),
            "use `order: start-first`, or more replicas than `parallelism`",
        ),
        (Strategy::Rolling, Order::StartFirst | Order::StopFirst) => None,
    }
}

/// The program would listen where nobody probes or routes.
fn own_port(spec: &ServiceSpec) -> Option<Note> {
    let (_, value) = spec.env.iter().find(|(key, _)| key.as_str() == "PORT")?;
    let given = match spec.port {
        Some(Port::Fixed(port)) => port.to_string(),
        Some(Port::Dynamic) | None => "${PORT}".into(),
    };
    (value.0 != given && value.0 != "${PORT}").then(|| Note {
        code: "own_port",
        field: "env.PORT",
        message:
            "env sets PORT to something else than the port that is given, which is the one probed and routed"
                .into(),
        help: "remove it from `env`; for a fixed port write `port:`",
    })
}
