//! Who may do what. One function says yes, and what it gives is the proof that everything that changes or shows
//! something asks for: what nobody has allowed cannot be called.

use model::{
    ProjectName, ServiceKey, Timestamp,
    access::{Grant, Role},
};

/// The actor of the token in the data folder, in the audit trail.
pub const LOCAL: &str = "local";

/// Who asks, known by what was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// The token of the data folder: whoever can read it owns the machine's Setpoint.
    Local,
    /// A token that was given out.
    Given(Grant),
}

impl Bearer {
    /// The one project that it is for.
    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Local => None,
            Self::Given(grant) => grant.project.as_ref(),
        }
    }
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// What belongs to nobody, or is narrowed down later by [`Permit::sees`] and [`Permit::covers`].
    Anywhere,
    /// The cluster as a whole: not for a token of one project.
    Cluster,
    Project(&'a ProjectName),
}

/// What the machine's owner lets tokens do beyond their role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether tokens other than the local one may declare and deploy processes, which are code on this machine.
    pub processes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("this token has the role {has}, and this needs the role {needs}")]
    Role { has: Role, needs: Role },
    #[error("this token is for project {of} alone, and this is about {asked}")]
    OtherProject { of: ProjectName, asked: ProjectName },
    #[error("this token is for project {of} alone, and this is about the whole cluster")]
    WholeCluster { of: ProjectName },
    #[error(
        "{0} runs a process, which is code on the machine itself: tokens that were given out may not deploy that here"
    )]
    Process(ServiceKey),
}

/// The proof that somebody may: [`authorize`] alone makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Permit(Bearer);

/// Whether somebody may do what needs this role at this place. What is not said to be allowed is not.
pub fn authorize(bearer: Bearer, needs: Role, place: Place<'_>) -> Result<Permit, Denied> {
    let permit = Permit(bearer);
    permit.at_least(needs)?;
    match (permit.project(), place) {
        (None, _) | (Some(_), Place::Anywhere) => {}
        (Some(of), Place::Cluster) => return Err(Denied::WholeCluster { of: of.clone() }),
        (Some(_), Place::Project(project)) => permit.covers(project)?,
    }
    Ok(permit)
}

impl Permit {
    fn role(&self) -> Role {
        match &self.0 {
            Bearer::Local => Role::Admin,
            Bearer::Given(grant) => grant.role,
        }
    }

    fn project(&self) -> Option<&ProjectName> {
        self.0.project()
    }

    /// Who it is, for the audit trail.
    pub fn actor(&self) -> &str {
        match &self.0 {
            Bearer::Local => LOCAL,
            Bearer::Given(grant) => grant.name.as_str(),
        }
    }

    pub fn at_least(&self, needs: Role) -> Result<(), Denied> {
        let has = self.role();
        if has >= needs { Ok(()) } else { Err(Denied::Role { has, needs }) }
    }

    /// Whether it is good for this project too.
    pub fn covers(&self, asked: &ProjectName) -> Result<(), Denied> {
        match self.project() {
            Some(of) if of != asked => Err(Denied::OtherProject { of: of.clone(), asked: asked.clone() }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether something of this project, or of none, is shown.
    pub fn sees(&self, project: Option<&ProjectName>) -> bool {
        match (self.project(), project) {
            (None, _) => true,
            (Some(of), Some(project)) => of == project,
            (Some(_), None) => false,
        }
    }

    /// Whether it may have new code run on the machine itself.
    pub fn may_run(&self, service: &ServiceKey, rules: Rules) -> Result<(), Denied> {
        match &self.0 {
            Bearer::Local => Ok(()),
            Bearer::Given(_) if rules.processes => Ok(()),
            Bearer::Given(_) => Err(Denied::Process(service.clone())),
        }
    }
}

/// Whether a token still opens anything.
pub fn is_valid(grant: &Grant, now: Timestamp) -> bool {
    grant.expires_at.is_none_or(|until| now < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(role: Role, project: Option<&str>) -> Bearer {
        Bearer::Given(Grant {
            name: "ci".parse().unwrap(),
            role,
            project: project.map(|project| project.parse().unwrap()),
            created_at: Timestamp(0),
            created_by: LOCAL.into(),
            expires_at: Some(Timestamp(1000)),
        })
    }

    #[test]
    fn each_role_may_what_the_ones_before_it_may_and_no_more() {
        for has in Role::ALL {
            for needs in Role::ALL {
                let allowed = authorize(given(has, None), needs, Place::Cluster).is_ok();
                assert_eq!(allowed, has >= needs, "{has} {needs}");
            }
        }
        assert!(authorize(Bearer::Local, Role::Admin, Place::Cluster).is_ok());
    }

    #[test]
    fn a_token_of_one_project_reaches_nothing_else() {
        let (own, other): (ProjectName, ProjectName) = ("demo".parse().unwrap(), "other".parse().unwrap());
        let ask = |place| authorize(given(Role::Admin, Some("demo")), Role::Viewer, place);
        assert!(ask(Place::Project(&own)).is_ok());
        assert!(matches!(ask(Place::Project(&other)), Err(Denied::OtherProject { .. })));
        assert!(matches!(ask(Place::Cluster), Err(Denied::WholeCluster { .. })));
        let permit = ask(Place::Anywhere).unwrap();
        assert!(permit.sees(Some(&own)) && !permit.sees(Some(&other)) && !permit.sees(None));
        assert!(permit.covers(&own).is_ok() && permit.covers(&other).is_err());
    }

    #[test]
    fn code_on_the_machine_is_for_its_owner() {
        let service: ServiceKey = "api".parse().unwrap();
        let permit = |bearer| authorize(bearer, Role::Deployer, Place::Anywhere).unwrap();
        let (none, processes) = (Rules::default(), Rules { processes: true });
        assert!(permit(Bearer::Local).may_run(&service, none).is_ok());
        assert!(permit(given(Role::Admin, None)).may_run(&service, none).is_err());
        assert!(permit(given(Role::Deployer, None)).may_run(&service, processes).is_ok());
    }

    #[test]
    fn a_token_ends_at_its_time() {
        let Bearer::Given(grant) = given(Role::Viewer, None) else { panic!("it is given") };
        assert!(is_valid(&grant, Timestamp(999)) && !is_valid(&grant, Timestamp(1000)));
        assert!(is_valid(&Grant { expires_at: None, ..grant }, Timestamp(u64::MAX)));
    }
}
