//! The JSON Schema and the reference page, from the same lists of keys that parse.

use std::fmt::Write as _;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    decode::{FieldDoc, Mapping},
    raw,
};

/// JSON Schema (draft 2020-12) of one document.
pub fn schema() -> Value {
    let mut schema = generator().into_root_schema_for::<raw::Document>();
    schema.insert("title".into(), "Setpoint manifest".into());
    let mut schema = schema.to_value();
    for (name, rules) in [("Service", of_services()), ("StaticMap", of_sources()), ("ProbeMap", of_probes())]
    {
        schema["$defs"][name]["allOf"] = rules;
    }
    schema
}

/// What only a program and a container have.
const OF_WHAT_RUNS: [&str; 9] =
    ["env", "files", "port", "health", "restart", "stop", "resources", "user", "workdir"];
const OF_CONTAINERS: [&str; 7] =
    ["entrypoint", "volumes", "tmpfs", "read_only", "network", "capabilities", "logs"];

/// A service is of one kind, and has what applies to it.
fn of_services() -> Value {
    let a_site = has(&["static"]);
    let a_program = json!({ "required": ["command"], "not": { "required": ["image"] } });
    json!([
        { "oneOf": [a_site, has(&["image"]), a_program] },
        { "if": a_site, "then": { "not": any(&OF_WHAT_RUNS) } },
        { "if": { "not": has(&["image"]) }, "then": { "not": any(&OF_CONTAINERS) } },
        { "if": a_site, "then": { "properties": { "replicas": { "maximum": 1 } } } },
    ])
}

/// A site has one source, and only with one is there something to build.
fn of_sources() -> Value {
    let sources = ["path", "archive", "git"];
    let each: Vec<Value> = sources.iter().map(|source| has(&[source])).collect();
    let none = json!({ "not": any(&["path", "archive", "git", "build", "output"]) });
    json!([{ "oneOf": each.into_iter().chain([none]).collect::<Vec<_>>() }])
}

/// A probe is made in one way.
fn of_probes() -> Value {
    let each: Vec<Value> = ["http", "tcp", "exec"].iter().map(|way| has(&[way])).collect();
    json!([{ "oneOf": each }])
}

fn has(keys: &[&str]) -> Value {
    json!({ "required": keys })
}

fn any(keys: &[&str]) -> Value {
    json!({ "anyOf": keys.iter().map(|key| has(&[key])).collect::<Vec<_>>() })
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

/// The manifest's reference as Markdown.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    section::<raw::Document>(&mut page);
    section::<raw::Service>(&mut page);
    section::<raw::StaticMap>(&mut page);
    section::<raw::GitMap>(&mut page);
    section::<raw::HealthMap>(&mut page);
    section::<raw::ProbeMap>(&mut page);
    section::<raw::Restart>(&mut page);
    section::<raw::Stop>(&mut page);
    section::<raw::Deploy>(&mut page);
    section::<raw::DriftMap>(&mut page);
    section::<raw::ResourceLimits>(&mut page);
    section::<raw::CapabilityMap>(&mut page);
    section::<raw::LogsMap>(&mut page);
    page
}

const INTRODUCTION: &str = "# The manifest\n\n\
    <!-- Generated from the types that parse; do not edit. -->\n\n\
    YAML, one document or several. Unknown and repeated keys are errors; keys that begin with `x-` are\n\
    ignored. Paths are relative to the file. Durations are whole numbers with a unit (`500ms`, `30s`, `5m`,\n\
    `2h`, `7d`), sizes too (`512KiB`, `64MiB`, `1GiB`). Anchors, aliases and tags are not used.\n";

fn section<T: Mapping>(page: &mut String) {
    // Writing into a `String` cannot fail.
    let _ = write!(page, "\n## {}\n\n{}\n\n", upper_first(T::TITLE), T::doc());
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for field in T::fields(&mut generator()) {
        page.push_str(&row(&field));
    }
}

fn row(field: &FieldDoc) -> String {
    let default = match &field.default {
        None => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    };
    let cells = [format!("`{}`", field.key), type_name(&field.schema), default, field.doc.clone()];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn upper_first(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A schema in a few words.
fn type_name(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(forms) = schema["anyOf"].as_array() {
        return forms.iter().map(type_name).collect::<Vec<_>>().join(" or ");
    }
    if !schema["const"].is_null() {
        return format!("`{}`", schema["const"].to_string().trim_matches('"'));
    }
    if schema["$ref"].is_string() {
        return "map".into();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => {
            format!("number, {} to {}", schema["minimum"], schema["maximum"])
        }
        Some("boolean") => "`true` or `false`".into(),
        Some("array") => format!("list of {}", type_name(&schema["items"])),
        Some("object") if schema["maxProperties"] == 0 => "`{}`".into(),
        Some("object") if schema["additionalProperties"]["$ref"].is_string() => "map".into(),
        Some("object") => format!("map of {}", type_name(&schema["additionalProperties"])),
        Some("string") => match schema["pattern"].as_str() {
            Some(pattern) if pattern.contains("(ms|") => "duration".into(),
            Some(pattern) if pattern.contains("MiB") => "size".into(),
            Some(_) | None => "text".into(),
        },
        Some(_) | None => "text".into(),
    }
}
