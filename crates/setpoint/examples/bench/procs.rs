//! What a process has used so far, as the kernel counts it.

use std::error::Error;

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

/// Of all threads that live.
pub fn cpu_seconds(pid: u32) -> Result<f64, Box<dyn Error>> {
    let mut nanos = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += schedstat.split_whitespace().next().ok_or("no schedstat")?.parse::<f64>()?;
    }
    Ok(nanos / 1e9)
}
