//! Every route, once: what it is for, what it takes and answers, and who handles it. Router and OpenAPI document are
//! both made from this table, so neither knows a route that the other does not.

use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use model::access::Role::{self, Admin, Deployer, Operator, Viewer};

use super::{
    Api,
    access::{Access, Scope},
    artifacts, backup, cluster, edges, events, exec, explain, logs, metrics, monitoring, nodes, page,
    requests, services, stats, tokens,
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
    /// Who may; `None`: nobody.
    pub access: Option<Access>,
    /// Takes `Idempotency-Key`.
    pub keyed: bool,
    /// Takes `If-Match`.
    pub matched: bool,
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
        Self { keyed: true, matched: true, ..Self::post(path, about, handler).answers::<views::Applied>(200) }
    }

    fn new(
        method: &'static str,
        path: &'static str,
        about: &'static str,
        handler: MethodRouter<Api>,
    ) -> Self {
        let (query, body, access, status, answer) = (&[][..], None, None, 200, EMPTY);
        let (keyed, matched) = (false, false);
        Self { method, path, about, query, body, status, answer, access, keyed, matched, handler }
    }

    /// Once for each `Idempotency-Key`.
    fn keyed(self) -> Self {
        Self { keyed: true, ..self }
    }

    /// Who may, and about what.
    fn access(self, role: Role, scope: Scope) -> Self {
        Self { access: Some(Access::Needs(role, scope)), ..self }
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
const OF_SERVICE: &[Query] = &[("service", "string", "only of this service, `project/name`")];
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
        Route::get("/api/v1/services", "State of every service.", services::list)
        .access(Viewer, Scope::Anywhere).answers::<views::Services>(200),
        Route::get("/api/v1/services/{project}/{name}", "State of one service, with its ETag.", services::one)
        .access(Viewer, Scope::Service)
            .answers::<views::Services>(200),
        Route::get(
            "/api/v1/services/{project}/{name}/spec",
            "The declaration as it is recorded, env values included.",
            services::spec,
        )
        .access(Deployer, Scope::Service)
        .answers::<views::Spec>(200),
        Route::get(
            "/api/v1/services/{project}/{name}/deployments",
            "Deployments of a service, newest first.",
            services::deployments,
        )
        .access(Viewer, Scope::Service)
        .answers::<views::Deployments>(200),
        Route::get("/api/v1/services/{project}/{name}/drift", "What differs from the declaration.", services::drift)
        .access(Viewer, Scope::Service)
            .answers::<views::Drifts>(200),
        Route::get("/api/v1/services/{project}/{name}/logs", "Output of the workloads, raw.", logs::logs)
        .access(Viewer, Scope::Service)
            .query(LOGS)
            .shows("text/plain"),
        Route::get(
            "/api/v1/stats",
            "Processors, memory and processes that running instances use, measured over half a second.",
            stats::stats,
        )
        .access(Viewer, Scope::Anywhere)
        .query(OF_SERVICE)
        .answers::<views::Usages>(200),
        Route::get("/api/v1/deployments/{id}", "One deployment.", services::deployment)
        .access(Viewer, Scope::Deployment)
            .answers::<views::Deployment>(200),
        Route::get("/api/v1/drift", "What differs anywhere.", services::all_drift)
        .access(Viewer, Scope::Anywhere)
            .query(OF_SERVICE)
            .answers::<views::Drifts>(200),
        Route::get(
            "/api/v1/events",
            "Events, oldest first, as server-sent events that go on after `Last-Event-ID`; with `Accept: application/json` or `limit` one page.",
            events::events,
        )
        .access(Viewer, Scope::Anywhere)
        .query(EVENTS)
        .answers::<views::Events>(200),
    ]
}

fn writing() -> Vec<Route> {
    vec![
        Route::intent("/api/v1/apply", "Declares services; what is unchanged stays as it is.", requests::apply)
        .access(Deployer, Scope::Body)
            .takes::<views::Apply>(),
        Route::post("/api/v1/plan", "What an apply would change and why, without changing it.", requests::plan)
        .access(Deployer, Scope::Body)
            .takes::<views::Apply>()
            .answers::<views::Plans>(200),
        Route::intent(
            "/api/v1/services/{project}/{name}/deploy",
            "A new deployment, of an uploaded artifact or of what is declared.",
            requests::deploy,
        )
        .access(Deployer, Scope::Service)
        .takes::<views::Deploy>(),
        Route::intent(
            "/api/v1/services/{project}/{name}/rollback",
            "Back to an earlier release, settings and files too.",
            requests::rollback,
        )
        .access(Deployer, Scope::Service)
        .takes::<views::Rollback>(),
        Route::intent("/api/v1/services/{project}/{name}/scale", "Sets the number of replicas.", requests::scale)
        .access(Deployer, Scope::Service)
            .takes::<views::Scale>(),
        Route::intent("/api/v1/services/{project}/{name}/stop", "Stops every instance.", requests::stop)
        .access(Deployer, Scope::Service),
        Route::intent("/api/v1/services/{project}/{name}/start", "Starts what was stopped.", requests::start)
        .access(Deployer, Scope::Service),
        Route::intent("/api/v1/services/{project}/{name}/restart", "Replaces every instance.", requests::restart)
        .access(Deployer, Scope::Service),
        Route {
            keyed: true,
            matched: true,
            ..Route::new(
                "delete",
                "/api/v1/services/{project}/{name}",
                "Removes the service and everything of it.",
                delete(requests::delete),
            )
        .access(Operator, Scope::Service)
            .answers::<views::Applied>(200)
        },
        Route {
            status: 101,
            ..Route::get(
                "/api/v1/instances/{id}/exec",
                "Runs a command inside an instance, over a WebSocket (`setpoint.exec.v1`). The first message is text: \
                 what to run. All others are binary, the first byte says what follows. To the server: 0 input, 4 the new \
                 size of the terminal (JSON), 255 the end of input. From it: 1 output, 2 errors, 3 how it ended (JSON: \
                 `exit` or `problem`).",
                exec::exec,
            )
            .access(Deployer, Scope::Instance)
            .takes::<model::session::Exec>()
        },
        Route::intent("/api/v1/deployments/{id}/cancel", "Cancels an open deployment.", requests::cancel)
        .access(Deployer, Scope::Deployment),
        Route {
            body: Some(text("application/octet-stream")),
            ..Route::post(
                "/api/v1/artifacts",
                "Takes an archive (tar, tar.gz, tar.zst or zip, told by its first bytes) as a site's content.",
                artifacts::upload,
            )
            .keyed()
        .access(Deployer, Scope::Anywhere)
            .answers::<views::Artifact>(201)
        },
        Route::get("/api/v1/artifacts/{digest}", "Whether an artifact is stored.", artifacts::one)
        .access(Deployer, Scope::Anywhere)
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
        .access(Viewer, Scope::Service)
        .answers::<views::Explanation>(200),
        Route::get("/api/v1/instances/{id}/explain", "Why an instance is as it is.", explain::instance)
            .access(Viewer, Scope::Instance)
            .answers::<views::Explanation>(200),
        Route::get("/api/v1/deployments/{id}/explain", "Why a deployment is as it is.", explain::deployment)
            .access(Viewer, Scope::Deployment)
            .answers::<views::Explanation>(200),
        Route::get("/api/v1/journal/{seq}", "One recorded pass over a service.", explain::pass)
            .access(Viewer, Scope::Pass)
            .query(REPLAY)
            .answers::<views::Journal>(200),
    ]
}

fn whole() -> Vec<Route> {
    vec![
        Route::post("/api/v1/reconcile", "A pass now, or what it would do.", cluster::reconcile)
            .keyed()
        .access(Operator, Scope::Cluster)
            .takes::<views::Reconcile>()
            .answers::<views::Reconciled>(202),
        Route::post(
            "/api/v1/gc",
            "Removes images, networks and, when asked for, volumes that nothing reaches; or says what would go.",
            cluster::collect,
        )
            .keyed()
        .access(Operator, Scope::Cluster)
        .takes::<views::Collect>()
        .answers::<views::CollectedThings>(200),
        Route::get("/api/v1/nodes", "The nodes, with what is strange there.", nodes::list)
        .access(Viewer, Scope::Cluster)
            .answers::<views::Nodes>(200),
        Route::get("/api/v1/nodes/{id}", "One node.", nodes::one)
            .access(Viewer, Scope::Cluster)
            .answers::<views::Node>(200),
        Route::post(
            "/api/v1/nodes/{id}/drain",
            "Lets a node take nothing new and move what it has, as far as another takes it.",
            nodes::drain,
        )
            .keyed()
        .access(Operator, Scope::Cluster)
        .answers::<views::Node>(200),
        Route::post("/api/v1/nodes/{id}/undrain", "Lets a node take new instances again.", nodes::undrain)
            .keyed()
            .access(Operator, Scope::Cluster)
            .answers::<views::Node>(200),
        Route::get("/api/v1/tokens", "The tokens that were given out; never the tokens themselves.", tokens::list)
            .access(Admin, Scope::Cluster)
            .answers::<views::Tokens>(200),
        Route::post("/api/v1/tokens", "Gives out a token, and shows it this once.", tokens::create)
            .keyed()
            .access(Admin, Scope::Cluster)
            .takes::<views::NewToken>()
            .answers::<views::CreatedToken>(201),
        Route::new("delete", "/api/v1/tokens/{name}", "Takes a token back.", delete(tokens::revoke))
            .keyed()
            .access(Admin, Scope::Cluster)
            .answers_nothing(),
        Route::get(
            "/api/v1/edges/routes",
            "The route table for an edge that runs apart; 204 when there is no newer one.",
            edges::routes,
        )
        .access(Admin, Scope::Cluster)
        .query(ROUTES)
        .answers::<serde_json::Value>(200),
        Route::post("/api/v1/edges/report", "What an edge that runs apart serves.", edges::report)
        .access(Admin, Scope::Cluster)
            .query(REPORT)
            .takes::<serde_json::Value>()
            .answers_nothing(),
        Route::post(
            "/api/v1/backup",
            "A backup of this moment: database, contents and token in one bundle (tar.zst). It holds every secret.",
            backup::backup,
        )
        .access(Admin, Scope::Cluster)
        .shows("application/zstd"),
        Route::get("/api/v1/audit", "Who asked for what, oldest first.", cluster::audit)
        .access(Admin, Scope::Cluster)
            .query(AUDIT)
            .answers::<views::Audit>(200),
        Route::get("/api/v1/audit/verify", "Whether the audit trail is whole.", cluster::verify_audit)
        .access(Admin, Scope::Cluster)
            .answers::<views::AuditVerified>(200),
        Route::get("/api/v1/schema", "JSON Schema of the manifest.", cluster::schema)
        .access(Viewer, Scope::Anywhere)
            .answers::<serde_json::Value>(200),
        Route::get("/api/v1/openapi.json", "This document.", page::openapi)
        .access(Viewer, Scope::Anywhere).answers::<serde_json::Value>(200),
        Route::get("/api/v1/docs", "This document for people; works offline.", page::html)
        .access(Viewer, Scope::Anywhere).shows("text/html"),
        Route::get("/api/v1/docs/page.js", "Script of the page.", page::script)
        .access(Viewer, Scope::Anywhere).shows("text/javascript"),
        Route::get("/api/v1/docs/page.css", "Style of the page.", page::style)
        .access(Viewer, Scope::Anywhere).shows("text/css"),
    ]
}

fn operating() -> Vec<Route> {
    vec![
        Route {
            access: Some(Access::Open),
            ..Route::get("/health", "Alive.", monitoring::health).answers::<serde_json::Value>(200)
        },
        Route {
            access: Some(Access::Open),
            ..Route::get("/ready", "May serve.", monitoring::ready).answers::<serde_json::Value>(200)
        },
        Route::get("/metrics", "Metrics in the text format of Prometheus.", metrics::metrics)
            .access(Viewer, Scope::Cluster)
            .shows("text/plain"),
        Route::get("/api/monitoring/health", "Instances by health.", monitoring::monitoring_health)
            .access(Viewer, Scope::Cluster)
            .answers::<views::MonitoringHealth>(200),
        Route::get(
            "/api/monitoring/stats",
            "Sums over passes, instances, deployments.",
            monitoring::monitoring_stats,
        )
        .access(Viewer, Scope::Cluster)
        .answers::<views::MonitoringStats>(200),
        Route::get(
            "/api/monitoring/deployments/stuck",
            "Open deployments without progress for 5 minutes, or past their deadline.",
            monitoring::stuck,
        )
        .access(Viewer, Scope::Cluster)
        .answers::<views::StuckDeployments>(200),
        Route::post("/api/monitoring/reconcile/trigger", "A pass now.", monitoring::trigger)
            .keyed()
            .access(Operator, Scope::Cluster)
            .answers::<views::Triggered>(202),
    ]
}
