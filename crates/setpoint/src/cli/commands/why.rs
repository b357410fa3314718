//! `explain` and `reconcile`: the sentences are the planner's own, printed as they were stored.

use model::{DeploymentId, InstanceId, ServiceKey};
use server::views::{self, Explanation, Journal, Reconciled, Step};

use super::{DONE, Error};
use crate::cli::{
    args::{Explain, Reconcile},
    client::{Answer, Client},
    output, text,
};

/// Recorded passes shown in a table; `-o json` has all that the server tells.
const RECENT: usize = 10;

pub async fn explain(args: &Explain) -> Result<u8, Error> {
    let client = args.connection.client()?;
    if let Some(seq) = args.at {
        return replay(&client, args, seq).await;
    }
    let answer = find(&client, &args.target).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        explained(&answer.view()?).iter().try_for_each(|text| output::line(text))?;
    }
    Ok(DONE)
}

/// A service by its name, an instance by its dots; what could be a deployment too is asked for as one second.
async fn find(client: &Client, target: &str) -> Result<Answer, Error> {
    if let Ok(instance) = target.parse::<InstanceId>() {
        return Ok(client.get(&format!("/instances/{instance}/explain")).await?);
    }
    let as_service = match target.parse::<ServiceKey>() {
        Ok(service) => client.get(&format!("/services/{service}/explain")).await,
        Err(error) => return Err(Error::Said(error.to_string())),
    };
    match (as_service, target.parse::<DeploymentId>()) {
        (Err(error), Ok(deployment)) if error.status() == Some(404) => {
            match client.get(&format!("/deployments/{deployment}/explain")).await {
                Err(error) if error.status() == Some(404) => Err(unknown(target)),
                answer => Ok(answer?),
            }
        }
        (answer, _) => Ok(answer?),
    }
}

fn unknown(target: &str) -> Error {
    Error::Said(format!(
        "`{}` is no service, instance or deployment that is known: `setpoint status` lists the services",
        text::line(target)
    ))
}

/// Decides a recorded pass again. The service may be gone by now; its journal is not.
async fn replay(client: &Client, args: &Explain, seq: u64) -> Result<u8, Error> {
    let answer = client.get(&format!("/journal/{seq}?replay=true")).await?;
    let journal: Journal = answer.view()?;
    let service = ServiceKey::new(journal.project.clone(), journal.service.clone());
    if !is_about(client, &args.target, &service).await? {
        return Err(Error::Said(format!(
            "decision {seq} is about {service}, not about {}: `setpoint explain {0}` lists what is recorded",
            text::line(&args.target)
        )));
    }
    if !output::document(&answer.json()?, args.output.format)? {
        journalled(&journal).iter().try_for_each(|text| output::line(text))?;
    }
    match journal.replay {
        Some(replay) if !replay.identical => Err(Error::Said(text::line(&replay.message))),
        Some(_) | None => Ok(DONE),
    }
}

async fn is_about(client: &Client, target: &str, service: &ServiceKey) -> Result<bool, Error> {
    if let Ok(instance) = target.parse::<InstanceId>() {
        return Ok(instance.service == *service);
    }
    if target.parse::<ServiceKey>().is_ok_and(|key| key == *service) {
        return Ok(true);
    }
    let Ok(deployment) = target.parse::<DeploymentId>() else { return Ok(false) };
    match client.view::<views::Deployment>(&format!("/deployments/{deployment}")).await {
        Ok(found) => Ok(ServiceKey::new(found.project, found.service) == *service),
        Err(error) if error.status() == Some(404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn explained(explanation: &Explanation) -> Vec<String> {
    let Explanation { subject, summary, at, steps, holds_until, journal, output } = explanation;
    let mut lines = vec![format!("{}: {}", text::line(subject), text::line(summary))];
    if let Some(at) = at {
        lines.push(format!("found at {at}"));
    }
    lines.extend(told(steps));
    lines.push(match holds_until {
        Some(until) => format!("holds until {until}, unless something changes"),
        None => "holds until something changes".into(),
    });
    if !output.is_empty() {
        lines.push("its last output:".into());
        lines.extend(output.iter().map(|line| format!("    {}", text::line(line))));
    }
    if !journal.is_empty() {
        lines.push("recorded:".into());
    }
    for pass in journal.iter().take(RECENT) {
        let sentences: Vec<_> = pass.steps.iter().flat_map(|s| s.changed.iter().chain(&s.waiting)).collect();
        let first = sentences.first().map(|s| s.as_str()).unwrap_or("nothing to do");
        let more =
            if sentences.len() > 1 { format!(" (and {} more)", sentences.len() - 1) } else { String::new() };
        lines.push(text::line(&format!("  {:>6}  {}  {first}{more}", pass.seq, pass.at)));
    }
    lines
}

fn journalled(journal: &Journal) -> Vec<String> {
    let mut lines = vec![format!(
        "decision {} about {}/{} at {}",
        journal.seq, journal.project, journal.service, journal.at
    )];
    lines.extend(told(&journal.steps));
    if let Some(replay) = &journal.replay {
        let word = if replay.identical { "the same" } else { "something else" };
        lines.push(text::line(&format!("decided again today: {word}; {}", replay.message)));
        if !replay.identical {
            lines.extend(told(&replay.steps));
        }
    }
    lines
}

fn told(steps: &[Step]) -> Vec<String> {
    let mut lines = Vec::new();
    for step in steps {
        let mark =
            |word: &str, sentence: &String| text::line(&format!("  {:<9} {word:<6} {sentence}", step.step));
        lines.extend(step.changed.iter().map(|sentence| mark("did", sentence)));
        lines.extend(step.waiting.iter().map(|sentence| mark("waits", sentence)));
    }
    if lines.is_empty() {
        lines.push("  nothing to do and nothing to wait for".into());
    }
    lines
}

pub async fn reconcile(args: &Reconcile) -> Result<u8, Error> {
    let body =
        views::Reconcile { service: args.service.clone(), confirm: args.confirm, dry_run: args.dry_run };
    let answer = args.connection.client()?.post("/reconcile", &body).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let reconciled: Reconciled = answer.view()?;
        output::line(&text::line(&reconciled.message))?;
        for service in &reconciled.services {
            output::line(&format!("{}/{}", service.project, service.name))?;
            told(&service.steps).iter().try_for_each(|text| output::line(text))?;
        }
    }
    Ok(DONE)
}
