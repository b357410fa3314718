//! From `kill -9` of a process to its replacement listening. The floor is a supervisor of twenty lines that waits for
//! its one child and starts it again.

use std::{
    error::Error,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    idle::{Up, binary},
    report::{Report, percentile},
};

const ROUNDS: usize = 20;
/// Long enough not to be a fast crash.
const UPTIME: Duration = Duration::from_millis(1200);
const BOUND: Duration = Duration::from_secs(20);

const MANIFEST: &str = "
services:
  app:
    command: [\"${SETPOINT}\", demo-app]
    health: /healthz
    restart: { attempts: 1000 }
";

pub fn run(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (mut floor, mut ours) = (floor()?, ours()?);
    let (floor_p50, floor_p99) = (percentile(&mut floor, 0.5), percentile(&mut floor, 0.99));
    report.add("heal floor: wait and spawn, kill to listening, p50", floor_p50, "ms");
    report.add_beside(
        "heal: kill to listening, p50",
        percentile(&mut ours, 0.5),
        "ms",
        ("floor p50", floor_p50),
    );
    report.add_beside(
        "heal: kill to listening, p99",
        percentile(&mut ours, 0.99),
        "ms",
        ("floor p99", floor_p99),
    );
    Ok(())
}

fn ours() -> Result<Vec<f64>, Box<dyn Error>> {
    let up = Up::start(MANIFEST)?;
    up.wait_converged(BOUND)?;
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(UPTIME);
        let instance = up.status()?["services"][0]["instances"][0].clone();
        let pid = instance["pid"].as_u64().ok_or("the instance has no pid")?;
        let address: SocketAddr =
            instance["address"].as_str().ok_or("the instance has no address")?.parse()?;
        samples.push(kill_to_listening(pid, address)?);
    }
    Ok(samples)
}

pub fn kill_to_listening(pid: u64, address: SocketAddr) -> Result<f64, Box<dyn Error>> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).ok_or("no pid")?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let began = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    // Its socket answers until the kernel has taken it down: only then is an answer the replacement's.
    let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None)?;
    listening(address, began)
}

pub fn listening(address: SocketAddr, began: Instant) -> Result<f64, Box<dyn Error>> {
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > BOUND {
            return Err(format!("nothing listens on {address} again").into());
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

fn floor() -> Result<Vec<f64>, Box<dyn Error>> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut child = app(free)?;
    listening(free, Instant::now())?;
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(UPTIME / 4);
        let began = Instant::now();
        child.kill()?;
        child.wait()?;
        child = app(free)?;
        samples.push(listening(free, began)?);
    }
    child.kill()?;
    child.wait()?;
    Ok(samples)
}

fn app(address: SocketAddr) -> Result<Child, Box<dyn Error>> {
    let child = Command::new(binary()?)
        .arg("demo-app")
        .env_clear()
        .env("HOST", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}
