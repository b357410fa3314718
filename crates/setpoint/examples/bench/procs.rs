//! What a process has used so far, as the kernel counts it.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    time::{Duration, Instant},
};

fn proc(pid: u32, file: &str) -> Result<String, Box<dyn Error>> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/{file}"))?)
}

pub fn resident_kib(pid: u32) -> Result<f64, Box<dyn Error>> {
    memory_kib(pid, "VmRSS:")
}

/// Without what is only a view of files: of its own program, say, which it comes to know with time.
pub fn own_kib(pid: u32) -> Result<f64, Box<dyn Error>> {
    memory_kib(pid, "RssAnon:")
}

fn memory_kib(pid: u32, name: &str) -> Result<f64, Box<dyn Error>> {
    let status = proc(pid, "status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("the kernel does not tell")?;
    Ok(line.split_whitespace().nth(1).ok_or("the kernel does not tell")?.parse()?)
}

/// Seconds of a processor that each of these processes uses within `time`. A thread that ends meanwhile takes its own count with
/// it, so that all are looked at often.
pub fn cpu_within<const N: usize>(pids: [u32; N], time: Duration) -> Result<[f64; N], Box<dyn Error>> {
    const LOOKS: Duration = Duration::from_millis(200);
    let began = Instant::now();
    let mut threads = [const { BTreeMap::new() }; N];
    let mut first = true;
    loop {
        for (threads, pid) in threads.iter_mut().zip(pids) {
            for (thread, nanos) in nanos_by_thread(pid)? {
                // One that began meanwhile has used nothing before.
                let used = threads.entry(thread).or_insert((if first { nanos } else { 0.0 }, nanos));
                used.1 = nanos;
            }
        }
        first = false;
        if began.elapsed() >= time {
            break;
        }
        std::thread::sleep(LOOKS);
    }
    Ok(threads.map(|threads| threads.values().map(|(before, after)| after - before).sum::<f64>() / 1e9))
}

fn nanos_by_thread(pid: u32) -> Result<Vec<(OsString, f64)>, Box<dyn Error>> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        // It may have ended since.
        let Ok(schedstat) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let nanos = schedstat.split_whitespace().next().ok_or("no schedstat")?.parse()?;
        all.push((thread.file_name(), nanos));
    }
    Ok(all)
}
