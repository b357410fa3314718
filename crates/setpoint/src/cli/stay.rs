//! What `up` shows while it stays: progress until its files have converged, then the live view or one line per event.

use std::path::PathBuf;

use model::Millis;
use server::views::Applied;

use super::{
    apply,
    args::{Format, Output},
    client::Client,
    commands::{self, logs, states},
    files::{self, Manifests},
    progress::Display,
    wait::{Awaited, Goal, wait},
};

/// A deployment ends by itself; this only bounds how long its bar stays.
const SHOWN_FOR: Millis = Millis::mins(60);

/// Reads the files, and refuses what nobody could apply.
pub fn read_files(paths: &[PathBuf]) -> Result<Manifests, apply::Error> {
    let files = files::read(paths)?;
    apply::check_contents(&files)?;
    Ok(files)
}

/// Shows the phases of what was begun until each has its outcome, well or not: `up` stays in either case.
pub async fn show_until_settled(client: &Client, applied: &Applied, display: &Display) {
    let changed = applied.services.iter().filter(|service| service.changed);
    let awaited: Vec<Awaited> = changed.map(|service| Awaited::of(service, Goal::Converged)).collect();
    for failed in wait(client, &awaited, SHOWN_FOR, display).await {
        display.say(&failed.to_string());
        failed.log.iter().for_each(|line| display.say(&format!("    {line}")));
    }
}

/// The live view of a terminal, for as long as it is polled.
pub async fn watch_status(client: &Client) -> Result<(), commands::Error> {
    let view = states::View { whole: true, output: Output { format: Format::Table } };
    states::watch(client, "/services", &view).await.map(drop)
}

/// A line on stderr for each event behind `after`, for as long as it is polled.
pub async fn tell_events(client: &Client, mut after: u64, display: &Display) -> Result<(), commands::Error> {
    loop {
        after = logs::tell(client, after, |line| display.say(line)).await?;
    }
}
