//! Images for the server, resolved by the engine of this machine's node.

use futures_util::{FutureExt, future::BoxFuture};
use model::image::{ImagePin, ImageRef};
use node::{Node, Unresolved};
use server::{ImageError, Resolve};

#[derive(Debug)]
pub struct NodeImages(Node);

impl NodeImages {
    pub fn new(node: Node) -> Self {
        Self(node)
    }
}

impl Resolve for NodeImages {
    fn resolve(&self, image: ImageRef) -> BoxFuture<'_, Result<ImagePin, ImageError>> {
        async move { self.0.resolve_image(&image).await.map_err(|why| told(image, why)) }.boxed()
    }
}

fn told(image: ImageRef, why: Unresolved) -> ImageError {
    match why {
        Unresolved::NotFound(cause) => ImageError::NotFound { image, cause },
        Unresolved::Denied(cause) => ImageError::Denied { image, cause },
        Unresolved::Registry(cause) => ImageError::Registry { image, cause },
        Unresolved::Engine(error) => ImageError::Engine(error.to_string()),
    }
}
