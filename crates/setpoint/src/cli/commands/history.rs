//! `deployments` and `audit`.

use model::deployment::Phase;
use server::views;

use super::{DONE, Error};
use crate::cli::{
    args::{Audit, Deployments},
    client::Client,
    json::Json,
    output::{self, Table, Tone},
};

pub async fn deployments(args: &Deployments) -> Result<u8, Error> {
    let answer = args.connection.client()?.get(&format!("/services/{}/deployments", args.service)).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let views::Deployments { deployments } = answer.view()?;
        let mut table = Table::new(&[
            "NUMBER", "ID", "STATUS", "PHASE", "PROGRESS", "CAUSE", "RELEASE", "STARTED", "ENDED", "MESSAGE",
        ]);
        for d in deployments {
            let cells = [
                format!("#{}", d.number),
                d.id.to_string(),
                d.status,
                d.phase.to_string(),
                format!("{}%", d.progress),
                d.cause,
                d.release.short(),
                d.started_at.to_string(),
                output::or_dash(d.ended_at),
                d.message,
            ];
            table.row(tone(d.phase), cells);
        }
        table.print()?;
    }
    Ok(DONE)
}

fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Active => Tone::Good,
        Phase::Failed => Tone::Bad,
        Phase::Cancelled | Phase::Superseded | Phase::RolledBack => Tone::Plain,
        Phase::Queued
        | Phase::PullingSource
        | Phase::Building
        | Phase::CopyingFiles
        | Phase::CreatingSymlinks
        | Phase::Starting
        | Phase::UpdatingRoutes
        | Phase::HealthCheck => Tone::Busy,
    }
}

/// Rows asked for at once.
const PAGE: usize = 1000;

pub async fn audit(args: &Audit) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let rows = all_rows(&client).await?;
    let document = Json::Map(vec![("audit".into(), Json::List(rows))]);
    if !output::document(&document, args.output.format)? {
        let views::Audit { audit } = document.read().map_err(encoding)?;
        let mut table = Table::new(&["SEQ", "AT", "ACTOR", "ACTION", "SUBJECT", "MESSAGE"]);
        for row in audit {
            let message = row.detail.get("message").and_then(serde_json::Value::as_str);
            let message = message.map_or_else(|| command_of(&row.detail), str::to_owned);
            let cells =
                [row.seq.to_string(), row.at.to_string(), row.actor, row.action, row.subject, message];
            table.row(Tone::Plain, cells);
        }
        table.print()?;
    }
    Ok(DONE)
}

/// Of a command that somebody ran in an instance: its program; its arguments are nobody's business.
fn command_of(detail: &serde_json::Value) -> String {
    let arguments = detail["arguments"].as_u64().unwrap_or_default();
    match (detail["program"].as_str(), arguments) {
        (None, _) => String::new(),
        (Some(program), 0) => program.to_owned(),
        (Some(program), 1) => format!("{program} with 1 argument"),
        (Some(program), n) => format!("{program} with {n} arguments"),
    }
}

#[derive(Debug, serde::Deserialize)]
struct AuditPage {
    audit: Vec<Json>,
}

#[derive(Debug, serde::Deserialize)]
struct Numbered {
    seq: u64,
}

async fn all_rows(client: &Client) -> Result<Vec<Json>, Error> {
    let (mut rows, mut after) = (Vec::new(), 0);
    loop {
        let page: AuditPage = client.view(&format!("/audit?after={after}&limit={PAGE}")).await?;
        let full = page.audit.len() >= PAGE;
        if let Some(last) = page.audit.last() {
            after = last.read::<Numbered>().map_err(encoding)?.seq;
        }
        rows.extend(page.audit);
        if !full {
            return Ok(rows);
        }
    }
}

fn encoding(error: serde_json::Error) -> output::Error {
    output::Error::Encode(format!("JSON: {error}"))
}
