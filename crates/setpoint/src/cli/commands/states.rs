//! How things are: `status`, `stats`, `drift`, `gc`.

use std::{io::IsTerminal, time::Duration};

use model::{
    drift::word,
    status::{ServiceHealth, ServiceState},
};
use server::views::{self, Service, Services};
use tokio::time::sleep;

use super::{DONE, Error};
use crate::cli::{
    args::{Drift, Format, Gc, Output, Stats, Status},
    client::{Answer, Client, encode},
    output::{self, Table, Tone, or_dash},
    terminal, text,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn status(args: &Status) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let path = match &args.service {
        Some(service) => format!("/services/{service}"),
        None => "/services".into(),
    };
    if args.watch {
        let view = View { whole: args.service.is_some(), output: args.output };
        return watch(&client, &path, &view).await;
    }
    let answer = client.get(&path).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let answer = answer.view()?;
        let coloured = text::coloured(&std::io::stdout());
        lines(&answer, args.service.is_some(), coloured).iter().try_for_each(|text| output::line(text))?;
    }
    Ok(DONE)
}

/// How services are shown.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// With their instances.
    pub whole: bool,
    pub output: Output,
}

/// Shows each change: drawn anew on a terminal, a line per changed service elsewhere. A server that goes away may come
/// back: it is said once that it is gone, and what is shown next is what it says then.
pub async fn watch(client: &Client, path: &str, args: &View) -> Result<u8, Error> {
    let mut before: Option<Services> = None;
    let mut gone = false;
    let mut drawn = Drawn::default();
    loop {
        match client.get(path).await {
            Ok(answer) => {
                let now: Services = answer.view()?;
                if std::mem::take(&mut gone) {
                    eprintln!("{} answers again", client.url());
                    drawn = Drawn::default();
                }
                if args.output.format == Format::Table && std::io::stdout().is_terminal() {
                    drawn.draw(&now, args.whole)?;
                    before = Some(now);
                } else if before.as_ref() != Some(&now) {
                    let shown = before.as_ref().map(|before| before.services.as_slice()).unwrap_or_default();
                    show_change(&answer, shown, &now, args)?;
                    before = Some(now);
                }
            }
            // One that was never there is an error, as for every command.
            Err(error) if error.is_absence() && before.is_some() => {
                if !std::mem::replace(&mut gone, true) {
                    eprintln!("{} is gone ({error}); it is waited for, until Ctrl-C", client.url());
                }
            }
            Err(error) => return Err(error.into()),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What a live view has drawn on a terminal, and draws anew in its place: what stands above stays.
#[derive(Debug, Default)]
struct Drawn(Vec<String>);

impl Drawn {
    fn draw(&mut self, now: &Services, whole: bool) -> Result<(), Error> {
        let plain = lines(now, whole, false);
        if plain == self.0 {
            return Ok(());
        }
        let back = match (self.0.is_empty(), terminal::rows(&self.0)) {
            (true, _) => String::new(),
            (false, Some(rows)) => format!("\x1b[{rows}A\r\x1b[J"),
            (false, None) => "\x1b[H\x1b[J".into(),
        };
        let shown = lines(now, whole, text::coloured(&std::io::stdout())).join("\n");
        self.0 = plain;
        Ok(output::line(&format!("{back}{shown}"))?)
    }
}

fn show_change(answer: &Answer, before: &[Service], now: &Services, args: &View) -> Result<(), Error> {
    let services = &now.services;
    if output::document(&answer.json()?, args.output.format)? {
        return Ok(());
    }
    for service in services.iter().filter(|service| !before.contains(service)) {
        let (subject, ready) = (name(service), ready(service));
        output::line(&text::line(&format!("{subject} {} {ready} {}", service.state, service.message)))?;
    }
    let gone = before.iter().filter(|old| !services.iter().any(|new| name(new) == name(old)));
    for service in gone {
        output::line(&format!("{} gone", name(service)))?;
    }
    Ok(())
}

fn lines(answer: &Services, with_instances: bool, coloured: bool) -> Vec<String> {
    let Services { services, projects } = answer;
    if services.is_empty() {
        return vec!["nothing is declared yet: `setpoint apply -f FILE` declares services".into()];
    }
    let mut table = Table::new(&["SERVICE", "KIND", "STATE", "READY", "DEPLOYMENT", "URLS", "MESSAGE"]);
    for service in services {
        let cells = [
            name(service),
            or_dash(service.kind),
            service.state.to_string(),
            ready(service),
            deployment(service),
            if service.urls.is_empty() { "-".into() } else { service.urls.join(" ") },
            service.message.clone(),
        ];
        table.row(tone(service.state), cells);
    }
    let mut lines = table.lines(coloured);
    if with_instances {
        let instances = services.iter().flat_map(|service| &service.instances);
        let table = instance_table(instances);
        if !table.is_empty() {
            lines.push(String::new());
            lines.extend(table.lines(coloured));
        }
    }
    lines.extend(projects.iter().filter(|p| p.health > ServiceHealth::Healthy).map(project));
    lines
}

/// One that somebody has to look at.
fn project(project: &views::Project) -> String {
    let views::Project { name, health, message, services, healthy, stopped, .. } = project;
    let well = healthy + stopped;
    text::line(&format!("project {name} is {health}, {well} of {services} services are well: {message}"))
}

fn instance_table<'a>(instances: impl Iterator<Item = &'a views::Instance>) -> Table {
    let mut table = Table::new(&[
        "INSTANCE",
        "NODE",
        "STATE",
        "READY",
        "PID",
        "ADDRESS",
        "DEPLOYMENT",
        "RESTARTS",
        "SINCE",
        "MESSAGE",
    ]);
    for instance in instances {
        let cells = [
            instance.id.to_string(),
            instance.node.to_string(),
            instance.state.clone(),
            if instance.ready { "yes" } else { "no" }.into(),
            or_dash(instance.pid),
            or_dash(instance.address.as_ref()),
            or_dash(instance.deployment.as_ref()),
            instance.restarts.to_string(),
            or_dash(instance.started_at.map(|at| text::ago(at.0, text::now()))),
            instance.message.clone(),
        ];
        let tone = match (instance.ready, instance.state.as_str()) {
            (true, _) => Tone::Good,
            (false, "failed") => Tone::Bad,
            (false, _) => Tone::Busy,
        };
        table.row(tone, cells);
    }
    table
}

fn name(service: &Service) -> String {
    format!("{}/{}", service.project, service.name)
}

fn ready(service: &Service) -> String {
    format!("{}/{}", service.replicas.ready, service.replicas.desired)
}

fn deployment(service: &Service) -> String {
    or_dash(service.deployment.as_ref().map(|d| match d.phase.is_open() {
        true => format!("#{} {} {}%", d.number, d.phase, d.progress),
        false => format!("#{} {}", d.number, d.phase),
    }))
}

fn tone(state: ServiceState) -> Tone {
    match state {
        ServiceState::Converged => Tone::Good,
        ServiceState::Progressing | ServiceState::Degraded | ServiceState::Unknown => Tone::Busy,
        ServiceState::Failed => Tone::Bad,
        ServiceState::Stopped => Tone::Plain,
    }
}

pub async fn stats(args: &Stats) -> Result<u8, Error> {
    let path = match &args.service {
        Some(service) => format!("/stats?service={}", encode(&service.to_string())),
        None => "/stats".into(),
    };
    let answer = args.connection.client()?.get(&path).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let views::Usages { usage } = answer.view()?;
        if usage.is_empty() {
            output::line("nothing runs")?;
            return Ok(DONE);
        }
        let mut table = Table::new(&["INSTANCE", "CPUS", "MEMORY", "LIMIT", "PROCESSES"]);
        for row in usage {
            let is_near = row.memory_limit.is_some_and(|limit| row.memory > limit / 10 * 9);
            let cells = [
                row.instance.to_string(),
                format!("{:.2}", row.cpus),
                text::bytes(row.memory),
                or_dash(row.memory_limit.map(text::bytes)),
                row.processes.to_string(),
            ];
            table.row(if is_near { Tone::Busy } else { Tone::Plain }, cells);
        }
        table.print()?;
    }
    Ok(DONE)
}

pub async fn drift(args: &Drift) -> Result<u8, Error> {
    let path = match &args.service {
        Some(service) => format!("/services/{service}/drift"),
        None => "/drift".into(),
    };
    let answer = args.connection.client()?.get(&path).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let views::Drifts { drift } = answer.view()?;
        if drift.is_empty() {
            output::line("nothing differs from what is declared")?;
            return Ok(DONE);
        }
        let mut table = Table::new(&["INSTANCE", "PATH", "DECLARED", "OBSERVED", "SINCE", "BY"]);
        let mut stuck = Vec::new();
        for row in drift {
            let tone = if row.stuck.is_some() { Tone::Bad } else { Tone::Busy };
            if let Some(why) = &row.stuck {
                let why = text::line(why);
                stuck.push(format!(
                    "{} of {} cannot be put back: {why}",
                    text::line(&row.path),
                    row.instance
                ));
            }
            let cells = [
                row.instance.to_string(),
                row.path,
                word(row.declared.as_deref(), "nothing").to_owned(),
                word(row.observed.as_deref(), "missing").to_owned(),
                row.since.to_string(),
                or_dash(row.by),
            ];
            table.row(tone, cells);
        }
        table.print()?;
        stuck.iter().try_for_each(|line| output::line(line))?;
    }
    Ok(DONE)
}

/// Exits with 1 when something that should go is still there.
pub async fn gc(args: &Gc) -> Result<u8, Error> {
    let body = views::Collect { dry_run: args.dry_run, volumes: args.volumes };
    let answer = args.connection.client()?.post("/gc", &body).await?;
    let views::CollectedThings { dry_run, bytes, things } = answer.view()?;
    let kept = things.iter().any(|thing| thing.kept_because.is_some());
    if !output::document(&answer.json()?, args.output.format)? {
        let mut table = Table::new(&["KIND", "NAME", "BYTES", ""]);
        for thing in things {
            let tone = if thing.kept_because.is_some() { Tone::Bad } else { Tone::Good };
            let said = match thing.kept_because {
                Some(why) => format!("still there: {}", text::line(&why)),
                None if dry_run => "would go".into(),
                None => "removed".into(),
            };
            table.row(tone, [thing.kind, text::line(&thing.name), thing.bytes.to_string(), said]);
        }
        table.print()?;
        output::line(&format!("{} {bytes} bytes", if dry_run { "would free" } else { "freed" }))?;
    }
    Ok(if kept { 1 } else { DONE })
}
