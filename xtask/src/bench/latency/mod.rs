//! `cargo xtask bench latency`.

use anyhow::Result;

use super::{Bench, report::Section};

/// Nothing yet.
#[expect(clippy::unnecessary_wraps, reason = "it will measure")]
pub(super) fn measure(_bench: &Bench) -> Result<Vec<Section>> {
    Ok(Vec::new())
}
