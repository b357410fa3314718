//! The site runtime: a deployment's folder, `current` beside it, and the links of a webroot.
//!
//! Owns: where they are, and what about them is drift. Refuses to know how files are copied, compared and put back
//! (`content`) and when they shall be.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use content::{
    Blobs, Progress, links,
    place::{self, Damage, Depth},
    webroot::Webroot,
};
use model::{
    artifact::Artifact,
    assignment::Assigned,
    drift::{ignores, ignores_below},
    spec::{DriftMode, DriftPolicy, Workload},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Place(#[from] place::Error),
    #[error(transparent)]
    Link(#[from] links::Error),
    #[error(transparent)]
    Content(#[from] crate::content_source::Unavailable),
    #[error(transparent)]
    Blobs(#[from] content::blobs::Error),
    #[error("the service has no content yet: `setpoint deploy` gives it some")]
    NoContent,
}

/// Where one site instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// `<sites>/<project>/<service>`.
    pub parent: PathBuf,
    /// `deployment-<id>`.
    pub name: String,
    pub webroot: Option<PathBuf>,
    /// Webroots of other deployments of the service: once this one is switched to, no link of ours is left there.
    pub former: BTreeSet<PathBuf>,
}

/// What was found of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub differences: Vec<Difference>,
    /// `current` points here.
    pub current: bool,
}

/// One difference, named as drift names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub declared: Option<String>,
    pub observed: Option<String>,
    /// False: something that is not ours stands in the way, and is left alone.
    pub ours: bool,
}

/// What an update does.
#[derive(Debug, Clone)]
pub struct Update {
    pub drift: DriftPolicy,
    /// `current` and the webroot shall point here.
    pub current: bool,
    /// They did before, so that a change there is drift and the drift policy decides.
    pub switched: bool,
}

impl Site {
    /// `None`: the instance is no site.
    pub fn of(sites: &Path, assigned: &Assigned) -> Option<Self> {
        let Workload::Site(site) = &assigned.content.workload else { return None };
        let service = &assigned.id.service;
        Some(Self {
            parent: sites.join(service.project.as_str()).join(service.name.as_str()),
            name: format!("deployment-{}", assigned.deployment),
            webroot: site.webroot.as_ref().map(PathBuf::from),
            former: BTreeSet::new(),
        })
    }

    pub fn folder(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    fn link(&self) -> PathBuf {
        self.parent.join("current")
    }

    fn webroot(&self) -> Option<Webroot<'_>> {
        self.webroot.as_deref().map(|folder| Webroot { folder, site: &self.parent })
    }

    pub fn install(
        &self,
        blobs: &Blobs,
        artifact: &Artifact,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        Ok(place::stage(blobs, artifact, &self.parent, &self.name, progress)?)
    }

    /// Compares with what is declared. `links` asks for `current` and the webroot too.
    pub fn check(&self, artifact: &Artifact, links: bool, depth: Depth<'_>) -> Result<View, Error> {
        let damage = place::check(&self.folder(), artifact, depth)?;
        let mut differences: Vec<_> = damage.iter().map(of_damage).collect();
        let link = links::read(&self.link())?;
        let current = link == links::LinkState::To(PathBuf::from(&self.name));
        if links {
            if !current {
                differences.push(of_link("site/current".into(), Some(self.name.clone()), &link, true));
            }
            differences.extend(self.check_webroot(artifact)?);
            differences.extend(self.check_former()?);
        }
        Ok(View { differences, current })
    }

    fn check_webroot(&self, artifact: &Artifact) -> Result<Vec<Difference>, Error> {
        let Some(webroot) = self.webroot() else { return Ok(Vec::new()) };
        let found = webroot.check(artifact)?.into_iter().map(|difference| {
            let path = format!("webroot/{}", difference.entry.to_string_lossy());
            let declared = difference.declared.as_ref().map(|target| target.display().to_string());
            of_link(path, declared, &difference.observed, !difference.is_conflict(&webroot))
        });
        Ok(found.collect())
    }

    fn former(&self) -> impl Iterator<Item = Webroot<'_>> {
        self.former.iter().map(|folder| Webroot { folder, site: &self.parent })
    }

    /// What is not ours is none of our business there.
    fn check_former(&self) -> Result<Vec<Difference>, Error> {
        let mut found = Vec::new();
        for webroot in self.former() {
            found.extend(webroot.leftovers()?.into_iter().map(|difference| {
                let path = format!("webroot/{}", difference.entry.to_string_lossy());
                of_link(path, None, &difference.observed, true)
            }));
        }
        Ok(found)
    }

    /// Puts back what the policy lets it, and switches. The folder is whole before anything points to it.
    pub fn update(&self, blobs: &Blobs, artifact: &Artifact, update: &Update) -> Result<View, Error> {
        let mut repaired = Ok(());
        if update.drift.mode == DriftMode::Correct {
            repaired = self.repair(blobs, artifact, &update.drift);
        }
        // What was shown before is shown again, also where something of it cannot be put back.
        if !update.switched {
            std::mem::replace(&mut repaired, Ok(()))?;
        }
        let may = |path: &str| !update.switched || corrects(&update.drift, path);
        if update.current {
            if may("site/current") {
                links::switch(&self.link(), &self.name)?;
            }
            if let Some(webroot) = self.webroot().filter(|_| may("webroot/*")) {
                webroot.apply(artifact)?;
            }
            if may("webroot/*") {
                self.former().try_for_each(|webroot| webroot.remove())?;
            }
        }
        repaired?;
        self.check(artifact, update.current, Depth::Whole)
    }

    /// A few rounds: some damage hides other damage.
    fn repair(&self, blobs: &Blobs, artifact: &Artifact, drift: &DriftPolicy) -> Result<(), Error> {
        for _ in 0..4 {
            let damage = place::check(&self.folder(), artifact, Depth::Whole)?;
            let damage: Vec<_> = damage.into_iter().filter(|d| !is_left(drift, &of_damage(d))).collect();
            if damage.is_empty() {
                break;
            }
            place::repair(blobs, &self.folder(), artifact, &damage)?;
        }
        Ok(())
    }

    /// Removes the folder, and the links that nothing else has taken over.
    pub fn remove(&self, current: bool, webroot: bool) -> Result<(), Error> {
        let ours = links::read(&self.link())? == links::LinkState::To(PathBuf::from(&self.name));
        if let Some(links) = self.webroot().filter(|_| webroot) {
            links.remove()?;
        }
        if current && ours {
            links::remove(&self.link())?;
        }
        place::remove(&self.parent, &self.name)?;
        // The service's folder goes with its last deployment, and the project's with its last site; what else is in
        // them keeps them.
        if std::fs::remove_dir(&self.parent).is_ok()
            && let Some(project) = self.parent.parent()
        {
            let _ = std::fs::remove_dir(project);
        }
        Ok(())
    }
}

/// Whether the policy puts this path back.
pub fn corrects(drift: &DriftPolicy, path: &str) -> bool {
    drift.mode == DriftMode::Correct && !is_ignored(drift, path)
}

pub fn is_ignored(drift: &DriftPolicy, path: &str) -> bool {
    drift.mode == DriftMode::Off || drift.ignore.iter().any(|pattern| ignores(pattern, path))
}

/// Whether a difference stays as it is. A folder that is not declared stands for all that is in it, so one in which
/// something may lie that is ignored is left too: removing it would take that along.
pub fn is_left(drift: &DriftPolicy, found: &Difference) -> bool {
    let holds = |pattern: &String| ignores_below(pattern, &found.path);
    is_ignored(drift, &found.path) || (found.declared.is_none() && drift.ignore.iter().any(holds))
}

fn of_damage(damage: &Damage) -> Difference {
    let path =
        if damage.path.as_os_str().is_empty() { "site".into() } else { format!("site/{}", damage.shown()) };
    Difference { path, declared: damage.declared(), observed: damage.observed(), ours: true }
}

fn of_link(path: String, declared: Option<String>, observed: &links::LinkState, ours: bool) -> Difference {
    let observed = match observed {
        links::LinkState::Absent => None,
        links::LinkState::To(_) | links::LinkState::NotALink(_) => Some(observed.to_string()),
    };
    Difference { path, declared, observed, ours }
}
