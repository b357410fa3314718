//! The walls between the crates (ARCHITECTURE.md), and the licences of everything that Setpoint is linked with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::run;

/// Which crates of the workspace a crate may use in its normal dependencies.
const WALLS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("decide", &["model"]),
    ("sim", &["decide", "model"]),
    ("store", &["model"]),
    ("content", &["model", "sys"]),
    ("sys", &[]),
    ("edge", &["decide", "model", "sys"]),
    ("node", &["content", "decide", "model", "sys"]),
    ("server", &["content", "decide", "store", "model"]),
    ("setpoint", &["content", "decide", "edge", "model", "node", "server", "store", "sys"]),
    ("testkit", &[]),
    ("xtask", &[]),
];

/// What the pure crates may not be built with, directly or through others.
const IMPURE: &[&str] = &["tokio", "async-std", "smol", "rand", "sqlx", "hyper", "reqwest"];
const PURE: &[&str] = &["model", "decide"];

/// Licences that ask for nothing but their own text.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "WTFPL",
    "Zlib",
    "blessing",
];

pub fn check() -> Result<(), String> {
    let text = run::output("cargo", &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut complaints = walls(&metadata);
    complaints.extend(purity(&metadata));
    complaints.extend(licences(&metadata));
    if complaints.is_empty() {
        println!("── walls and licences hold");
        return Ok(());
    }
    Err(complaints.join("\n"))
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn walls(metadata: &Value) -> Vec<String> {
    let ours: BTreeMap<&str, &Value> =
        packages(metadata).filter(|p| p["source"].is_null()).map(|p| (text(p, "name"), p)).collect();
    let mut complaints: Vec<String> = ours
        .keys()
        .filter(|name| !WALLS.iter().any(|(known, _)| known == *name))
        .map(|name| format!("{name}: a crate without walls; name what it may use in xtask/src/deps.rs"))
        .collect();
    for (name, allowed) in WALLS {
        let Some(package) = ours.get(name) else { continue };
        let used = package["dependencies"].as_array().into_iter().flatten();
        let normal = used.filter(|d| d["kind"].is_null()).map(|d| text(d, "name"));
        for other in normal.filter(|other| ours.contains_key(other) && !allowed.contains(other)) {
            complaints.push(format!("{name} may not use {other}: see the walls in ARCHITECTURE.md"));
        }
    }
    complaints
}

/// Follows normal dependencies from the pure crates.
fn purity(metadata: &Value) -> Vec<String> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| (text(node, "id"), node))
        .collect();
    let names: BTreeMap<&str, &str> = packages(metadata).map(|p| (text(p, "id"), text(p, "name"))).collect();
    let mut complaints = Vec::new();
    for pure in PURE {
        let Some(start) = packages(metadata).find(|p| text(p, "name") == *pure && p["source"].is_null())
        else {
            continue;
        };
        for id in reachable(&nodes, text(start, "id")) {
            let name = names.get(id).copied().unwrap_or("");
            if IMPURE.contains(&name) {
                complaints.push(format!("{pure} is built with {name}: it must not be able to do IO"));
            }
        }
    }
    complaints
}

fn reachable<'a>(nodes: &BTreeMap<&'a str, &'a Value>, start: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        for dep in node["deps"].as_array().into_iter().flatten() {
            let is_normal =
                dep["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"].is_null());
            if is_normal {
                open.push(dep["pkg"].as_str().unwrap_or(""));
            }
        }
    }
    seen
}

fn licences(metadata: &Value) -> Vec<String> {
    packages(metadata)
        .filter(|p| !p["source"].is_null())
        .filter(|p| !is_allowed(text(p, "license")))
        .map(|p| {
            format!(
                "{} {}: licence `{}` is not on the list",
                text(p, "name"),
                text(p, "version"),
                text(p, "license")
            )
        })
        .collect()
}

/// Understands `A OR B`, `A AND B`, `A/B` and one level of brackets: all that crates write.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn licence_expressions_are_understood() {
        assert!(is_allowed("MIT OR GPL-3.0"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed(""));
    }
}
