//! Commands that need no server.

use clap::CommandFactory;
use clap_complete::Shell;
use model::manifest;

use super::{DONE, Error};
use crate::cli::{
    args::{Cli, Format, Output, Page, TokenShow},
    json::Json,
    output, reference,
};

pub fn token(args: &TokenShow) -> Result<u8, Error> {
    let token = args.data.required_token()?;
    if !output::document(&encoded(&serde_json::json!({ "token": token }))?, args.output.format)? {
        output::line(&token)?;
    }
    Ok(DONE)
}

/// A schema is no table: it is JSON unless YAML is asked for.
pub fn schema(args: Output) -> Result<u8, Error> {
    let format = if args.format == Format::Yaml { Format::Yaml } else { Format::Json };
    output::document(&encoded(&manifest::schema())?, format)?;
    Ok(DONE)
}

fn encoded(value: &serde_json::Value) -> Result<Json, output::Error> {
    Json::of(value).map_err(|error| output::Error::Encode(format!("JSON: {error}")))
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
