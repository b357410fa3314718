//! `plan` and `apply`.

use std::collections::BTreeMap;

use model::{NodeId, manifest::Declared};
use server::views::{self, Applied, Planned, Plans};

use super::{CHANGES, DONE, Error, changes::await_all};
use crate::cli::{
    apply::{self, Options},
    args::{Apply, Plan},
    client,
    files::{self, Manifests},
    json::Json,
    output,
    progress::Display,
    text,
    wait::Goal,
};

pub async fn apply(args: &Apply) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let options = Options { prune: args.prune, display: Display::of_stderr() };
    let outcome = apply::apply_files(&client, &files::read(&args.files)?, &options).await?;
    if !output::document(&outcome.answer.json()?, args.output.format)? {
        outcome.lines().iter().try_for_each(|text| output::line(text))?;
    }
    let (pruned, declared): (Vec<_>, Vec<_>) = outcome
        .applied
        .services
        .into_iter()
        .partition(|service| !outcome.declared.contains(&key_of(service)));
    await_all(&client, &Applied { services: declared }, args.wait, &Goal::Converged).await?;
    await_all(&client, &Applied { services: pruned }, args.wait, &Goal::Gone).await
}

fn key_of(service: &views::AppliedService) -> model::ServiceKey {
    model::ServiceKey::new(service.project.clone(), service.name.clone())
}

pub async fn plan(args: &Plan) -> Result<u8, Error> {
    let files = files::read(&args.files)?;
    let mut document = if args.offline { offline(&files)? } else { online(args, &files).await? };
    let plans: Plans = document.read().map_err(encode)?;
    let declared = if args.effective { files.services.as_slice() } else { &[] };
    if args.effective {
        document.set("effective", effective(declared).map_err(encode)?);
    }
    let changes = plans.services.iter().any(|service| service.action != "none");
    match print_plan(args, &document, &plans, declared) {
        // Whoever reads only the beginning still asks for the status.
        Ok(()) | Err(output::Error::Closed) => Ok(if changes { CHANGES } else { DONE }),
        Err(error) => Err(error.into()),
    }
}

fn print_plan(
    args: &Plan,
    document: &Json,
    plans: &Plans,
    declared: &[Declared],
) -> Result<(), output::Error> {
    if !output::document(document, args.output.format)? {
        plans.services.iter().flat_map(lines).try_for_each(|text| output::line(&text))?;
        declared.iter().try_for_each(print_effective)?;
    }
    Ok(())
}

async fn online(args: &Plan, files: &Manifests) -> Result<Json, Error> {
    let client = args.connection.client()?;
    match apply::plan_files(&client, files, args.prune, &Display::of_stderr()).await {
        Err(apply::Error::Client(absent @ client::Error::NotThere { .. })) => {
            Err(Error::Said(format!("{absent}; `setpoint plan --offline` decides without one")))
        }
        answer => Ok(answer?.json()?),
    }
}

/// Decided here, from a world with one empty node.
fn offline(files: &Manifests) -> Result<Json, Error> {
    let views::Apply { services, entries, .. } =
        apply::described(files, false, &BTreeMap::new(), &|line| Display::of_stderr().say(line))?;
    let node: NodeId =
        "local".parse().map_err(|error: model::id::InvalidId| Error::Said(error.to_string()))?;
    let planned = server::plan_offline(&services, &entries, &node, text::now());
    let planned = planned.map_err(|problem| apply::refused(files, client::Error::Refused(problem)))?;
    Json::of(&Plans { services: planned }).map_err(|error| encode(error).into())
}

fn encode(error: serde_json::Error) -> output::Error {
    output::Error::Encode(format!("JSON: {error}"))
}

fn lines(planned: &Planned) -> Vec<String> {
    let subject = format!("{}/{}", planned.project, planned.name);
    let word = if planned.action == "none" { "unchanged" } else { &planned.action };
    let mut out = vec![apply::line(&subject, word, &planned.message)];
    for (mark, sentences) in
        [("  ", &planned.changes), ("  then: ", &planned.waiting), ("  note: ", &planned.notes)]
    {
        out.extend(sentences.iter().map(|sentence| text::line(&format!("{mark}{sentence}"))));
    }
    out
}

fn effective(declared: &[Declared]) -> Result<Json, serde_json::Error> {
    let one = |service: &Declared| {
        Json::of(&views::Declared { key: service.key.clone(), spec: service.spec.clone() })
    };
    Ok(Json::List(declared.iter().map(one).collect::<Result<_, _>>()?))
}

fn print_effective(service: &Declared) -> Result<(), output::Error> {
    let yaml = Json::of(&service.spec).map_err(encode)?.to_yaml();
    let yaml = yaml.map_err(|error| output::Error::Encode(format!("YAML: {error}")))?;
    output::line(&format!("\n# {} with every default", service.key))?;
    output::line(yaml.trim_end())
}
