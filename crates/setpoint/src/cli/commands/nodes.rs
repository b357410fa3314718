//! The machines: `node list`, `node drain`, `node undrain`.

use std::time::Duration;

use server::views;
use tokio::time::{Instant, sleep};

use super::{DONE, Error};
use crate::cli::{
    args::{Format, NodeDrain, NodeList, NodeUndrain},
    client::{Answer, Client},
    output::{self, Table, Tone, or_dash},
    text,
};

const LOOK_EVERY: Duration = Duration::from_millis(300);

pub async fn list(args: &NodeList) -> Result<u8, Error> {
    let answer = args.connection.client()?.get("/nodes").await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let views::Nodes { nodes } = answer.view()?;
        let header = ["NODE", "STATE", "INSTANCES", "LOOKED AT ALL", "HEARD", "STRANGERS", "DRAINING SINCE"];
        let mut table = Table::new(&header);
        for node in nodes {
            let refuses = node.refuses.as_ref().map(|why| format!("refuses its assignment: {why}"));
            let away = node.engine_away.as_ref().map(|why| match node.engine_away_since {
                Some(since) => format!("without its engine since {since}: {why}"),
                None => format!("without its engine: {why}"),
            });
            let obstacles: Vec<String> = refuses.into_iter().chain(away).collect();
            let tone = match node.state.as_str() {
                _ if !obstacles.is_empty() => Tone::Bad,
                "up" => Tone::Good,
                _ => Tone::Busy,
            };
            let state = std::iter::once(node.state).chain(obstacles).collect::<Vec<_>>().join(", ");
            let cells = [
                node.id.to_string(),
                state,
                node.instances.to_string(),
                if node.complete { "yes" } else { "not yet" }.into(),
                or_dash(node.observed_at),
                node.strangers.len().to_string(),
                or_dash(node.draining_since),
            ];
            table.row(tone, cells);
        }
        table.print()?;
    }
    Ok(DONE)
}

pub async fn drain(args: &NodeDrain) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let answer = client.post(&format!("/nodes/{}/drain", args.node), &serde_json::json!({})).await?;
    show(&answer, args.output.format)?;
    match args.wait.wait {
        Some(limit) => until_empty(&client, answer.view()?, limit.as_duration()).await,
        None => Ok(DONE),
    }
}

pub async fn undrain(args: &NodeUndrain) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let answer = client.post(&format!("/nodes/{}/undrain", args.node), &serde_json::json!({})).await?;
    show(&answer, args.output.format)?;
    Ok(DONE)
}

fn show(answer: &Answer, format: Format) -> Result<(), Error> {
    if output::document(&answer.json()?, format)? {
        return Ok(());
    }
    let node: views::Node = answer.view()?;
    output::line(&text::line(&format!("{} is {}, with {} instances", node.id, node.state, node.instances)))?;
    node.remaining.iter().try_for_each(|left| output::line(&text::line(&format!("  {}", left.message))))?;
    Ok(())
}

/// Waits until the node runs nothing. What has nowhere to go would be waited for in vain: that is said at once.
async fn until_empty(client: &Client, first: views::Node, limit: Duration) -> Result<u8, Error> {
    let path = format!("/nodes/{}", first.id);
    let until = Instant::now() + limit;
    let mut node = first;
    loop {
        if node.remaining.is_empty() && node.instances == 0 {
            return Ok(DONE);
        }
        if node.state != "draining" {
            return Err(Error::Said(format!("node {} is no longer being drained", node.id)));
        }
        if !node.remaining.is_empty() && node.remaining.iter().all(|left| !left.moves) {
            let count = node.remaining.len();
            return Err(Error::Said(format!(
                "{count} instances have nowhere to go and stay at {}; add a node, or stop their services",
                node.id
            )));
        }
        if Instant::now() >= until {
            return Err(Error::Said(format!(
                "{} instances are still at {} after {} s; `setpoint node list` shows them",
                node.instances,
                node.id,
                limit.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
        match client.view(&path).await {
            Ok(now) => node = now,
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error.into()),
        }
    }
}
