//! `dupip man`: the manual pages.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use clap_mangen::{Man, generate_to};

use super::{
    Cli,
    exit::{Exit, Failure, of_io},
    render::print,
};

const EXAMPLES: &str = "\
Examples:
  dupip man | man -l -
  dupip man --directory /usr/local/share/man/man1";

/// Print the manual page, or write one for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Write dupip.1, dupip-run.1, dupip-lease-list.1 and so on into this directory, which is made if need be
    #[arg(long, alias = "dir", value_name = "PATH")]
    directory: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.directory {
            Some(dir) => write(&dir).map_err(|error| failed(&dir, &error))?,
            None => print(page()?)?,
        }
        Ok(Exit::Fine)
    }
}

fn page() -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page).map_err(|error| Failure::new(Exit::Bug, error))?;
    Ok(page)
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    generate_to(Cli::command(), dir)
}

fn failed(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(of_io(error), format_args!("cannot write manual pages to {}: {error}", dir.display()))
}
