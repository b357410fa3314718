//! Finds what a session is about: where a command for an instance runs, and what is to be measured.

use model::{InstanceId, spec::Check};

use super::{Agent, probing};
use crate::{
    life::{Ending, Life},
    probe::Target,
    session::{Error, Measured, What},
};

impl Agent {
    pub(super) fn inside(&self, id: &InstanceId) -> Result<Target, Error> {
        let instance = self.instances.get(id).ok_or_else(|| Error::Unknown(id.clone()))?;
        if instance.site.is_some() {
            return Err(Error::Site(id.clone()));
        }
        if instance.life().is_none_or(Life::has_ended) {
            return Err(Error::NotRunning(id.clone()));
        }
        probing::target(&self.cx, instance, &Check::Exec(Vec::new())).map_err(Error::Failed)
    }

    pub(super) fn measured(&self, id: &InstanceId) -> Option<Measured> {
        let instance = self.instances.get(id)?;
        let life = instance.life()?;
        let what = match life.ending() {
            Ending::Process(_) => What::Processes(life.pid()?),
            Ending::Container(container) => What::Container(container),
        };
        let memory_limit = instance.assigned.content.resources.memory.map(|bytes| bytes.0);
        Some(Measured { instance: id.clone(), what, memory_limit })
    }
}
