//! Verdicts from probe results: started, ready, live. The node makes the probes; what they mean is decided here.

use model::{
    Millis, Timestamp,
    spec::{self, Check, Probe},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

/// What is known about the health of one run of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// When the process started.
    pub began: Timestamp,
    /// Whether the startup check has passed (or there is none).
    pub started: bool,
    pub ready: bool,
    pub ready_since: Timestamp,
    /// False: it must be restarted.
    pub live: bool,
    /// Any probe has ever succeeded: ends the grace.
    pub succeeded: bool,
    startup: Streak,
    readiness: Streak,
    liveness: Streak,
    /// What the last failing probe said; empty when the last one succeeded.
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Streak {
    successes: u32,
    failures: u32,
    last: Option<Timestamp>,
}

impl Streak {
    fn count(&mut self, ok: bool, at: Timestamp) {
        self.last = Some(at);
        if ok {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
        }
    }
}

/// A probe that is due, with all that it speaks for: the same check is never made twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub check: Check,
    pub timeout: Millis,
    pub purposes: Vec<Purpose>,
}

/// The probes of a container: where nobody declared any, the image's own HEALTHCHECK takes the place of what would be
/// assumed. The engine makes it; when it calls the container unhealthy, it has counted failures itself.
pub fn with_image_check(declared: &spec::Health) -> spec::Health {
    let declares =
        [&declared.startup, &declared.readiness, &declared.liveness].into_iter().any(Option::is_some);
    if declares && !declared.assumed {
        return declared.clone();
    }
    let probe = || Some(Probe { fall: 1, grace: Millis::ZERO, ..Probe::new(Check::Image) });
    spec::Health { startup: probe(), readiness: probe(), liveness: probe(), assumed: true }
}

impl Health {
    /// A process that has just started. Without probes, alive is ready.
    pub fn new(spec: &spec::Health, began: Timestamp) -> Self {
        let started = spec.startup.is_none();
        Self {
            began,
            started,
            ready: started && spec.readiness.is_none(),
            ready_since: began,
            live: true,
            succeeded: false,
            startup: Streak::default(),
            readiness: Streak::default(),
            liveness: Streak::default(),
            message: String::new(),
        }
    }

    /// A process that an earlier Setpoint found ready and that was adopted alive: ready until probes say otherwise,
    /// so that a restart of Setpoint takes nobody out of the routes.
    pub fn adopted(spec: &spec::Health, began: Timestamp, ready: bool, now: Timestamp) -> Self {
        let fresh = Self::new(spec, began);
        if ready {
            Self { started: true, ready: true, ready_since: now, succeeded: true, ..fresh }
        } else {
            fresh
        }
    }

    /// Takes the result of one check for all its purposes.
    #[must_use]
    pub fn after(
        &self,
        spec: &spec::Health,
        purposes: &[Purpose],
        result: Result<(), String>,
        at: Timestamp,
    ) -> Self {
        let mut next = self.clone();
        let ok = result.is_ok();
        next.succeeded |= ok;
        next.message = result.err().unwrap_or_default();
        for purpose in purposes {
            next.count(spec, *purpose, ok, at);
        }
        next
    }

    fn count(&mut self, spec: &spec::Health, purpose: Purpose, ok: bool, at: Timestamp) {
        let Some(probe) = probe(spec, purpose) else { return };
        let in_grace = !self.succeeded && at.since(self.began) < probe.grace;
        match purpose {
            Purpose::Startup => {
                self.startup.count(ok, at);
                if !self.started && self.startup.successes >= probe.rise {
                    self.started = true;
                    if spec.readiness.is_none() {
                        self.set_ready(true, at);
                    }
                } else if !self.started && !in_grace && self.startup.failures >= probe.fall {
                    self.live = false;
                }
            }
            Purpose::Readiness => {
                self.readiness.count(ok, at);
                if self.started && self.readiness.successes >= probe.rise {
                    self.set_ready(true, at);
                } else if self.readiness.failures >= probe.fall {
                    self.set_ready(false, at);
                }
            }
            Purpose::Liveness => {
                self.liveness.count(ok, at);
                if !in_grace && self.liveness.failures >= probe.fall {
                    self.live = false;
                }
            }
        }
    }

    fn set_ready(&mut self, ready: bool, at: Timestamp) {
        if self.ready != ready {
            self.ready = ready;
            self.ready_since = at;
        }
    }

    /// The probes to make now, and when to ask again. One that is made also speaks for the others that make the same check
    /// at the same pace, so that they keep step.
    pub fn due(&self, spec: &spec::Health, now: Timestamp) -> (Vec<Due>, Option<Timestamp>) {
        let active = self.active(spec);
        let (due_now, later): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|(purpose, probe)| self.next_at(*purpose, probe) <= now);
        let keeps_step = |(purpose, probe): &(Purpose, &Probe)| {
            let pace = self.pace(*purpose, probe);
            due_now.iter().any(|(other, made)| made.check == probe.check && self.pace(*other, made) == pace)
        };
        let (in_step, later): (Vec<_>, Vec<_>) = later.into_iter().partition(keeps_step);
        let mut due: Vec<Due> = Vec::new();
        for (purpose, probe) in due_now.iter().chain(&in_step) {
            match due.iter_mut().find(|d| d.check == probe.check) {
                Some(same) => {
                    same.purposes.push(*purpose);
                    same.timeout = same.timeout.max(probe.timeout);
                }
                None => due.push(Due {
                    check: probe.check.clone(),
                    timeout: probe.timeout,
                    purposes: vec![*purpose],
                }),
            }
        }
        let next = later.into_iter().map(|(purpose, probe)| self.next_at(purpose, probe)).min();
        (due, next)
    }

    /// What is probed now: before the start is through, the startup check, and readiness with it where both are
    /// the same check, so that one success does for both.
    fn active<'a>(&self, spec: &'a spec::Health) -> Vec<(Purpose, &'a Probe)> {
        let startup = spec.startup.as_ref().filter(|_| !self.started);
        match startup {
            Some(startup) => {
                let same = spec.readiness.as_ref().filter(|r| r.check == startup.check);
                let mut active = vec![(Purpose::Startup, startup)];
                active.extend(same.map(|r| (Purpose::Readiness, r)));
                active
            }
            None => {
                let readiness = spec.readiness.as_ref().map(|p| (Purpose::Readiness, p));
                let liveness = spec.liveness.as_ref().map(|p| (Purpose::Liveness, p));
                readiness.into_iter().chain(liveness).collect()
            }
        }
    }

    fn next_at(&self, purpose: Purpose, probe: &Probe) -> Timestamp {
        let streak = match purpose {
            Purpose::Startup => &self.startup,
            Purpose::Readiness => &self.readiness,
            Purpose::Liveness => &self.liveness,
        };
        let interval = self.pace(purpose, probe);
        match streak.last {
            Some(last) => last + interval,
            None if purpose == Purpose::Liveness => self.began + interval,
            None => self.began,
        }
    }

    /// Between two of them. Liveness keeps its own pace once the start is through: a process that is not ready is not dead.
    fn pace(&self, purpose: Purpose, probe: &Probe) -> Millis {
        if self.ready || purpose == Purpose::Liveness {
            probe.interval
        } else {
            Probe::INTERVAL_UNTIL_READY.min(probe.interval)
        }
    }
}

fn probe(spec: &spec::Health, purpose: Purpose) -> Option<&Probe> {
    match purpose {
        Purpose::Startup => spec.startup.as_ref(),
        Purpose::Readiness => spec.readiness.as_ref(),
        Purpose::Liveness => spec.liveness.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(check: &Check) -> spec::Health {
        let probe = Some(Probe::new(check.clone()));
        spec::Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false }
    }

    /// Makes every due probe with `answer` from `from` to `to`, in steps of 100 ms.
    fn run(
        health: Health,
        spec: &spec::Health,
        from: u64,
        to: u64,
        answer: impl Fn(u64) -> bool,
    ) -> (Health, u32) {
        let (mut health, mut probes) = (health, 0);
        for now in (from..to).step_by(100) {
            for due in health.due(spec, Timestamp(now)).0 {
                probes += 1;
                let result = if answer(now) { Ok(()) } else { Err("refused".into()) };
                health = health.after(spec, &due.purposes, result, Timestamp(now));
            }
        }
        (health, probes)
    }

    #[test]
    fn one_success_starts_and_readies_what_has_one_check_for_all() {
        let spec = all(&Check::Tcp);
        let (health, probes) = run(Health::new(&spec, Timestamp(0)), &spec, 0, 1000, |now| now >= 500);
        assert!(health.started && health.ready && health.live);
        assert_eq!((health.ready_since, probes), (Timestamp(500), 6));
    }

    #[test]
    fn failures_within_the_grace_do_not_count() {
        let spec = all(&Check::Tcp);
        let (health, _) = run(Health::new(&spec, Timestamp(0)), &spec, 0, 59_900, |_| false);
        assert!(health.live && !health.ready);
        let (health, _) = run(health, &spec, 60_000, 60_500, |_| false);
        assert!(!health.live);
    }

    #[test]
    fn the_grace_ends_at_the_first_success_and_fall_counts_failures_in_a_row() {
        let spec = all(&Check::Tcp);
        let (health, _) = run(Health::new(&spec, Timestamp(0)), &spec, 0, 25_000, |now| now < 5_000);
        assert!(health.live && health.ready, "two failures are not three");
        let (health, _) = run(health, &spec, 25_000, 35_000, |_| false);
        assert!(!health.live && !health.ready);
    }

    #[test]
    fn rise_counts_successes_in_a_row() {
        let readiness = Some(Probe { rise: 2, ..Probe::new(Check::Tcp) });
        let spec = spec::Health { readiness, ..spec::Health::default() };
        let (health, _) = run(Health::new(&spec, Timestamp(0)), &spec, 0, 5_000, |now| now % 200 == 0);
        assert!(!health.ready, "one success between failures is not two in a row");
        let (health, _) = run(health, &spec, 5_000, 6_000, |_| true);
        assert_eq!((health.ready, health.ready_since), (true, Timestamp(5_100)));
    }

    #[test]
    fn an_images_own_check_takes_the_place_of_what_is_assumed_and_never_of_what_is_declared() {
        let assumed = spec::Health { assumed: true, ..all(&Check::Tcp) };
        for declared in [spec::Health::default(), assumed] {
            let health = with_image_check(&declared);
            assert!(health.assumed);
            for probe in [&health.startup, &health.readiness, &health.liveness] {
                assert_eq!(probe.as_ref().unwrap().check, Check::Image);
            }
            // The engine has counted already: one word of it is enough.
            let ill = Health::new(&health, Timestamp(0)).after(
                &health,
                &[Purpose::Startup, Purpose::Liveness],
                Err("unhealthy".into()),
                Timestamp(1),
            );
            assert!(!ill.live);
        }
        let declared = all(&Check::Http("/".into()));
        assert_eq!(with_image_check(&declared), declared);
    }

    #[test]
    fn one_probe_speaks_for_all_that_make_the_same_check_at_the_same_pace() {
        let spec = all(&Check::Tcp);
        // Ready after a second and a half: readiness and liveness began apart.
        let (health, _) = run(Health::new(&spec, Timestamp(0)), &spec, 0, 10_000, |now| now >= 1500);
        assert!(health.ready);
        let (_, probes) = run(health.clone(), &spec, 10_000, 110_000, |_| true);
        assert!((9..=11).contains(&probes), "one in ten seconds, not {probes}");
        let slow = spec::Health {
            liveness: Some(Probe { interval: Millis::secs(30), ..Probe::new(Check::Tcp) }),
            ..spec
        };
        let (health, _) = run(health, &slow, 10_000, 100_000, |now| now < 70_000);
        assert!(health.live && !health.ready, "what is asked seldom is not counted often");
    }

    #[test]
    fn without_probes_alive_is_ready() {
        let spec = spec::Health::default();
        let health = Health::new(&spec, Timestamp(7));
        assert!(health.started && health.ready && health.live);
        assert_eq!(health.due(&spec, Timestamp(100)), (vec![], None));
    }

    #[test]
    fn what_was_ready_stays_ready_when_it_is_adopted() {
        let spec = all(&Check::Tcp);
        let adopted = Health::adopted(&spec, Timestamp(0), true, Timestamp(90_000));
        assert!(adopted.ready && adopted.live);
        let (health, _) = run(adopted, &spec, 90_000, 130_000, |_| false);
        assert!(!health.ready && !health.live);
    }

    #[test]
    fn an_unready_process_is_probed_often_for_readiness_and_seldom_for_liveness() {
        let mut spec = all(&Check::Tcp);
        spec.startup = None;
        spec.readiness = Some(Probe::new(Check::Http("/ready".into())));
        let health = Health::new(&spec, Timestamp(0));
        let (_, probes) = run(health, &spec, 0, 9_000, |_| false);
        assert_eq!(probes, 90);
    }
}
