//! Where a node keeps its things, and its bounds. Every bound is written once, here.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use decide::policy::Policy;
use model::{ClusterId, NodeId};

#[derive(Debug, Clone)]
pub struct Config {
    /// The node's own folder: its ledger, the instances' folders and logs.
    pub data: PathBuf,
    /// Where sites are: `<sites>/<project>/<service>/deployment-<id>`.
    pub sites: PathBuf,
    /// The folder of `content::Blobs`.
    pub blobs: PathBuf,
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The value of `${SETPOINT}`.
    pub setpoint_exe: PathBuf,
    /// Where workloads listen, and where they are probed.
    pub host: String,
    pub port_range: RangeInclusive<u16>,
    /// Between full passes, which must find nothing that events missed.
    pub check_interval: Duration,
    /// Between looks at the rendered files of processes.
    pub files_interval: Duration,
    /// Without a change, an observation is published again after this time, as a sign of life.
    pub sign_of_life: Duration,
    pub logs: LogLimits,
    /// The container engine, as in `DOCKER_HOST`.
    pub engine: String,
    /// What containers may have of the machine.
    pub policy: Policy,
}

#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// An output file is cut when it is longer than this.
    pub bytes: u64,
    /// Files of that length kept, the one being written among them.
    pub files: u32,
    /// Kept of an instance that is gone.
    pub kept_bytes: u64,
    /// Logs kept of instances that failed and are gone, and as many of those that merely ended; the oldest goes first.
    pub kept_instances: usize,
    pub interval: Duration,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            bytes: 10 << 20,
            files: 3,
            kept_bytes: 1 << 20,
            kept_instances: 100,
            interval: Duration::from_secs(2),
        }
    }
}

/// Where an engine is that nobody has named.
pub const USUAL_ENGINE: &str = "unix:///var/run/docker.sock";

impl Config {
    /// Whether somebody said where the engine is: then there is one, also before the first container.
    pub fn names_engine(&self) -> bool {
        self.engine != USUAL_ENGINE
    }

    /// The defaults below one data folder.
    pub fn new(data: &std::path::Path, cluster: ClusterId, node: NodeId, setpoint_exe: PathBuf) -> Self {
        Self {
            data: data.join("node"),
            sites: data.join("sites"),
            blobs: data.join("blobs"),
            cluster,
            node,
            setpoint_exe,
            host: "127.0.0.1".into(),
            port_range: 31000..=32767,
            check_interval: Duration::from_secs(30),
            files_interval: Duration::from_secs(1),
            sign_of_life: Duration::from_secs(5),
            logs: LogLimits::default(),
            engine: USUAL_ENGINE.into(),
            policy: Policy::default(),
        }
    }
}
