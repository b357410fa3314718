//! Tokens that are given out: `token create`, `token list`, `token revoke`.

use server::views::{self, CreatedToken, NewToken};

use super::{DONE, Error};
use crate::cli::{
    args::{TokenCreate, TokenList, TokenRevoke},
    json::Json,
    output::{self, Table, Tone, or_dash},
    text,
};

pub async fn create(args: &TokenCreate) -> Result<u8, Error> {
    let asked = NewToken {
        name: args.name.clone(),
        role: args.role,
        project: args.project.clone(),
        expires_in: args.expires,
    };
    let answer = args.connection.client()?.post("/tokens", &asked).await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let CreatedToken { token, grant } = answer.view()?;
        // The token alone on stdout, so that a script takes it as it is.
        output::line(&token)?;
        let until = grant.expires_at.map(|at| format!("until {at}"));
        let project = grant.project.map(|project| format!("of project {project}"));
        eprintln!(
            "{}",
            text::line(&format!(
                "{} is {} {}, {}; it is not shown again",
                grant.name,
                grant.role,
                project.unwrap_or_else(|| "of the whole cluster".into()),
                until.unwrap_or_else(|| "until it is revoked".into())
            ))
        );
    }
    Ok(DONE)
}

pub async fn list(args: &TokenList) -> Result<u8, Error> {
    let answer = args.connection.client()?.get("/tokens").await?;
    if !output::document(&answer.json()?, args.output.format)? {
        let views::Tokens { tokens } = answer.view()?;
        if tokens.is_empty() {
            output::line("no token was given out; that of the data folder is in its file `token`")?;
            return Ok(DONE);
        }
        let mut table = Table::new(&["NAME", "ROLE", "PROJECT", "CREATED", "BY", "EXPIRES"]);
        for token in tokens {
            let tone = if token.expired { Tone::Bad } else { Tone::Plain };
            let expires = match (token.expires_at, token.expired) {
                (Some(at), true) => format!("{at} (expired)"),
                (at, _) => or_dash(at),
            };
            let cells = [
                token.name.to_string(),
                token.role.to_string(),
                or_dash(token.project),
                token.created_at.to_string(),
                token.created_by,
                expires,
            ];
            table.row(tone, cells);
        }
        table.print()?;
    }
    Ok(DONE)
}

pub async fn revoke(args: &TokenRevoke) -> Result<u8, Error> {
    args.connection.client()?.delete(&format!("/tokens/{}", args.name)).await?;
    let done = Json::of(&serde_json::json!({ "name": args.name, "revoked": true }))
        .map_err(|error| output::Error::Encode(format!("JSON: {error}")))?;
    if !output::document(&done, args.output.format)? {
        output::line(&text::line(&format!("{} is revoked", args.name)))?;
    }
    Ok(DONE)
}
