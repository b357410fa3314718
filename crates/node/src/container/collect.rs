//! What of ours an engine holds beside containers, and its removal. What goes is decided in `decide::collect`.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bollard::{
    models::ImageInspect,
    query_parameters::{
        ListContainersOptionsBuilder, ListVolumesOptions, ListVolumesOptionsBuilder,
        RemoveImageOptionsBuilder, RemoveVolumeOptions,
    },
};
use model::{
    ClusterId,
    collect::{Collected, Held, Inventory, Kind, Sizes},
};

use super::{
    engine::{Engine, Error, QUESTION, WORK},
    failure::Failure,
    names,
    networks::{self, NETWORKS, UNUSED},
    notes, registry,
};

/// Only what we fetched or made: what was there before us, and what others use, is not ours to remove.
pub async fn inventory(
    engine: &Engine,
    cluster: &ClusterId,
    data: &Path,
    sizes: Sizes,
) -> Result<Inventory, Failure> {
    let mut held = images(engine, data).await?;
    held.extend(networks::held(engine, data, cluster).await?);
    held.extend(volumes(engine, cluster, data, sizes).await?);
    Ok(Inventory { held })
}

async fn images(engine: &Engine, data: &Path) -> Result<Vec<Held>, Failure> {
    let client = engine.client().await?;
    let all = ListContainersOptionsBuilder::default().all(true).build();
    let containers = engine.within(QUESTION, client.list_containers(Some(all))).await?;
    let used: BTreeSet<String> = containers.into_iter().filter_map(|container| container.image_id).collect();
    let mut held = Vec::new();
    for (name, id) in notes::pulled(data)? {
        let image = match registry::inspect(engine, &name).await {
            Ok(Some(image)) => Some(image),
            Ok(None) => nameless(engine, id.as_deref()).await?,
            Err(error) if error.is_away() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%name, %error, "an image stays: the engine cannot tell of it");
                continue;
            }
        };
        let Some(image) = image else {
            // One that was asked for may be on its way.
            if id.is_some() {
                notes::forget_pulled(data, &name)?;
            }
            continue;
        };
        let bytes = image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        let used = image.id.as_ref().is_some_and(|id| used.contains(id));
        held.push(Held { kind: Kind::Image, name, bytes, used });
    }
    Ok(held)
}

/// Whose name somebody took away. One that has another name is somebody's own.
async fn nameless(engine: &Engine, id: Option<&str>) -> Result<Option<ImageInspect>, Error> {
    let Some(id) = id else { return Ok(None) };
    let named = |names: &Option<Vec<String>>| names.as_ref().is_some_and(|names| !names.is_empty());
    let image = registry::inspect(engine, id).await?;
    Ok(image.filter(|image| !named(&image.repo_tags) && !named(&image.repo_digests)))
}

/// One that bears our labels and was never ours is not among them.
async fn volumes(
    engine: &Engine,
    cluster: &ClusterId,
    data: &Path,
    sizes: Sizes,
) -> Result<Vec<Held>, Failure> {
    let noted = notes::known_volumes(data)?;
    let client = engine.client().await?;
    let list = |dangling: Option<&str>| {
        let mut filters = names::marked(cluster);
        filters.extend(dangling.map(|dangling| ("dangling".to_owned(), vec![dangling.to_owned()])));
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        engine.within(QUESTION, client.list_volumes(Some(options)))
    };
    let all = list(None).await?.volumes.unwrap_or_default();
    let free: BTreeSet<String> =
        list(Some("true")).await?.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect();
    let ours = all.into_iter().filter(|volume| noted.contains_key(&volume.name));
    let held = ours.map(|volume| Held {
        kind: Kind::Volume,
        bytes: match sizes {
            Sizes::Measured => folder_bytes(Path::new(&volume.mountpoint)),
            Sizes::LeftOut => 0,
        },
        used: !free.contains(&volume.name),
        name: volume.name,
    });
    Ok(held.collect())
}

/// As far as it can be read; links are not followed.
fn folder_bytes(folder: &Path) -> u64 {
    const MOST: usize = 100_000;
    let (mut bytes, mut left, mut todo) = (0, MOST, vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            left = left.saturating_sub(1);
            if left == 0 {
                return bytes;
            }
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    bytes
}

/// Of the volumes that hold data of ours, those that are not there.
pub async fn missing_volumes(engine: &Engine, data: &Path) -> Result<BTreeSet<String>, Failure> {
    let before = notes::known_volumes(data)?;
    if before.is_empty() {
        return Ok(BTreeSet::new());
    }
    let client = engine.client().await?;
    let all = engine.within(QUESTION, client.list_volumes(None::<ListVolumesOptions>)).await?;
    let there: BTreeSet<String> = all.volumes.unwrap_or_default().into_iter().map(|v| v.name).collect();
    // One that was made or collected meanwhile is noted before or after alone.
    let after = notes::known_volumes(data)?;
    let noted = before.into_keys().filter(|name| after.contains_key(name));
    Ok(noted.filter(|name| !there.contains(name)).collect())
}

/// What bears our cluster's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub kind: Kind,
    pub name: String,
}

/// What is being made or removed just now is noted, or gone, by then.
const SETTLED: Duration = Duration::from_millis(500);

/// Networks and volumes that bear our cluster's mark and that we have not noted.
pub async fn unnoted(engine: &Engine, cluster: &ClusterId, data: &Path) -> Result<Vec<Marked>, Failure> {
    let mut found = unnoted_now(engine, cluster, data).await?;
    if !found.is_empty() {
        tokio::time::sleep(SETTLED).await;
        let still = unnoted_now(engine, cluster, data).await?;
        found.retain(|thing| still.contains(thing));
    }
    Ok(found)
}

async fn unnoted_now(engine: &Engine, cluster: &ClusterId, data: &Path) -> Result<Vec<Marked>, Failure> {
    let networks = networks::strange(engine, data, cluster).await?;
    let client = engine.client().await?;
    let options = ListVolumesOptionsBuilder::default().filters(&names::marked(cluster)).build();
    let volumes = engine.within(QUESTION, client.list_volumes(Some(options))).await?;
    let noted = notes::known_volumes(data)?;
    let volumes = volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
    let networks = networks.into_iter().map(|name| Marked { kind: Kind::Network, name });
    let volumes = volumes.filter(|name| !noted.contains_key(name));
    Ok(networks.chain(volumes.map(|name| Marked { kind: Kind::Volume, name })).collect())
}

/// Removes one thing; what somebody has begun to use meanwhile stays.
pub async fn remove(engine: &Engine, data: &Path, held: &Held) -> Collected {
    let name = held.name.as_str();
    let removed = match held.kind {
        Kind::Image => remove_image(engine, data, name).await,
        Kind::Network => remove_network(engine, data, name).await,
        Kind::Volume => remove_volume(engine, data, name).await,
    };
    let kept_because = removed.err().map(|failure| failure.to_string());
    Collected { kind: held.kind, name: held.name.clone(), bytes: held.bytes, kept_because }
}

async fn remove_image(engine: &Engine, data: &Path, name: &str) -> Result<(), Failure> {
    let client = engine.client().await?;
    let options = || Some(RemoveImageOptionsBuilder::default().build());
    let removed = engine.within(WORK, client.remove_image(name, options(), None)).await;
    if removed.as_ref().is_err_and(Error::is_not_found) {
        let id = notes::pulled(data)?.remove(name).flatten();
        if let Some(id) = nameless(engine, id.as_deref()).await?.and_then(|image| image.id) {
            absent_is_fine(engine.within(WORK, client.remove_image(&id, options(), None)).await.map(drop))?;
        }
    } else {
        removed?;
    }
    Ok(notes::forget_pulled(data, name)?)
}

async fn remove_network(engine: &Engine, data: &Path, name: &str) -> Result<(), Failure> {
    let unused = tokio::time::timeout(UNUSED, NETWORKS.write()).await;
    let _unused = unused.map_err(|_| Error::Conflict("containers are being made just now".into()))?;
    let client = engine.client().await?;
    absent_is_fine(engine.within(QUESTION, client.remove_network(name)).await)?;
    Ok(notes::forget_network(data, name)?)
}

/// Forgotten first, since one that is noted and gone counts as lost; and noted again where it stays.
async fn remove_volume(engine: &Engine, data: &Path, name: &str) -> Result<(), Failure> {
    let client = engine.client().await?;
    let users = notes::volume_users(data, name)?;
    notes::forget_volume(data, name)?;
    let options = None::<RemoveVolumeOptions>;
    let removed = absent_is_fine(engine.within(WORK, client.remove_volume(name, options)).await);
    if removed.is_err() {
        notes::note_volume_again(data, name, users)?;
    }
    Ok(removed?)
}

fn absent_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Bytes used and in all on the disk where the engine keeps its things; `None`: it is not on this machine.
pub async fn disk(engine: &Engine) -> Option<(u64, u64)> {
    let client = engine.client().await.ok()?;
    let root = engine.within(QUESTION, client.info()).await.ok()?.docker_root_dir?;
    let stat = rustix::fs::statvfs(root.as_str()).ok()?;
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    Some((total.saturating_sub(stat.f_bavail.saturating_mul(stat.f_frsize)), total))
}
