//! What the environment says beside the words of a command line.

use std::{env, ffi::OsStr};

use clap::Command;

/// No variable has this name, nor can one (environ(7)).
const NOBODY: &str = "=";

/// The command, for which a variable without a value says nothing: a line of an `EnvironmentFile` may end behind its `=`.
pub(super) fn heard(command: Command) -> Command {
    muted(command, |name| env::var_os(name).is_some_and(|value| value.is_empty()))
}

/// The command, as where no variable is set.
pub(super) fn unheard(command: Command) -> Command {
    muted(command, |_| true)
}

fn muted(command: Command, is_mute: fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_mute) {
        true => arg.env(NOBODY).hide_env(true),
        false => arg,
    });
    command.mut_subcommands(|verb| muted(verb, is_mute))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_variable_is_left_where_none_is_heard() {
        let run = |command: Command| command.find_subcommand("run").unwrap().clone();
        let heard = |command: &Command| {
            command.get_arguments().filter(|arg| arg.get_env().is_some_and(|name| name != NOBODY)).count()
        };
        assert!(heard(&run(Cli::command())) > 20);
        assert_eq!(heard(&run(unheard(Cli::command()))), 0);
    }
}
