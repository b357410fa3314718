//! Why something could not be done with an engine, and whose fault that is.

use model::{ClusterId, InstanceId, ProjectName};

use super::{engine::Error, names};
use crate::{ledger, process::render};

/// Why something could not be done. Each is a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Engine(#[from] Error),
    #[error("the image {image} cannot be fetched: {cause}")]
    Image { image: String, cause: String },
    #[error(
        "the image {0} was built here, is in no registry, and is gone: build it again, or push it and deploy"
    )]
    LocalImageGone(String),
    #[error(
        "the volume {name} was removed by somebody; it is not made anew empty. Restore it, or, if its data may be lost, \
         `docker volume create {name}`"
    )]
    VolumeGone { name: String },
    #[error("{message}: {help}")]
    Forbidden { message: String, help: String },
    #[error(
        "{path} is not allowed to be mounted: it leads to {leads}. Mount another folder, or let the machine's owner name \
         that one in `containers.binds` of setpoint.toml"
    )]
    Bind { path: String, leads: String },
    #[error("{path} cannot be mounted: {error}; create it, or correct `volumes`")]
    NoBind { path: String, error: std::io::Error },
    #[error(
        "no network can be made for project {project}: {message}. Remove networks that nobody needs (`docker network \
         prune`), or give the engine more (`default-address-pools`)"
    )]
    NoAddresses { project: ProjectName, message: String },
    #[error(
        "a network called {name} is there that Setpoint did not make, and nothing is put into it: remove it \
         (`docker network rm {name}`), or give it another name"
    )]
    ForeignNetwork { name: String },
    #[error(
        "a volume called {name} is there that Setpoint did not make, and nothing is put into it: remove it \
         (`docker volume rm {name}`); or, to have one used that you fill yourself, make it with \
         `docker volume create --label {}={cluster} {name}`",
        names::CLUSTER
    )]
    ForeignVolume { name: String, cluster: ClusterId },
    #[error("its port {0} is taken by another program")]
    PortTaken(u16),
    #[error(transparent)]
    Render(#[from] render::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Files(#[from] crate::process::files::Error),
    #[error(
        "{count} containers say to be {id}, and its ledger is lost: remove those that are not \
         (`docker ps -a --filter label=setpoint.instance={id}`)"
    )]
    Several { id: InstanceId, count: usize },
    #[error(
        "the engine has been making or removing a container called {name} for {seconds} s, and shows none; if it does not \
         end, restart the engine"
    )]
    NameHeld { name: String, seconds: u64 },
    #[error(
        "{count} containers named like {name} are there already: remove those that nobody needs (`docker rm`)"
    )]
    NamesTaken { name: String, count: u32 },
    #[error(
        "{count} containers bear the mark of {id}, and which of them is its own cannot be told: remove the copies \
         (`docker ps -a --filter label=setpoint.instance={id}`)"
    )]
    Copies { id: InstanceId, count: usize },
}

impl Failure {
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_away())
    }

    /// Whether it has nothing to do with what was to be made or started.
    pub fn is_outside(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_no_room(),
            Self::Several { .. }
            | Self::Copies { .. }
            | Self::NameHeld { .. }
            | Self::NamesTaken { .. }
            | Self::NoAddresses { .. }
            | Self::ForeignVolume { .. }
            | Self::ForeignNetwork { .. } => true,
            _ => false,
        }
    }
}
