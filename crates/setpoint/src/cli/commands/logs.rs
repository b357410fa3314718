//! What goes on: the output of workloads, and events.

use std::{io::Write, time::Duration};

use model::InstanceId;
use server::views::{self, Event};
use tokio::time::sleep;

use super::{DONE, Error};
use crate::cli::{
    args::{Events, Format, Logs},
    client::{self, Client, encode},
    json::Json,
    output, text,
};

/// Events asked for at once.
const PAGE: usize = 1000;
/// Between two tries to reach a server that went away while it was followed.
const RETRY_EVERY: Duration = Duration::from_millis(500);
const TRIES: u32 = 60;
/// After which it is looked at why no output comes.
const SILENT_FOR: Duration = Duration::from_secs(2);

pub async fn logs(args: &Logs) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let instance =
        args.instance.as_ref().map(|instance| format!("instance={}", encode(&instance.to_string())));
    let path = |follow: bool, tail: Option<String>| {
        let query =
            [Some(format!("follow={follow}")), instance.clone(), tail.map(|tail| format!("tail={tail}"))];
        let query: Vec<_> = query.into_iter().flatten().collect();
        format!("/services/{}/logs?{}", args.service, query.join("&"))
    };
    let followed = path(args.follow, args.tail.map(|tail| tail.to_string()));
    let nothing = path(false, Some("0".into()));
    let mut lines = client.follow(&followed, "text/plain").await?;
    let mut silence = Silence::default();
    loop {
        let line = tokio::select! {
            biased;
            line = lines.next() => line?,
            () = silence.explained(&client, &nothing), if args.follow => continue,
        };
        let Some(line) = line else { return Ok(DONE) };
        match args.output.format {
            Format::Table => output::line(&text::log_line(&line))?,
            format => print(&log_entry(&line, args.instance.as_ref())?, format)?,
        }
    }
}

/// Why nothing comes for a while: where a container engine has the output and does not answer, that is told once, on stderr,
/// until it answers again.
#[derive(Debug, Default)]
struct Silence {
    told: bool,
}

impl Silence {
    /// Returns when it was looked at. `nothing`: what asks for the output without wanting any of it.
    async fn explained(&mut self, client: &Client, nothing: &str) {
        sleep(SILENT_FOR).await;
        let error = match client.get(nothing).await {
            Err(error) if error.code() == Some("engine_away") => error,
            // The output of what is not placed yet, or of a server that is gone, is another's to tell.
            Ok(_) | Err(_) => return self.told = false,
        };
        if !std::mem::replace(&mut self.told, true) {
            // A closed stderr is no reason to end.
            let _ = writeln!(std::io::stderr(), "{error}; it is waited for");
        }
    }
}

/// A line of output by the instance that wrote it. Of several instances the server puts the name before each line.
fn log_entry(line: &[u8], instance: Option<&InstanceId>) -> Result<Json, output::Error> {
    let line = String::from_utf8_lossy(line);
    let (instance, line) = match (instance, line.split_once(" | ")) {
        (None, Some((instance, line))) => (Some(instance.to_owned()), line),
        (instance, _) => (instance.map(ToString::to_string), &*line),
    };
    Json::of(&serde_json::json!({ "instance": instance, "line": line })).map_err(encoding)
}

/// One document of many: a line of JSON, or YAML behind a separator.
fn print(json: &Json, format: Format) -> Result<(), output::Error> {
    match format {
        Format::Json => output::line(&json.to_line().map_err(encoding)?),
        Format::Table | Format::Yaml => {
            output::line("---")?;
            output::document(json, Format::Yaml).map(drop)
        }
    }
}

pub async fn events(args: &Events) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let filter = args.service.as_ref().map(|service| format!("&service={}", encode(&service.to_string())));
    let filter = filter.unwrap_or_default();
    let mut after = past(&client, &filter, args.output.format).await?;
    if let (0, Some(service)) = (after, &args.service) {
        // Nothing is recorded of it: it may be that there is no such service.
        client.get(&format!("/services/{service}")).await?;
    }
    let format = args.output.format;
    if !args.follow {
        return Ok(DONE);
    }
    loop {
        after = follow(&client, &filter, after, |event| print_event(event, format)).await?;
    }
}

/// Everything that is recorded, page by page; gives the sequence of the last one.
async fn past(client: &Client, filter: &str, format: Format) -> Result<u64, Error> {
    let mut after = 0;
    loop {
        let page: EventPage = client.view(&format!("/events?after={after}&limit={PAGE}{filter}")).await?;
        for event in &page.events {
            after = print_event(event, format)?;
        }
        if page.events.len() < PAGE {
            return Ok(after);
        }
    }
}

#[derive(Debug, serde::Deserialize)]
struct EventPage {
    events: Vec<Json>,
}

/// Follows one stream to its end; gives where to go on.
async fn follow(
    client: &Client,
    filter: &str,
    mut after: u64,
    mut tell: impl FnMut(&Json) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let path = format!("/events?after={after}{filter}");
    let mut lines = patiently(client, &path).await?;
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                if let Some(data) = line.strip_prefix(b"data:") {
                    after = tell(&event(client, data)?)?;
                }
            }
            // It ended with the server, which may be back soon; the next stream goes on behind the last event.
            Ok(None) | Err(client::Error::Lost { .. }) => return Ok(after),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives each event behind `after` as a sentence, until the stream ends; gives where to go on.
pub async fn tell(client: &Client, after: u64, say: impl Fn(&str)) -> Result<u64, Error> {
    let told = |json: &Json| {
        let event: Event = json.read().map_err(encoding)?;
        say(&sentence(&event));
        Ok(event.seq)
    };
    follow(client, "", after, told).await
}

async fn patiently(client: &Client, path: &str) -> Result<client::Lines, Error> {
    for _ in 0..TRIES {
        match client.follow(path, "text/event-stream").await {
            Err(error) if error.is_absence() => sleep(RETRY_EVERY).await,
            answer => return Ok(answer?),
        }
    }
    Ok(client.follow(path, "text/event-stream").await?)
}

fn event(client: &Client, data: &[u8]) -> Result<Json, client::Error> {
    let foreign = |why: String| client::Error::Foreign { url: client.url().into(), why };
    serde_json::from_slice(data).map_err(|error| foreign(error.to_string()))
}

fn encoding(error: serde_json::Error) -> output::Error {
    output::Error::Encode(format!("JSON: {error}"))
}

/// Prints one event; gives its sequence.
fn print_event(json: &Json, format: Format) -> Result<u64, Error> {
    let event: Event = json.read().map_err(encoding)?;
    match format {
        Format::Table => output::line(&sentence(&event))?,
        Format::Json | Format::Yaml => print(json, format)?,
    }
    Ok(event.seq)
}

/// `2026-11-21T09:30:00.250Z  default/api  deployment.active  …`
fn sentence(event: &views::Event) -> String {
    let subject = match (&event.instance, &event.project, &event.service) {
        (Some(instance), _, _) => instance.to_string(),
        (None, Some(project), Some(service)) => format!("{project}/{service}"),
        (None, _, _) => "-".into(),
    };
    text::line(&format!("{}  {subject:<20}  {:<22}  {}", event.at, event.kind, event.message))
}
