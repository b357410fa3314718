//! `backup` and `restore`.

use indicatif::HumanBytes;
use serde::Serialize;
use server::backup::About;

use super::{DONE, Error};
use crate::{
    backup,
    cli::{
        args::{Backup, Restore},
        json::Json,
        output,
        progress::Display,
        text,
    },
};

/// What was written or put back.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    about: &'a About,
    files: u64,
    /// Unpacked.
    bytes: u64,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_aside: Option<String>,
}

pub async fn backup(args: &Backup) -> Result<u8, Error> {
    let (list, size) = backup::make(&args.connection, &args.file, &Display::of_stderr()).await?;
    let total = list.total();
    let shown = Shown {
        about: &list.about,
        files: total.files,
        bytes: total.bytes,
        path: args.file.display().to_string(),
        size: Some(size),
        moved_aside: None,
    };
    if !output::document(&json(&shown)?, args.output.format)? {
        let About { cluster, services, made_at, .. } = &list.about;
        let (path, size, bytes) = (&shown.path, HumanBytes(size), HumanBytes(total.bytes));
        output::line(&text::line(&format!(
            "{path}: cluster {cluster} as of {made_at}, {services} services, {size} ({bytes} unpacked)"
        )))?;
    }
    Ok(DONE)
}

pub async fn restore(args: &Restore) -> Result<u8, Error> {
    let data = args.data.folder()?;
    let restored = backup::restore(&args.file, &data, args.force, &Display::of_stderr()).await?;
    let total = restored.list.total();
    let shown = Shown {
        about: &restored.list.about,
        files: total.files,
        bytes: total.bytes,
        path: restored.data.display().to_string(),
        size: None,
        moved_aside: restored.moved_aside.map(|path| path.display().to_string()),
    };
    if !output::document(&json(&shown)?, args.output.format)? {
        let About { cluster, services, made_at, .. } = shown.about;
        let path = &shown.path;
        output::line(&text::line(&format!(
            "{path}: cluster {cluster} as of {made_at}, {services} services; `setpoint up --data {path}` goes on"
        )))?;
        if let Some(aside) = &shown.moved_aside {
            output::line(&text::line(&format!("what was there before is in {aside}")))?;
        }
    }
    Ok(DONE)
}

fn json(shown: &Shown<'_>) -> Result<Json, output::Error> {
    Json::of(shown).map_err(|error| output::Error::Encode(format!("JSON: {error}")))
}
