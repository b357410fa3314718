//! What no event tells is seen all the same: events only say where to look.

use serde_json::Value;
use testkit::docker::{Engine, Wire};

use crate::{container, image, setpoint_over, web};

/// Nobody hears that it has its address again, and no pass over everything comes.
#[test]
fn what_is_off_its_network_is_looked_at_until_it_is_back() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    wire.swallow("/events");
    let builder = setpoint_over(&wire).env("SETPOINT__RECONCILE__EVERY", "1h");
    let setpoint = builder.manifest(&web(&image(&engine, "v1"), 1, "drift: warn")).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let network = engine.inspect(&id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    engine.docker(&["network", "disconnect", &network, &id]);
    setpoint.ok(&["reconcile"]);
    let off =
        |web: &Value| web["replicas"]["ready"] == 0 && web["message"].to_string().contains("off its network");
    setpoint.wait_for_service("web", "it is off its network", off);
    engine.docker(&["network", "connect", "--alias", "web", "--alias", "web-0", &network, &id]);
    let back = |web: &Value| web["replicas"]["ready"] == 1;
    setpoint.wait_for_service("web", "it is there again", back);
}

/// Between the end of one stream of events and the begin of the next, all that an engine remembers is what was changed.
#[test]
fn drift_that_began_while_the_event_link_was_cut_is_told_and_corrected() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let manifest = web(&image(&engine, "v1"), 1, "resources: { memory: 64MiB }");
    let setpoint = setpoint_over(&wire).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    wire.cut();
    setpoint.wait_for_event("engine.away", &[]);
    engine.docker(&["update", "--memory", "32m", "--memory-swap", "32m", &id]);
    wire.mend();
    setpoint.wait_for_event("drift.found", &["container/memory", "engine: update"]);
    setpoint.wait_for_event("drift.corrected", &["container/memory"]);
    let limit = || engine.inspect(&id, "{{.HostConfig.Memory}}");
    testkit::until("it has its limit again", testkit::setpoint::SOON, || {
        (limit() == "67108864").then_some(())
    });
}
