//! Runs other programs, in the open: what is run is printed, and a failure names it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// With what everything is built that is tried: points at which a test may end the process, and bugs that the simulator
/// must find. Neither does anything until somebody asks for one, so that one build serves all. Lints and docs are of
/// the code without them, which is what ships.
pub const TRIED: [&str; 2] = ["--features", "setpoint/failpoints,sim/planted"];

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

pub fn cargo(args: &[&str]) -> Result<(), String> {
    cargo_env(args, &[])
}

pub fn cargo_env(args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root()).envs(env.iter().copied());
    checked(command, &format!("cargo {}", args.join(" ")))
}

/// A program of the workspace, as it was built last for development.
pub fn built(program: &str, args: &[&str]) -> Result<(), String> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let target = metadata["target_directory"].as_str().ok_or("cargo does not say where it builds")?;
    let mut command = Command::new(PathBuf::from(target).join("debug").join(program));
    command.args(args).current_dir(root());
    checked(command, &format!("{program} {}", args.join(" ")))
}

pub fn checked(mut command: Command, shown: &str) -> Result<(), String> {
    println!("── {shown}");
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// What a program prints on stdout; its errors go to the terminal.
pub fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let shown = format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{shown}: {error}"))
}

/// Whether a program answers at all.
pub fn answers(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
