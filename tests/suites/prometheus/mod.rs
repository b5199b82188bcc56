//! The alert rules and dashboards with the programs that they are for: promtool, and the real Prometheus with a real agent.

mod incident;
mod panels;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What operators are given, by its path from `dashboards`.
fn given(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dashboards").join(path)
}

fn text_of(path: &str) -> Result<String> {
    fs::read_to_string(given(path)).with_context(|| format!("there is no dashboards/{path}"))
}
