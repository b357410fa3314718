//! The output of workloads for the API, read by the node of this process.

use futures_util::{FutureExt, future::BoxFuture};
use model::InstanceId;
use node::{LogError as NodeError, Node};
use server::api::{LogError, LogSource};
use tokio::sync::mpsc;

#[derive(Debug)]
pub struct NodeLogs(Node);

impl NodeLogs {
    pub fn new(node: Node) -> Self {
        Self(node)
    }
}

fn told(instance: &InstanceId, error: &NodeError) -> LogError {
    match error {
        NodeError::Unknown(id) => LogError::Unknown(id.clone()),
        other => LogError::Failed(instance.clone(), other.to_string()),
    }
}

impl LogSource for NodeLogs {
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
}
