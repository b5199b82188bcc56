//! `dupip config`: the configuration file. `keys` are what it may say, `file` what one says, `layers` what it comes to
//! together with flags and the environment, `text` one to begin with, `show` what the agent goes by.

mod file;
mod keys;
mod layers;
mod show;
mod text;

use std::path::{Path, PathBuf};

use clap::Subcommand;

pub(super) use file::{CONFIG, validate};
pub(super) use keys::{is_live, is_secret};
pub(super) use layers::{Layers, Told, Values, with};
pub(super) use show::settings;

use super::{
    exit::{Exit, Failure},
    render::print,
};

const EXAMPLES: &str = "\
Examples:
  dupip config default                                     every key, with what it means
  dupip config check                                       what is wrong in it; 2 if something is
  dupip config check ./dupip.toml
  sudo dupip reload                                        have the agent go by it
  dupip config show                                        what the agent goes by, and who says so";

const DEFAULT_EXAMPLES: &str = "\
Examples:
  dupip config default
  dupip config default | sudo install -D -m 640 /dev/stdin /etc/dupip/dupip.toml";

const CHECK_EXAMPLES: &str = "\
Examples:
  dupip config check
  dupip config default | dupip config check /dev/stdin
  dupip config check ./dupip.toml && sudo install -m 640 dupip.toml /etc/dupip/

Exit code 2 if the agent would not start with it. Environment variables of this shell count, as they would for the agent.";

/// Print, check and show what the agent is told
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a configuration file to begin with: every key, what it means, and what holds without it
    #[command(after_help = DEFAULT_EXAMPLES)]
    Default,
    /// Say what is wrong in a configuration file, line by line
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The file
        #[arg(value_name = "PATH", default_value = CONFIG)]
        path: PathBuf,
    },
    /// Show what the running agent goes by, and who says so: a flag, the environment, the file, or nobody
    Show(show::Args),
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Default => print(text::default())?,
            Verb::Check { path } => print(check(path)?)?,
            Verb::Show(args) => args.run(socket)?,
        }
        Ok(Exit::Fine)
    }
}

fn check(path: PathBuf) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let told = Layers::of_file(Some(path)).read()?;
    told.args.check()?;
    let keys = told.from.values().filter(|from| **from == "file").count();
    let (keys, bridges) = (format!("{keys} {}", if keys == 1 { "key" } else { "keys" }), told.values.get("bridge"));
    let bridges = bridges.map(|bridges| bridges.join(", ")).unwrap_or_default();
    Ok(format!("{shown}: fine, {keys}; an agent would watch {bridges}\n"))
}
