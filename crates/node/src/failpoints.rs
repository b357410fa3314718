//! Points at which a test may end this process, as a kill would: `FAILPOINTS=start.gated=return`, read by the server.
//! Not built into releases.

#[cfg(feature = "failpoints")]
pub fn at(point: &str) {
    fail::eval(point, |_| -> () { std::process::abort() });
}

#[cfg(not(feature = "failpoints"))]
pub fn at(_: &str) {}
