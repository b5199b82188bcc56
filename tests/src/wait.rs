//! Waiting for what no event announces.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until there is something, and returns it.
///
/// # Errors
/// If there is nothing within `deadline`: the error tells `what` was awaited. If a look fails, at once.
pub fn wait_until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let late = Instant::now() > end;
        match look().with_context(|| format!("waiting for {what}"))? {
            Some(found) => return Ok(found),
            None if late => bail!("waited {deadline:?} in vain for {what}"),
            None => sleep(PAUSE),
        }
    }
}
