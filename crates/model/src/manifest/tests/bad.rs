//! Every refusal says what, where, and what would be accepted.

use crate::manifest::{Errors, MAX_DOCUMENTS, MAX_ERRORS, MAX_NODES, MAX_TEXT, parse};

fn errors(text: &str) -> Errors {
    match parse(text, "m.yaml", "/srv") {
        Err(errors) => errors,
        Ok(manifest) => panic!("accepted: {manifest:?}\n{text}"),
    }
}

/// Exactly one error, at `«`, with this code and these words.
#[track_caller]
fn refused(marked: &str, code: &str, words: &[&str]) {
    let at = marked.find('«').unwrap_or_else(|| panic!("no « in {marked}"));
    let line = marked[..at].matches('\n').count() as u32 + 1;
    let column = marked[..at].rsplit('\n').next().unwrap().chars().count() as u32 + 1;
    let text = marked.replace('«', "");
    let errors = errors(&text);
    let list: Vec<_> = errors.iter().collect();
    assert_eq!(list.len(), 1, "{errors}\n{text}");
    let error = list[0];
    assert_eq!((error.line, error.column, error.code), (line, column, code), "{errors}\n{text}");
    assert_eq!(error.offset, at, "{errors}\n{text}");
    for word in words {
        let all = format!("{} {}", error.message, error.help.as_deref().unwrap_or_default());
        assert!(all.contains(word), "{word:?} is not in {errors}\n{text}");
    }
}

/// One process with a line of its own.
#[track_caller]
fn line_refused(line: &str, code: &str, words: &[&str]) {
    refused(&format!("services:\n  api:\n    command: [api]\n    {line}\n"), code, words);
}

/// One site with a line of its own.
#[track_caller]
fn site_refused(line: &str, code: &str, words: &[&str]) {
    refused(&format!("services:\n  docs:\n    static: {{ path: ./site }}\n    {line}\n"), code, words);
}

#[test]
fn replicas_are_plain_digits_in_a_range() {
    for bad in
        ["\"3\"", "1.5", "012", "-1", "1e9", "+1", "0x10", "1_000", "yes", "'2'", "three", "[2]", "{a: 1}"]
    {
        line_refused(
            &format!("replicas: «{bad}"),
            "wrong_type",
            &["`replicas` is", "a whole number from 0 to 10000"],
        );
    }
    for bad in ["4294967296", "10001", "99999999999999999999999"] {
        line_refused(&format!("replicas: «{bad}"), "out_of_range", &["a whole number from 0 to 10000"]);
    }
    line_refused("«replicas:", "missing_value", &["`replicas` is empty", "remove the line"]);
    line_refused("replicas: «~", "missing_value", &["`replicas` is empty"]);
}

#[test]
fn unknown_keys_offer_the_nearest_known_one() {
    line_refused("«replica: 2", "unknown_key", &["unknown key `replica`; did you mean `replicas`?"]);
    line_refused("deploy: { «stratergy: rolling }", "unknown_key", &["did you mean `strategy`?"]);
    line_refused("«Health: /", "unknown_key", &["did you mean `health`?"]);
    line_refused(
        "«wibble: 2",
        "unknown_key",
        &["unknown key `wibble`", "known here: static, image, command"],
    );
    refused(
        "«service:\n  a: 1\nservices: { a: { static: . } }",
        "unknown_key",
        &["did you mean `services`?"],
    );
    line_refused("health: { readiness: { http: /, «intervall: 5s } }", "unknown_key", &["`interval`"]);
    line_refused("«<<: { replicas: 2 }", "alias", &["merge keys"]);
}

#[test]
fn a_key_is_there_once() {
    line_refused("replicas: 1\n    «replicas: 2", "duplicate_key", &["`replicas` is here twice", "line 4"]);
    refused("services:\n  a: { static: . }\n  «a: { static: . }", "duplicate_key", &["`a`"]);
    let nested =
        errors("services: { a: { command: [a], deploy: { drain: 1s, drain: 2s } }, b: { command: [*x] } }");
    let fields: Vec<_> = nested.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["services.a.deploy.drain", "services.b.command[0]"]);
    line_refused("env: { A: 1, «A: 2 }", "duplicate_key", &["`A`"]);
}

#[test]
fn words_are_one_of_a_few() {
    line_refused(
        "deploy: { order: «start-frist }",
        "invalid_value",
        &["one of start-first, stop-first", "did you mean `start-first`?"],
    );
    line_refused("deploy: { strategy: «blue }", "invalid_value", &["one of rolling, recreate"]);
    line_refused("deploy: { on_failure: «rolback }", "invalid_value", &["`rollback`"]);
    line_refused("drift: «yes", "invalid_value", &["one of correct, warn, off"]);
    line_refused("drift: { mode: «ignore }", "invalid_value", &["one of correct, warn, off"]);
    line_refused("stop: { signal: «TERM }", "invalid_value", &["SIGTERM"]);
    line_refused("stop: { signal: «SIGSTOP }", "invalid_value", &["SIGTERM"]);
    refused("services: { a: { static: { path: ., spa: «yes } } }", "wrong_type", &["true or false"]);
    refused("services: { a: { static: { path: ., spa: «\"true\" } } }", "wrong_type", &["true or false"]);
}

#[test]
fn durations_and_sizes_have_units() {
    for bad in ["30", "1.5s", "-1s", "5 s", "soon", "9999999d"] {
        line_refused(
            &format!("deploy: {{ drain: «{bad} }}"),
            "invalid_value",
            &["is not a duration", "500ms, 30s, 5m"],
        );
    }
    for bad in ["256", "256MB", "1.5GiB", "-1MiB"] {
        line_refused(
            &format!("resources: {{ memory: «{bad} }}"),
            "invalid_value",
            &["is not a size", "64MiB"],
        );
    }
    line_refused("resources: { memory: «1KiB }", "out_of_range", &["below 1MiB"]);
    for bad in ["0", "-1", "0.0001", "1025", "\"0.5\"", "half", ".5"] {
        line_refused(
            &format!("resources: {{ cpus: «{bad} }}"),
            "out_of_range",
            &["a number of cores from 0.001 to 1024"],
        );
    }
    line_refused(
        "deploy: { deadline: 5s, min_healthy: «6s }",
        "out_of_range",
        &["`min_healthy` is 6s; 0s to 5s"],
    );
    line_refused("restart: { backoff: 10s, max_backoff: «1s }", "out_of_range", &["10s to 1d"]);
    line_refused("retain: «101", "out_of_range", &["0 to 100"]);
    line_refused("deploy: { parallelism: «0 }", "out_of_range", &["1 to 10000"]);
}

#[test]
fn a_command_is_a_list() {
    let text = |command: &str| format!("services:\n  a:\n    command: «{command}\n");
    refused(
        &text("./api --port 80"),
        "wrong_type",
        &["a list is expected", "write [\"./api\", \"--port\", \"80\"]", "[\"sh\", \"-c\", …]"],
    );
    refused(&text("echo $A | cat"), "wrong_type", &["[\"sh\", \"-c\", 'echo $A | cat']"]);
    refused("services: { a: { «command: [] } }", "invalid_value", &["begins with a program"]);
    refused("services: { a: { command: [api, «~] } }", "missing_value", &["quotes"]);
    refused("services: { a: { command: [api, «[b]] } }", "wrong_type", &["is a list; text is expected"]);
    refused("services: { a: { command: [api, «\"\\0\"] } }", "invalid_value", &["NUL"]);
}

#[test]
fn names_domains_and_variables_are_checked() {
    refused("project: «My_Shop\nservices: { a: { static: . } }", "invalid_value", &["project name"]);
    for bad in ["«../x", "«-x", "«\".\"", "«A", "«\"a\\n\"", "«\"\\u202ea\""] {
        refused(
            &format!("services: {{ {bad}: {{ static: . }} }}"),
            "invalid_name",
            &["is not a service name"],
        );
    }
    for bad in ["http://a.localhost", "a.localhost:80", "a..b", "*.a", "a/../b", "ä.de"] {
        line_refused(&format!("domains: [«\"{bad}\"]"), "invalid_value", &["is not a domain"]);
    }
    line_refused("domains: [a.localhost, «A.localhost/]", "conflict", &["`a.localhost` is here twice"]);
    line_refused("domains: «a.localhost", "wrong_type", &["a list is expected", "[a, b]"]);
    for bad in ["«A=B", "«1A", "«A-B", "«LD_PRELOAD"] {
        line_refused(&format!("env: {{ {bad}: x }}"), "invalid_name", &["is not a variable name"]);
    }
    line_refused("env: { A: «null }", "missing_value", &["quotes"]);
    line_refused("env: { A: «\"a\\0b\" }", "invalid_value", &["NUL"]);
    for bad in ["«/etc/passwd", "«../x", "«\"a\\\\b\""] {
        line_refused(&format!("files: {{ {bad}: x }}"), "invalid_name", &["is not a relative path"]);
    }
    line_refused("files: { a: x, a/b: «y }", "conflict", &["both a file and a folder"]);
    line_refused("user: «\"root; rm\"", "invalid_value", &["is not a user"]);
}

#[test]
fn template_names_are_known() {
    line_refused(
        "env: { A: «\"${PROT}\" }",
        "template",
        &["`${PROT}` is not known", "did you mean `${PORT}`?"],
    );
    line_refused("env: { B: x, A: «\"${B}\" }", "template", &["not known in env"]);
    line_refused("files: { c: «\"${LOG}\" }", "template", &["`${LOG}` is not known here", "$$ for a dollar"]);
    line_refused("env: { LOG: x }\n    files: { c: «\"${LGO}\" }", "template", &["did you mean `${LOG}`?"]);
    line_refused("env: { SETPOINT_INSTANCE: «x }", "invalid_value", &["leave it out"]);
    line_refused("env: { A: «\"5$\" }", "template", &["write $$ for a dollar"]);
    line_refused("health: { liveness: { exec: [a, «\"${NOPE}\"] } }", "template", &["`${NOPE}`"]);
    refused("services: { a: { command: [a, «\"$HOME\"] } }", "template", &["write $$ for a dollar"]);
}

#[test]
fn ports_and_probes_are_checked() {
    line_refused("port: «0", "out_of_range", &["1 to 65535"]);
    line_refused("port: «65536", "out_of_range", &["1 to 65535"]);
    line_refused("port: «\"8080\"", "wrong_type", &["1 to 65535", "in quotes"]);
    line_refused(
        "replicas: 2\n    port: «8080",
        "conflict",
        &["one port of the machine", "2 replicas", "${PORT}"],
    );
    line_refused("health: «healthz", "invalid_value", &["is not an HTTP path"]);
    line_refused("«health: {}", "missing_key", &["startup, readiness or liveness"]);
    line_refused("health: { «readiness: { http: /, tcp: true } }", "conflict", &["exactly one of"]);
    line_refused("health: { «liveness: { interval: 1s } }", "conflict", &["exactly one of"]);
    line_refused("health: { liveness: { tcp: «no } }", "wrong_type", &["`true`"]);
    line_refused("health: { liveness: { tcp: true, fall: «0 } }", "out_of_range", &["1 to 100"]);
    line_refused("health: { liveness: { tcp: true, interval: «1ms } }", "out_of_range", &["100ms to 1h"]);
    line_refused("health: { liveness: { exec: «pgrep api } }", "wrong_type", &["write [\"pgrep\", \"api\"]"]);
}

#[test]
fn what_belongs_to_processes_does_not_apply_to_a_site() {
    for line in [
        "env: { A: b }",
        "files: { a: b }",
        "resources: { cpus: 1 }",
        "restart: { attempts: 1 }",
        "stop: { grace: 1s }",
    ] {
        let key = line.split(':').next().unwrap();
        let words = format!("`{key}` does not apply to a static service");
        site_refused(&format!("«{line}"), "not_applicable", &[&words]);
    }
    for line in ["port: «80", "health: «/", "user: «nobody", "workdir: «/"] {
        let words = format!("`{}` does not apply to a static service", line.split(':').next().unwrap());
        site_refused(line, "not_applicable", &[&words]);
    }
    site_refused("replicas: «2", "not_applicable", &["`replicas` does not apply to a static service"]);
    site_refused("«command: [a]", "conflict", &["either `static` or `command`"]);
}

#[test]
fn what_belongs_to_sites_is_refused_beside_a_command_or_an_image_at_its_line() {
    for kind in ["command: [x]", "image: a/b"] {
        for line in ["spa: true", "webroot: /srv/www", "archive: ./site.zip", "output: dist"] {
            let key = line.split(':').next().unwrap();
            let words = format!("`{key}` belongs below `static`");
            let text = format!("services:\n  a:\n    {kind}\n    replicas: 2\n    «{line}\n");
            refused(&text, "unknown_key", &[&words, "for sites alone"]);
        }
    }
}

#[test]
fn what_belongs_to_containers_is_refused_beside_a_command_at_its_line() {
    for line in [
        "«entrypoint: [/run]",
        "«volumes: [\"d:/d\"]",
        "«tmpfs: [/tmp]",
        "network: «host",
        "read_only: «true",
        "«capabilities: { drop: [CHOWN] }",
        "«logs: { max_files: 2 }",
    ] {
        let key = line.trim_start_matches('«').split(':').next().unwrap();
        let words = format!("`{key}` ");
        let text = format!("services:\n  a:\n    command: [x]\n    replicas: 1\n    {line}\n");
        refused(&text, "not_applicable", &[&words, "container alone"]);
    }
}

#[test]
fn a_site_has_one_source() {
    let text = |map: &str| format!("services: {{ a: {{ «static: {{ {map} }} }} }}");
    refused(&text("path: a, archive: b"), "conflict", &["one source"]);
    refused(&text("build: [make]"), "missing_key", &["need a source"]);
    refused(
        "services: { a: { static: { path: ., build: [make, «\"\"] } } }",
        "invalid_value",
        &["empty command"],
    );
    refused("services: { a: { static: { path: ., build: «make } } }", "wrong_type", &["[a, b]"]);
    refused("services: { a: { static: { «git: { ref: main } } } }", "missing_key", &["`url`"]);
    for bad in
        ["--upload-pack=x", "file:///etc", "ext::sh", "/etc", "https://-x", "a b@c:d", "-a@b:c", "x@-b:c"]
    {
        refused(
            &format!("services: {{ a: {{ static: {{ git: {{ url: «\"{bad}\" }} }} }} }}"),
            "invalid_value",
            &["is not a repository"],
        );
    }
    for bad in ["-x", "a..b", "a b", "x~1", "a.lock", ""] {
        let text = format!(
            "services: {{ a: {{ static: {{ git: {{ url: \"https://a/b\", ref: «\"{bad}\" }} }} }} }}"
        );
        refused(&text, "invalid_value", &["is not a branch"]);
    }
    refused("services: { a: { static: «\"https://a/b\" } }", "invalid_value", &["is not a folder"]);
    refused("services: { a: { static: «\"\" } }", "invalid_value", &["is not a folder"]);
    refused("services: { a: { static: { path: ., output: «../x } } }", "invalid_value", &["relative path"]);
}

#[test]
fn a_file_declares_a_service() {
    for text in ["«", "«# nothing\n", "«---\n---\n", "«project: a\n", "«services:\n", "services: «{}\n"]
    {
        refused(text, "no_services", &["declares no service"]);
    }
    refused("services: { a: { static: . } }\n---\n«project: b\n", "no_services", &["declares no service"]);
    refused("services: «[a]", "wrong_type", &["is a list; a map of services by name is expected"]);
    refused("«hello", "wrong_type", &["the document is text"]);
    refused("services: { «a: {} }", "missing_key", &["`static`", "`command`"]);
}

#[test]
fn two_services_do_not_share_what_is_one() {
    refused(
        "services:\n  a: { static: ., domains: [x.localhost] }\n  b: { static: ., domains: [y.localhost, «X.localhost] }\n",
        "conflict",
        &["`x.localhost` already leads to the service default/a"],
    );
    refused(
        "services: { a: { static: ., domains: [x.localhost/a] } }\n---\nproject: p\nservices: { a: { static: ., domains: [«x.localhost/a/] } }\n",
        "conflict",
        &["`x.localhost/a` already leads to the service default/a"],
    );
    refused(
        "services: { a: { static: . } }\n---\nservices: { «a: { static: . } }\n",
        "conflict",
        &["default/a is declared twice"],
    );
}

#[test]
fn what_a_container_cannot_be_is_told_at_its_place() {
    let web =
        |lines: &str| format!("services:\n  web:\n    image: acme/web:1\n    port: 8080\n    {lines}\n");
    for (lines, code, words) in [
        ("volumes: [«data]", "invalid_value", "write name:/inside"),
        ("volumes: [«Data:/x]", "invalid_value", "volume"),
        ("volumes: [«data:x]", "invalid_value", "not an absolute path"),
        ("volumes: [«\"data:/a,b\"]", "invalid_value", "a folder of its own inside"),
        ("volumes: [\"a:/x\", «\"b:/x/\"]", "conflict", "mounted twice"),
        ("volumes: [«\"data:/proc\"]", "invalid_value", "`/proc` is the kernel's"),
        ("volumes: [\"a:/dev/shm\", «\"b:/./proc/1/\"]", "invalid_value", "mount it somewhere else"),
        ("volumes: [«\"./sys://sys\"]", "invalid_value", "`/sys` is the kernel's"),
        ("tmpfs: [«/dev]", "invalid_value", "`/dev` is the kernel's"),
        ("tmpfs: [«\"/tmp:big\"]", "invalid_value", "big"),
        ("network: «bridge", "invalid_value", "project, host, none"),
        ("capabilities: { add: [«ALL] }", "invalid_value", "ALL is not one"),
        ("resources: { memory: «1MiB }", "out_of_range", "6MiB"),
        ("user: «\"a b\"", "invalid_value", "not a user"),
        ("workdir: «work", "invalid_value", "not an absolute path"),
        ("env: { A: «\"${SETPOINT}\" }", "template", "not known"),
        ("network: none\n    «port: 80", "duplicate_key", "port"),
    ] {
        refused(&web(lines), code, &[words]);
    }
    for bad in ["«Acme/web", "«\"a b\"", "«\"web:\"", "«\"\""] {
        refused(&format!("services: {{ web: {{ image: {bad} }} }}"), "invalid_value", &["image"]);
    }
    refused(
        "services: { «web: { image: a/b, network: none, domains: [x.localhost] } }",
        "missing_key",
        &["`port`"],
    );
    refused("services: { web: { image: «a/b, static: . } }", "conflict", &["make two services"]);
    refused(
        "services: { a: { command: [x], «volumes: [\"d:/d\"] } }",
        "not_applicable",
        &["container alone"],
    );
    refused(
        "services: { a: { command: [x], resources: { pids: «5 } } }",
        "not_applicable",
        &["container alone"],
    );
    refused("services: { a: { «git: { url: x } } }", "not_supported", &["not part of this build yet"]);
    refused("services: { a: { «build: { context: . } } }", "not_supported", &["not part of this build yet"]);
}

#[test]
fn several_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "services:\n  a:\n    command: x\n    replicas: \"3\"\n  b:\n    static: .\n    spa: true\n  c:\n    command: [x]\n    deploy: { order: up, drain: 5 }\n";
    let errors = errors(text);
    let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "services.a.command",
            "services.a.replicas",
            "services.b.spa",
            "services.c.deploy.order",
            "services.c.deploy.drain"
        ]
    );
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 5);
    assert!(text.starts_with("m.yaml:3:14: `command` is text; a list is expected"), "{text}");

    let same = format!("services:\n  a:\n{}", "    k: 1\n".repeat(500));
    assert_eq!(self::errors(&same).iter().count(), MAX_ERRORS);
    let many = format!(
        "services:\n  a:\n    command: [x]\n{}",
        (0..500).map(|n| format!("    k{n}: 1\n")).collect::<String>()
    );
    assert_eq!(self::errors(&many).iter().count(), MAX_ERRORS);
}

#[test]
fn text_that_is_not_yaml_is_refused_where_it_breaks() {
    for text in [
        "services: [",
        "a: b: c",
        "services:\n\t- a",
        "}",
        "\"",
        "a: 'b",
        "? [a]\n: b",
        "%YAML 9",
        "\u{0}",
        "@a",
    ] {
        let errors = errors(text);
        let error = errors.iter().next().unwrap();
        assert!(error.line >= 1, "{errors}: {text:?}");
        assert!(
            ["syntax", "wrong_type", "no_services"].contains(&error.code),
            "{}: {errors}: {text:?}",
            error.code
        );
    }
    refused("services:\n  a:\n    command: [api: : «]", "syntax", &["this is not YAML"]);
}

/// Hostile text costs what the budgets allow, whatever it would expand to: time is bounded by counting.
#[test]
fn hostile_text_is_refused_by_counting() {
    let code = |text: &str| errors(text).iter().next().unwrap().code;
    assert_eq!(code(&"a".repeat(50 << 20)), "too_large");
    assert_eq!(code(&" ".repeat(MAX_TEXT + 1)), "too_large");
    assert_eq!(code(&"[".repeat(10_000)), "too_large");
    assert_eq!(code(&"{a: ".repeat(10_000)), "too_large");
    assert_eq!(code(&"- ".repeat(10_000)), "too_large");
    let deep: String = (0..10_000).map(|n| format!("{}a:\n", " ".repeat(n.min(80)))).collect();
    assert_eq!(code(&deep), "too_large");
    assert_eq!(code(&"--- a\n".repeat(MAX_DOCUMENTS + 1)), "too_large");
    assert_eq!(code(&"---\n".repeat(100_000)), "too_large");
    assert_eq!(code(&format!("a: [{}]", "1,".repeat(MAX_NODES))), "too_large");
    refused(
        "x-a: &a «[x, x]\nx-b: [*a, *a]\nservices: { a: { static: . } }",
        "alias",
        &["anchors and aliases", "quotes"],
    );
    refused("services: { a: { static: «*b } }", "alias", &["anchors and aliases"]);
    refused("services: { a: { static: !!str «. } }", "tag", &["YAML tags"]);
    refused("services: { a: { env: !!python/object:os.system «{} } }", "tag", &["YAML tags"]);
}

#[test]
fn files_of_a_service_have_a_total() {
    let half = "x".repeat(520 << 10);
    let text = format!("services:\n  a:\n    command: [a]\n    files:\n      a: {half}\n      b: {half}\n");
    assert_eq!(errors(&text).iter().next().unwrap().code, "too_large");
    let spec = |bytes: usize| {
        let mut spec = super::process("files: { a: b }");
        spec.files.insert("c".parse().unwrap(), crate::spec::Template("x".repeat(bytes)));
        crate::manifest::validate(&spec)
    };
    assert_eq!(spec(crate::manifest::MAX_FILES_BYTES - 1), Ok(()));
    assert_eq!(spec(crate::manifest::MAX_FILES_BYTES).unwrap_err()[0].field.to_string(), "files");
}

#[test]
fn columns_count_characters_and_offsets_bytes() {
    refused(
        "x-ü: \"äöü\" # ñ\nservices: { a: { command: [\"ä\"], replicas: «x } }",
        "wrong_type",
        &["replicas"],
    );
}

#[test]
fn control_characters_never_reach_a_message() {
    for text in [
        "services: { a: { \"\\e[31m\\n\": 1 } }",
        "services: { \"\\e[31m\": 1 }",
        "services: { a: { static: \"\\e\" } }",
    ] {
        let text = errors(text).to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
