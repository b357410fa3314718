//! The programs that these tests need on the machine.

use std::ffi::OsString;

/// What brings all of them on Debian.
const PACKAGES: &str = "apt-get install --no-install-recommends docker.io docker-registry iptables iproute2";

/// Where Debian puts them, whatever the PATH of the one who runs the tests.
pub(super) fn path() -> OsString {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").into()
}

/// Whether this machine cannot run it, which is then said with what to do. `cargo xtask test` counts the tests that
/// are left out for that.
pub(super) fn lack(program: &str) -> bool {
    let is_there =
        |program: &&str| std::env::split_paths(&path()).any(|folder| folder.join(program).is_file());
    let missing = [program, "docker", "iptables", "ip"].into_iter().find(|program| !is_there(program));
    if let Some(missing) = missing {
        println!("skipped: {missing} is missing: {PACKAGES}");
    } else if !rustix::process::geteuid().is_root() {
        println!("skipped: a private container engine needs root");
    } else {
        return false;
    }
    true
}
