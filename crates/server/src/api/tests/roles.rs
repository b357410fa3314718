//! Who may do what: every route, every role, a foreign project; and the life of a token.

use decide::{access::Rules, throttle::Rate};
use model::{Millis, access::Role};
use serde_json::{Value, json};

use super::bench::{API, Bench, TOKEN, declaration};
use crate::api::{
    Limits,
    access::{Access, Scope},
    table,
};

/// Role and scope of every route, written down a second time: whoever changes the table says it here too.
const WHO: &[(&str, &str, &str)] = &[
    ("GET /api/v1/services", "viewer", "anywhere"),
    ("GET /api/v1/services/{project}/{name}", "viewer", "project"),
    ("GET /api/v1/services/{project}/{name}/spec", "deployer", "project"),
    ("GET /api/v1/services/{project}/{name}/deployments", "viewer", "project"),
    ("GET /api/v1/services/{project}/{name}/drift", "viewer", "project"),
    ("GET /api/v1/services/{project}/{name}/logs", "viewer", "project"),
    ("GET /api/v1/services/{project}/{name}/explain", "viewer", "project"),
    ("GET /api/v1/deployments/{id}", "viewer", "project"),
    ("GET /api/v1/deployments/{id}/explain", "viewer", "project"),
    ("GET /api/v1/instances/{id}/explain", "viewer", "project"),
    ("GET /api/v1/instances/{id}/exec", "deployer", "project"),
    ("GET /api/v1/stats", "viewer", "anywhere"),
    ("GET /api/v1/journal/{seq}", "viewer", "project"),
    ("GET /api/v1/drift", "viewer", "anywhere"),
    ("GET /api/v1/events", "viewer", "anywhere"),
    ("POST /api/v1/apply", "deployer", "body"),
    ("POST /api/v1/plan", "deployer", "body"),
    ("POST /api/v1/services/{project}/{name}/deploy", "deployer", "project"),
    ("POST /api/v1/services/{project}/{name}/rollback", "deployer", "project"),
    ("POST /api/v1/services/{project}/{name}/scale", "deployer", "project"),
    ("POST /api/v1/services/{project}/{name}/stop", "deployer", "project"),
    ("POST /api/v1/services/{project}/{name}/start", "deployer", "project"),
    ("POST /api/v1/services/{project}/{name}/restart", "deployer", "project"),
    ("DELETE /api/v1/services/{project}/{name}", "operator", "project"),
    ("POST /api/v1/deployments/{id}/cancel", "deployer", "project"),
    ("POST /api/v1/artifacts", "deployer", "anywhere"),
    ("GET /api/v1/artifacts/{digest}", "deployer", "anywhere"),
    ("POST /api/v1/reconcile", "operator", "cluster"),
    ("POST /api/v1/gc", "operator", "cluster"),
    ("GET /api/v1/nodes", "viewer", "cluster"),
    ("GET /api/v1/nodes/{id}", "viewer", "cluster"),
    ("POST /api/v1/nodes/{id}/drain", "operator", "cluster"),
    ("POST /api/v1/nodes/{id}/undrain", "operator", "cluster"),
    ("GET /api/v1/tokens", "admin", "cluster"),
    ("POST /api/v1/tokens", "admin", "cluster"),
    ("DELETE /api/v1/tokens/{name}", "admin", "cluster"),
    ("GET /api/v1/edges/routes", "admin", "cluster"),
    ("POST /api/v1/edges/report", "admin", "cluster"),
    ("POST /api/v1/backup", "admin", "cluster"),
    ("GET /api/v1/audit", "admin", "cluster"),
    ("GET /api/v1/audit/verify", "admin", "cluster"),
    ("GET /api/v1/schema", "viewer", "anywhere"),
    ("GET /api/v1/openapi.json", "viewer", "anywhere"),
    ("GET /api/v1/docs", "viewer", "anywhere"),
    ("GET /api/v1/docs/page.js", "viewer", "anywhere"),
    ("GET /api/v1/docs/page.css", "viewer", "anywhere"),
    ("GET /health", "open", "open"),
    ("GET /ready", "open", "open"),
    ("GET /metrics", "viewer", "cluster"),
    ("GET /api/monitoring/health", "viewer", "cluster"),
    ("GET /api/monitoring/stats", "viewer", "cluster"),
    ("GET /api/monitoring/deployments/stuck", "viewer", "cluster"),
    ("POST /api/monitoring/reconcile/trigger", "operator", "cluster"),
];

#[test]
fn the_table_says_who_may_and_every_route_is_in_it() {
    let mut told: Vec<(String, String, &str)> = table::routes()
        .iter()
        .map(|route| {
            let name = format!("{} {}", route.method.to_uppercase(), route.path);
            match route.access {
                None => panic!("nobody may use {name}"),
                Some(Access::Open) => (name, "open".into(), "open"),
                Some(Access::Needs(role, scope)) => (name, role.to_string(), word(scope)),
            }
        })
        .collect();
    let mut expected: Vec<_> =
        WHO.iter().map(|(route, role, scope)| ((*route).to_owned(), (*role).to_owned(), *scope)).collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Anywhere => "anywhere",
        Scope::Cluster => "cluster",
        Scope::Service | Scope::Deployment | Scope::Instance | Scope::Pass => "project",
        Scope::Body => "body",
    }
}

/// The route with what is there: a service of the project `default`, its deployment, instance and pass.
fn path(bench: &Bench, route: &str) -> String {
    let service = bench.service("default/api");
    let deployment = service.deployment.as_ref().unwrap().id.to_string();
    let instance = service.instances[0].id.to_string();
    let explained = bench.read("/api/v1/services/default/api/explain");
    let id = match route {
        route if route.contains("/deployments/") => deployment,
        route if route.contains("/instances/") => instance,
        _ => "local".into(),
    };
    let name = if route.contains("/tokens/") { "nobody" } else { "api" };
    route
        .replace("{project}", "default")
        .replace("{name}", name)
        .replace("{id}", &id)
        .replace("{seq}", &explained["journal"][0]["seq"].to_string())
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
}

/// What a denial says, and 200 for whatever else: what is allowed may still be refused for what is asked.
fn verdict(bench: &Bench, token: Option<&str>, method: &str, path: &str, body: &Value) -> u16 {
    let token = token.unwrap_or("sp_of_nobody");
    let request = bench.request_as(token, method, path);
    let request = match method {
        "GET" => request,
        _ => request.header("Content-Type", "application/json").body(body.to_string()),
    };
    let answer = bench.send(request);
    let code = match answer.status {
        200..300 => String::new(),
        _ => answer.json()["code"].as_str().unwrap_or_default().to_owned(),
    };
    match (answer.status, code.as_str()) {
        (status @ (401 | 403), _) => status,
        (404, "not_declared" | "no_such_deployment" | "no_such_instance" | "no_such_pass") => 404,
        (500.., _) => panic!("{method} {path}: {}", answer.text()),
        _ => 200,
    }
}

#[test]
fn each_route_each_role_and_a_foreign_project_get_what_the_table_says() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let give = |role: Role, project: Option<&str>| {
        let name = format!("{role}-{}", project.unwrap_or("all"));
        bench.token(&json!({ "name": name, "role": role, "project": project }))
    };
    let everywhere = Role::ALL.map(|role| (role, give(role, None)));
    let own = Role::ALL.map(|role| (role, give(role, Some("default"))));
    let foreign = give(Role::Admin, Some("other"));
    // Nothing that is allowed is carried out: the body is not what any of them takes.
    let nonsense = json!({ "nonsense": true });
    for (route, needs, scope) in WHO {
        let (method, template) = route.split_once(' ').unwrap();
        let path = path(&bench, template);
        let ask = |token: Option<&str>, body| verdict(&bench, token, method, &path, body);
        let Ok(needs) = needs.parse::<Role>() else {
            assert_eq!(ask(None, &nonsense), 200, "{route} is open");
            continue;
        };
        assert_eq!(ask(None, &nonsense), 401, "{route} without a token");
        assert_eq!(ask(Some(TOKEN), &nonsense), 200, "{route} with the local token");
        for (role, token) in &everywhere {
            let expected = if *role >= needs { 200 } else { 403 };
            assert_eq!(ask(Some(token), &nonsense), expected, "{route} as {role}");
        }
        for (role, token) in &own {
            let allowed = *role >= needs && *scope != "cluster";
            let expected = if allowed { 200 } else { 403 };
            assert_eq!(ask(Some(token), &nonsense), expected, "{route} as {role} of its project");
        }
        let (expected, body) = match *scope {
            "anywhere" => (200, nonsense.clone()),
            "cluster" => (403, nonsense.clone()),
            "project" => (404, nonsense.clone()),
            "body" => (403, declaration(API)),
            other => panic!("{other}"),
        };
        assert_eq!(ask(Some(&foreign), &body), expected, "{route} as admin of another project");
    }
    bench.wait_for_state("default/api", "converged");
}

#[test]
fn a_token_of_one_project_is_shown_nothing_of_others() {
    let bench = Bench::start();
    bench.apply(API);
    bench.apply(&API.replace("services:", "project: demo\nservices:").replace("localhost", "demo.localhost"));
    bench.wait_for_state("demo/api", "converged");
    let token = bench.token(&json!({ "name": "demo", "project": "demo" }));
    let read = |path: &str| bench.send(bench.request_as(&token, "GET", path)).json();
    let services = read("/api/v1/services");
    let projects: Vec<_> = services["services"].as_array().unwrap().iter().map(|s| &s["project"]).collect();
    assert_eq!(projects, ["demo"]);
    let events = read("/api/v1/events?after=0&limit=1000");
    let events = events["events"].as_array().unwrap();
    assert!(!events.is_empty() && events.iter().all(|event| event["project"] == "demo"), "{events:#?}");
}

#[test]
fn a_token_is_shown_once_named_in_the_audit_trail_and_gone_when_it_is_revoked() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let asked = json!({ "name": "ops", "role": "operator" });
    let token = bench.token(&asked);
    assert!(token.starts_with("sp_") && token.len() == 3 + 64, "256 bits: {token}");
    assert_eq!(bench.post("/api/v1/tokens", &asked).status, 409, "the name is taken");
    let reserved = bench.post("/api/v1/tokens", &json!({ "name": "local" }));
    assert_eq!((reserved.status, reserved.json()["code"].clone()), (422, "name_reserved".into()));
    let listed = bench.read("/api/v1/tokens");
    assert_eq!(listed["tokens"][0]["name"], "ops");
    assert!(!listed.to_string().contains(&token[3..]), "it is not shown again");
    let scale = bench.request_as(&token, "POST", "/api/v1/services/default/api/scale");
    let scaled = bench.send(scale.header("Content-Type", "application/json").body(r#"{"replicas":3}"#));
    assert_eq!(scaled.status, 200, "{}", scaled.text());
    let audit = bench.read("/api/v1/audit?after=0&limit=1000");
    let rows: Vec<(&str, &str)> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["actor"].as_str().unwrap(), row["action"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("local", "apply"), ("local", "token.create"), ("ops", "scale")]);
    assert!(!audit.to_string().contains(&token[3..]));
    assert_eq!(bench.send(bench.request("DELETE", "/api/v1/tokens/ops")).status, 204);
    assert_eq!(bench.send(bench.request_as(&token, "GET", "/api/v1/services")).status, 401);
    assert_eq!(bench.send(bench.request("DELETE", "/api/v1/tokens/ops")).status, 404);
}

#[test]
fn an_expired_token_opens_nothing_and_says_so() {
    let bench = Bench::start();
    let token = bench.token(&json!({ "name": "brief", "expires_in": "50ms" }));
    let problem = bench.until("it has expired", || {
        let answer = bench.send(bench.request_as(&token, "GET", "/api/v1/services"));
        (answer.status == 401).then(|| answer.json())
    });
    assert_eq!(problem["code"], "token_expired", "{problem}");
    assert_eq!(bench.read("/api/v1/tokens")["tokens"][0]["expired"], true);
}

#[test]
fn processes_are_for_the_local_token_unless_the_settings_allow_them() {
    for (rules, status) in [(Rules::default(), 403), (Rules { processes: true }, 200)] {
        let bench = Bench::start_with(Limits::default(), rules);
        bench.apply(API);
        bench.wait_for_state("default/api", "converged");
        let token = bench.token(&json!({ "name": "ci", "role": "admin" }));
        let send = |path: &str, body: &Value| {
            let request = bench.request_as(&token, "POST", path).header("Content-Type", "application/json");
            bench.send(request.body(body.to_string()))
        };
        assert_eq!(send("/api/v1/apply", &declaration(API)).status, 200, "what changes nothing runs nothing");
        let changed = declaration(&API.replace("1000", "2000"));
        for (path, body) in [
            ("/api/v1/plan", changed.clone()),
            ("/api/v1/services/default/api/deploy", json!({})),
            ("/api/v1/apply", changed),
        ] {
            let answer = send(path, &body);
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            if status == 403 {
                let problem = answer.json();
                assert_eq!(problem["code"], "process_not_allowed", "{problem}");
                assert!(problem["help"].as_str().unwrap().contains("tokens.processes"), "{problem}");
            }
        }
        let stopped = send("/api/v1/services/default/api/stop", &json!({}));
        assert_eq!(stopped.status, 200, "that runs no code");
    }
}

#[test]
fn wrong_tokens_are_answered_less_and_less_and_right_ones_always() {
    let every = Millis::mins(10);
    let limits = Limits { failures: Rate { burst: 5, every }, requests: Rate { burst: 3, every } };
    let bench = Bench::start_with(limits, Rules::default());
    let wrong = || bench.send(bench.request_as("sp_wrong", "GET", "/api/v1/services"));
    for _ in 0..5 {
        assert_eq!(wrong().status, 401);
    }
    let refused = wrong();
    assert_eq!((refused.status, refused.json()["code"].clone()), (429, "too_many_failures".into()));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    bench.read("/api/v1/services");
    // A token that was given out may ask only so often; the local one is not counted.
    let token = bench.token(&json!({ "name": "busy" }));
    let ask = || bench.send(bench.request_as(&token, "GET", "/api/v1/services"));
    for _ in 0..3 {
        assert_eq!(ask().status, 200);
    }
    assert_eq!((ask().status, ask().json()["code"].clone()), (429, "too_many_requests".into()));
    for _ in 0..10 {
        bench.read("/api/v1/services");
    }
}

#[test]
fn a_drain_on_one_machine_says_what_waits_and_stops_nothing() {
    let bench = Bench::start();
    bench.apply(API);
    let before = bench.wait_for_state("default/api", "converged");
    let drained = bench.post("/api/v1/nodes/local/drain", &json!({}));
    assert_eq!(drained.status, 200, "{}", drained.text());
    let node = drained.json();
    assert_eq!((&node["state"], &node["drained_by"]), (&json!("draining"), &json!("local")));
    let remaining = node["remaining"].as_array().unwrap();
    assert_eq!(remaining.len(), 2, "{node:#}");
    let why = "which is being drained: there is no other node to take it";
    assert!(remaining.iter().all(|r| r["moves"] == false && r["message"].as_str().unwrap().contains(why)));
    bench.until("it is explained", || {
        bench.read("/api/v1/services/default/api/explain").to_string().contains(why).then_some(())
    });
    let after = bench.service("default/api");
    assert_eq!(after.instances.len(), before.instances.len());
    assert_eq!(
        bench.post("/api/v1/nodes/local/drain", &json!({})).status,
        200,
        "asked again, nothing changes"
    );
    assert_eq!(bench.post("/api/v1/nodes/nowhere/drain", &json!({})).status, 404);
    let undrained = bench.post("/api/v1/nodes/local/undrain", &json!({})).json();
    assert_eq!(undrained["state"], "up", "{undrained}");
    let audit = bench.read("/api/v1/audit?after=0&limit=1000").to_string();
    assert_eq!((audit.matches("node.drain").count(), audit.matches("node.undrain").count()), (1, 1));
    let events = bench.read("/api/v1/events?after=0&limit=1000").to_string();
    assert!(events.contains("node.draining") && events.contains("node.undrained"));
}
