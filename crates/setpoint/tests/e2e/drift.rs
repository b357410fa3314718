//! Drift modes, ignore rules, and rest: what does not differ is never reported.

use std::fs;

use serde_json::json;
use testkit::{
    Setpoint,
    fixture::{QUICK, demo, versioned_site},
    setpoint::SOON,
};

use crate::setpoint;

fn started(drift: &str) -> Setpoint {
    let builder = setpoint();
    for site in ["docs", "beside"] {
        versioned_site(&builder.work().join(site), "v1", 2);
    }
    let yaml = format!(
        "services:\n  docs:\n    static: ./docs\n    domains: [docs.localhost]\n    drift: {drift}\n  \
         beside:\n    static: ./beside\n    domains: [beside.localhost]\n"
    );
    let setpoint = builder.manifest(&yaml).start();
    setpoint.wait_until_converged("docs");
    setpoint.wait_until_converged("beside");
    setpoint
}

fn file(setpoint: &Setpoint, service: &str) -> std::path::PathBuf {
    setpoint.data().join(format!("sites/default/{service}/current/index.html"))
}

/// Damages a site whose drift is corrected, and waits until it has been: by then every earlier damage was seen too.
fn wait_for_a_healing(setpoint: &Setpoint) {
    fs::write(file(setpoint, "beside"), "hacked").unwrap();
    testkit::until("the site beside it is healed", SOON, || {
        (fs::read_to_string(file(setpoint, "beside")).ok()? == "v1").then_some(())
    });
    setpoint.ok(&["reconcile"]);
}

#[test]
fn warn_reports_what_differs_and_changes_nothing() {
    let setpoint = started("warn");
    fs::write(file(&setpoint, "docs"), "by hand").unwrap();
    setpoint.wait_for_event("drift.found", &["index.html"]);
    wait_for_a_healing(&setpoint);
    assert_eq!(fs::read_to_string(file(&setpoint, "docs")).unwrap(), "by hand");
    let drift = setpoint.json(&["drift", "docs"]);
    let rows = drift["drift"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{drift:#}");
    assert_eq!(rows[0]["path"], "site/index.html");
    assert!(rows[0]["declared"].is_string() && rows[0]["observed"].is_string(), "{drift:#}");
    assert_ne!(rows[0]["declared"], rows[0]["observed"]);
    assert!(rows[0]["since"].as_str().unwrap().ends_with('Z'), "{drift:#}");
    let table = setpoint.ok(&["drift"]);
    assert!(table.contains("site/index.html"), "{table}");
    // What is declared again by hand is no drift any more.
    fs::write(file(&setpoint, "docs"), "v1").unwrap();
    testkit::until("the drift is over", SOON, || {
        (setpoint.json(&["drift"])["drift"] == json!([])).then_some(())
    });
}

#[test]
fn off_neither_reports_nor_changes() {
    let setpoint = started("off");
    fs::write(file(&setpoint, "docs"), "by hand").unwrap();
    wait_for_a_healing(&setpoint);
    assert_eq!(fs::read_to_string(file(&setpoint, "docs")).unwrap(), "by hand");
    assert_eq!(setpoint.json(&["drift", "docs"])["drift"], json!([]));
    assert!(setpoint.events().iter().all(|e| e["service"] != "docs" || e["kind"] != "drift.found"));
}

#[test]
fn ignored_paths_are_left_and_others_are_corrected() {
    let setpoint = started("{ mode: correct, ignore: [\"site/cache/*\"] }");
    let folder = file(&setpoint, "docs").canonicalize().unwrap().parent().unwrap().to_owned();
    testkit::fixture::folder(&folder, &[("cache/page", "kept"), ("index.html", "hacked")]);
    testkit::until("the page is put back", SOON, || {
        (fs::read_to_string(folder.join("index.html")).ok()? == "v1").then_some(())
    });
    wait_for_a_healing(&setpoint);
    assert_eq!(fs::read_to_string(folder.join("cache/page")).ok().as_deref(), Some("kept"));
}

#[test]
fn at_rest_the_next_passes_do_nothing_and_report_nothing() {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "v1", 20);
    let more = format!("{QUICK}\nfiles: {{ config.txt: \"x: ${{PORT}}\\n\" }}");
    let yaml = format!("{}  docs:\n    static: ./site\n    domains: [docs.localhost]\n", demo(2, &[], &more));
    let setpoint = builder.manifest(&yaml).start();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("docs");
    let (events, status) = (setpoint.events(), setpoint.status());
    let journal = |service: &str| setpoint.json(&["explain", service])["journal"][0]["seq"].clone();
    let before = (journal("api"), journal("docs"));
    for _ in 0..3 {
        setpoint.ok(&["reconcile"]);
        setpoint.ask("POST", "/api/monitoring/reconcile/trigger", None);
    }
    assert_eq!(setpoint.apply("services: {}\n", &[]).code, 1, "a file that declares nothing is refused");
    assert_eq!(setpoint.events(), events, "no event");
    assert_eq!(setpoint.status(), status, "no change");
    assert_eq!((journal("api"), journal("docs")), before, "no decision");
    assert_eq!(setpoint.json(&["drift"])["drift"], json!([]), "no false drift");
    let dry = setpoint.json(&["reconcile", "--dry-run"]);
    let would = dry["services"].as_array().unwrap().iter().filter(|s| s["changes"] == true).count();
    assert_eq!(would, 0, "{dry:#}");
}
