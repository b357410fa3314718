//! A real container engine for tests, never the machine's own: a private dockerd with its own socket, folders,
//! containerd and addresses; a private registry; and images around one small program.
//!
//! ```no_run
//! use testkit::docker::{Engine, Image, Registry};
//!
//! // Or `own()`, which the test may kill, stop and start. `None` is said, and counted by `cargo xtask test`.
//! let Some(engine) = Engine::shared() else { return };
//! let Some(registry) = Registry::shared() else { return };
//! let image = Image::new(&registry.image("web:1"), "v1").push(&registry);
//! engine.api().pull(&image.pinned);
//! ```
//!
//! # How it is started, and why
//!
//! Tried with dockerd 20.10.24, containerd 1.6.20 and runc 1.1.5 of Debian 12, on control groups v1.
//!
//! - `--bridge=none`: no `docker0`, of which a machine has one. Networks that are made later have names and published
//!   ports as usual.
//! - `--iptables=false`: an engine that starts removes the chains `DOCKER*` and with them the rules of every other
//!   engine on the machine; and it turns the machine's forwarding policy to DROP. Without rules a port that is
//!   published on 127.0.0.1 is served by `docker-proxy`, and names are resolved all the same (that rule lives inside
//!   of the container). What is lost: containers reach no further than this machine, and where another engine has
//!   left the policy DROP and bridged packets are filtered (`bridge-nf-call-iptables`), containers of one network do
//!   not reach each other. The ground therefore lets its own addresses pass while the policy is DROP.
//! - Addresses out of 100.64.0.0/10, a part for each engine: two engines that look for free ranges at the same moment
//!   find the same one.
//! - `--cgroup-parent`, one for each engine, by which every process of every container is found and ended.
//! - `--dns 127.0.0.1`: otherwise the engine asks the machine's name servers, or 8.8.8.8, for every name that no
//!   container has, and a lookup that nobody answers takes 10 to 20 s in libc.
//! - The storage driver is what the engine prefers (overlay2 on ext4 and tmpfs, otherwise vfs).
//!
//! # Traps
//!
//! - A pid file whose pid is a *zombie* counts as a running engine ("pid file found"), and containerd's counts as a
//!   running containerd, for which dockerd then waits in vain. Pid files of the dead are removed before each start.
//! - Killed with -9, dockerd takes its containerd along (death signal) and leaves shims and containers alive. At the
//!   next start it ends them, with their stop signal and ten seconds of grace: the start of an engine whose containers
//!   ignore SIGTERM takes that long. With `--live-restore` they are adopted.
//! - SIGSTOP takes effect a moment after it was sent: a frozen engine is one whose threads all stand still.
//! - The first process in a container is not ended by a signal that it does not handle.
//! - Shims leave their sockets in `/run/containerd/s`, which is common to all engines.

mod api;
mod engine;
mod ground;
mod image;
mod programs;
mod registry;
mod wire;

pub use api::{Api, Events};
pub use engine::{Engine, Options};
pub use image::{Image, Pushed, app};
pub use registry::{Registry, USER};
pub use wire::Wire;
