//! Randomness that can be repeated: the seed is printed, and `SETPOINT_SEED` sets it.

use rand::{SeedableRng, rngs::StdRng};

pub use rand::Rng;

/// A generator whose seed is printed for the case that the test fails.
pub fn seeded() -> StdRng {
    let seed = match std::env::var("SETPOINT_SEED") {
        Ok(text) => text.parse().expect("SETPOINT_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("seed {seed}: repeat with SETPOINT_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
