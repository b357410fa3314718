//! What may be typed: every command, flag and example. The reference page is generated from here.
//!
//! Refuses to know: what the commands do.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::{DeploymentId, InstanceId, Millis, ServiceKey, image::ImageRef, source::Repository};

mod cluster;
mod roles;

pub use cluster::{
    Backup, Node, NodeDrain, NodeList, NodeUndrain, Restore, Token, TokenCreate, TokenList, TokenRevoke,
    TokenShow,
};
pub use roles::{Config, Edge, LogFormat, LongRunning, Server, Up};

/// How long `--wait` waits when it is not told.
const WAIT: &str = "15m";

#[derive(Debug, Parser)]
#[command(
    name = "setpoint",
    version,
    about = "Keeps what runs equal to what was declared.",
    after_help = "Example:\n  setpoint up -f examples/quickstart.yaml",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything on one machine in the foreground: server, node and edge
    ///
    /// Applies the files, shows the progress until all has converged, then a live view on a terminal or one line
    /// per event elsewhere. Ctrl-C and SIGTERM stop the workloads too. Prints `ready api=… edge=…` on stdout.
    #[command(after_help = "Example:\n  setpoint up -f examples/quickstart.yaml")]
    Up(Up),
    /// The API, the planner and the node of this machine; its end never stops a workload
    #[command(after_help = "Example:\n  setpoint server --data /var/lib/setpoint --api 127.0.0.1:7400")]
    Server(Server),
    /// The proxy and file server by itself; it serves on while the server is away
    #[command(after_help = "Example:\n  setpoint edge --data /var/lib/setpoint --edge 0.0.0.0:8080")]
    Edge(Edge),
    #[command(flatten)]
    Client(Client),
    /// The settings in force, and where each value came from
    ///
    /// From the file, then the environment (SETPOINT__SECTION__KEY), then the flags that `up`, `server` and `edge` take.
    #[command(
        after_help = "Examples:\n  SETPOINT__RECONCILE__EVERY=10s setpoint config\n  setpoint config --edge 0.0.0.0:80 -o json"
    )]
    Config(Config),
    /// A tiny HTTP server for trying Setpoint out
    ///
    /// Listens on HOST:PORT from the environment. Paths: / /healthz /env?name= /slow?ms= /echo /headers.
    /// Variables: VERSION, FAIL_HEALTH, FAIL_START, BOOT_DELAY_MS, CRASH_AFTER_MS, UNHEALTHY_AFTER_MS.
    #[command(after_help = "Example:\n  PORT=8081 setpoint demo-app")]
    DemoApp,
}

/// What asks a server, or nobody.
#[derive(Debug, Subcommand)]
pub enum Client {
    /// What would change and why, without changing it
    ///
    /// Exit status: 0 nothing would change, 3 something would, 1 error.
    #[command(
        after_help = "Examples:\n  setpoint plan -f app.yaml\n  setpoint plan -f app.yaml --offline --effective"
    )]
    Plan(Plan),
    /// Declare services from files
    ///
    /// What is declared and not in the files stays as it is, unless --prune is given.
    #[command(
        after_help = "Examples:\n  setpoint apply -f app.yaml --wait\n  setpoint apply -f a.yaml -f b.yaml --prune --wait=5m"
    )]
    Apply(Apply),
    /// A new deployment of a declared service
    #[command(
        after_help = "Examples:\n  setpoint deploy docs ./site --wait\n  setpoint deploy demo/docs site.tar.gz\n  setpoint deploy api"
    )]
    Deploy(Deploy),
    /// The state of every service; the instances of one
    #[command(
        after_help = "Examples:\n  setpoint status\n  setpoint status api -o json\n  setpoint status --watch"
    )]
    Status(Status),
    /// Why something is as it is, what each step decided, what it waits for and until when
    #[command(
        after_help = "Examples:\n  setpoint explain api\n  setpoint explain default.api.0.7\n  setpoint explain api --at 4711"
    )]
    Explain(Explain),
    /// The deployments of a service, newest first
    #[command(after_help = "Example:\n  setpoint deployments api")]
    Deployments(Deployments),
    /// Go back to an earlier release as a whole: files and settings too
    #[command(
        after_help = "Examples:\n  setpoint rollback api --wait\n  setpoint rollback api --to k3n5q7r2t4v6"
    )]
    Rollback(Rollback),
    /// End an open deployment; what served before it serves on
    #[command(after_help = "Example:\n  setpoint cancel k3n5q7r2t4v6")]
    Cancel(Cancel),
    /// The output of a service's instances
    #[command(
        after_help = "Examples:\n  setpoint logs api -f\n  setpoint logs api --instance default.api.0.7 --tail 20\n  setpoint logs api -o json"
    )]
    Logs(Logs),
    /// Run a command inside an instance
    ///
    /// In a container, or beside a process with its env, in its folder and as its user. Of a service a ready instance is
    /// taken. The exit status is the command's. Who ran what where is kept in the audit trail, without arguments.
    #[command(
        after_help = "Examples:\n  setpoint exec api -- ls -l\n  setpoint exec -it api sh\n  setpoint exec -i default.api.0.7 psql < dump.sql"
    )]
    Exec(Exec),
    /// What running instances use: processors, memory, processes
    #[command(after_help = "Examples:\n  setpoint stats\n  setpoint stats api -o json")]
    Stats(Stats),
    /// What happened
    #[command(after_help = "Examples:\n  setpoint events -f\n  setpoint events --service api -o json")]
    Events(Events),
    /// Who asked for what
    #[command(after_help = "Example:\n  setpoint audit -o json")]
    Audit(Audit),
    /// What differs from what was declared: path, declared, observed, since when, by whom if known
    #[command(after_help = "Example:\n  setpoint drift docs")]
    Drift(Drift),
    /// Change the number of replicas; from then on `scale` owns it
    #[command(after_help = "Example:\n  setpoint scale api 4 --wait")]
    Scale(Scale),
    /// Stop a service: its instances end, its declaration stays
    #[command(after_help = "Example:\n  setpoint stop api --wait")]
    Stop(Change),
    /// Start a stopped service
    #[command(after_help = "Example:\n  setpoint start api --wait")]
    Start(Change),
    /// Replace every instance by a new one of the same release, without a gap in service
    #[command(after_help = "Example:\n  setpoint restart api --wait")]
    Restart(Change),
    /// Delete a service: its instances, its files, its declaration
    #[command(after_help = "Example:\n  setpoint delete api --wait")]
    Delete(Change),
    /// A pass now, over everything or one service
    #[command(
        after_help = "Examples:\n  setpoint reconcile\n  setpoint reconcile api --dry-run\n  setpoint reconcile --confirm"
    )]
    Reconcile(Reconcile),
    /// Remove images, networks and volumes that nothing reaches
    #[command(after_help = "Example: setpoint gc --dry-run")]
    Gc(Gc),
    /// The machines that run instances
    #[command(subcommand, after_help = "Examples:\n  setpoint node list\n  setpoint node drain n1 --wait")]
    Node(Node),
    /// The tokens that commands and scripts show to the API
    #[command(
        subcommand,
        after_help = "Examples:\n  setpoint token create ci --role deployer --project demo --expires 90d\n  curl -H \"Authorization: Bearer $(setpoint token show)\" http://127.0.0.1:7400/api/v1/services"
    )]
    Token(Token),
    /// Write everything that Setpoint knows into one file, while it runs or when it is stopped
    ///
    /// The database as it is at one moment, the contents of the sites, and the token. The file holds every secret of
    /// the declarations; it is made for its owner alone. It gets its name once it is whole and checked.
    #[command(
        after_help = "Examples:\n  setpoint backup setpoint.backup\n  setpoint backup /backups/today.backup --data /var/lib/setpoint"
    )]
    Backup(Backup),
    /// Put a backup back into an empty data folder
    ///
    /// Every file is compared with its hash before anything is put in place. Afterwards `setpoint up` goes on from
    /// there.
    #[command(
        after_help = "Examples:\n  setpoint restore setpoint.backup\n  setpoint restore setpoint.backup --data /var/lib/setpoint --force"
    )]
    Restore(Restore),
    /// The JSON Schema of the manifest
    #[command(after_help = "Example:\n  setpoint schema > setpoint.schema.json")]
    Schema(Schema),
    /// The completion script of a shell
    #[command(after_help = "Example:\n  setpoint completions bash > /etc/bash_completion.d/setpoint")]
    Completions(Completions),
    /// The reference pages of commands and manifest, as Markdown
    #[command(hide = true)]
    Reference(Reference),
}

/// Where the data are; the same folder for the server and for commands on the same machine.
#[derive(Debug, Clone, Args)]
pub struct Data {
    /// The data folder [default: ~/.local/share/setpoint]
    #[arg(long, value_name = "DIR", env = "SETPOINT_DATA", hide_env_values = true)]
    pub data: Option<PathBuf>,
}

/// Where the API is and what to show it.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The API's address [default: the one in the data folder, else http://127.0.0.1:7400]
    #[arg(long, value_name = "URL", env = "SETPOINT_API", hide_env_values = true)]
    pub api: Option<String>,
    /// The token to show to the API [default: the one in the data folder]
    #[arg(long, env = "SETPOINT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub data: Data,
}

/// How data are printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// How the data are printed
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// Whether a command waits for what it began.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Wait until it is done, at most this long: 0 when it is, else 1 and the reason [default: 15m]
    #[arg(long, value_name = "DUR", num_args = 0..=1, require_equals = true, default_missing_value = WAIT)]
    pub wait: Option<Millis>,
}

#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// A manifest; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Show what the files mean with every default filled in
    #[arg(long)]
    pub effective: bool,
    /// Ask no server and assume that nothing is there yet
    #[arg(long, conflicts_with = "prune")]
    pub offline: bool,
    /// Plan also the deletion of what the files' projects have and the files do not
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Apply {
    /// A manifest; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub wait: Wait,
    /// Delete what the files' projects have and the files do not
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Deploy {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    /// A folder, or an archive (tar, tar.gz, tar.zst, zip); without it the service's declaration is deployed again
    #[arg(conflicts_with_all = ["image", "git"])]
    pub path: Option<PathBuf>,
    /// Another image for a container than the declared one: `acme/web:2`
    #[arg(long, value_name = "REF", conflicts_with = "git")]
    pub image: Option<ImageRef>,
    /// A repository, and after `#` a branch, tag or whole commit id in it; built as the service is declared
    #[arg(long, value_name = "URL#REF", value_parser = Repository::from_str)]
    pub git: Option<Repository>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Status {
    /// SERVICE or PROJECT/SERVICE
    pub service: Option<ServiceKey>,
    /// Show it again at each change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// A service, an instance or a deployment
    #[arg(value_name = "SERVICE|INSTANCE|DEPLOYMENT")]
    pub target: String,
    /// Explain the recorded decision with this sequence, and decide it again to compare
    #[arg(long, value_name = "SEQ")]
    pub at: Option<u64>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Deployments {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Rollback {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    /// The deployment whose release to go back to [default: the newest one with another release]
    #[arg(long, value_name = "ID")]
    pub to: Option<DeploymentId>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Cancel {
    /// The deployment, as `setpoint deployments` lists it
    pub deployment: DeploymentId,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    /// Go on with what is written from now on, also by instances that come later, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// One instance alone
    #[arg(long, value_name = "I")]
    pub instance: Option<InstanceId>,
    /// The last N lines of each instance [default: 100; at most 10000]
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Exec {
    /// SERVICE, PROJECT/SERVICE or an instance
    #[arg(value_name = "SERVICE|INSTANCE")]
    pub target: String,
    /// Pass on what is typed or piped in
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give it a terminal, for containers alone
    #[arg(short = 't', long)]
    pub tty: bool,
    /// The program and its arguments; no shell reads them
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Stats {
    /// SERVICE or PROJECT/SERVICE
    pub service: Option<ServiceKey>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Events {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// One service alone
    #[arg(long, value_name = "S")]
    pub service: Option<ServiceKey>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Audit {
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Drift {
    /// SERVICE or PROJECT/SERVICE
    pub service: Option<ServiceKey>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Scale {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    /// How many instances
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(model::spec::MAX_REPLICAS)))]
    pub replicas: u32,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Change {
    /// SERVICE or PROJECT/SERVICE
    pub service: ServiceKey,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Gc {
    /// Say what would go, with its bytes, and leave it
    #[arg(long)]
    pub dry_run: bool,
    /// Also volumes that no service declares any more, with what is in them
    #[arg(long)]
    pub volumes: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Args)]
pub struct Reconcile {
    /// SERVICE or PROJECT/SERVICE
    pub service: Option<ServiceKey>,
    /// Show what the pass would do, without doing it
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
    /// Carry out a pass that stopped because it would remove much
    #[arg(long)]
    pub confirm: bool,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Schema {
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Completions {
    /// Whose completions
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Reference {
    pub page: Page,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Page {
    Cli,
    Manifest,
}
