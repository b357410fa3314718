//! Pages of the documentation, gone through as a reader goes through them: files are written where the page shows them,
//! its commands run in order in one shell after another, and what it shows of their output is looked for in it.
//!
//! In a page, a line that is a file's name in backticks and a colon stands before a block with that file. A block
//! without a language holds commands, one a line, with a remark behind `  #`. A block of `text` behind it shows lines of
//! what the last command prints; `…` stands for any words.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    command::{Output, bounded},
    fixture,
    setpoint::{Builder, Setpoint},
    wait,
};

/// For a command that would go on for ever.
const FOLLOWED_FOR: &str = "3";
/// `timeout`'s own status when the time was up.
const TIME_IS_UP: i32 = 124;
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

/// What a reader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Write { file: String, text: String },
    Run { line: String, shown: Vec<String> },
}

/// The steps of a page, in its order.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    let mut before = "";
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = if line.trim().is_empty() { before } else { line };
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        match (language, file_named(before)) {
            ("yaml" | "toml", Some(file)) => {
                steps.push(Step::Write { file: file.into(), text: format!("{}\n", block.join("\n")) });
            }
            ("", _) => {
                let commands = block.iter().filter_map(|line| command(line));
                steps.extend(commands.map(|line| Step::Run { line, shown: Vec::new() }));
            }
            ("text", _) => {
                if let Some(Step::Run { shown, .. }) = steps.last_mut() {
                    shown.extend(block.iter().map(|line| (*line).to_owned()));
                }
            }
            _ => {}
        }
        before = "";
    }
    steps
}

fn file_named(line: &str) -> Option<&str> {
    line.strip_prefix('`')?.strip_suffix("`:")
}

fn command(line: &str) -> Option<String> {
    let line = line.split("  #").next().unwrap_or(line).trim();
    (!line.is_empty() && !line.starts_with('#')).then(|| line.to_owned())
}

/// Whether a line of the output has these words, `…` standing for any.
fn is_shown(shown: &str, output: &str) -> bool {
    fn fits(shown: &[&str], said: &[&str]) -> bool {
        match (shown, said) {
            ([], []) => true,
            (["…", rest @ ..], _) => (0..=said.len()).any(|skipped| fits(rest, &said[skipped..])),
            ([word, rest @ ..], [first, others @ ..]) => word == first && fits(rest, others),
            ([], _) | (_, []) => false,
        }
    }
    let shown: Vec<&str> = shown.split_whitespace().collect();
    output.lines().any(|line| fits(&shown, &line.split_whitespace().collect::<Vec<_>>()))
}

/// Somebody at a machine with a folder, a home and `setpoint` in the PATH.
#[derive(Debug)]
pub struct Reader {
    builder: Option<Builder>,
    setpoint: Option<Setpoint>,
    home: PathBuf,
    work: PathBuf,
    instead: Vec<(String, String)>,
}

impl Reader {
    /// `exe` is `env!("CARGO_BIN_EXE_setpoint")` of the test.
    pub fn new(exe: &str) -> Self {
        Self::with(Setpoint::with(exe), exe)
    }

    /// The page's `setpoint up` is started with what the builder says.
    pub fn with(builder: Builder, exe: &str) -> Self {
        let work = builder.work();
        let home = work.parent().unwrap().to_owned();
        fs::create_dir(home.join("bin")).unwrap();
        symlink(exe, home.join("bin/setpoint")).unwrap();
        let builder = builder.data(&home.join(".local/share/setpoint"));
        Self { builder: Some(builder), setpoint: None, home, work, instead: Vec::new() }
    }

    /// What this machine has in the place of something that the page names.
    #[must_use]
    pub fn instead(mut self, named: &str, here: &str) -> Self {
        self.instead.push((named.into(), here.into()));
        self
    }

    pub fn setpoint(&self) -> Option<&Setpoint> {
        self.setpoint.as_ref()
    }

    /// Goes through the whole page; else says at which line it came to nothing.
    pub fn follow(&mut self, page: &str) -> Result<usize, String> {
        let steps = steps(page);
        let commands = steps.iter().filter(|step| matches!(step, Step::Run { .. })).count();
        for step in steps {
            match step {
                Step::Write { file, text } => {
                    fixture::folder(&self.work, &[(&file, &self.here(&text))]);
                }
                Step::Run { line, shown } => self.run(&line, &shown)?,
            }
        }
        Ok(commands)
    }

    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (named, here) in &self.instead {
            text = text.replace(named, here);
        }
        match &self.setpoint {
            None => text,
            Some(setpoint) => text
                .replace("127.0.0.1:7400", &setpoint.api().to_string())
                .replace("localhost:8080", &format!("localhost:{}", setpoint.edge().port())),
        }
    }

    /// As the page would have it, with the usual ports.
    fn there(&self, text: &str) -> String {
        let Some(setpoint) = &self.setpoint else { return text.to_owned() };
        text.replace(&setpoint.api().to_string(), "127.0.0.1:7400")
            .replace(&format!("localhost:{}", setpoint.edge().port()), "localhost:8080")
    }

    fn run(&mut self, line: &str, shown: &[String]) -> Result<(), String> {
        println!("$ {line}");
        if let Some(args) = line.strip_prefix("setpoint up") {
            return self.start(line, args);
        }
        let output = self.shell(&self.here(line));
        if !is_fine(line, &output) {
            return Err(format!("`{line}` ends with {}: {output:?}", output.code));
        }
        self.settle(line)?;
        let said = self.there(&format!("{}{}", output.stdout, output.stderr));
        match shown.iter().find(|shown| !is_shown(shown, &said)) {
            None => Ok(()),
            Some(missing) => Err(format!("`{line}` does not print `{missing}`:\n{said}")),
        }
    }

    fn start(&mut self, line: &str, args: &str) -> Result<(), String> {
        let builder = self.builder.take().ok_or("it is started twice")?;
        let builder = args.split_whitespace().fold(builder, |builder, arg| builder.arg(&self.here(arg)));
        match builder.try_start() {
            Ok(setpoint) => self.setpoint = Some(setpoint),
            Err((_, failed)) => return Err(format!("`{line}` does not get ready: {}", failed.stderr)),
        }
        self.only_own_processes();
        self.settle(line)
    }

    /// `pgrep` finds the workloads of this Setpoint alone: other tests run the same programs.
    fn only_own_processes(&self) {
        let data = self.home.join(".local/share/setpoint");
        let script = format!(
            "for d in /proc/[0-9]*; do\n  case \"$(readlink $d/cwd)\" in '{}'/*)\n    tr '\\0' ' ' <$d/cmdline | \
             grep -q -- \"$2\" && echo ${{d#/proc/}};;\n  esac\ndone 2>/dev/null\n",
            data.display()
        );
        fixture::script(&self.home.join("bin/pgrep"), &script);
    }

    fn shell(&self, line: &str) -> Output {
        let line = if goes_on(line) { format!("timeout {FOLLOWED_FOR} {line}") } else { line.to_owned() };
        let mut shell = match line.contains(" -it ") {
            true => {
                let mut script = Command::new("script");
                script.args(["-qec", &line, "/dev/null"]);
                script
            }
            false => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &line]);
                shell
            }
        };
        let path =
            format!("{}:{}", self.home.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETPOINT")) {
            shell.env_remove(name);
        }
        bounded({
            shell.current_dir(&self.work).env("PATH", path).env("HOME", &self.home);
            shell
        })
    }

    /// The next command finds what this one began at its end.
    fn settle(&self, line: &str) -> Result<(), String> {
        let Some(setpoint) = &self.setpoint else { return Ok(()) };
        let mut last = Value::Null;
        let settled = wait::within(SETTLED_WITHIN, || {
            last = setpoint.status();
            let services = last["services"].as_array()?;
            let is_settled =
                |service: &Value| ["converged", "stopped"].iter().any(|state| service["state"] == *state);
            services.iter().all(is_settled).then_some(())
        });
        settled.ok_or_else(|| format!("nothing settles after `{line}`: {last:#}"))
    }
}

/// Followed until somebody has seen enough.
fn goes_on(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let asks = ["logs", "events"].iter().any(|verb| line.starts_with(&format!("setpoint {verb}")));
    words.any(|word| word == "--watch" || (asks && word == "-f"))
}

fn is_fine(line: &str, output: &Output) -> bool {
    match output.code {
        0 => true,
        3 => line.starts_with("setpoint plan "),
        TIME_IS_UP => goes_on(line),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_files_commands_and_what_they_show() {
        let page = "# A\n\n`app.yaml`:\n\n```yaml\na: 1\n```\n\nText.\n\n```\nls -l  # a remark\n\necho '# a'\n```\n\n\
                    ```text\na b\n```\n\n```yaml\nnot: written\n```\n```json\n{}\n```\n";
        let run = |line: &str, shown: &[&str]| Step::Run {
            line: line.into(),
            shown: shown.iter().map(|line| (*line).to_owned()).collect(),
        };
        let file = Step::Write { file: "app.yaml".into(), text: "a: 1\n".into() };
        assert_eq!(steps(page), [file, run("ls -l", &[]), run("echo '# a'", &["a b"])]);
    }

    #[test]
    fn what_is_shown_is_found_by_its_words() {
        let said = "SERVICE  STATE\ndemo/api   converged 2/2   fine so far\n";
        assert!(is_shown("demo/api converged   2/2 …", said) && is_shown("… so far", said));
        assert!(is_shown("SERVICE STATE", said));
        for other in ["demo/api converged", "demo/api converged 1/2 …", "… so", "STATE"] {
            assert!(!is_shown(other, said), "{other}");
        }
    }

    #[test]
    fn only_what_follows_goes_on() {
        for line in ["setpoint logs api -f", "setpoint events -f", "setpoint status --watch"] {
            assert!(goes_on(line), "{line}");
        }
        for line in ["setpoint apply -f app.yaml", "setpoint plan -f app.yaml", "setpoint events | tail"] {
            assert!(!goes_on(line), "{line}");
        }
    }
}
