//! What instances use: counters read twice, and what grew between.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use futures_util::StreamExt;
use model::{InstanceId, session::Usage};

use crate::container::engine::{Engine, Error, QUESTION};

/// Between the two readings: long against a clock tick (10 ms), short for who waits.
const BETWEEN: Duration = Duration::from_millis(500);
/// Questions to an engine at once.
const AT_ONCE: usize = 8;

/// Something that runs, to be measured.
#[derive(Debug, Clone)]
pub struct Measured {
    pub instance: InstanceId,
    pub what: What,
    /// In bytes, where one is declared.
    pub memory_limit: Option<u64>,
}

#[derive(Debug, Clone)]
pub enum What {
    /// All processes of this group.
    Processes(u32),
    /// By the id that its engine knows.
    Container(String),
}

/// One reading of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Reading {
    /// Processor time so far, in seconds.
    busy: f64,
    memory: u64,
    processes: u64,
}

/// What ends meanwhile, or cannot be read, is left out.
pub async fn measure(engine: &Engine, measured: Vec<Measured>) -> Vec<Usage> {
    let began = Instant::now();
    let before = read(engine, &measured).await;
    tokio::time::sleep(BETWEEN).await;
    let elapsed = began.elapsed().as_secs_f64();
    let after = read(engine, &measured).await;
    let usage = measured.into_iter().filter_map(|one| {
        let (before, after) = (before.get(&one.instance)?, after.get(&one.instance)?);
        Some(Usage {
            // Time of processes that ended unnoticed is lost; none is ever given back.
            cpus: ((after.busy - before.busy) / elapsed).max(0.0),
            memory: after.memory,
            memory_limit: one.memory_limit,
            processes: after.processes,
            instance: one.instance,
        })
    });
    usage.collect()
}

async fn read(engine: &Engine, measured: &[Measured]) -> BTreeMap<InstanceId, Reading> {
    let groups = tokio::task::spawn_blocking(groups).await.unwrap_or_default();
    let containers = measured.iter().filter_map(|one| match &one.what {
        What::Container(id) => Some((one.instance.clone(), id.clone())),
        What::Processes(_) => None,
    });
    let containers: Vec<_> = containers.collect();
    let asked = futures_util::stream::iter(containers)
        .map(|(instance, id)| async move { (instance, container(engine, &id).await) })
        .buffer_unordered(AT_ONCE);
    let answered = asked.filter_map(|(instance, reading)| async move {
        match reading {
            Ok(reading) => Some((instance, reading)),
            Err(error) => {
                tracing::debug!(%instance, %error, "what it uses cannot be told");
                None
            }
        }
    });
    let mut readings: BTreeMap<InstanceId, Reading> = answered.collect().await;
    for one in measured {
        if let What::Processes(group) = one.what
            && let Some(reading) = groups.get(&group)
        {
            readings.insert(one.instance.clone(), *reading);
        }
    }
    readings
}

/// All process groups of the machine.
fn groups() -> BTreeMap<u32, Reading> {
    let (tick, page) = (sys::proc::tick(), sys::proc::page());
    let mut groups: BTreeMap<u32, Reading> = BTreeMap::new();
    let stats = sys::proc::pids().into_iter().flatten().filter_map(|pid| sys::proc::stat(pid).ok().flatten());
    for stat in stats.filter(|stat| !stat.zombie) {
        let group = groups.entry(stat.group).or_default();
        #[expect(clippy::cast_precision_loss, reason = "exact for 2^53 ticks, which are millions of years")]
        let busy = stat.ticks as f64 * tick;
        group.busy += busy;
        group.memory += stat.pages * page;
        group.processes += 1;
    }
    groups
}

async fn container(engine: &Engine, id: &str) -> Result<Reading, Error> {
    let client = engine.client().await?;
    let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
    let mut answers = Box::pin(client.stats(id, Some(options)));
    let answer = async {
        match answers.next().await {
            Some(answer) => answer,
            None => Err(bollard::errors::Error::RequestTimeoutError),
        }
    };
    Ok(told(&engine.within(QUESTION, answer).await?))
}

/// Both versions of control groups count pages that only cache files; these go when they are needed.
fn told(stats: &ContainerStatsResponse) -> Reading {
    let memory = stats.memory_stats.as_ref();
    let detail = |name: &str| memory?.stats.as_ref()?.get(name).copied();
    let cached = detail("total_inactive_file").or_else(|| detail("inactive_file")).unwrap_or_default();
    let nanoseconds =
        stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage).unwrap_or_default();
    Reading {
        busy: Duration::from_nanos(nanoseconds).as_secs_f64(),
        memory: memory.and_then(|memory| memory.usage).unwrap_or_default().saturating_sub(cached),
        processes: stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_caches_files_is_not_used() {
        let stats = serde_json::json!({
            "cpu_stats": { "cpu_usage": { "total_usage": 1_500_000_000_u64 } },
            "memory_stats": { "usage": 1000, "stats": { "inactive_file": 300, "anon": 700 } },
            "pids_stats": { "current": 3 },
        });
        let reading = told(&serde_json::from_value(stats).unwrap());
        assert_eq!(reading, Reading { busy: 1.5, memory: 700, processes: 3 });
        let first = serde_json::json!({ "memory_stats": { "usage": 1000, "stats": {
            "inactive_file": 1, "total_inactive_file": 300 } } });
        assert_eq!(told(&serde_json::from_value(first).unwrap()).memory, 700);
        let silent = serde_json::from_value(serde_json::json!({})).unwrap();
        assert_eq!(told(&silent), Reading::default());
    }

    #[tokio::test]
    async fn a_group_that_computes_uses_a_processor_and_one_that_is_gone_nothing() {
        use std::os::unix::process::CommandExt;
        let mut busy = std::process::Command::new("sh");
        let mut busy = busy.args(["-c", "while :; do :; done & wait"]).process_group(0).spawn().unwrap();
        let measured = |group| Measured {
            instance: format!("default.api.0.{group}").parse().unwrap(),
            what: What::Processes(group),
            memory_limit: Some(1 << 20),
        };
        let engine = Engine::new("unix:///nonexistent");
        let usage = measure(&engine, vec![measured(busy.id()), measured(u32::MAX)]).await;
        sys::pidfd::kill_group(&sys::Identity {
            pid: busy.id(),
            start: sys::proc::stat(busy.id()).unwrap().unwrap().start,
        })
        .unwrap();
        busy.wait().unwrap();
        let [usage] = usage.as_slice() else { panic!("{usage:?}") };
        assert!(usage.cpus > 0.05, "{usage:?}");
        assert!(usage.memory > 100_000 && usage.memory_limit == Some(1 << 20), "{usage:?}");
        assert_eq!(usage.processes, 2, "{usage:?}");
    }
}
