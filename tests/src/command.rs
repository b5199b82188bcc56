//! Commands and processes that run somewhere in the lab.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, PipeReader, Read as _, Seek as _, Write as _, pipe},
    os::fd::OwnedFd,
    process::{self, Child, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use crate::{
    host::{Host, Place},
    wait_until,
};

/// A command that runs in a runner or a sandbox: with its network, its files and its processes.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Command {
    place: Place,
    inner: process::Command,
}

/// What a process writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error, where dupip's log goes.
    Errors,
}

/// A process in the lab, killed when this value goes.
///
/// Whatever it writes goes to a file in the runner's directory, and is shown when a test panics.
#[derive(Debug)]
pub struct Process {
    title: String,
    child: Child,
    log: File,
    host: Arc<Host>,
}

impl Command {
    pub(crate) fn new(place: &Place, program: impl AsRef<OsStr>) -> Self {
        let mut inner = process::Command::new(program);
        inner.current_dir("/").stdin(Stdio::null());
        Self { place: place.clone(), inner }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Has the command read `text` on standard input.
    ///
    /// # Errors
    /// If the kernel has no memory for it.
    pub fn input(mut self, text: &str) -> Result<Self> {
        let mut input = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
        input.write_all(text.as_bytes())?;
        input.rewind()?;
        self.inner.stdin(input);
        Ok(self)
    }

    /// Runs the command to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the error shows the command line and what it wrote to standard error.
    pub fn run(self) -> Result<String> {
        let title = self.title();
        let output = self.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{title}` failed with {}: {}", output.status, said.trim());
        String::from_utf8(output.stdout).with_context(|| format!("`{title}` wrote something that is not text"))
    }

    /// Runs the command to its end, be it good or bad.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output(mut self) -> Result<Output> {
        let title = self.title();
        let inner = &mut self.inner;
        self.place.parent(|| inner.output().map_err(|error| not_started(&title, error)))
    }

    /// Starts the command and leaves it running.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut self) -> Result<Process> {
        let title = self.title();
        let inner = &mut self.inner;
        let (child, log) = self.place.parent(|| {
            let log = log_file(inner.get_program())?;
            inner.stdout(log.try_clone()?).stderr(log.try_clone()?);
            Ok((inner.spawn().map_err(|error| not_started(&title, error))?, log))
        })?;
        Ok(Process { title, child, log, host: self.place.host })
    }

    /// Starts the command and leaves it running, with one of its streams in a pipe, for whoever must have each line at
    /// once. The other goes to the log. The pipe ends with the last process that writes to it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_piped(mut self, stream: Stream) -> Result<(Process, PipeReader)> {
        let title = self.title();
        let (reader, writer) = pipe()?;
        let inner = &mut self.inner;
        let (child, log) = self.place.parent(|| {
            let log = log_file(inner.get_program())?;
            match stream {
                Stream::Output => inner.stdout(writer).stderr(log.try_clone()?),
                Stream::Errors => inner.stdout(log.try_clone()?).stderr(writer),
            };
            Ok((inner.spawn().map_err(|error| not_started(&title, error))?, log))
        })?;
        // The command goes here, and with it the last end of the pipe that is not the process's own.
        Ok((Process { title, child, log, host: Arc::clone(&self.place.host) }, reader))
    }

    /// Starts the command on a terminal, which is its controlling terminal: all it reads and writes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn spawn_on(self, terminal: &OwnedFd) -> Result<Process> {
        let title = self.title();
        let mut inner = process::Command::new("setsid");
        inner.arg("--ctty").arg(self.inner.get_program()).args(self.inner.get_args()).current_dir("/");
        inner.envs(self.inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let (child, log) = self.place.parent(|| {
            let log = log_file(self.inner.get_program())?;
            inner.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal.try_clone()?);
            Ok((inner.spawn().map_err(|error| not_started(&title, error))?, log))
        })?;
        Ok(Process { title, child, log, host: self.place.host })
    }

    fn title(&self) -> String {
        let words = [self.inner.get_program()].into_iter().chain(self.inner.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

impl Process {
    /// The process id, as the machine counts, not the runner.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the process has written so far, to standard output and standard error.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let mut log = &self.log;
        log.rewind()?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits for the first line with `words` in it.
    ///
    /// # Errors
    /// If there is none in time; the error shows the log.
    pub fn wait_for_line(&mut self, words: &str, deadline: Duration) -> Result<String> {
        let seen = |text: String| text.lines().find(|line| line.contains(words)).map(str::to_owned);
        let line = wait_until(deadline, &format!("a line with `{words}`"), || self.log().map(seen));
        line.map_err(|error| self.explain(error))
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// If the kernel will not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running()?, "`{}` has ended and cannot be signalled", self.title);
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot signal `{}`", self.title))
    }

    /// Waits until the process ends.
    ///
    /// # Errors
    /// If it does not in time; the error shows the log.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec::try_from(deadline)?))?;
        let status = self.child.try_wait()?;
        status.with_context(|| format!("it still runs after {deadline:?}")).map_err(|error| self.explain(error))
    }

    /// Asks the process to end, waits until it has, and returns all that it has written to its log.
    ///
    /// # Errors
    /// If it does not end in time; the error shows the log.
    pub fn last_words(mut self, deadline: Duration) -> Result<String> {
        self.signal(Signal::TERM)?;
        self.wait(deadline)?;
        self.log()
    }

    /// Kills the process, as SIGKILL does, and waits until it is gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(mut self) -> Result<()> {
        self.end().with_context(|| format!("cannot kill `{}`", self.title))
    }

    /// Adds the command line and the log to an error.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let log = self.log().unwrap_or_else(|error| error.to_string());
        error.context(format!("`{}` (process {}) wrote:\n{log}", self.title, self.pid()))
    }

    fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("`{}` wrote:\n{}", self.title, self.log().unwrap_or_default());
        }
        if !self.host.is_kept() {
            let _ = self.end();
        }
    }
}

/// A new file in the runner's directory, called after the program and read through the handle that is written to.
fn log_file(program: &OsStr) -> Result<File> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = program.to_string_lossy();
    let name = name.rsplit('/').next().unwrap_or_default();
    let path = format!("/run/lab/{name}-{}.log", COUNT.fetch_add(1, Ordering::Relaxed));
    let file = fs::OpenOptions::new().read(true).append(true).create_new(true).open(&path);
    file.with_context(|| format!("cannot make {path} in the runner"))
}

fn not_started(title: &str, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => ": is the program installed? `cargo xtask setup` installs what the lab needs",
        _ => "",
    };
    Error::new(error).context(format!("cannot start `{title}`{hint}"))
}
