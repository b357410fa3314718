//! Stories told to the planner, with what it answers. `UPDATE_GOLDEN=1` writes the answers anew; read the difference.
//!
//! A line that begins with `> ` is a command, with `#` a word to the reader; all else is the answer. Each story ends
//! with `at rest`: a further plan changes nothing (I16).

#![expect(clippy::disallowed_methods, reason = "stories are files")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use crate::bench::{Bench, Pass, spec};
use decide::{
    compose,
    conflict::Claims,
    intent::{self, Content},
    plan, status,
    world::World,
};
use model::{
    Knowledge, Millis, ServiceKey, Timestamp,
    image::ImagePin,
    node::NodeState,
    observation::{Engine, EngineAway, ExitStatus},
    plan::Report,
    service::Owner,
};

/// Passes without an end are a loop.
const MOST_PASSES: usize = 200;
/// How far `run` goes when nobody says otherwise.
const RUN: Millis = Millis::mins(2);

#[test]
fn every_script_is_answered_as_written_and_ends_at_rest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    let only = std::env::var("SCRIPT").ok();
    let mut differing = Vec::new();
    for path in paths.iter().filter(|p| only.as_ref().is_none_or(|o| p.to_string_lossy().contains(o))) {
        let written = fs::read_to_string(path).unwrap();
        let told = tell(&written, path);
        if told != written {
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(path, &told).unwrap();
            } else {
                differing.push(format!("{}:\n{}", path.display(), first_difference(&written, &told)));
            }
        }
    }
    assert!(differing.is_empty(), "UPDATE_GOLDEN=1 rewrites\n{}", differing.join("\n"));
}

fn first_difference(written: &str, told: &str) -> String {
    let (mut a, mut b) = (written.lines(), told.lines());
    for line in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => {}
            (x, y) => {
                let (x, y) = (x.unwrap_or("(end)"), y.unwrap_or("(end)"));
                return format!("  line {line}\n  written: {x}\n  told:    {y}");
            }
        }
    }
    "  only the end of the file differs".into()
}

fn tell(script: &str, path: &Path) -> String {
    let mut story = Story { bench: Bench::new(), out: String::new(), rested: false };
    for line in script.lines().filter(|line| line.starts_with("> ") || line.starts_with('#')) {
        writeln!(story.out, "{line}").unwrap();
        if let Some(command) = line.strip_prefix("> ") {
            story.rested = false;
            story.command(command, path);
        }
    }
    assert!(story.rested, "{}: a story ends with `> at rest`", path.display());
    story.out
}

struct Story {
    bench: Bench,
    out: String,
    rested: bool,
}

impl Story {
    fn say(&mut self, line: impl AsRef<str>) {
        let line = self.readable(line.as_ref());
        writeln!(self.out, "{line}").unwrap();
    }

    fn command(&mut self, command: &str, path: &Path) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["node", "add", name] => self.bench.add_node(name),
            ["node", name, state] => self.node(name, state),
            ["unreadable", name] => drop(self.bench.unreadable.insert(key(name))),
            ["readable", name] => drop(self.bench.unreadable.remove(&key(name))),
            ["ending-takes", time] => {
                let time = time.parse().unwrap();
                self.bench.nodes.values_mut().for_each(|node| node.ending = time);
            }
            ["unknown", name] => {
                let node = self.bench.nodes.get_mut(&name.parse().unwrap()).unwrap();
                (node.reachable, node.heard) = (false, None);
            }
            ["refuses", name, ..] => {
                let why = words[2..].join(" ");
                self.bench.nodes.get_mut(&name.parse().unwrap()).unwrap().refuses = Some(why);
            }
            ["takes", name] => {
                self.bench.nodes.get_mut(&name.parse().unwrap()).unwrap().refuses = None;
                self.bench.publish();
            }
            ["heard", name] => {
                self.bench.nodes.get_mut(&name.parse().unwrap()).unwrap().reachable = true;
                self.bench.publish();
            }
            ["tag", image, "is", content] => {
                let pin = ImagePin::Registry(spec::artifact(content));
                self.bench.images.insert(image.parse().unwrap(), pin);
            }
            ["engine", name, what] => self.engine(name, what),
            ["edge", what] => self.edge(what),
            ["in-flight", name, count] => {
                let id = self.bench.instance(name).unwrap();
                let edge = self.bench.edges.values_mut().next().unwrap();
                edge.in_flight.insert(id, count.parse().unwrap());
            }
            ["ready" | "kill" | "fail" | "damage", name] => self.disturb(words[0], name),
            ["plan"] => self.plan(),
            ["run"] => self.run(RUN),
            ["run", limit] => {
                let until = self.bench.now + limit.parse().unwrap();
                self.run(until.since(self.bench.now));
                self.bench.tick(until.since(self.bench.now));
            }
            ["pass"] => drop(self.pass()),
            ["tick", by] => self.bench.tick(by.parse().unwrap()),
            ["status"] => self.status(),
            ["explain", name] => self.explain(name),
            ["deployments", name] => self.deployments(name),
            ["routes"] => self.routes(),
            ["starts", name] => {
                let id = self.bench.instance(name).unwrap();
                let starts = self.bench.local(&id).map_or(0, |local| local.starts.len());
                self.say(format!("  {id} was started {starts} times"));
            }
            ["at", "rest"] => self.at_rest(path),
            ["together", ref words @ ..] => {
                let told = self.apply_together(words);
                self.say(format!("  {told}"));
            }
            [verb, name, ..] => {
                let told = self.intend(verb, &key(name), &words[2..]);
                self.say(format!("  {told}"));
            }
            _ => panic!("{}: no such command: {command}", path.display()),
        }
    }

    fn intend(&mut self, verb: &str, key: &ServiceKey, rest: &[&str]) -> String {
        let now = self.bench.now;
        let mut world = self.bench.world(key).clone();
        let images = self.bench.images.clone();
        if self.bench.unreadable.contains(key) {
            world.service = Knowledge::Unknown { since: now, cause: "row 7 holds no JSON".into() };
        }
        let result = match (verb, rest) {
            ("apply", words) => intent::apply(&world, &spec::parse(words), &Owner::Api, &images, now),
            ("deploy", []) => intent::deploy(&world, &Content::Declared, &images, now),
            ("deploy", ["image", image]) => {
                intent::deploy(&world, &Content::Image(image.parse().unwrap()), &images, now)
            }
            ("deploy", ["commit", commit, "of", branch]) => {
                let origin = Some(spec::origin(branch, commit));
                intent::deploy(&world, &Content::Artifact(spec::artifact(commit), origin), &images, now)
            }
            ("deploy", [content]) => {
                intent::deploy(&world, &Content::Artifact(spec::artifact(content), None), &images, now)
            }
            ("rollback", []) => intent::rollback(&world, None, now),
            ("rollback", [number]) => {
                let number: u64 = number.parse().unwrap();
                intent::rollback(&world, world.deployments.iter().find(|d| d.number == number), now)
            }
            ("cancel", _) => {
                let id = world.open_deployment().or(world.latest_deployment()).unwrap().id.clone();
                intent::cancel(&world, &id, now)
            }
            ("scale", [replicas]) => intent::scale(&world, replicas.parse().unwrap(), now),
            ("stop", _) => intent::stop(&world, now),
            ("start", _) => intent::start(&world, now),
            ("restart", _) => intent::restart(&world, now),
            ("delete", _) => intent::delete(&world, &Owner::Api, now),
            (verb, _) => panic!("no such command: {verb}"),
        };
        let takes = matches!(verb, "apply" | "deploy" | "rollback");
        if let (true, Ok(intent::Outcome::Changed(intent))) = (takes, &result)
            && let Some(conflict) = self.conflict(&[(&world, intent)])
        {
            return conflict;
        }
        self.bench.intend(key, result)
    }

    /// As one file declares them: `+` is between two services, `-` before one that it no longer has.
    fn apply_together(&mut self, words: &[&str]) -> String {
        let (now, images) = (self.bench.now, self.bench.images.clone());
        let decided: Vec<_> = words
            .split(|word| *word == "+")
            .map(|words| {
                let dropped = words[0].strip_prefix('-');
                let world = self.bench.world(&key(dropped.unwrap_or(words[0]))).clone();
                let outcome = match dropped {
                    Some(_) => intent::delete(&world, &Owner::Api, now),
                    None => intent::apply(&world, &spec::parse(&words[1..]), &Owner::Api, &images, now),
                };
                (world, outcome.unwrap())
            })
            .collect();
        let changed = decided.iter().filter_map(|(world, outcome)| match outcome {
            intent::Outcome::Changed(intent) => Some((world, &**intent)),
            intent::Outcome::Unchanged { .. } => None,
        });
        if let Some(conflict) = self.conflict(&changed.collect::<Vec<_>>()) {
            return conflict;
        }
        let told = decided.into_iter().map(|(world, outcome)| self.bench.intend(&world.key, Ok(outcome)));
        told.collect::<Vec<_>>().join("; ")
    }

    fn conflict(&self, intents: &[(&World, &intent::Intent)]) -> Option<String> {
        let claims = Claims::new(intents.iter().copied(), self.bench.worlds.values());
        let conflicts = claims.conflicts(&BTreeMap::new());
        conflicts.first().map(|conflict| format!("refused: {conflict}"))
    }

    fn node(&mut self, name: &str, state: &str) {
        let since = self.bench.now;
        let state = match state {
            "up" => NodeState::Up,
            "drain" => NodeState::Draining,
            "silent" => NodeState::Silent { since },
            "lost" => NodeState::Lost { since },
            other => panic!("no such state of a node: {other}"),
        };
        self.bench.set_node(name, state);
    }

    fn engine(&mut self, name: &str, what: &str) {
        let since = self.bench.now;
        let node = self.bench.nodes.get_mut(&name.parse::<model::NodeId>().unwrap()).unwrap();
        node.engine = Some(match what {
            "back" => Engine::Answers,
            "away" => Engine::Away(EngineAway { since, cause: "the engine at n1 hangs".into() }),
            other => panic!("no such state of an engine: {other}"),
        });
        node.report(since);
    }

    fn edge(&mut self, what: &str) {
        let edge = self.bench.edges.values_mut().next().unwrap();
        match what {
            "lag" => edge.lags = true,
            "silent" => edge.silent = true,
            "back" => (edge.lags, edge.silent) = (false, false),
            "forgotten" => edge.heard = None,
            other => panic!("no such state of an edge: {other}"),
        }
        self.bench.publish();
    }

    fn disturb(&mut self, how: &str, name: &str) {
        let now = self.bench.now;
        let id = self.bench.instance(name).unwrap();
        let local = self.bench.local(&id).unwrap_or_else(|| panic!("{id} is not on a node"));
        match how {
            "ready" => local.probe(Ok(()), now),
            "fail" => local.probe(Err("503 from /healthz".into()), now),
            "kill" => local.die(ExitStatus::Signal(9), now),
            _ => local.local.drifted = true,
        }
    }

    /// What a pass would do now and what it would wait for.
    fn plan(&mut self) {
        self.bench.observe();
        let pass = self.bench.plan();
        for (key, report) in &pass.reports {
            for change in plan::changes(report) {
                self.say(format!("  {}: would: {change}", key.name));
            }
            for waiting in plan::waits(report) {
                self.say(format!("  {}: waits: {waiting}", key.name));
            }
        }
        if pass.plan.decisions.is_empty() {
            self.say("  no change");
        }
    }

    /// One pass; whether it changed anything.
    fn pass(&mut self) -> bool {
        let pass = self.bench.pass();
        assert_eq!(pass.objections, [], "the planner's own plan is objected to:\n{}", self.out);
        self.told(&pass);
        !pass.plan.decisions.is_empty()
    }

    fn told(&mut self, pass: &Pass) {
        let after = self.bench.now.since(crate::bench::BEGINNING);
        for (key, report) in &pass.reports {
            for change in plan::changes(report) {
                self.say(format!("  {after:>6} {}: {change}", key.name));
            }
        }
    }

    /// Passes until nothing changes and nobody wants to be asked again within the time.
    fn run(&mut self, limit: Millis) {
        let until = self.bench.now + limit;
        for _ in 0..MOST_PASSES {
            if self.pass() {
                continue;
            }
            match self.bench.wake_at().filter(|at| *at <= until) {
                Some(at) => self.bench.tick(at.since(self.bench.now)),
                None => return,
            }
        }
        panic!("no rest within {MOST_PASSES} passes:\n{}", self.out);
    }

    fn status(&mut self) {
        let snapshot = self.bench.snapshot();
        for world in snapshot.worlds.values() {
            let told = status::summary(world, self.bench.now);
            let name = &world.key.name;
            self.say(format!("  {name}: {} {}/{} {}", told.state, told.ready, told.desired, told.message));
            for placement in world.plan.placements.values() {
                let state = world.report(&placement.id).map_or("unknown", |seen| seen.state.word());
                let ready = world.report(&placement.id).is_some_and(|seen| seen.ready);
                let stage = match &placement.stage {
                    model::instance::Stage::Run => "run",
                    model::instance::Stage::Kept => "kept",
                    model::instance::Stage::Retiring { .. } => "retiring",
                    model::instance::Stage::Removing { .. } => "removing",
                };
                let current = world.plan.current.as_ref() == Some(&placement.id);
                self.say(format!(
                    "    {} {} {stage} {state}{}{}",
                    placement.id,
                    placement.release.short(),
                    if ready { " ready" } else { "" },
                    if current { " current" } else { "" },
                ));
            }
        }
    }

    fn explain(&mut self, name: &str) {
        let report: Report = self.bench.reports.get(&key(name)).cloned().unwrap_or_default();
        for (step, told) in report.steps() {
            for change in &told.changed {
                self.say(format!("  {step}: {change}"));
            }
            for waiting in &told.waiting {
                self.say(format!("  {step}: waits: {waiting}"));
            }
        }
    }

    fn deployments(&mut self, name: &str) {
        let mut deployments = self.bench.world(&key(name)).deployments.clone();
        deployments.sort_by_key(|d| std::cmp::Reverse(d.number));
        for d in deployments {
            let (cause, release, phase) = (d.cause, d.release.short(), d.phase);
            self.say(format!("  {} {release} by {cause} is {phase} {}% {}", d.id, d.progress(), d.message));
        }
    }

    fn routes(&mut self) {
        let table = compose::route_table(self.bench.revision, self.bench.worlds.values());
        let owners = table.owners();
        for (key, route) in &table.services {
            let led = route.domains.iter().filter(|domain| owners.get(domain) == Some(&key));
            let domains: Vec<String> = led.map(ToString::to_string).collect();
            let to: Vec<String> = route.backend.instances().iter().map(ToString::to_string).collect();
            if !domains.is_empty() {
                self.say(format!("  {} → {}", domains.join(" "), to.join(" ")));
            }
        }
    }

    /// A further plan changes nothing, nor do the next periodic passes.
    fn at_rest(&mut self, path: &Path) {
        for _ in 0..4 {
            let pass = self.bench.pass();
            assert_eq!(pass.objections, []);
            self.told(&pass);
            assert_eq!(pass.plan.decisions, [], "{} is not at rest:\n{}", path.display(), self.out);
            self.bench.tick(Millis::secs(30));
        }
        self.rested = true;
    }

    /// Digests and ids by the names of the story, times by their distance from its beginning.
    fn readable(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for world in self.bench.worlds.values() {
            for (digest, release) in &world.releases {
                let name = match release.artifact() {
                    Some(content) => ["a1", "a2", "a3", "a4"]
                        .into_iter()
                        .find(|name| spec::artifact(name) == content)
                        .map_or_else(|| spec::version(release), str::to_owned),
                    None => spec::version(release),
                };
                line = line.replace(&digest.short(), &name);
            }
            for deployment in &world.deployments {
                line = line.replace(deployment.id.as_str(), &format!("#{}", deployment.number));
            }
        }
        without_times(&line)
    }
}

fn without_times(line: &str) -> String {
    let words: Vec<String> = line
        .split(' ')
        .map(|word| {
            let bare = word.trim_end_matches([';', ',']);
            match time(bare) {
                Some(at) => word.replace(bare, &format!("+{}", at.since(crate::bench::BEGINNING))),
                None => word.to_owned(),
            }
        })
        .collect();
    words.join(" ").trim_end().to_owned()
}

/// Our own RFC 3339 form, found by search: stories are within two days of their beginning.
fn time(word: &str) -> Option<Timestamp> {
    let (day, rest) = word.split_once('T')?;
    let begins = crate::bench::BEGINNING.to_string();
    let days = i64::from(day.get(8..10)?.parse::<u8>().ok()?) - begins.get(8..10)?.parse::<i64>().ok()?;
    let part = |range: std::ops::Range<usize>| rest.get(range)?.parse::<u64>().ok();
    let of_day = ((part(0..2)? * 60 + part(3..5)?) * 60 + part(6..8)?) * 1000 + part(9..12)?;
    let midnight = crate::bench::BEGINNING.0 / 86_400_000 * 86_400_000;
    Some(Timestamp(midnight + u64::try_from(days).ok()? * 86_400_000 + of_day))
}

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}
