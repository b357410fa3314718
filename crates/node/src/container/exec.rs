//! The end of a command that was run inside a container.

use std::time::Duration;

use super::{
    engine::{Engine, Error, QUESTION},
    watch,
};

/// An engine may close a command's output a moment before it knows how the command ended.
const KNOWN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How it ended; `None`: the engine does not tell.
pub async fn exit_status(engine: &Engine, id: &str) -> Result<Option<i32>, Error> {
    let client = engine.client().await?;
    let known = async {
        loop {
            let seen = engine.within(QUESTION, client.inspect_exec(id)).await?;
            if seen.running != Some(true)
                && let Some(code) = seen.exit_code
            {
                return Ok(i32::try_from(code).ok());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(KNOWN, known).await.unwrap_or(Ok(None))
}

/// An engine lets a command run on when nobody listens; where its process is seen from here, it ends.
pub async fn kill(engine: &Engine, container: &str, id: &str) {
    let Ok(client) = engine.client().await else { return };
    let Ok(seen) = engine.within(QUESTION, client.inspect_exec(id)).await else { return };
    let pid = seen.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|_| seen.running == Some(true));
    if let Some(process) = pid.and_then(|pid| watch::of_container(pid, container)) {
        let _ = process.signal(libc::SIGKILL);
    }
}
