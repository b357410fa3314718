//! Where the node in this process learns what an artifact consists of: the store of this process.

use model::{ArtifactDigest, artifact::Artifact};
use node::Unavailable;
use store::Store;
use tokio::runtime::Handle;

#[derive(Debug)]
pub struct StoredContent {
    store: Store,
    runtime: Handle,
}

impl StoredContent {
    pub fn new(store: Store) -> Self {
        Self { store, runtime: Handle::current() }
    }
}

impl node::ContentSource for StoredContent {
    fn artifact(&self, digest: &ArtifactDigest) -> Result<Artifact, Unavailable> {
        let unavailable = |why: String| Unavailable { digest: *digest, why };
        match self.runtime.block_on(self.store.artifact(digest)) {
            Ok(Some(artifact)) => Ok(artifact),
            Ok(None) => Err(unavailable("it is not stored".into())),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}
