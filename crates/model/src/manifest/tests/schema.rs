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
        self.children(schema, value)
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
