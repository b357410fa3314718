//! What names of images stand for. Somebody else asks (an engine on a node); here it is asked for as often as needed and
//! no oftener, before anything is decided from the answer.

use std::fmt;

use decide::{
    intent::{self, Content, Images},
    world::World,
};
use futures_util::future::BoxFuture;
use model::{
    image::{ImagePin, ImageRef},
    spec::ServiceSpec,
};

use crate::{Control, RequestError};

/// Why an image could not be resolved.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    #[error("the image {image} does not exist: {cause}")]
    NotFound { image: ImageRef, cause: String },
    #[error("the registry {} refuses {image}: {cause}", .image.registry())]
    Denied { image: ImageRef, cause: String },
    #[error("the registry {} does not tell what {image} is: {cause}", .image.registry())]
    Registry { image: ImageRef, cause: String },
    #[error("{0}")]
    Engine(String),
}

impl ImageError {
    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NotFound { .. } => "check its name and tag, and that it was pushed".into(),
            Self::Denied { image, .. } => {
                format!(
                    "log in there with `docker login {}` as the user that runs Setpoint",
                    image.registry()
                )
            }
            Self::Registry { .. } => "check that it is up, or name the image by its digest".into(),
            Self::Engine(_) => {
                "start the container engine, or say where it is with DOCKER_HOST or `containers.host`".into()
            }
        }
    }
}

/// Asks what an image's name stands for now.
pub trait Resolve: Send + Sync + fmt::Debug {
    fn resolve(&self, image: ImageRef) -> BoxFuture<'_, Result<ImagePin, ImageError>>;
}

impl Control {
    /// Who is asked about images. Until this is called, containers cannot be declared.
    pub fn images_are_resolved_by(&self, resolver: impl Resolve + 'static) {
        let _ = self.0.resolver.set(Box::new(resolver));
    }

    pub(crate) async fn resolve_for_apply(
        &self,
        world: &World,
        spec: &ServiceSpec,
        known: &mut Images,
    ) -> Result<(), RequestError> {
        let resolved = self.resolve(intent::unresolved(world, spec), known).await;
        resolved.map_err(|error| RequestError::DeclaredImage { service: world.key.clone(), error })
    }

    pub(crate) async fn resolve_for_deploy(
        &self,
        world: &World,
        content: &Content,
        known: &mut Images,
    ) -> Result<(), RequestError> {
        Ok(self.resolve(intent::image_of_deploy(world, content), known).await?)
    }

    async fn resolve(&self, image: Option<ImageRef>, known: &mut Images) -> Result<(), ImageError> {
        let Some(image) = image.filter(|image| !known.contains_key(image)) else { return Ok(()) };
        let Some(resolver) = self.0.resolver.get() else {
            return Err(ImageError::Engine("this server has no container engine to ask for images".into()));
        };
        let pin = resolver.resolve(image.clone()).await?;
        known.insert(image, pin);
        Ok(())
    }
}
