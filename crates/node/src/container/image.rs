//! What an image says of itself, as far as it matters for a container of it.

use bollard::models::{ImageConfig, ImageInspect};
use model::container::Container;

use super::{failure::Failure, signals};

/// What is needed of an image.
#[derive(Debug)]
pub struct Image {
    /// It has a HEALTHCHECK.
    pub check: bool,
    pub workdir: Option<String>,
    /// An image may name anything: what is no signal would keep the engine from making the container.
    pub stop_signal: Option<String>,
    /// Paths that it declares as volumes, in order.
    pub volumes: Vec<String>,
    /// The first word of each.
    entrypoint: Option<String>,
    command: Option<String>,
}

impl Image {
    pub fn of(image: &ImageInspect) -> Self {
        let config = image.config.as_ref();
        let test =
            config.and_then(|config| config.healthcheck.as_ref()).and_then(|check| check.test.as_ref());
        let mut volumes = config.and_then(|config| config.volumes.clone()).unwrap_or_default();
        volumes.sort();
        let words = |of: fn(&ImageConfig) -> &Option<Vec<String>>| {
            config.and_then(|config| of(config).as_ref()?.first().cloned())
        };
        Self {
            entrypoint: words(|config| &config.entrypoint),
            command: words(|config| &config.cmd),
            check: test.is_some_and(|test| !test.is_empty() && test[0] != "NONE"),
            workdir: config.and_then(|config| config.working_dir.clone()).filter(|dir| !dir.is_empty()),
            stop_signal: config
                .and_then(|config| config.stop_signal.clone())
                .filter(|name| signals::number(name).is_some()),
            volumes,
        }
    }

    /// What is no path is refused by the kernel, in words that quote it: of very long ones a runtime never ends to tell, and
    /// its engine waits for it.
    pub fn check_paths(&self, container: &Container) -> Result<(), Failure> {
        const MOST: usize = 4096;
        let program = match (&container.entrypoint, &self.entrypoint, &container.command) {
            (None, Some(entrypoint), _) => Some(entrypoint),
            (None, None, None) => self.command.as_ref(),
            (Some(_), ..) | (None, None, Some(_)) => None,
        };
        let workdir = self.workdir.as_ref().filter(|_| container.workdir.is_none());
        for (what, path) in [("program", program), ("working directory", workdir)] {
            if let Some(length) = path.map(String::len).filter(|length| *length > MOST) {
                let cause = format!(
                    "the path of its {what} has {length} bytes, and {MOST} are the most that a path has"
                );
                return Err(Failure::Image { image: container.image.to_string(), cause });
            }
        }
        Ok(())
    }
}
