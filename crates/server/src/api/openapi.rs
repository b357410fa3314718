//! The OpenAPI document, made from the table of routes and the types that are sent.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    access::Access,
    table::{Content, Route},
};
use crate::views;

pub fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<views::Problem>();
    let mut paths = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.into(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Setpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps what runs equal to what was declared. Errors are problem documents (RFC 9457) \
                with `code`, `field`, `message` and `help`.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, problem: &schemars::Schema) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "tags": [tag(route.path)],
        "parameters": parameters(route),
        "responses": {
            route.status.to_string(): {
                "description": "Done.",
                "content": content(route.answer, generator),
            },
            "default": {
                "description": "Refused.",
                "content": { "application/problem+json": { "schema": problem } },
            },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "content": content(body, generator) });
    }
    match route.access {
        Some(Access::Open) => operation["security"] = json!([]),
        Some(access @ Access::Needs(..)) => operation["description"] = access.to_string().into(),
        None => {}
    }
    operation
}

fn content(content: Content, generator: &mut SchemaGenerator) -> Value {
    match content.schema {
        Some(schema) => json!({ content.kind: { "schema": schema(generator) } }),
        None => json!({ content.kind: {} }),
    }
}

/// `post /api/v1/services/{project}/{name}/deploy` → `post_services_project_name_deploy`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1").replace(['{', '}'], "");
    format!("{}{}", route.method, path.replace(['/', '.'], "_"))
}

fn tag(path: &str) -> &str {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some("v1"), Some(tag)) => tag,
        (Some("api"), Some(tag), _) => tag,
        _ => "operating",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = names_in(route.path).map(|name| {
        let schema = if name == "seq" {
            json!({ "type": "integer", "minimum": 0 })
        } else {
            json!({ "type": "string" })
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_query = route.query.iter().map(|(name, kind, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } })
    });
    let terms = [
        (
            route.keyed,
            "Idempotency-Key",
            "the same key with the same request gets the same answer, and has no second effect",
        ),
        (route.matched, "If-Match", "the ETag of the service; refused with 412 when it has changed since"),
    ];
    let in_header = terms.into_iter().filter(|(takes, ..)| *takes).map(|(_, name, about)| {
        json!({ "name": name, "in": "header", "description": about, "schema": { "type": "string" } })
    });
    in_path.chain(in_query).chain(in_header).collect()
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
