//! What lives: a process of ours, or a container of an engine. One way to ask about either.

use crate::{
    container::watch::Watched,
    process::{Live, live::Handle},
};

/// Something that runs and is watched.
#[derive(Debug)]
pub enum Life {
    Process(Live),
    /// With its first process as the engine numbers it.
    Container {
        watched: Watched,
        pid: Option<u32>,
    },
}

/// What is needed to end it.
#[derive(Debug, Clone)]
pub enum Ending {
    Process(Handle),
    /// By the id that its engine knows.
    Container(String),
}

impl Life {
    /// Which of the instance's runs it is.
    pub fn run(&self) -> u64 {
        match self {
            Self::Process(live) => live.run,
            Self::Container { watched, .. } => watched.run,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(live) => Some(live.identity.pid),
            Self::Container { pid, .. } => *pid,
        }
    }

    /// Its end is known already, and about to be told.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Process(live) => live.exit_status().is_some(),
            Self::Container { .. } => false,
        }
    }

    /// Whether the kernel tells its end, whoever else does not answer.
    pub fn is_seen(&self) -> bool {
        match self {
            Self::Process(_) => true,
            Self::Container { watched, .. } => watched.is_seen(),
        }
    }

    pub fn ending(&self) -> Ending {
        match self {
            Self::Process(live) => Ending::Process(live.handle()),
            Self::Container { watched, .. } => Ending::Container(watched.container.clone()),
        }
    }
}
