//! The commands that stay: `up`, `server`, `edge`. Each reads as: settings, start, say `ready`, wait for a signal,
//! end in order.

use std::{
    cell::Cell,
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use node::Workloads;

use super::{
    Error, edge as proxy,
    local::{self, Options, Running},
    settings::{self, Settings},
};
use crate::cli::{
    self, apply,
    args::{self, LogFormat},
    client::Client,
    files::Manifests,
    progress::{Display, TARGET},
};
use crate::ends::Ends;

/// After what happens could not be shown.
const SHOW_AGAIN: Duration = Duration::from_secs(1);

pub fn up(args: &args::Up) -> ExitCode {
    ended(run_up(args))
}

pub fn server(args: &args::Server) -> ExitCode {
    ended(run_server(args))
}

pub fn edge(args: &args::Edge) -> ExitCode {
    ended(run_edge(args))
}

fn ended(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::fail(&error),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().on_thread_park(give_back_at_rest);
    Ok(builder.build()?)
}

/// Between two times that a thread gives memory back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// A thread that has nothing to do gives back what a burst has left it with.
fn give_back_at_rest() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= GIVE_BACK_EVERY) {
        LAST.set(Some(now));
        sys::memory::give_back();
    }
}

fn run_up(args: &args::Up) -> Result<(), Error> {
    let settings = settings::of(&args.role, args.api, args.edge)?;
    let data = args.role.data.folder()?;
    // A manifest that cannot be read starts nothing.
    let files = cli::read_files(&args.files)?;
    log(&settings)?;
    runtime()?.block_on(async {
        let mut ends = Ends::new()?;
        let running = local::start(Options::of(&settings, data, true)).await?;
        let client = Client::new(&format!("http://{}", running.api), Some(&running.token))?;
        let worked = tokio::select! {
            worked = stay(&running, &client, args.prune, &files, settings.log.format) => worked,
            _ = ends.wait() => Ok(()),
            error = running.lost() => return Err(error),
        };
        // What was refused has changed nothing: what had lived on lives on.
        let unchanged = worked.is_err() && running.found_living();
        let workloads = if args.keep || unchanged { Workloads::Keep } else { Workloads::Stop };
        // A further signal changes nothing: the end is bounded by each workload's grace, and leaving before it would
        // leave orphans.
        running.end(workloads).await;
        worked
    })
}

/// Declares the files, says `ready`, and shows what happens for as long as it is let.
async fn stay(
    running: &Running,
    client: &Client,
    prune: bool,
    files: &Manifests,
    format: LogFormat,
) -> Result<(), Error> {
    let display = match format {
        LogFormat::Text => Display::of_stderr(),
        LogFormat::Json => Display::logged(),
    };
    let before = running.control.store().latest_event_seq().await?;
    if !files.services.is_empty() {
        let options = apply::Options { prune, display: display.clone() };
        let outcome = apply::apply_files(client, files, &options).await?;
        outcome.lines().iter().for_each(|line| display.say(line));
        ready(running)?;
        if std::io::stdout().is_terminal() {
            cli::show_until_settled(client, &outcome.applied, &display).await;
        }
    } else {
        ready(running)?;
    }
    loop {
        let shown = match std::io::stdout().is_terminal() {
            true => cli::watch_status(client).await,
            false => cli::tell_events(client, before, &display).await,
        };
        // What cannot be shown is held all the same: out of descriptors, say, nobody is helped by an end.
        if let Err(error) = shown {
            tracing::warn!(%error, "what happens cannot be shown; it is tried again");
        }
        tokio::time::sleep(SHOW_AGAIN).await;
    }
}

/// The one line on stdout that scripts wait for.
fn ready(running: &Running) -> Result<(), Error> {
    let edge = running.edge.map(|edge| format!(" edge=http://{edge}")).unwrap_or_default();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready api=http://{}{edge}", running.api)?;
    Ok(stdout.flush()?)
}

fn run_server(args: &args::Server) -> Result<(), Error> {
    let settings = settings::of(&args.role, args.api, None)?;
    let data = args.role.data.folder()?;
    log(&settings)?;
    runtime()?.block_on(async {
        let mut ends = Ends::new()?;
        let running = local::start(Options::of(&settings, data, false)).await?;
        ready(&running)?;
        tokio::select! {
            _ = ends.wait() => {}
            error = running.lost() => return Err(error),
        }
        // The end of a server never stops a workload.
        running.end(Workloads::Keep).await;
        Ok(())
    })
}

fn run_edge(args: &args::Edge) -> Result<(), Error> {
    let settings = settings::of(&args.role, None, args.edge)?;
    let data = args.role.data.clone();
    log(&settings)?;
    runtime()?.block_on(async {
        let mut ends = Ends::new()?;
        proxy::run(&settings.edge, &data, async {
            let _signal = ends.wait().await;
        })
        .await
    })
}

fn log(settings: &Settings) -> Result<(), Error> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log.level)
        .map_err(|error| format!("log.level `{}`: {error}; use a level such as info", settings.log.level))?
        .add_directive(format!("{TARGET}=info").parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match settings.log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    installed.map_err(|error| format!("logging cannot be set up: {error}").into())
}
