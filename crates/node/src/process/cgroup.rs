//! Limits of a whole workload by the kernel's control groups, version 2 or 1, whichever is mounted. Only for instances
//! that declare a limit; a group is ours by the cluster's id in its name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::{ClusterId, InstanceId, spec::Resources};

const ROOT: &str = "/sys/fs/cgroup";
/// The folder below each hierarchy that holds ours.
const OURS: &str = "setpoint";
/// Over which processor time is counted, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The group of one instance and what it may use.
#[derive(Debug, Clone)]
pub struct Cgroup {
    name: String,
    resources: Resources,
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; run Setpoint as root, or where control groups are delegated to it", .path.display())]
pub struct Error {
    path: PathBuf,
    error: io::Error,
}

impl Cgroup {
    /// `None` when nothing is limited.
    pub fn of(cluster: &ClusterId, id: &InstanceId, resources: &Resources) -> Option<Self> {
        let limited = resources.memory.is_some() || resources.millicpus.is_some();
        limited.then(|| Self { name: name(cluster, id), resources: resources.clone() })
    }

    /// Makes the group and puts a process in, before it runs: all that it will ever start is in it too.
    pub fn take(&self, pid: u32) -> Result<(), Error> {
        for (folder, file, limit) in self.limits() {
            let made = fs::create_dir_all(&folder);
            made.map_err(|error| Error { path: folder.clone(), error })?;
            write(&folder.join(file), &limit)?;
            write(&folder.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Why a process that runs is not held to its limits; none when it is.
    fn missing(&self, pid: u32) -> Option<Error> {
        let pid = pid.to_string();
        self.limits().into_iter().find_map(|(folder, _, _)| {
            let path = folder.join("cgroup.procs");
            let error = match fs::read_to_string(&path) {
                Ok(held) if held.lines().any(|line| line == pid) => return None,
                Ok(_) => io::Error::other("it was started without this group"),
                Err(error) => error,
            };
            Some(Error { path, error })
        })
    }

    /// Folder, file and value of each limit.
    fn limits(&self) -> Vec<(PathBuf, &'static str, String)> {
        let quota = self.resources.millicpus.map(|m| u64::from(m) * PERIOD_US / 1000);
        let memory = self.resources.memory.map(|bytes| bytes.0);
        if is_unified() {
            let folder = Path::new(ROOT).join(OURS).join(&self.name);
            enable_controllers();
            let cpu = quota.map(|quota| (folder.clone(), "cpu.max", format!("{quota} {PERIOD_US}")));
            let memory = memory.map(|bytes| (folder, "memory.max", bytes.to_string()));
            return cpu.into_iter().chain(memory).collect();
        }
        let at = |controller: &str| Path::new(ROOT).join(controller).join(OURS).join(&self.name);
        let cpu = quota.map(|quota| (at("cpu"), "cpu.cfs_quota_us", quota.to_string()));
        let memory = memory.map(|bytes| (at("memory"), "memory.limit_in_bytes", bytes.to_string()));
        cpu.into_iter().chain(memory).collect()
    }
}

/// Why a process that runs is not held to the limits that were declared for it, in a sentence.
pub fn without(cluster: &ClusterId, id: &InstanceId, resources: &Resources, pid: u32) -> Option<String> {
    let error = Cgroup::of(cluster, id, resources)?.missing(pid)?;
    Some(format!("its declared limits are not enforced: {error}"))
}

/// Removes an instance's groups. One that still has processes stays; it goes with the next boot.
pub fn remove(cluster: &ClusterId, id: &InstanceId) {
    for hierarchy in ["", "cpu", "memory"] {
        let _ = fs::remove_dir(Path::new(ROOT).join(hierarchy).join(OURS).join(name(cluster, id)));
    }
}

fn name(cluster: &ClusterId, id: &InstanceId) -> String {
    format!("{cluster}.{id}")
}

fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// In version 2 a controller must be on in every folder above; where it cannot be, writing the limit says so.
fn enable_controllers() {
    let root = Path::new(ROOT);
    let _ = fs::create_dir_all(root.join(OURS));
    for folder in [root.to_path_buf(), root.join(OURS)] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory");
    }
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(|error| Error { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    use model::Bytes;

    use super::*;

    fn ids() -> (ClusterId, InstanceId) {
        let cluster = format!("test{:08x}", std::process::id());
        (cluster.parse().unwrap(), "default.api.0.1".parse().unwrap())
    }

    #[test]
    fn without_limits_there_is_no_group() {
        let (cluster, id) = ids();
        assert!(Cgroup::of(&cluster, &id, &Resources::default()).is_none());
    }

    #[test]
    fn a_limited_process_is_in_its_group_with_the_limits_set() {
        let (cluster, id) = ids();
        let resources = Resources { memory: Some(Bytes(64 << 20)), millicpus: Some(500), pids: None };
        let group = Cgroup::of(&cluster, &id, &resources).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        if let Err(error) = group.take(child.id()) {
            eprintln!("skipped: no control groups for us here: {error}");
        } else {
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
            assert!(groups.contains(&name(&cluster, &id)), "{groups}");
            for (folder, file, limit) in group.limits() {
                assert_eq!(fs::read_to_string(folder.join(file)).unwrap().trim(), limit);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        remove(&cluster, &id);
        assert!(group.limits().iter().all(|(folder, _, _)| !folder.exists()));
    }
}
