//! What an idle Setpoint costs, and how soon it is ready.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    procs::{cpu_within, resident_kib},
    report::{Report, percentile},
};

const STARTS: usize = 7;
const BOUND: Duration = Duration::from_secs(30);
/// Over which idle processor time is taken.
const IDLE: Duration = Duration::from_secs(10);

const MANIFEST: &str = "
services:
  app:
    command: [\"${SETPOINT}\", demo-app]
    replicas: 2
    health: /healthz
";

pub fn run(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let up = Up::start(MANIFEST)?;
        starts.push(began.elapsed().as_secs_f64() * 1000.0);
        drop(up);
    }
    report.add("start to `ready`, p50", percentile(&mut starts, 0.5), "ms");

    let up = Up::start(MANIFEST)?;
    up.wait_converged(BOUND)?;
    let [used] = cpu_within([up.child.id()], IDLE)?;
    let resident = resident_kib(up.child.id())? / 1024.0;
    report.add("idle, two processes held: resident memory", resident, "MiB");
    report.add("idle, two processes held: processor time", used / IDLE.as_secs_f64() * 1e6, "µs/s");
    Ok(())
}

/// A running `setpoint up` with a folder of its own; ended when it is dropped.
pub struct Up {
    child: Child,
    data: tempfile::TempDir,
}

/// The release binary beside this program.
pub fn binary() -> Result<PathBuf, Box<dyn Error>> {
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(|p| p.parent()).ok_or("this program has no folder")?;
    Ok(folder.join("setpoint"))
}

impl Up {
    pub fn start(manifest: &str) -> Result<Self, Box<dyn Error>> {
        let data = tempfile::tempdir()?;
        let file = data.path().join("bench.yaml");
        std::fs::write(&file, manifest)?;
        let mut child = Command::new(binary()?)
            .args(["up", "--api", "127.0.0.1:0", "--edge", "127.0.0.1:0", "--data"])
            .arg(data.path().join("data"))
            .arg("-f")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("ready ") {
            return Err(format!("`up` said `{line}` instead of ready").into());
        }
        Ok(Self { child, data })
    }

    pub fn status(&self) -> Result<Value, Box<dyn Error>> {
        let output = Command::new(binary()?)
            .args(["status", "-o", "json", "--data"])
            .arg(self.data.path().join("data"))
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub fn wait_converged(&self, bound: Duration) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let status = self.status()?;
            let services = status["services"].as_array().cloned().unwrap_or_default();
            if !services.is_empty() && services.iter().all(|s| s["state"] == "converged") {
                return Ok(());
            }
            if began.elapsed() > bound {
                return Err(format!("not converged: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It ends its workloads itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
