//! Commands that need no server.

use clap::CommandFactory;
use clap_complete::Shell;
use model::manifest;

use super::{DONE, Error};
use crate::cli::{
    args::{Cli, Data, Page},
    json::Json,
    output, reference,
};

pub fn token(data: &Data) -> Result<u8, Error> {
    output::line(&data.required_token()?)?;
    Ok(DONE)
}

pub fn schema() -> Result<u8, Error> {
    let encode = |error: serde_json::Error| output::Error::Encode(format!("JSON: {error}"));
    let text = Json::of(&manifest::schema()).and_then(|json| json.to_pretty()).map_err(encode)?;
    output::line(&text)?;
    Ok(DONE)
}

pub fn completions(shell: Shell) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "setpoint", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(DONE)
}

pub fn reference(page: Page) -> Result<u8, Error> {
    let text = match page {
        Page::Cli => reference::commands(),
        Page::Manifest => manifest::reference(),
    };
    output::line(text.trim_end())?;
    Ok(DONE)
}
