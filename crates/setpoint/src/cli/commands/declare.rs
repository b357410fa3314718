//! `plan` and `apply`.

use model::{NodeId, manifest::Declared, spec::Workload};
use server::views::{self, Applied, Planned, Plans};

use super::{CHANGES, DONE, Error, changes::await_all};
use crate::cli::{
    apply::{self, Options},
    args::{Apply, Plan},
    files,
    json::Json,
    output,
    progress::Display,
    text,
    wait::Goal,
};

pub async fn apply(args: &Apply) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let options = Options { prune: args.prune, display: Display::of_stderr() };
    let outcome = apply::apply_files(&client, &args.files, &options).await?;
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
    let mut document = if args.offline { offline(args)? } else { online(args).await? };
    let plans: Plans = document.read().map_err(encode)?;
    let declared = if args.effective { files::read(&args.files)? } else { Vec::new() };
    if args.effective {
        document.set("effective", effective(&declared).map_err(encode)?);
    }
    let changes = plans.services.iter().any(|service| service.action != "none");
    match print_plan(args, &document, &plans, &declared) {
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

async fn online(args: &Plan) -> Result<Json, Error> {
    let client = args.connection.client()?;
    let options = Options { prune: args.prune, display: Display::of_stderr() };
    Ok(apply::plan_files(&client, &args.files, &options).await?.json()?)
}

/// Decided here, from a world with one empty node.
fn offline(args: &Plan) -> Result<Json, Error> {
    let declared = files::read(&args.files)?;
    let services = declared.iter().map(with_content).collect::<Result<Vec<_>, Error>>()?;
    let node: NodeId =
        "local".parse().map_err(|error: model::id::InvalidId| Error::Said(error.to_string()))?;
    let planned = server::plan_offline(&services, &node, text::now());
    let planned = planned.map_err(|error| Error::Said(text::lines(&error.to_string())))?;
    Json::of(&Plans { services: planned }).map_err(|error| encode(error).into())
}

/// A site's content is read for its digest, into a folder that is gone afterwards.
fn with_content(service: &Declared) -> Result<views::Declared, Error> {
    let mut spec = service.spec.clone();
    let source = apply::local_source(service).map_err(apply::Error::from)?;
    if let (Workload::Site(site), Some(path)) = (&mut spec.workload, source) {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Said(text::line(&format!("{}: {}: {error}", service.key, path.display())))
        };
        let scratch = tempfile::tempdir().map_err(|error| failed(&error))?;
        let blobs = content::Blobs::open(scratch.path()).map_err(|error| failed(&error))?;
        let artifact = if path.is_dir() {
            content::intake::from_folder(&blobs, &path, &mut |_| {})
        } else {
            let mut file = std::fs::File::open(&path).map_err(|error| failed(&error))?;
            content::intake::from_archive(&blobs, &mut file, None, &mut |_| {})
        };
        site.artifact = Some(artifact.map_err(|error| failed(&error))?.digest());
    }
    Ok(views::Declared { key: service.key.clone(), spec })
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
