//! A release's templates, filled in for one instance. Pure: nothing is looked up outside.

use std::{collections::BTreeMap, path::Path};

use model::{
    InstanceId,
    artifact::RelPath,
    release::Release,
    spec::{EnvKey, Process, Template, TemplateError},
};

/// What `${NAME}` may name beside the service's own variables.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub id: &'a InstanceId,
    pub host: &'a str,
    pub port: Option<u16>,
    pub setpoint: &'a Path,
    pub env: &'a BTreeMap<EnvKey, Template>,
}

#[derive(Debug, thiserror::Error)]
#[error("{place} cannot be filled in: {error}")]
pub struct Error {
    place: String,
    error: TemplateError,
}

/// How deep one variable may name another: more is a circle.
const DEPTH: u32 = 8;

impl Names<'_> {
    pub fn render(&self, place: impl Into<String>, template: &Template) -> Result<String, Error> {
        template.render(|name| self.lookup(name, DEPTH)).map_err(|error| Error { place: place.into(), error })
    }

    fn lookup(&self, name: &str, depth: u32) -> Option<String> {
        match name {
            "PORT" => self.port.map(|port| port.to_string()),
            "HOST" => Some(self.host.to_owned()),
            "SETPOINT_INSTANCE" => Some(self.id.to_string()),
            "SETPOINT" => Some(self.setpoint.display().to_string()),
            _ => {
                let (_, template) = self.env.iter().find(|(key, _)| key.as_str() == name)?;
                let depth = depth.checked_sub(1)?;
                template.render(|name| self.lookup(name, depth)).ok()
            }
        }
    }

    pub fn argv(&self, process: &Process) -> Result<Vec<String>, Error> {
        process.command.iter().map(|word| self.render("command", word)).collect()
    }

    /// What the child gets: what every child gets, what is ours, and what is declared. By its instance it is known
    /// again after a ledger was lost, so that nothing takes the place of that.
    pub fn environment(&self, inherited: &[(String, String)]) -> Result<BTreeMap<String, String>, Error> {
        let mut env: BTreeMap<String, String> = inherited.iter().cloned().collect();
        env.insert("HOST".into(), self.host.to_owned());
        env.extend(self.port.map(|port| ("PORT".into(), port.to_string())));
        for (key, template) in self.env {
            env.insert(key.to_string(), self.render(format!("env {key}"), template)?);
        }
        env.insert("SETPOINT_INSTANCE".into(), self.id.to_string());
        Ok(env)
    }

    pub fn files(&self, release: &Release) -> Result<BTreeMap<RelPath, Vec<u8>>, Error> {
        let rendered = release.files.iter().map(|(path, template)| {
            let text = self.render(format!("files {path}"), template)?;
            Ok((path.clone(), text.into_bytes()))
        });
        rendered.collect()
    }
}

/// Of Setpoint's own environment, all that a workload gets.
pub fn inherited() -> Vec<(String, String)> {
    ["PATH", "HOME", "LANG", "TZ"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, env: &[(&str, &str)], port: Option<u16>) -> Option<String> {
        let env = env.iter().map(|(k, v)| (k.parse().unwrap(), Template((*v).into()))).collect();
        let id = "default.api.0.1".parse().unwrap();
        let names =
            Names { id: &id, host: "127.0.0.1", port, setpoint: Path::new("/bin/setpoint"), env: &env };
        names.render("command", &Template(text.into())).ok()
    }

    #[test]
    fn templates_know_our_names_and_the_services_own() {
        let env = [("URL", "http://${HOST}:${PORT}"), ("FULL", "${URL}/x")];
        assert_eq!(render("${FULL}", &env, Some(31001)).unwrap(), "http://127.0.0.1:31001/x");
        assert_eq!(
            render("${SETPOINT} ${SETPOINT_INSTANCE}", &[], None).unwrap(),
            "/bin/setpoint default.api.0.1"
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_and_a_circle_ends() {
        assert_eq!(render("${PORT}", &[], None), None);
        assert_eq!(render("${A}", &[("A", "${B}"), ("B", "${A}")], None), None);
    }
}
