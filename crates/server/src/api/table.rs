//! Every route, once: what it is for, what it takes and answers, and who handles it. Router and OpenAPI document are
//! both made from this table, so neither knows a route that the other does not.

use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    Api, artifacts, cluster, edges, events, explain, logs, metrics, monitoring, page, requests, services,
};
use crate::views;

pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub about: &'static str,
    pub query: &'static [Query],
    pub body: Option<Content>,
    pub status: u16,
    pub answer: Content,
    /// Needs no token.
    pub open: bool,
    /// Takes `Idempotency-Key` and `If-Match`.
    pub terms: bool,
    pub handler: MethodRouter<Api>,
}

/// Name, JSON type, what it does.
pub type Query = (&'static str, &'static str, &'static str);

#[derive(Clone, Copy)]
pub struct Content {
    pub kind: &'static str,
    pub schema: Option<SchemaOf>,
}

const EMPTY: Content = Content { kind: "application/json", schema: None };

fn json<T: JsonSchema>() -> Content {
    Content { kind: "application/json", schema: Some(|generator| generator.subschema_for::<T>()) }
}

fn text(kind: &'static str) -> Content {
    Content { kind, schema: Some(|generator| generator.subschema_for::<String>()) }
}

impl Route {
    fn get<H: axum::handler::Handler<T, Api>, T: 'static>(
        path: &'static str,
        about: &'static str,
        handler: H,
    ) -> Self {
        Self::new("get", path, about, get(handler))
    }

    fn post<H: axum::handler::Handler<T, Api>, T: 'static>(
        path: &'static str,
        about: &'static str,
        handler: H,
    ) -> Self {
        Self::new("post", path, about, post(handler))
    }

    /// A write to the declared state.
    fn intent<H: axum::handler::Handler<T, Api>, T: 'static>(
        path: &'static str,
        about: &'static str,
        handler: H,
    ) -> Self {
        Self { terms: true, ..Self::post(path, about, handler).answers::<views::Applied>(200) }
    }

    fn new(
        method: &'static str,
        path: &'static str,
        about: &'static str,
        handler: MethodRouter<Api>,
    ) -> Self {
        let (query, body, open, terms) = (&[][..], None, false, false);
        Self { method, path, about, query, body, status: 200, answer: EMPTY, open, terms, handler }
    }

    fn query(self, query: &'static [Query]) -> Self {
        Self { query, ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(json::<T>()), ..self }
    }

    fn answers<T: JsonSchema>(self, status: u16) -> Self {
        Self { status, answer: json::<T>(), ..self }
    }

    fn answers_nothing(self) -> Self {
        Self { status: 204, ..self }
    }

    fn shows(self, kind: &'static str) -> Self {
        Self { answer: text(kind), ..self }
    }
}

const EVENTS: &[Query] = &[
    ("after", "integer", "only events after this sequence; without it the newest"),
    ("service", "string", "only of this service, `project/name`"),
    ("limit", "integer", "at most so many, 1000 at the most"),
];
const LOGS: &[Query] = &[
    ("instance", "string", "only of this instance; else of all, with the instance's name before each line"),
    ("tail", "integer", "the last so many lines of each, 100 by default"),
    ("follow", "boolean", "goes on with what is written from now on"),
];
const AUDIT: &[Query] = &[
    ("after", "integer", "only rows after this sequence"),
    ("limit", "integer", "at most so many, 1000 at the most"),
];
const DRIFT: &[Query] = &[("service", "string", "only of this service, `project/name`")];
const ROUTES: &[Query] = &[
    ("after", "integer", "only a table newer than this revision"),
    ("wait", "integer", "seconds to wait for one, 30 at the most"),
];
const REPORT: &[Query] = &[("address", "string", "where people reach the edge, `host:port`")];
const REPLAY: &[Query] = &[("replay", "boolean", "plans the recorded world again and compares")];

/// The whole interface.
pub fn routes() -> Vec<Route> {
    [reading(), writing(), explaining(), whole(), operating()].into_iter().flatten().collect()
}

fn reading() -> Vec<Route> {
    vec![
        Route::get("/api/v1/services", "State of every service.", services::list).answers::<views::Services>(200),
        Route::get("/api/v1/services/{project}/{name}", "State of one service, with its ETag.", services::one)
            .answers::<views::Services>(200),
        Route::get(
            "/api/v1/services/{project}/{name}/spec",
            "The declaration as it is recorded, env values included.",
            services::spec,
        )
        .answers::<views::Spec>(200),
        Route::get(
            "/api/v1/services/{project}/{name}/deployments",
            "Deployments of a service, newest first.",
            services::deployments,
        )
        .answers::<views::Deployments>(200),
        Route::get("/api/v1/services/{project}/{name}/drift", "What differs from the declaration.", services::drift)
            .answers::<views::Drifts>(200),
        Route::get("/api/v1/services/{project}/{name}/logs", "Output of the workloads, raw.", logs::logs)
            .query(LOGS)
            .shows("text/plain"),
        Route::get("/api/v1/deployments/{id}", "One deployment.", services::deployment)
            .answers::<views::Deployment>(200),
        Route::get("/api/v1/drift", "What differs anywhere.", services::all_drift)
            .query(DRIFT)
            .answers::<views::Drifts>(200),
        Route::get(
            "/api/v1/events",
            "Events, oldest first, as server-sent events that go on after `Last-Event-ID`; with `Accept: application/json` or `limit` one page.",
            events::events,
        )
        .query(EVENTS)
        .answers::<views::Events>(200),
    ]
}

fn writing() -> Vec<Route> {
    vec![
        Route::intent("/api/v1/apply", "Declares services; what is unchanged stays as it is.", requests::apply)
            .takes::<views::Apply>(),
        Route::post("/api/v1/plan", "What an apply would change and why, without changing it.", requests::plan)
            .takes::<views::Apply>()
            .answers::<views::Plans>(200),
        Route::intent(
            "/api/v1/services/{project}/{name}/deploy",
            "A new deployment, of an uploaded artifact or of what is declared.",
            requests::deploy,
        )
        .takes::<views::Deploy>(),
        Route::intent(
            "/api/v1/services/{project}/{name}/rollback",
            "Back to an earlier release, settings and files too.",
            requests::rollback,
        )
        .takes::<views::Rollback>(),
        Route::intent("/api/v1/services/{project}/{name}/scale", "Sets the number of replicas.", requests::scale)
            .takes::<views::Scale>(),
        Route::intent("/api/v1/services/{project}/{name}/stop", "Stops every instance.", requests::stop),
        Route::intent("/api/v1/services/{project}/{name}/start", "Starts what was stopped.", requests::start),
        Route::intent("/api/v1/services/{project}/{name}/restart", "Replaces every instance.", requests::restart),
        Route {
            terms: true,
            ..Route::new(
                "delete",
                "/api/v1/services/{project}/{name}",
                "Removes the service and everything of it.",
                delete(requests::delete),
            )
            .answers::<views::Applied>(200)
        },
        Route::intent("/api/v1/deployments/{id}/cancel", "Cancels an open deployment.", requests::cancel),
        Route {
            body: Some(text("application/octet-stream")),
            ..Route::post(
                "/api/v1/artifacts",
                "Takes an archive (tar, tar.gz, tar.zst or zip, told by its first bytes) as a site's content.",
                artifacts::upload,
            )
            .answers::<views::Artifact>(201)
        },
        Route::get("/api/v1/artifacts/{digest}", "Whether an artifact is stored.", artifacts::one)
            .answers::<views::Artifact>(200),
    ]
}

fn explaining() -> Vec<Route> {
    vec![
        Route::get(
            "/api/v1/services/{project}/{name}/explain",
            "Why a service is as it is, and what it waits for.",
            explain::service,
        )
        .answers::<views::Explanation>(200),
        Route::get("/api/v1/instances/{id}/explain", "Why an instance is as it is.", explain::instance)
            .answers::<views::Explanation>(200),
        Route::get("/api/v1/deployments/{id}/explain", "Why a deployment is as it is.", explain::deployment)
            .answers::<views::Explanation>(200),
        Route::get("/api/v1/journal/{seq}", "One recorded pass over a service.", explain::pass)
            .query(REPLAY)
            .answers::<views::Journal>(200),
    ]
}

fn whole() -> Vec<Route> {
    vec![
        Route::post("/api/v1/reconcile", "A pass now, or what it would do.", cluster::reconcile)
            .takes::<views::Reconcile>()
            .answers::<views::Reconciled>(202),
        Route::post(
            "/api/v1/gc",
            "Removes images, networks and, when asked for, volumes that nothing reaches; or says what would go.",
            cluster::collect,
        )
        .takes::<views::Collect>()
        .answers::<views::CollectedThings>(200),
        Route::get("/api/v1/nodes", "The nodes, with what is strange there.", cluster::nodes)
            .answers::<views::Nodes>(200),
        Route::get(
            "/api/v1/edges/routes",
            "The route table for an edge that runs apart; 204 when there is no newer one.",
            edges::routes,
        )
        .query(ROUTES)
        .answers::<serde_json::Value>(200),
        Route::post("/api/v1/edges/report", "What an edge that runs apart serves.", edges::report)
            .query(REPORT)
            .takes::<serde_json::Value>()
            .answers_nothing(),
        Route::get("/api/v1/audit", "Who asked for what, oldest first.", cluster::audit)
            .query(AUDIT)
            .answers::<views::Audit>(200),
        Route::get("/api/v1/audit/verify", "Whether the audit trail is whole.", cluster::verify_audit)
            .answers::<views::AuditVerified>(200),
        Route::get("/api/v1/schema", "JSON Schema of the manifest.", cluster::schema)
            .answers::<serde_json::Value>(200),
        Route::get("/api/v1/openapi.json", "This document.", page::openapi).answers::<serde_json::Value>(200),
        Route::get("/api/v1/docs", "This document for people; works offline.", page::html).shows("text/html"),
        Route::get("/api/v1/docs/page.js", "Script of the page.", page::script).shows("text/javascript"),
        Route::get("/api/v1/docs/page.css", "Style of the page.", page::style).shows("text/css"),
    ]
}

fn operating() -> Vec<Route> {
    vec![
        Route {
            open: true,
            ..Route::get("/health", "Alive.", monitoring::health).answers::<serde_json::Value>(200)
        },
        Route {
            open: true,
            ..Route::get("/ready", "May serve.", monitoring::ready).answers::<serde_json::Value>(200)
        },
        Route::get("/metrics", "Metrics in the text format of Prometheus.", metrics::metrics)
            .shows("text/plain"),
        Route::get("/api/monitoring/health", "Instances by health.", monitoring::monitoring_health)
            .answers::<views::MonitoringHealth>(200),
        Route::get(
            "/api/monitoring/stats",
            "Sums over passes, instances, deployments.",
            monitoring::monitoring_stats,
        )
        .answers::<views::MonitoringStats>(200),
        Route::get(
            "/api/monitoring/deployments/stuck",
            "Open deployments without progress for 5 minutes, or past their deadline.",
            monitoring::stuck,
        )
        .answers::<views::StuckDeployments>(200),
        Route::post("/api/monitoring/reconcile/trigger", "A pass now.", monitoring::trigger)
            .answers::<views::Triggered>(202),
    ]
}
