//! `dupip openapi`: the HTTP API, described for programs.

use super::{
    exit::{Exit, Failure},
    render::print,
};
use crate::http::document;

const EXAMPLES: &str = "\
Examples:
  dupip openapi > dupip-openapi.json
  curl http://127.0.0.1:9477/api/v1/openapi.json    the same, of a running agent";

/// Print the description of the HTTP API, for programs (OpenAPI 3.1)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut text = document().to_pretty_json().map_err(|error| Failure::new(Exit::Bug, error))?;
        text.push('\n');
        print(text)?;
        Ok(Exit::Fine)
    }
}
