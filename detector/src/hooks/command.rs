//! Tells a program: the message on its standard input, the most needed of it in its environment.

use std::{
    fmt,
    io::{self, PipeReader},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    process::{Child, ChildStdin},
    task::JoinSet,
    time::timeout,
};

use super::{
    courier::{Attempt, Letter},
    message::Message,
};

/// What of a program's output is shown when it fails, in bytes.
const TAIL: usize = 2048;
/// How long a failed program's output is waited for; only somebody it has left behind can make it take long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What no program inherits: what may let anybody in, and by what the service manager would take its word for the agent's.
const KEPT_BACK: [&str; 5] =
    ["DUPIP_HOOKS", "DUPIP_HOOK_SECRET_FILE", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A program with its arguments. Only its name is shown: arguments may have passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
}

/// A text that is no command line. It is left out, since it may have a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// A quote is not closed.
    #[error("a quote of the command line is not closed")]
    Quote,
    /// It is not said where the program is.
    #[error("write a program with its whole path, as in /usr/local/bin/rewrite-nat, or a URL")]
    NoPath,
}

impl FromStr for Command {
    type Err = BadCommand;

    fn from_str(text: &str) -> Result<Self, BadCommand> {
        let mut words = shell_words::split(text).map_err(|_| BadCommand::Quote)?.into_iter();
        let program = words.next().filter(|program| Path::new(program).is_absolute()).ok_or(BadCommand::NoPath)?;
        Ok(Self { program, arguments: words.collect() })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.program)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

/// The agent may be preferred to other processes; what it starts is not. A process is as nice as the thread that starts it,
/// so that is as nice as others for the moment.
fn as_nice_as_others<T>(start: impl FnOnce() -> T) -> T {
    let Some(niceness) = getpriority_process(None).ok().filter(|niceness| *niceness < 0) else { return start() };
    // Where this is not permitted, it stays as it is.
    let lowered = setpriority_process(None, 0);
    let started = start();
    let _ = lowered.and_then(|()| setpriority_process(None, niceness));
    started
}

impl Command {
    /// The program's file.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.program.clone().into()
    }

    /// The program and its arguments.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        [&self.program].into_iter().chain(&self.arguments).map(String::as_str)
    }

    /// Tells it once. Whatever it has started and that stays in its process group ends with it if it takes too long, or
    /// if nobody waits any more.
    pub(super) async fn tell(&self, letter: &Letter, limit: Duration) -> Attempt {
        let (mut group, output) = match self.start(&letter.message) {
            Ok(started) => started,
            Err(error) => return Attempt::again(format_args!("cannot be started: {error}")),
        };
        let tail = Arc::new(Mutex::new(Vec::new()));
        let mut streams = JoinSet::new();
        streams.spawn(feed(group.child.stdin.take(), Arc::clone(&letter.body)));
        streams.spawn(keep_tail(output, Arc::clone(&tail)));
        let why = match timeout(limit, group.child.wait()).await {
            Ok(Ok(status)) if status.success() => {
                group.has_ended();
                return Attempt::Delivered;
            }
            Ok(Ok(status)) => {
                group.has_ended();
                ended(status)
            }
            Ok(Err(error)) => format!("cannot be waited for: {error}"),
            Err(_) => {
                group.end().await;
                format!("took longer than {limit:?} and was killed")
            }
        };
        // Silence is no failure of its own.
        let _ = timeout(LAST_WORDS, streams.join_all()).await;
        Attempt::again(with_tail(why, &tail.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn start(&self, message: &Message) -> io::Result<(Group, pipe::Receiver)> {
        let (output, input) = io::pipe()?;
        let mut command = self.with_environment(message);
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(input.try_clone()?).stderr(input);
        let child = as_nice_as_others(|| command.spawn())?;
        Ok((Group::of(child), reader(output)?))
    }

    fn with_environment(&self, message: &Message) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments);
        for name in KEPT_BACK {
            command.env_remove(name);
        }
        for (name, value) in environment(message) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

fn reader(output: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(output.into())
}

/// What a program need not read JSON for. What is not known is not there, whatever the agent's own environment has.
fn environment(message: &Message) -> [(&'static str, Option<String>); 4] {
    [
        ("DUPIP_OCCASION", Some(message.occasion().to_string())),
        ("DUPIP_INCIDENT", Some(message.incident().to_string())),
        ("DUPIP_OLD_ADDRESS", message.old_address.map(|address| address.to_string())),
        ("DUPIP_NEW_ADDRESS", message.new_address.map(|address| address.to_string())),
    ]
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended otherwise than well".to_owned(),
    }
}

/// A program that need not read what it is told may end before it has.
async fn feed(stdin: Option<ChildStdin>, body: Arc<[u8]>) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&body).await;
    }
}

/// Keeps the end of what comes, as long as anything does.
async fn keep_tail(mut from: impl AsyncRead + Unpin, tail: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; TAIL];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(piece.get(..length).unwrap_or_default());
        let beyond = tail.len().saturating_sub(TAIL);
        tail.drain(..beyond);
    }
}

fn with_tail(why: String, tail: &[u8]) -> String {
    let tail = String::from_utf8_lossy(tail.trim_ascii());
    if tail.is_empty() { why } else { format!("{why}; it said: {}", tail.escape_debug()) }
}

/// A program with all that it has started: they go together.
struct Group {
    child: Child,
    /// `None` when the program has ended and was waited for: from then on its number may be another's.
    leader: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { child, leader }
    }

    const fn has_ended(&mut self) {
        self.leader = None;
    }

    async fn end(&mut self) {
        self.kill();
        // Killed by a signal that nobody can refuse.
        let _ = self.child.wait().await;
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // It may be gone already.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsStr};

    use super::*;
    use crate::hooks::tests::message;

    #[test]
    fn secrets_and_what_is_of_others_are_not_inherited() {
        let command: Command = "/bin/true".parse().unwrap();
        let mut told = message(7, "evicted");
        told.new_address = None;
        let command = command.with_environment(&told);
        let environment: BTreeMap<_, _> = command.as_std().get_envs().collect();
        for (name, value) in [
            ("DUPIP_HOOKS", None),
            ("DUPIP_HOOK_SECRET_FILE", None),
            ("NOTIFY_SOCKET", None),
            ("WATCHDOG_USEC", None),
            ("WATCHDOG_PID", None),
            ("DUPIP_OCCASION", Some("evicted")),
            ("DUPIP_INCIDENT", Some("7")),
            ("DUPIP_OLD_ADDRESS", Some("10.8.64.2")),
            ("DUPIP_NEW_ADDRESS", None),
        ] {
            assert_eq!(environment.get(OsStr::new(name)), Some(&value.map(OsStr::new)), "{name}");
        }
    }

    #[test]
    fn only_the_end_of_the_output_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tail = Arc::new(Mutex::new(Vec::new()));
        let said = [b'a', b'b'].map(|letter| vec![letter; TAIL]).concat();
        runtime.block_on(keep_tail(&said[..], Arc::clone(&tail)));
        assert_eq!(*tail.lock().unwrap(), vec![b'b'; TAIL]);
        assert_eq!(with_tail("no".to_owned(), b"two\nlines\x1b[0m \n"), r"no; it said: two\nlines\u{1b}[0m");
    }
}
