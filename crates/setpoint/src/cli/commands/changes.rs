//! Commands that change one service.

use model::{
    InstanceId, ServiceKey,
    manifest::{SiteSource, SourceFrom},
    spec::{Kind, Site},
};
use serde::Serialize;
use server::views::{self, Applied, Services};

use super::{DONE, Error};
use crate::cli::{
    apply,
    args::{Cancel, Change, Connection, Deploy, Output, Rollback, Scale, Wait},
    client::{Answer, Client},
    output,
    progress::Display,
    source::{self, Commit, Content, Maker},
    upload,
    wait::{Awaited, Goal, wait},
};

pub async fn deploy(args: &Deploy) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let display = Display::of_stderr();
    let body = body(&client, args, &display).await?;
    let answer = client.post(&at(&args.service, "deploy"), &body).await?;
    finish(&client, &answer, args.output, args.wait, &Goal::Converged).await
}

async fn body(client: &Client, args: &Deploy, display: &Display) -> Result<views::Deploy, Error> {
    let key = &args.service;
    let image = args.image.clone();
    let maker = Maker { client, display, commit: Commit::Newest };
    let plain = |artifact| views::Deploy { artifact: Some(artifact), ..views::Deploy::default() };
    if let Some(path) = &args.path {
        takes_content(client, key).await?;
        let shown = display.transfer(&format!("{key}: {}", path.display()));
        return Ok(plain(upload::upload(client, path, shown).await?.digest));
    }
    let origin = match &args.git {
        Some(repository) => {
            let site = takes_content(client, key).await?;
            if site.as_ref().is_some_and(|site| site.artifact.is_some() && site.origin.is_none()) {
                return Err(Error::Said(format!(
                    "{key} is declared from a folder or an archive, so that nobody here knows how a repository of it is \
                     built: declare `git` in its manifest, or deploy what you have built: setpoint deploy {key} PATH"
                )));
            }
            Some((repository.clone(), site.and_then(|site| site.origin)))
        }
        None if image.is_none() => {
            let declared = source::declared(client, key).await?.and_then(|site| site.origin);
            declared.map(|origin| (origin.repository.clone(), Some(origin)))
        }
        None => None,
    };
    let Some((repository, declared)) = origin else {
        return Ok(views::Deploy { image, ..views::Deploy::default() });
    };
    let (build, output) = declared.map(|origin| (origin.build, origin.output)).unwrap_or_default();
    let source = SiteSource { from: SourceFrom::Git(repository), build, output };
    let ready = maker.make(key, &source).await.map_err(|broken| {
        let log: String = broken
            .last()
            .iter()
            .map(|line| {
                format!(
                    "
    {line}"
                )
            })
            .collect();
        Error::Said(format!("{key}: {broken}{log}"))
    })?;
    let artifact = match &ready.content {
        Content::Known(artifact) => *artifact,
        Content::At(path) => {
            let shown = display.transfer(&format!("{key}: {}", path.display()));
            upload::upload(client, path, shown).await?.digest
        }
    };
    Ok(views::Deploy { origin: ready.origin, ..plain(artifact) })
}

/// Asks for the service first, so that nothing is sent for one that cannot take it.
async fn takes_content(client: &Client, service: &ServiceKey) -> Result<Option<Site>, Error> {
    let Services { services, .. } = client.view(&format!("/services/{service}")).await?;
    match services.first().and_then(|found| found.kind) {
        Some(Kind::Site) | None => Ok(source::declared(client, service).await?),
        Some(Kind::Process) => Err(Error::Said(format!(
            "{service} is a process and takes no content: change its `command` or `files` and apply, or deploy it \
             again without PATH"
        ))),
        Some(Kind::Container) => Err(Error::Said(format!(
            "{service} is a container and takes no folder: deploy another image with `--image REF`, or deploy it \
             again without PATH to resolve its tag anew"
        ))),
    }
}

pub async fn rollback(args: &Rollback) -> Result<u8, Error> {
    let body = views::Rollback { to: args.to.clone() };
    change(&args.connection, &args.service, "rollback", &body, args.output, args.wait, &Goal::Converged).await
}

pub async fn scale(args: &Scale) -> Result<u8, Error> {
    let body = views::Scale { replicas: args.replicas.into() };
    let goal = Goal::Serving { instead_of: Vec::new() };
    change(&args.connection, &args.service, "scale", &body, args.output, args.wait, &goal).await
}

pub async fn stop(args: &Change) -> Result<u8, Error> {
    simple(args, "stop", &Goal::Stopped).await
}

pub async fn start(args: &Change) -> Result<u8, Error> {
    simple(args, "start", &Goal::Serving { instead_of: Vec::new() }).await
}

pub async fn restart(args: &Change) -> Result<u8, Error> {
    let instead_of = match args.wait.wait {
        Some(_) => replaced(&args.connection.client()?, &args.service).await?,
        None => Vec::new(),
    };
    simple(args, "restart", &Goal::Serving { instead_of }).await
}

/// What a restart replaces. A site has nothing to restart.
async fn replaced(client: &Client, service: &ServiceKey) -> Result<Vec<InstanceId>, Error> {
    let Services { services, .. } = client.view(&format!("/services/{service}")).await?;
    let running = services.into_iter().filter(|found| found.kind.is_some_and(Kind::runs));
    Ok(running.flat_map(|found| found.instances).map(|instance| instance.id).collect())
}

pub async fn delete(args: &Change) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let answer = client.delete(&format!("/services/{}", args.service)).await?;
    finish(&client, &answer, args.output, args.wait, &Goal::Gone).await
}

pub async fn cancel(args: &Cancel) -> Result<u8, Error> {
    let client = args.connection.client()?;
    let answer = client.post(&format!("/deployments/{}/cancel", args.deployment), &Nothing {}).await?;
    print(&answer, args.output)?;
    Ok(DONE)
}

#[derive(Debug, Serialize)]
struct Nothing {}

async fn simple(args: &Change, verb: &str, goal: &Goal) -> Result<u8, Error> {
    change(&args.connection, &args.service, verb, &Nothing {}, args.output, args.wait, goal).await
}

async fn change<T: Serialize>(
    connection: &Connection,
    service: &ServiceKey,
    verb: &str,
    body: &T,
    output: Output,
    wait: Wait,
    goal: &Goal,
) -> Result<u8, Error> {
    let client = connection.client()?;
    let answer = client.post(&at(service, verb), body).await?;
    finish(&client, &answer, output, wait, goal).await
}

fn at(service: &ServiceKey, verb: &str) -> String {
    format!("/services/{service}/{verb}")
}

async fn finish(
    client: &Client,
    answer: &Answer,
    output: Output,
    wait: Wait,
    goal: &Goal,
) -> Result<u8, Error> {
    let applied = print(answer, output)?;
    await_all(client, &applied, wait, goal).await
}

fn print(answer: &Answer, output: Output) -> Result<Applied, Error> {
    let applied: Applied = answer.view()?;
    if !output::document(&answer.json()?, output.format)? {
        for service in &applied.services {
            let word = if service.changed { "changed" } else { "unchanged" };
            output::line(&apply::line(
                &format!("{}/{}", service.project, service.name),
                word,
                &service.message,
            ))?;
        }
    }
    Ok(applied)
}

/// With `--wait`, returns when all that was begun has ended as it should.
pub async fn await_all(client: &Client, applied: &Applied, wait_for: Wait, goal: &Goal) -> Result<u8, Error> {
    let Some(limit) = wait_for.wait else { return Ok(DONE) };
    let awaited: Vec<Awaited> =
        applied.services.iter().map(|service| Awaited::of(service, goal.clone())).collect();
    let not_done = wait(client, &awaited, limit, &Display::of_stderr()).await;
    if not_done.is_empty() { Ok(DONE) } else { Err(Error::NotDone(not_done)) }
}
