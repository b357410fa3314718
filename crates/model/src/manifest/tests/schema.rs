//! The schema accepts what `parse` accepts, by a validator of just the words that the schema uses.

use serde_json::Value;

use crate::manifest::schema;

struct Checker {
    root: Value,
}

impl Checker {
    fn accepts(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let target =
                self.root.pointer(name.trim_start_matches('#')).ok_or_else(|| format!("dangling {name}"))?;
            return self.accepts(target, value);
        }
        if let Some(forms) = schema["anyOf"].as_array() {
            let failures: Vec<_> = forms.iter().map_while(|form| self.accepts(form, value).err()).collect();
            return if failures.len() < forms.len() { Ok(()) } else { Err(failures.join(" or ")) };
        }
        if let Some(words) = schema["enum"].as_array() {
            return words
                .contains(value)
                .then_some(())
                .ok_or_else(|| format!("{value} is none of {words:?}"));
        }
        if !schema["const"].is_null() {
            return (schema["const"] == *value)
                .then_some(())
                .ok_or_else(|| format!("{value} is not {schema}"));
        }
        let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
        if !kinds.iter().any(|kind| is_of(kind, value)) {
            return Err(format!("{value} is not {kinds:?}"));
        }
        self.rules(schema, value)?;
        self.children(schema, value)
    }

    /// Rules between keys.
    fn rules(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let rules = schema["allOf"].as_array().into_iter().flatten();
        let broken = |rule: &&Value| !self.holds(rule, value);
        rules.clone().find(broken).map_or(Ok(()), |rule| Err(format!("{value} breaks {rule}")))
    }

    fn holds(&self, rule: &Value, value: &Value) -> bool {
        let count =
            |rules: &Value| rules.as_array().unwrap().iter().filter(|rule| self.holds(rule, value)).count();
        let holds = |(word, rule): (&String, &Value)| match word.as_str() {
            "required" => rule.as_array().unwrap().iter().all(|key| !value[key.as_str().unwrap()].is_null()),
            "not" => !self.holds(rule, value),
            "anyOf" => count(rule) > 0,
            "oneOf" => count(rule) == 1,
            // Looked at beside each other.
            "if" | "then" => true,
            "properties" => rule.as_object().unwrap().iter().all(|(key, rule)| {
                value[key].is_null()
                    || value[key].as_u64().is_some_and(|n| n <= rule["maximum"].as_u64().unwrap())
            }),
            other => panic!("the validator does not know {other:?}"),
        };
        let applies = rule.get("if").is_none_or(|premise| self.holds(premise, value));
        let follows = rule.get("then").is_none_or(|then| !applies || self.holds(then, value));
        follows && rule.as_object().unwrap().iter().all(holds)
    }

    fn children(&self, schema: &Value, value: &Value) -> Result<(), String> {
        for item in value.as_array().into_iter().flatten() {
            self.accepts(&schema["items"], item)?;
        }
        for (key, item) in value.as_object().into_iter().flatten() {
            let property = &schema["properties"][key];
            let open = &schema["additionalProperties"];
            match (property.is_null(), open) {
                (false, _) => self.accepts(property, item).map_err(|error| format!("{key}: {error}"))?,
                (true, Value::Object(_)) => {
                    self.accepts(open, item).map_err(|error| format!("{key}: {error}"))?
                }
                (true, _) if key.starts_with("x-") => {}
                (true, _) => return Err(format!("{key} is not in the schema")),
            }
        }
        Ok(())
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        other => panic!("the validator does not know {other:?}"),
    }
}

fn check(text: &str) -> Result<(), String> {
    let checker = Checker { root: schema() };
    // As editors read it, by YAML 1.2: `off` is a word.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).unwrap();
    documents.iter().try_for_each(|document| checker.accepts(&checker.root, document))
}

#[test]
fn the_schema_accepts_the_examples() {
    for example in super::EXAMPLES.iter().chain([&super::CONTRACT]) {
        assert_eq!(check(example), Ok(()), "{example}");
    }
}

#[test]
fn the_schema_refuses_what_parse_refuses() {
    for line in
        ["replica: 2", "replicas: two", "deploy: { order: up }", "port: true", "domains: a", "drift: 1"]
    {
        let text = format!("services:\n  api:\n    command: [api]\n    {line}\n");
        assert!(check(&text).is_err(), "{line}");
        assert!(crate::manifest::parse(&text, "m", "/").is_err(), "{line}");
    }
}

/// A value for every key of a service that another key may forbid.
const KEYS: &[&str] = &[
    "replicas: 2",
    "domains: [a.localhost]",
    "env: { A: b }",
    "files: { a: b }",
    "port: dynamic",
    "health: /",
    "restart: { attempts: 1 }",
    "stop: { grace: 1s }",
    "resources: { memory: 64MiB }",
    "user: a",
    "workdir: /a",
    "entrypoint: [a]",
    "volumes: [\"d:/d\"]",
    "tmpfs: [/tmp]",
    "read_only: true",
    "network: none",
    "capabilities: { drop: [CHOWN] }",
    "logs: { max_files: 2 }",
    "deploy: { parallelism: 2 }",
    "drift: warn",
    "retain: 1",
    "static: a",
    "image: a",
    "command: [a]",
];

#[test]
fn the_schema_and_parse_agree_on_which_keys_go_together() {
    let agree = |text: &str| {
        let (checked, parsed) = (check(text), crate::manifest::parse(text, "m", "/"));
        assert_eq!(checked.is_ok(), parsed.is_ok(), "{text}\n{checked:?}\n{parsed:?}");
        parsed.is_ok()
    };
    let mut taken = 0;
    for kind in ["static: a", "command: [a]", "image: a", "replicas: 1"] {
        for key in KEYS.iter().filter(|key| key.split(':').next() != kind.split(':').next()) {
            // A port in a container is a number, and one that nobody else may say is not needed by a path.
            let key = if kind == "image: a" { key.replace("dynamic", "80") } else { (*key).to_owned() };
            let port = if kind == "image: a" && !key.starts_with("port") { "\n    port: 80" } else { "" };
            let host = key.contains("network: none");
            let port = if host { "" } else { port };
            taken += usize::from(agree(&format!("services:\n  a:\n    {kind}\n    {key}{port}\n")));
        }
    }
    assert!(taken > 30, "{taken}");
    for map in [
        "path: a",
        "path: a, archive: b",
        "archive: b, build: [c]",
        "git: \"https://a/b\", output: o",
        "output: o",
    ] {
        agree(&format!("services:\n  a:\n    static: {{ {map} }}\n"));
    }
    for probe in ["http: /", "tcp: {}, http: /", "exec: [a]", "interval: 1s"] {
        agree(&format!("services:\n  a:\n    command: [a]\n    health: {{ readiness: {{ {probe} }} }}\n"));
    }
}
