//! Probes over TCP and by a command: what they say decides who gets requests and who is started again.

use std::{cell::Cell, fs, path::PathBuf};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo, script},
    proc,
    setpoint::{Builder, SOON, pids},
};

use crate::setpoint;

/// A check that answers as it is told, each answer once, and waits for those that are not there yet. That it is asked
/// again says that its last answer was counted.
struct Answers {
    folder: PathBuf,
    given: Cell<u32>,
}

impl Answers {
    fn new(builder: &Builder, name: &str) -> Self {
        let folder = builder.work().join(name);
        fs::create_dir(&folder).unwrap();
        // One that is killed while it waits has taken no answer.
        script(
            &folder.join("check"),
            "cd \"$(dirname \"$0\")\" || exit 9\n\
             taken=$(cat taken 2>/dev/null || echo 0)\n\
             echo $taken > asked.$$ && mv asked.$$ asked\n\
             until mv answer answer.$$ 2>/dev/null; do sleep 0.02; done\n\
             echo $((taken + 1)) > taken\n\
             exit $(cat answer.$$)",
        );
        Self { folder, given: Cell::new(0) }
    }

    /// As the manifest says it, with further keys.
    fn declared(&self, more: &str) -> String {
        let check = self.folder.join("check");
        format!("{{ exec: [{}], interval: 100ms, timeout: 60s, {more} }}", check.display())
    }

    /// After how many answers it was asked last; none when it never was.
    fn asked(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("asked")).ok()?.trim().parse().ok()
    }

    #[track_caller]
    fn wait_until_asked(&self) {
        testkit::until("it is asked again", SOON, || (self.asked()? >= self.given.get()).then_some(()));
    }

    #[track_caller]
    fn answer(&self, status: u8) {
        self.wait_until_asked();
        let new = self.folder.join("answer.new");
        fs::write(&new, status.to_string()).unwrap();
        fs::rename(new, self.folder.join("answer")).unwrap();
        self.given.set(self.given.get() + 1);
    }

    /// The answer was counted, and the server has looked at what came of it.
    #[track_caller]
    fn says(&self, setpoint: &Setpoint, status: u8) {
        self.answer(status);
        self.wait_until_asked();
        setpoint.ok(&["reconcile"]);
    }
}

fn with_health(health: &str) -> String {
    demo(1, &[], QUICK).replace("health: /healthz", &format!("health: {{ {health} }}"))
}

#[track_caller]
fn assert_ready(setpoint: &Setpoint, ready: u32, why: &str) {
    assert_eq!(setpoint.service("api")["replicas"]["ready"], ready, "{why}");
}

/// Routes follow what is ready a moment later.
#[track_caller]
fn wait_until_answered(setpoint: &Setpoint, status: u16) {
    let answered = || (setpoint.get("api.localhost", "/").status == status).then_some(());
    testkit::until(&format!("the edge answers with {status}"), SOON, answered);
}

#[test]
fn a_command_is_asked_as_often_as_rise_and_fall_say_before_the_routes_change() {
    let builder = setpoint();
    let readiness = Answers::new(&builder, "readiness");
    let health = format!("readiness: {}", readiness.declared("rise: 2, fall: 3"));
    let setpoint = builder.manifest(&with_health(&health)).start();
    readiness.wait_until_asked();
    let first = setpoint.wait_for_service("api", "it runs", |api| !pids(api).is_empty());
    for (answer, why) in [(0, "one success is not two"), (1, "nor is a failure"), (0, "two in a row")] {
        readiness.says(&setpoint, answer);
        assert_ready(&setpoint, 0, why);
        assert_eq!(setpoint.get("api.localhost", "/").status, 503, "{why}");
    }
    readiness.says(&setpoint, 0);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", "/").status, 200);
    for answer in [1, 1, 0, 1, 1] {
        readiness.says(&setpoint, answer);
        assert_ready(&setpoint, 1, "never three failures in a row");
    }
    readiness.says(&setpoint, 7);
    let unready = setpoint.wait_for_service("api", "it is not ready", |api| api["replicas"]["ready"] == 0);
    setpoint.wait_for_event("instance.unready", &["the health command ended with exit status: 7"]);
    assert_eq!(pids(&unready), pids(&first), "what is not ready is not dead");
    wait_until_answered(&setpoint, 503);
    readiness.says(&setpoint, 0);
    assert_ready(&setpoint, 0, "one success is not two");
    readiness.says(&setpoint, 0);
    let again = setpoint.wait_until_converged("api");
    assert_eq!((pids(&again), &again["instances"][0]["restarts"]), (pids(&first), &0.into()));
    wait_until_answered(&setpoint, 200);
}

#[test]
fn a_command_that_fails_for_liveness_has_the_process_started_again() {
    let builder = setpoint();
    let liveness = Answers::new(&builder, "liveness");
    let health = format!("readiness: {{ http: /healthz }}, liveness: {}", liveness.declared("fall: 2"));
    let setpoint = builder.manifest(&with_health(&health)).start();
    let first = pids(&setpoint.wait_until_converged("api"));
    for answer in [0, 1, 0, 1] {
        liveness.says(&setpoint, answer);
        assert_eq!(pids(&setpoint.service("api")), first, "never two failures in a row");
    }
    liveness.answer(1);
    let after = setpoint.wait_for_service("api", "another process runs in its place", |api| {
        api["state"] == "converged" && pids(api) != first
    });
    assert_eq!(after["instances"][0]["restarts"], 1);
    setpoint
        .wait_for_event("instance.exited", &["is ended and started again: unhealthy: ", "exit status: 1"]);
    // The new one is asked too, and one failure of the old one is none of its.
    liveness.says(&setpoint, 0);
    liveness.says(&setpoint, 1);
    assert_eq!(pids(&setpoint.service("api")), pids(&after));
    assert!(!proc::is_alive(first[0]));
}

#[test]
fn failures_within_the_grace_of_a_start_cost_no_restart() {
    let builder = setpoint();
    let startup = Answers::new(&builder, "startup");
    let health = format!("startup: {}", startup.declared("fall: 1, grace: 10m"));
    let setpoint = builder.manifest(&with_health(&health)).start();
    startup.wait_until_asked();
    let first = pids(&setpoint.wait_for_service("api", "it runs", |api| !pids(api).is_empty()));
    for _ in 0..3 {
        startup.says(&setpoint, 1);
    }
    startup.answer(0);
    let api = setpoint.wait_until_converged("api");
    assert_eq!((pids(&api), &api["instances"][0]["restarts"]), (first, &0.into()));
}

#[test]
fn nothing_else_is_asked_before_the_startup_command_has_risen_and_its_fall_starts_anew() {
    let builder = setpoint();
    let [startup, readiness, liveness] =
        ["startup", "readiness", "liveness"].map(|name| Answers::new(&builder, name));
    let health = format!(
        "startup: {}, readiness: {}, liveness: {}",
        startup.declared("rise: 2, fall: 2, grace: 0s"),
        readiness.declared(""),
        liveness.declared("")
    );
    let setpoint = builder.manifest(&with_health(&health)).start();
    startup.wait_until_asked();
    let first = pids(&setpoint.wait_for_service("api", "it runs", |api| !pids(api).is_empty()));
    startup.says(&setpoint, 0);
    startup.says(&setpoint, 1);
    assert_eq!(pids(&setpoint.service("api")), first, "one failure is not two");
    startup.answer(1);
    let second = setpoint.wait_for_service("api", "another process runs in its place", |api| {
        !pids(api).is_empty() && pids(api) != first
    });
    assert_eq!(second["instances"][0]["restarts"], 1);
    startup.says(&setpoint, 0);
    assert_eq!((readiness.asked(), liveness.asked()), (None, None), "it has not started yet");
    startup.answer(0);
    readiness.answer(0);
    liveness.answer(0);
    let ready = setpoint.wait_until_converged("api");
    assert_eq!(pids(&ready), pids(&second));
    liveness.says(&setpoint, 0);
    assert_eq!(startup.asked(), Some(4), "a start is over once: its fifth answer is never asked for");
}

#[test]
fn a_command_that_hangs_is_killed_with_all_that_it_started_and_counts_as_a_failure() {
    let builder = setpoint();
    let work = builder.work();
    let check = work.join("check");
    // Where the file is, the parent waits for its child for ever.
    script(
        &check,
        &format!("cd {}\n[ -e $1 ] || exit 0\nsleep 100000 &\necho $$ $! >> $1-hung\nwait", work.display()),
    );
    let probe = |file: &str| {
        format!("{{ exec: [{}, {file}], interval: 100ms, timeout: 300ms, fall: 2 }}", check.display())
    };
    let health = format!("readiness: {}, liveness: {}", probe("unready"), probe("dead"));
    let setpoint = builder.manifest(&with_health(&health)).start();
    let first = pids(&setpoint.wait_until_converged("api"));

    fs::write(work.join("unready"), "").unwrap();
    setpoint.wait_for_service("api", "it is not ready", |api| api["replicas"]["ready"] == 0);
    setpoint.wait_for_event("instance.unready", &["the health command did not answer within 300ms"]);
    fs::remove_file(work.join("unready")).unwrap();
    let again = setpoint.wait_until_converged("api");
    assert_eq!(pids(&again), first, "it was not ready, and lived on");

    fs::write(work.join("dead"), "").unwrap();
    setpoint.wait_for_event("instance.exited", &["started again: unhealthy: ", "within 300ms"]);
    fs::remove_file(work.join("dead")).unwrap();
    let after = setpoint.wait_until_converged("api");
    assert_ne!(pids(&after), first);

    for file in ["unready-hung", "dead-hung"] {
        let hung = fs::read_to_string(work.join(file)).unwrap();
        let hung: Vec<u32> = hung.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        assert!(hung.len() >= 4, "it hung twice at least: {hung:?}");
        testkit::until("nothing of what hung lives", SOON, || {
            (!hung.iter().any(|pid| proc::is_alive(*pid))).then_some(())
        });
    }
}

/// A process that lives whether or not it listens: it does while the file is there.
fn listening_while(builder: &Builder, file: &str, health: &str) -> String {
    let keeper = builder.work().join("keeper");
    script(
        &keeper,
        "while :; do\n\
           if [ -e \"$1\" ]; then\n\
             [ \"$child\" ] || { \"$2\" demo-app & child=$!; }\n\
           elif [ \"$child\" ]; then kill -9 $child; wait $child; child=\n\
           fi\n\
           sleep 0.03\n\
         done",
    );
    let command =
        format!("[{}, {}, \"${{SETPOINT}}\"]", keeper.display(), builder.work().join(file).display());
    with_health(health).replace("[\"${SETPOINT}\", demo-app]", &command)
}

#[test]
fn over_tcp_what_listens_gets_requests_and_what_does_not_gets_none() {
    let builder = setpoint();
    let health = "startup: { tcp: true }, readiness: { tcp: true, interval: 100ms, rise: 2, fall: 2 }";
    let yaml = listening_while(&builder, "open", health);
    let setpoint = builder.manifest(&yaml).start();
    let open = setpoint.work().join("open");
    let first = setpoint.wait_for_service("api", "it runs and refuses connections", |api| {
        let instance = &api["instances"][0];
        instance["pid"].is_u64() && instance["ready"] == false
    });
    assert_eq!(setpoint.get("api.localhost", "/").status, 503);
    for _ in 0..2 {
        fs::write(&open, "").unwrap();
        setpoint.wait_until_converged("api");
        wait_until_answered(&setpoint, 200);
        fs::remove_file(&open).unwrap();
        setpoint.wait_for_service("api", "it is not ready", |api| api["replicas"]["ready"] == 0);
        setpoint.wait_for_event("instance.unready", &["connection refused"]);
        wait_until_answered(&setpoint, 503);
    }
    let last = setpoint.service("api");
    assert_eq!((pids(&last), &last["instances"][0]["restarts"]), (pids(&first), &0.into()));
}

#[test]
fn over_tcp_what_stops_listening_is_started_again_where_liveness_says_so() {
    let builder = setpoint();
    let health = "startup: { tcp: true }, readiness: { tcp: true, interval: 100ms }, \
                  liveness: { tcp: true, interval: 100ms, fall: 2 }";
    let yaml = listening_while(&builder, "open", health);
    fs::write(builder.work().join("open"), "").unwrap();
    let setpoint = builder.manifest(&yaml).start();
    let open = setpoint.work().join("open");
    let first = pids(&setpoint.wait_until_converged("api"));
    fs::remove_file(&open).unwrap();
    setpoint.wait_for_event("instance.exited", &["started again: unhealthy: ", "connection refused"]);
    fs::write(&open, "").unwrap();
    let after = setpoint.wait_for_service("api", "another process listens in its place", |api| {
        api["state"] == "converged" && pids(api) != first
    });
    // The first restart is at once; a start that nobody hears is no death before its grace is over.
    assert_eq!(after["instances"][0]["restarts"], 1);
    wait_until_answered(&setpoint, 200);
}
