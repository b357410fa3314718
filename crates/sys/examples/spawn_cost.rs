//! What a spawn costs beside our own size: the numbers of docs/decisions/spawn.md.
//! `cargo run --release -p sys --example spawn_cost`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::{fs::OpenOptions, time::Instant};

use sys::{Spawn, spawn::Memory};

const ROUNDS: usize = 300;

fn main() {
    for mib in [0usize, 32, 256] {
        let ballast: Vec<u8> = vec![1; mib << 20];
        for memory in [Memory::Copied, Memory::Shared] {
            let (gated, running, ended) = measure(memory);
            println!(
                "{mib:>4} MiB {memory:?}: at the gate {gated:>4} µs, running {running:>4} µs, ended {ended:>4} µs"
            );
        }
        std::hint::black_box(&ballast);
    }
}

/// Medians in microseconds.
fn measure(memory: Memory) -> (u128, u128, u128) {
    let mut rows: Vec<[u128; 3]> = (0..ROUNDS).map(|_| once(memory)).collect();
    let mut median = |column: usize| {
        rows.sort_by_key(|row| row[column]);
        rows[ROUNDS / 2][column]
    };
    (median(0), median(1), median(2))
}

fn once(memory: Memory) -> [u128; 3] {
    let output = OpenOptions::new().append(true).open("/dev/null").unwrap();
    let spawn = Spawn {
        program: "/bin/true".into(),
        argv: vec!["true".into()],
        env: vec![],
        cwd: "/".into(),
        output: output.into(),
        user: None,
        limits: vec![],
        umask: 0o022,
    };
    let began = Instant::now();
    let gated = spawn.spawn_with(memory).unwrap();
    let at_gate = began.elapsed().as_micros();
    let pidfd = gated.release().unwrap();
    let running = began.elapsed().as_micros();
    pidfd.reap_blocking().unwrap();
    [at_gate, running, began.elapsed().as_micros()]
}
