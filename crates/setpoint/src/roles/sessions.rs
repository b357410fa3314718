//! Sessions for the API, held by the node of this process.

use futures_util::{FutureExt, future::BoxFuture};
use model::{
    InstanceId,
    session::{Exec, Input, Output, Usage},
};
use node::{LogError as NodeError, Node, SessionError};
use server::api::{ExecError, LogError, Sessions};
use tokio::sync::mpsc;

#[derive(Debug)]
pub struct NodeSessions(Node);

impl NodeSessions {
    pub fn new(node: Node) -> Self {
        Self(node)
    }
}

fn told(instance: &InstanceId, error: &NodeError) -> LogError {
    match error {
        NodeError::Unknown(id) => LogError::Unknown(id.clone()),
        NodeError::Engine(error) if error.is_away() => LogError::Away(instance.clone(), error.to_string()),
        other => LogError::Failed(instance.clone(), other.to_string()),
    }
}

fn not_run(error: &SessionError) -> ExecError {
    let message = error.to_string();
    match error {
        SessionError::Unknown(_) | SessionError::NotRunning(_) | SessionError::Site(_) => {
            ExecError::NotRunning(message)
        }
        SessionError::NoTerminal | SessionError::Failed(_) | SessionError::Left | SessionError::Ended => {
            ExecError::Failed(message)
        }
    }
}

impl Sessions for NodeSessions {
    fn tail(&self, instance: InstanceId, lines: usize) -> BoxFuture<'_, Result<Vec<u8>, LogError>> {
        async move { self.0.logs(&instance, lines).await.map_err(|error| told(&instance, &error)) }.boxed()
    }

    fn follow(
        &self,
        instance: InstanceId,
        lines: usize,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Vec<u8>>, LogError>> {
        async move { self.0.follow_logs(&instance, lines).await.map_err(|error| told(&instance, &error)) }
            .boxed()
    }

    fn exec(
        &self,
        instance: InstanceId,
        exec: Exec,
        input: mpsc::Receiver<Input>,
        output: mpsc::Sender<Output>,
    ) -> BoxFuture<'_, Result<i32, ExecError>> {
        async move { self.0.exec(&instance, exec, input, output).await.map_err(|error| not_run(&error)) }
            .boxed()
    }

    fn usage(&self, instances: Vec<InstanceId>) -> BoxFuture<'_, Vec<Usage>> {
        async move { self.0.usage(instances).await }.boxed()
    }
}
