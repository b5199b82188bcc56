//! `dupip completions`: what a shell needs to complete commands.

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::{Shell as Script, generate};

use super::{
    Cli,
    exit::{Exit, Failure},
    render::print,
};

const EXAMPLES: &str = "\
Examples:
  dupip completions bash > /etc/bash_completion.d/dupip
  dupip completions zsh > ~/.zfunc/_dupip
  dupip completions fish > ~/.config/fish/completions/dupip.fish";

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for Script {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        generate(Script::from(self.shell), &mut Cli::command(), "dupip", &mut script);
        print(script)?;
        Ok(Exit::Fine)
    }
}
