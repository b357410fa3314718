//! Cleaning up, done by the node of this process for the server.

use futures_util::{FutureExt, future::BoxFuture};
use model::collect::{Collected, Held, Inventory, Sizes};
use node::Node;
use server::Collect;

#[derive(Debug)]
pub struct NodeThings(Node);

impl NodeThings {
    pub fn new(node: Node) -> Self {
        Self(node)
    }
}

impl Collect for NodeThings {
    fn inventory(&self, sizes: Sizes) -> BoxFuture<'_, Option<Result<Inventory, String>>> {
        async move { if self.0.uses_engine() { Some(self.0.inventory(sizes).await) } else { None } }.boxed()
    }

    fn collect(&self, surplus: Vec<Held>) -> BoxFuture<'_, Vec<Collected>> {
        async move { self.0.collect(&surplus).await }.boxed()
    }

    fn disk(&self) -> BoxFuture<'_, Option<(u64, u64)>> {
        async move { if self.0.uses_engine() { self.0.engine_disk().await } else { None } }.boxed()
    }
}
