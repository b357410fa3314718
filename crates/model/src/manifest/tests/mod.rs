//! What is good is understood as meant; `bad` holds what is refused, `properties` what holds for any text.

mod bad;
mod properties;
mod schema;

use super::*;
use crate::{
    Millis,
    spec::{Check, Order, Port, Strategy, Template, Workload},
};

const EXAMPLES: [&str; 6] = [
    include_str!("../../../../../examples/quickstart.yaml"),
    include_str!("../../../../../examples/worker.yaml"),
    include_str!("../../../../../examples/two-projects.yaml"),
    include_str!("../../../../../examples/spa.yaml"),
    include_str!("../../../../../examples/every-key.yaml"),
    include_str!("../../../../../examples/containers.yaml"),
];

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

#[test]
fn the_contracts_container_is_understood_too() {
    let manifest = good(&format!("{CONTRACT}{CONTAINER}"));
    let spec = &manifest.services[2].spec;
    let Workload::Container(container) = &spec.workload else { panic!("{spec:?}") };
    assert_eq!((container.image.as_str(), container.port, container.pin), ("acme/web:1", Some(8080), None));
    assert_eq!((spec.port, spec.health.assumed), (Some(Port::Dynamic), true));
    assert_eq!(container.volumes[0].target, "/var/lib/app");
    assert_eq!(spec.resources.memory, Some(crate::Bytes(256 << 20)));
    // Nothing of a container is in the digest of a release that has none: what runs is not replaced by an update of ours.
    let process = serde_json::to_string(&manifest.services[1].spec.resources).unwrap();
    assert!(!process.contains("pids"), "{process}");
}

#[test]
fn two_sites_may_share_a_webroot() {
    good(
        "services:\n  a: { static: { path: ./a, webroot: /www } }\n  b: { static: { path: ./b, webroot: /www } }\n",
    );
}

#[test]
fn examples_are_good_and_every_key_is_in_one() {
    for example in EXAMPLES {
        good(example);
    }
    let used = [EXAMPLES[4], EXAMPLES[5]].concat();
    for keys in
        [raw::Service::KEYS, raw::ProbeMap::KEYS, raw::Restart::KEYS, raw::Stop::KEYS, raw::Deploy::KEYS]
    {
        for key in keys {
            assert!(used.contains(&format!("{key}:")), "every-key.yaml lacks {key}");
        }
    }
}

#[test]
fn the_quickstart_is_a_site_and_two_replicas_of_the_demo() {
    let manifest = good(EXAMPLES[0]);
    let keys: Vec<_> = manifest.services.iter().map(|declared| declared.key.to_string()).collect();
    assert_eq!(keys, ["default/docs", "default/api"]);
    let Workload::Process(program) = &manifest.services[1].spec.workload else { panic!() };
    assert_eq!(program.command[0], Template("${SETPOINT}".into()));
    assert_eq!(manifest.services[1].spec.replicas, 2);
    assert_eq!(notes(&manifest.services[1].spec), []);
}

#[test]
fn paths_are_resolved_against_the_folder_of_the_file() {
    let cases = [
        ("./a", "/srv/a"),
        ("../a", "/a"),
        ("a/./b/../c", "/srv/a/c"),
        ("/x/../y", "/y"),
        ("../../../a", "/a"),
    ];
    for (path, resolved) in cases {
        assert_eq!(lower::resolve("/srv", path), resolved);
    }
    let program = |base: &str, program: &str| {
        let text = format!("services: {{ a: {{ command: ['{program}'], workdir: w }} }}");
        let spec = parse(&text, "m", base).unwrap().services.remove(0).spec;
        let Workload::Process(process) = spec.workload else { panic!() };
        assert_eq!(process.workdir, Some(format!("{base}/w")));
        process.command[0].0.clone()
    };
    assert_eq!(program("/srv", "./api"), "/srv/api");
    assert_eq!(program("/srv", "bin/api"), "/srv/bin/api");
    assert_eq!(program("/srv", "api"), "api");
    assert_eq!(program("/srv", "/bin/api"), "/bin/api");
    assert_eq!(program("/srv", "${SETPOINT}"), "${SETPOINT}");
    // The folder's name is no template.
    assert_eq!(program("/srv/$HOME", "./api"), "/srv/$$HOME/api");
}

#[test]
fn a_process_has_a_port_iff_something_says_so() {
    let port = |lines: &str| process(lines).port;
    assert_eq!(port(""), None);
    assert_eq!(port("health: { liveness: { exec: [\"true\"] } }"), None);
    assert_eq!(port("port: dynamic"), Some(Port::Dynamic));
    assert_eq!(port("port: 8080"), Some(Port::Fixed(8080)));
    for lines in [
        "domains: [a.localhost]",
        "health: /",
        "health: { liveness: { tcp: {} } }",
        "env: { LISTEN: \":${PORT}\" }",
        "files: { conf: \"port ${PORT}\" }",
        "health: { liveness: { exec: [nc, -z, \"${HOST}\", \"${PORT}\"] } }",
    ] {
        assert_eq!(port(lines), Some(Port::Dynamic), "{lines}");
    }
    assert_eq!(port("env: { NOT: \"$${PORT}\" }"), None);
}

#[test]
fn without_health_a_port_is_probed_by_tcp_and_said_to_be_assumed() {
    let spec = process("domains: [a.localhost]");
    assert!(spec.health.assumed);
    assert_eq!(spec.health.readiness.as_ref().unwrap().check, Check::Tcp);
    assert_eq!(notes(&spec)[0].code, "health_assumed");

    let spec = process("port: dynamic\nhealth: { liveness: { exec: [\"true\"], fall: 7 } }");
    assert!(spec.health.assumed);
    assert_eq!(spec.health.readiness.unwrap().check, Check::Tcp);
    assert_eq!(spec.health.liveness.unwrap().fall, 7);

    assert_eq!(process("").health, Default::default());
    let spec = process("health: { readiness: { http: /r } }");
    assert!(!spec.health.assumed && spec.health.startup.is_none() && spec.health.liveness.is_none());
}

#[test]
fn values_keep_their_spelling() {
    let spec = process("env: { A: 8080, B: true, C: 1.10, D: no, E: 012, F: \"\", G: 'null', H: 1e3 }");
    let values: Vec<_> = spec.env.values().map(|value| value.0.as_str()).collect();
    assert_eq!(values, ["8080", "true", "1.10", "no", "012", "", "null", "1e3"]);
}

#[test]
fn every_setting_arrives() {
    let manifest = good(EXAMPLES[4]);
    let by_name = |name: &str| {
        &manifest.services.iter().find(|declared| declared.key.name.as_str() == name).unwrap().spec
    };
    let api = by_name("api");
    assert_eq!(api.deploy.parallelism, 2);
    assert_eq!(api.deploy.on_failure, crate::spec::OnFailure::Pause);
    assert_eq!(api.stop.grace, Millis::secs(15));
    assert_eq!(api.restart.backoff, Millis(500));
    assert_eq!(api.resources.memory.unwrap().0, 256 << 20);
    assert_eq!(api.resources.millicpus, Some(500));
    assert_eq!(api.health.startup.as_ref().unwrap().grace, Millis::mins(2));
    assert_eq!(api.drift.mode, crate::spec::DriftMode::Warn);
    assert_eq!(by_name("batch").deploy.strategy, Strategy::Recreate);
    assert_eq!(by_name("site").drift.ignore, ["webroot/*.bak"]);
    let built = manifest.services.iter().find(|declared| declared.key.name.as_str() == "built").unwrap();
    let source = built.source.as_ref().unwrap();
    assert_eq!(source.output.as_ref().map(|output| output.as_str()), Some("site"));
    assert_eq!(source.from, SourceFrom::Path("/srv/app".into()));
}

#[test]
fn documents_are_merged_and_empty_ones_passed_over() {
    let manifest = good(
        "---\n# nothing\n---\nproject: a\nservices: { x: { static: . } }\n---\nservices: { x: { static: . } }\n...\n",
    );
    let keys: Vec<_> = manifest.services.iter().map(|declared| declared.key.to_string()).collect();
    assert_eq!(keys, ["a/x", "default/x"]);
    let projects: Vec<_> = manifest.projects().into_iter().map(|project| project.to_string()).collect();
    assert_eq!(projects, ["a", "default"]);
}

#[test]
fn downtime_that_can_be_avoided_is_noted() {
    let codes = |lines: &str| notes(&process(lines)).iter().map(|note| note.field).collect::<Vec<_>>();
    assert_eq!(codes("health: /"), [""; 0]);
    assert_eq!(codes("health: /\nport: 8080"), ["port"]);
    assert_eq!(codes("health: /\ndeploy: { strategy: recreate }"), ["deploy.strategy"]);
    assert_eq!(codes("health: /\ndeploy: { order: stop-first }"), ["deploy.order"]);
    assert_eq!(codes("health: /\nreplicas: 2\ndeploy: { order: stop-first }"), [""; 0]);
    assert_eq!(codes("deploy: { order: stop-first }"), [""; 0]);
    assert_eq!(codes("health: /\nenv: { PORT: 9 }"), ["env.PORT"]);
    assert_eq!(process("deploy: { order: stop-first }").deploy.order, Order::StopFirst);
}

#[test]
fn the_schema_is_the_2020_draft_and_knows_every_key() {
    let schema = super::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let service = &schema["$defs"]["Service"];
    assert_eq!(service["additionalProperties"], false);
    for key in raw::Service::KEYS {
        let property = &service["properties"][key];
        assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{key}: {property}");
    }
    assert_eq!(service["properties"]["replicas"]["maximum"], 10_000);
    assert_eq!(schema["$defs"]["Deploy"]["properties"]["on_failure"]["default"], "rollback");
}

#[test]
fn defaults_in_the_schema_are_those_that_apply() {
    let json = super::schema();
    let default = |map: &str, key: &str| json["$defs"][map]["properties"][key]["default"].clone();
    let spec = serde_json::to_value(process("health: /")).unwrap();
    for (map, part) in [("Deploy", "deploy"), ("Restart", "restart"), ("Stop", "stop")] {
        for (key, value) in spec[part].as_object().unwrap() {
            let (value, shown) = (value.to_string(), default(map, key).to_string());
            let same = value == shown
                || value
                    .trim_matches('"')
                    .parse::<Millis>()
                    .ok()
                    .is_some_and(|millis| shown.trim_matches('"').parse() == Ok(millis));
            assert!(same, "{map}.{key}: {value} applies, {shown} is shown");
        }
    }
    assert_eq!(default("Service", "retain"), spec["retain"]);
    assert_eq!(default("Service", "replicas"), spec["replicas"]);
    let probe = &spec["health"]["readiness"];
    for key in ["rise", "fall"] {
        assert_eq!(default("ProbeMap", key), probe[key]);
    }
    for key in ["interval", "timeout", "grace"] {
        let shown: Millis = default("ProbeMap", key).as_str().unwrap().parse().unwrap();
        let applies: Millis = probe[key].as_str().unwrap().parse().unwrap();
        assert_eq!(shown, applies, "{key}");
    }
}

#[test]
fn the_reference_has_a_row_for_every_key() {
    let page = reference();
    for key in raw::Service::KEYS.iter().chain(raw::Deploy::KEYS).chain(raw::ProbeMap::KEYS) {
        assert!(page.contains(&format!("\n| `{key}` | ")), "{key}\n{page}");
    }
    assert!(page.contains("| `replicas` | number, 0 to 10000 | `1` |"), "{page}");
}

#[test]
fn line_ends_and_the_byte_order_mark_do_not_matter() {
    let plain = good(CONTRACT);
    assert_eq!(good(&CONTRACT.replace('\n', "\r\n")), plain);
    assert_eq!(good(&format!("\u{feff}{CONTRACT}")), plain);
}

#[test]
fn a_spec_that_arrives_as_json_is_held_to_the_same_rules() {
    let check = |change: fn(&mut ServiceSpec)| {
        let mut spec = process("domains: [a.localhost]");
        assert_eq!(validate(&spec), Ok(()));
        change(&mut spec);
        let fields = validate(&spec).err().unwrap_or_default();
        fields.iter().map(|error| format!("{} {}", error.code, error.field)).collect::<Vec<_>>()
    };
    assert_eq!(check(|spec| spec.replicas = 10_001), ["out_of_range replicas"]);
    assert_eq!(check(|spec| spec.port = None), ["conflict port"]);
    assert_eq!(check(|spec| spec.port = Some(Port::Fixed(0))), ["out_of_range port"]);
    assert_eq!(check(|spec| spec.deploy.parallelism = 0), ["out_of_range deploy.parallelism"]);
    assert_eq!(
        check(|spec| spec.health.readiness.as_mut().unwrap().fall = 0),
        ["out_of_range health.readiness.fall"]
    );
    assert_eq!(check(|spec| spec.domains.push(spec.domains[0].clone())), ["conflict domains[1]"]);
    assert_eq!(check(|spec| spec.retain = 101), ["out_of_range retain"]);
    assert_eq!(check(|spec| spec.resources.millicpus = Some(0)), ["out_of_range resources.cpus"]);
    assert_eq!(check(|spec| spec.drift.ignore.push(String::new())), ["invalid_value drift.ignore[0]"]);
    assert_eq!(
        check(|spec| {
            let Workload::Process(process) = &mut spec.workload else { return };
            process.command = vec![Template("bin/../api".into()), Template("${NOPE}".into())];
            process.workdir = Some("../x".into());
            process.user = Some("a b".into());
        }),
        ["invalid_value command[0]", "invalid_value workdir", "invalid_value user", "template command[1]"]
    );
    assert_eq!(
        check(|spec| spec.workload = Workload::Site(crate::spec::Site {
            artifact: None,
            origin: Some(crate::source::Origin {
                repository: crate::source::Repository {
                    url: "file:///etc".into(),
                    reference: Some("-x".into())
                },
                commit: "main".into(),
                build: vec!["make".into(), String::new()],
                output: None,
            }),
            webroot: Some("/a/../b".into()),
            spa: false
        })),
        [
            "invalid_value static.webroot",
            "invalid_value static.git.url",
            "invalid_value static.git.ref",
            "invalid_value static.git.commit",
            "invalid_value static.build[1]",
            "not_applicable port",
            "not_applicable health"
        ]
    );
}
