//! Where sessions go: the node of an instance reads its output, runs commands inside it, and measures what it uses.

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use model::{
    InstanceId,
    session::{Exec, Input, Output, Usage},
};
use tokio::sync::mpsc;

use super::problem::Problem;

/// What nodes do for people; nothing of it is decided here.
pub trait Sessions: Send + Sync + 'static {
    /// The last lines of its output, raw; also of an instance that failed and is gone.
    fn tail(&self, instance: InstanceId, lines: usize) -> BoxFuture<'_, Result<Vec<u8>, LogError>>;

    /// The last lines, and then what is written from now on; ends when the instance is gone.
    fn follow(
        &self,
        instance: InstanceId,
        lines: usize,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Vec<u8>>, LogError>>;

    /// Runs a command to its end; gives its exit status. It ends too when `input` is closed or `output` no longer read.
    fn exec(
        &self,
        instance: InstanceId,
        exec: Exec,
        input: mpsc::Receiver<Input>,
        output: mpsc::Sender<Output>,
    ) -> BoxFuture<'_, Result<i32, ExecError>>;

    /// What these use now. What does not run is left out.
    fn usage(&self, instances: Vec<InstanceId>) -> BoxFuture<'_, Vec<Usage>>;
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("no output of {0} is kept")]
    Unknown(InstanceId),
    #[error("the output of {0} cannot be read: {1}")]
    Failed(InstanceId, String),
    /// Its engine has it, and does not answer.
    #[error("the output of {0} is kept by its container engine: {1}")]
    Away(InstanceId, String),
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let message = error.to_string();
        match error {
            LogError::Unknown(_) => {
                Self::not_found("no_output", message, "`setpoint status SERVICE` lists the instances")
            }
            LogError::Failed(..) => Self::unavailable(
                "output_unreadable",
                message,
                "look at `log/` of the instance in the data folder, and at its disk",
            ),
            LogError::Away(..) => Self::unavailable(
                "engine_away",
                message,
                "the engine keeps it, and it can be read again once the engine answers",
            ),
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// Nothing runs there in which a command could.
    #[error("{0}")]
    NotRunning(String),
    /// It was not run, or its end is not known.
    #[error("{0}")]
    Failed(String),
}

impl From<ExecError> for Problem {
    fn from(error: ExecError) -> Self {
        let message = error.to_string();
        match error {
            ExecError::NotRunning(_) => Self::new(
                StatusCode::CONFLICT,
                "not_running",
                message,
                "`setpoint status SERVICE` lists what runs",
            ),
            ExecError::Failed(_) => Self::unprocessable(
                "not_run",
                message,
                "check that the program is there, and `setpoint status SERVICE`",
            ),
        }
    }
}
