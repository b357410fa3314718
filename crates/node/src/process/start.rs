//! Starts one process: everything is prepared and written down before it runs.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use model::{
    BootId, ClusterId, InstanceId,
    artifact::RelPath,
    release::Release,
    spec::{Process, Resources},
};
use sys::{Limit, PidFd, Spawn, SpawnError, Stage};

use super::{
    cgroup::Cgroup,
    files::{self, Writing},
    lookup::{self, User},
    render::{self, Names},
};
use crate::{
    failpoints,
    ledger::{self, Folder, Identity, State},
};

/// All that a start needs, found once and kept until it fails.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub program: PathBuf,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub user: Option<User>,
    pub limits: Vec<Limit>,
    pub cgroup: Option<Cgroup>,
    pub files: BTreeMap<RelPath, Vec<u8>>,
}

/// Why an instance cannot be installed or started. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Render(#[from] render::Error),
    #[error(transparent)]
    Lookup(#[from] lookup::Error),
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error("its output file cannot be opened: {0}; check the data folder's disk and owner")]
    Output(io::Error),
    #[error("its folder cannot be given to user {user}: {error}")]
    Owner { user: u32, error: io::Error },
    #[error("`{program}` cannot be run: {why}")]
    Spawn { program: String, why: String },
}

/// What is the same for every instance of this node.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub cluster: ClusterId,
    pub boot: BootId,
    pub host: String,
    pub setpoint: PathBuf,
    pub inherited: Vec<(String, String)>,
}

impl Surroundings {
    pub fn prepare(
        &self,
        id: &InstanceId,
        release: &Release,
        process: &Process,
        port: Option<u16>,
        folder: &Folder,
    ) -> Result<Prepared, Error> {
        let names = Names { id, host: &self.host, port, setpoint: &self.setpoint, env: &release.env };
        let mut env = names.environment(&self.inherited)?;
        let argv = names.argv(process)?;
        let user = process.user.as_deref().map(lookup::user).transpose()?.flatten();
        if let Some(home) = user.as_ref().and_then(|user| user.home.clone())
            && !release.env.keys().any(|key| key.as_str() == "HOME")
        {
            env.insert("HOME".into(), home);
        }
        let word = argv.first().map_or("", String::as_str);
        Ok(Prepared {
            program: lookup::program(word, env.get("PATH").map(String::as_str))?,
            files: names.files(release)?,
            cwd: process.workdir.as_ref().map_or_else(|| folder.work(), PathBuf::from),
            limits: limits(&release.resources),
            cgroup: Cgroup::of(&self.cluster, id, &release.resources),
            argv,
            env,
            user,
        })
    }

    /// The rendered files alone, for comparing.
    pub fn files(
        &self,
        id: &InstanceId,
        release: &Release,
        port: Option<u16>,
    ) -> Result<BTreeMap<RelPath, Vec<u8>>, render::Error> {
        Names { id, host: &self.host, port, setpoint: &self.setpoint, env: &release.env }.files(release)
    }
}

/// Beside its control group, and instead of it where there is none, memory is limited by RLIMIT_DATA: what the process writes privately, without what it merely reserves (so that
/// programs which map large ranges still start). Each process of the workload has the limit for itself.
fn limits(resources: &Resources) -> Vec<Limit> {
    let memory = resources.memory.map(|bytes| Limit::Data(bytes.0));
    let files = sys::files::given().map(|(soft, hard)| Limit::Files { soft, hard });
    memory.into_iter().chain(files).chain([Limit::Core(0)]).collect()
}

impl Prepared {
    fn owner(&self) -> Option<(u32, u32)> {
        self.user.as_ref().map(|user| (user.credentials.uid, user.credentials.gid))
    }

    /// Its folder with the rendered files in it.
    pub fn place_files(&self, folder: &Folder) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner() {
            let given = chown(folder.work(), Some(uid), Some(gid));
            given.map_err(|error| Error::Owner { user: uid, error })?;
        }
        files::put(&folder.work(), &self.files, Writing::Replace { owner: self.owner() })?;
        Ok(())
    }

    /// Starts it. `state` (with the attempt counted) and the identity are on disk before the program runs.
    pub async fn start(
        &self,
        folder: &Folder,
        state: &State,
        boot: &BootId,
    ) -> Result<(PidFd, sys::Identity), Error> {
        folder.write_state(state)?;
        let gated = self.spawn(folder)?.spawn().map_err(|error| self.spawn_error(error))?;
        let identity = read_identity(gated.pid())?;
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.take(identity.pid)
        {
            // It runs all the same: a machine without control groups is no reason to serve nothing.
            tracing::warn!(program = %self.program.display(), %error, "its limits are not enforced as a whole");
        }
        folder.write_identity(&Identity {
            boot: boot.clone(),
            pid: identity.pid,
            start: identity.start,
            run: state.runs,
        })?;
        failpoints::at("start.gated");
        // Polled, not read: a program on a slow disk must not hold up a worker thread.
        let opened = gated.open();
        let opened = match sys::ready::opened(opened) {
            Ok(fd) => {
                let _ = fd.readable().await;
                fd.into_inner()
            }
            Err(error) => return Err(Error::Output(error)),
        };
        let pidfd = opened.finish().map_err(|error| self.spawn_error(error))?;
        Ok((pidfd, identity))
    }

    fn spawn(&self, folder: &Folder) -> Result<Spawn, Error> {
        Ok(Spawn {
            program: self.program.clone(),
            argv: self.argv.iter().map(Into::into).collect(),
            env: self.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: self.cwd.clone(),
            output: open_output(&folder.log()).map_err(Error::Output)?.into(),
            user: self.user.as_ref().map(|user| user.credentials.clone()),
            limits: self.limits.clone(),
            umask: 0o022,
        })
    }

    fn spawn_error(&self, error: SpawnError) -> Error {
        let program = self.program.display().to_string();
        let why = match &error {
            SpawnError::Child { stage: Stage::Cwd, error } => {
                format!(
                    "its working directory {}: {error}; create it or correct `workdir`",
                    self.cwd.display()
                )
            }
            SpawnError::Child { stage: Stage::Exec, error } if error.kind() == io::ErrorKind::NotFound => {
                "it, or the interpreter that its first line names, is missing: install it".into()
            }
            SpawnError::Child { stage: Stage::Exec, error }
                if error.raw_os_error() == Some(libc::ENOEXEC) =>
            {
                "it is no program: a script needs a first line such as #!/bin/sh".into()
            }
            SpawnError::Child { stage: Stage::Exec, error } => {
                format!("{error}; check its mode and its file system")
            }
            SpawnError::Child { .. } | SpawnError::Clone(_) | SpawnError::Nul => error.to_string(),
        };
        Error::Spawn { program, why }
    }
}

/// Opened for append: output of a workload that runs on without us must neither block nor be lost.
pub fn open_output(path: &Path) -> io::Result<std::fs::File> {
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn read_identity(pid: u32) -> Result<sys::Identity, Error> {
    let why = |why: String| Error::Spawn { program: format!("process {pid}"), why };
    match sys::proc::stat(pid) {
        Ok(Some(stat)) => Ok(sys::Identity { pid, start: stat.start }),
        Ok(None) => Err(why("it was gone at once".into())),
        Err(error) => Err(why(error.to_string())),
    }
}
