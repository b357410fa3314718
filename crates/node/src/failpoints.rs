//! Points at which a test may end this process, as a kill would: `FAILPOINTS=start.gated`. Not built into releases.

#[cfg(feature = "failpoints")]
pub fn at(point: &str) {
    let armed = std::env::var("FAILPOINTS").unwrap_or_default();
    if armed.split(';').any(|armed| armed == point) {
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn at(_: &str) {}
