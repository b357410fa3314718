//! New releases of containers under constant load: none of them costs a request.

use testkit::docker::Engine;

use crate::{image, setpoint, web};

#[test]
fn updates_in_a_row_under_load_cost_no_request() {
    let Some(engine) = Engine::shared() else { return };
    let images = ["v1", "v2", "v3"].map(|version| image(&engine, version));
    let manifest = |image: &str| web(image, 3, "env: { DRAIN_MS: \"200\" }");
    let setpoint = setpoint(&engine).manifest(&manifest(&images[0])).start();
    setpoint.wait_until_converged("web");
    let loads = [
        setpoint.load("web.localhost", "/").rate(150).start(),
        setpoint.load("web.localhost", "/").rate(100).closing().start(),
    ];
    for image in &images[1..] {
        setpoint.apply_ok(&manifest(image), &["--wait"]);
        loads[0].go_on_for(20);
    }
    for load in loads {
        let report = load.stop();
        report.assert_clean(100);
        let sequence = report.sequence();
        assert_eq!((sequence.first(), sequence.last()), (Some(&"v1"), Some(&"v3")), "{sequence:?}");
    }
    let web = setpoint.wait_until_converged("web");
    assert_eq!(web["instances"].as_array().unwrap().len(), 3);
}

#[test]
fn a_bad_release_never_serves_and_the_old_one_is_back_whole() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "")).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(150).start();
    for bad in ["hang", "ill", "exit:7"] {
        let manifest =
            web(&app, 2, &format!("env: {{ MODE: \"{bad}\" }}\nrestart: {{ attempts: 1, backoff: 100ms }}"));
        let manifest =
            manifest.replace("deadline: 60s", "deadline: 3s").replace("health: /healthz", QUICK_HEALTH);
        let output = setpoint.apply(&manifest, &["--wait=60s"]);
        assert_eq!(output.code, 1, "{bad}: {output:?}");
        let after = setpoint.wait_until_state("web", "degraded");
        assert_eq!(
            testkit::setpoint::pids(&after),
            testkit::setpoint::pids(&before),
            "{bad}: what ran was not touched"
        );
    }
    let report = load.stop();
    report.assert_clean(50);
    assert_eq!(report.sequence(), ["v1"]);
}

const QUICK_HEALTH: &str =
    "health: { startup: { http: /healthz, grace: 1s }, readiness: { http: /healthz } }";
