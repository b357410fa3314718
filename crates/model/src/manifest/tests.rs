use super::*;
use crate::{
    Millis,
    spec::{Check, Order, Port, Strategy, Template},
};

/// The example of the contract, without its container.
const CONTRACT: &str = r#"project: demo                          # optional, `default`
services:
  docs:                                # a static site
    static: ./site                     # or {path|git|archive, build: [cmd], output: dist, webroot: DIR, spa: true}
    domains: [docs.localhost]
  api:                                 # a process
    command: [./api, --port, "${PORT}"]   # PORT, HOST and SETPOINT_INSTANCE are given
    replicas: 2
    env: { LOG: info }
    files: { config.yaml: "level: info\n" }   # rendered for each instance; a change is a new release
    health: /healthz                   # or {startup, readiness, liveness: {http|tcp|exec, interval, timeout, rise, fall, grace}}
    domains: [api.localhost, "demo.localhost/api"]
    restart: { backoff: 1s, max_backoff: 60s, attempts: 5, window: 10m }
    deploy: { strategy: rolling, order: start-first,   # or strategy: recreate
              parallelism: 1, min_healthy: 2s,
              deadline: 10m, drain: 10s, on_failure: rollback }
    drift: correct                     # correct | warn | off, or {mode, ignore: [paths]}
    retain: 5                          # earlier releases kept for rollback
"#;

const CONTAINER: &str = r#"  web:                                 # a container
    image: acme/web:1                  # or build: {context: ., dockerfile: Dockerfile}, or git: {url, ref, …}
    port: 8080
    volumes: [data:/var/lib/app]
    resources: { memory: 256MiB, cpus: 0.5 }
"#;

fn good(text: &str) -> Manifest {
    parse(text, "setpoint.yaml", "/srv/app").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The spec of a single process, with these lines beside its command.
fn process(lines: &str) -> ServiceSpec {
    let text = format!("services:\n  api:\n    command: [api]\n    {}\n", lines.replace('\n', "\n    "));
    good(&text).services.remove(0).spec
}

#[test]
fn the_contracts_example_is_understood_to_the_letter() {
    let manifest = good(CONTRACT);
    let [docs, api] = &manifest.services[..] else { panic!("{manifest:?}") };
    assert_eq!((docs.key.to_string(), docs.line), ("demo/docs".into(), 3));
    let source = docs.source.clone().unwrap();
    assert_eq!(source.from, SourceFrom::Path("/srv/app/site".into()));
    assert_eq!(docs.spec.domains[0].to_string(), "docs.localhost");

    let spec = &api.spec;
    let Workload::Process(program) = &spec.workload else { panic!("{spec:?}") };
    let command = ["/srv/app/api", "--port", "${PORT}"].map(|part| Template(part.into()));
    assert_eq!(program.command, command);
    assert_eq!((spec.replicas, spec.port, spec.retain), (2, Some(Port::Dynamic), 5));
    let env: Vec<_> = spec.env.iter().map(|(key, value)| (key.as_str(), value.0.as_str())).collect();
    assert_eq!(env, [("LOG", "info")]);
    let files: Vec<_> = spec.files.iter().map(|(path, text)| (path.as_str(), text.0.as_str())).collect();
    assert_eq!(files, [("config.yaml", "level: info\n")]);
    for probe in [&spec.health.startup, &spec.health.readiness, &spec.health.liveness] {
        assert_eq!(probe.as_ref().unwrap().check, Check::Http("/healthz".into()));
    }
    assert!(!spec.health.assumed);
    // The values shown are the defaults.
    assert_eq!(spec.deploy, Default::default());
    assert_eq!(spec.restart, Default::default());
    assert_eq!(spec.drift, Default::default());
}
