//! Processes that bear our marks and that no ledger names: their ledger was lost.
//!
//! A mark is a working directory or an output file among our instances' folders, together with the instance's own id in the
//! environment, on the leader of a process group. Found, they are reported; taken over only when an assignment names
//! their instance.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use model::InstanceId;
use sys::Identity;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    pub identity: Identity,
    /// Where it was told to listen.
    pub port: Option<u16>,
}

/// All of them, but for the `known` pids. A process that goes away meanwhile is none.
pub fn find(instances: &Path, known: &BTreeSet<u32>) -> std::io::Result<BTreeMap<InstanceId, Orphan>> {
    let unknown = sys::proc::pids()?.filter(|pid| !known.contains(pid));
    Ok(unknown.filter_map(|pid| examine(pid, instances)).collect())
}

fn examine(pid: u32, instances: &Path) -> Option<(InstanceId, Orphan)> {
    let marks = ["cwd", "fd/1"].map(|link| fs::read_link(format!("/proc/{pid}/{link}")));
    let id = marks.into_iter().flatten().find_map(|path| instance_of(&path, instances))?;
    let stat = sys::proc::stat(pid).ok()??;
    let env = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let says_so = value(&env, "SETPOINT_INSTANCE").is_some_and(|said| said == id.to_string());
    if !says_so || stat.group != pid || stat.zombie {
        return None;
    }
    let port = value(&env, "PORT").and_then(|port| port.parse().ok());
    Some((id, Orphan { identity: Identity { pid, start: stat.start }, port }))
}

/// Where a process was told to listen.
pub fn port_of(pid: u32) -> Option<u16> {
    value(&fs::read(format!("/proc/{pid}/environ")).ok()?, "PORT")?.parse().ok()
}

/// The kernel adds ` (deleted)` to the name of what is gone; the instance's own component is before that.
fn instance_of(path: &Path, instances: &Path) -> Option<InstanceId> {
    let below: PathBuf = path.strip_prefix(instances).ok()?.components().take(1).collect();
    below.to_str()?.parse().ok()
}

fn value<'a>(env: &'a [u8], name: &str) -> Option<&'a str> {
    let of = |entry: &'a [u8]| std::str::from_utf8(entry).ok()?.strip_prefix(name)?.strip_prefix('=');
    env.split(|byte| *byte == 0).find_map(of)
}
