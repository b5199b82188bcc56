//! dupip itself, as a real process on a runner.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{PipeReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Bridge, Command, Process, Stream, wait_until};

/// Where the agent listens: the loopback device is the runner's own, so every lab can have the same port.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

/// How long the agent may take to come up or to end. It is far less on a machine that does little else.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the agent only tells or also acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reports.
    Observe,
    /// Evicts.
    Enforce,
}

/// The program, with a bridge to watch and a database and a socket of its own in the runner's directory.
#[derive(Clone, Debug)]
pub struct Dupip {
    bridge: Bridge,
    program: PathBuf,
    /// The program and its arguments that run dupip, if something is to be taken from it first.
    wrapper: Vec<String>,
    database: String,
    /// What the agent logs (`DUPIP_LOG`).
    logs: String,
}

/// What a verb of dupip came to: for those whose exit status is part of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status; `None` after a signal.
    pub status: Option<i32>,
    /// What was written to standard output.
    pub output: String,
    /// What was written to standard error.
    pub complaint: String,
}

/// How the kernel refuses `bpf()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// EPERM: it may not be called.
    NotPermitted,
    /// ENOSYS: there is no such call.
    NoSuchCall,
}

/// A running agent, killed when this value goes.
#[derive(Debug)]
pub struct Agent {
    dupip: Dupip,
    process: Process,
}

impl Dupip {
    /// The program for `bridge`: what the environment variable `DUPIP_BIN` names, else the one that Cargo built along
    /// with the running program.
    ///
    /// # Errors
    /// If there is none.
    pub fn on(bridge: &Bridge) -> Result<Self> {
        Ok(Self {
            bridge: bridge.clone(),
            program: beside("dupip", "DUPIP_BIN")?,
            wrapper: Vec::new(),
            database: DATABASE.to_owned(),
            logs: LOGS.to_owned(),
        })
    }

    /// Where the program is, as seen from the runner too.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where its agent listens on the runner.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        LISTEN
    }

    /// A program that was built elsewhere, for `bridge`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn at(bridge: &Bridge, program: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        let (database, logs) = (DATABASE.to_owned(), LOGS.to_owned());
        Ok(Self { bridge: bridge.clone(), program, wrapper: Vec::new(), database, logs })
    }

    /// The program with an agent that logs so much, such as `info`.
    #[must_use]
    pub fn logging(self, logs: &str) -> Self {
        Self { logs: logs.to_owned(), ..self }
    }

    /// The program with its lease database at another place in the runner.
    #[must_use]
    pub fn keeping(self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self }
    }

    /// The program without these capabilities, such as `["bpf", "net_raw"]` (capabilities(7), in lower case), for good:
    /// they leave the bounding set. Whoever is to load BPF must have lost `sys_admin` too, which stands for `bpf`.
    #[must_use]
    pub fn without(mut self, capabilities: &[&str]) -> Self {
        let dropped: Vec<_> = capabilities.iter().map(|name| format!("-{name}")).collect();
        let words = ["setpriv", "--bounding-set", &dropped.join(","), "--inh-caps=-all"];
        self.wrapper.extend(words.map(str::to_owned));
        self
    }

    /// The program with the kernel refusing `bpf()`, as where system calls are filtered.
    ///
    /// # Errors
    /// If the program that sets the filter, which Cargo builds along with the tests, is not there.
    pub fn without_bpf(mut self, refusal: Refusal) -> Result<Self> {
        let errno = match refusal {
            Refusal::NotPermitted => "BPF_ERRNO=EPERM",
            Refusal::NoSuchCall => "BPF_ERRNO=ENOSYS",
        };
        let filter = beside("without_bpf", "WITHOUT_BPF_BIN")?;
        self.wrapper.extend(["env".to_owned(), errno.to_owned(), filter.to_string_lossy().into_owned()]);
        Ok(self)
    }

    /// `dupip` with these arguments, on the runner.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.wrapped(&self.program).args(args)
    }

    /// Another program on the runner, with what is taken from dupip taken from it too.
    pub fn wrapped(&self, program: impl AsRef<OsStr>) -> Command {
        match self.wrapper.split_first() {
            Some((first, rest)) => self.bridge.runner().command(first).args(rest).arg(program),
            None => self.bridge.runner().command(program),
        }
    }

    /// Runs a verb that may end with an exit status of its own, such as `["conflicts", "--fail"]`, with the agent's
    /// socket.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn outcome(&self, verb: &[&str]) -> Result<Outcome> {
        let output = self.command(["--socket", SOCKET]).args(verb).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (status, complaint) = (output.status.code(), text(&output.stderr));
        Ok(Outcome { status, output: text(&output.stdout), complaint })
    }

    /// Leases an address of the bridge's subnet to `owner`, straight from the database: no agent is needed. Returns the
    /// lease.
    ///
    /// # Errors
    /// If the allocator refuses.
    pub fn allocate(&self, owner: &str) -> Result<Value> {
        let (pool, gateway) = (self.bridge.subnet().to_string(), self.bridge.gateway().to_string());
        let lease = self.command(["lease", "allocate", "--offline", "--database", &self.database]);
        let lease = lease.args(["--bridge", self.bridge.name(), "--pool", &pool, "--gateway", &gateway]);
        parse(&lease.args(["--owner", owner, "-o", "json"]).run()?)
    }

    /// Asks the agent by its socket, as in `dupip table -o json`.
    ///
    /// # Errors
    /// If the command fails or its answer is not JSON.
    pub fn ask(&self, question: &[&str]) -> Result<Value> {
        parse(&self.command(["--socket", SOCKET]).args(question).args(["-o", "json"]).run()?)
    }

    /// Asks the agent by its socket for what a person would read, as in `dupip table`.
    ///
    /// # Errors
    /// If the command fails.
    pub fn say(&self, question: &[&str]) -> Result<String> {
        self.command(["--socket", SOCKET]).args(question).run()
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error shows its log.
    pub fn start(&self, mode: Mode) -> Result<Agent> {
        self.start_with(mode, &[])
    }

    /// Starts the agent with further arguments, such as `["--cooldown", "1s"]`, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error shows its log.
    pub fn start_with(&self, mode: Mode, args: &[&str]) -> Result<Agent> {
        let mut agent = self.spawn(mode, args)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts the agent with further arguments and does not wait for it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(&self, mode: Mode, args: &[&str]) -> Result<Agent> {
        self.spawned(self.run(mode, args))
    }

    /// Starts the agent by a configuration file on the runner, with further arguments, and does not wait for it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_by(&self, config: &Path, args: &[&str]) -> Result<Agent> {
        self.spawned(self.command(["run", "--socket", SOCKET, "--config"]).arg(config).args(args))
    }

    /// Starts the agent with what it logs in a pipe, which must be read, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_piped(&self, mode: Mode, args: &[&str]) -> Result<(Agent, PipeReader)> {
        let run = self.run(mode, args).env("DUPIP_LOG", &self.logs);
        let (process, log) = run.spawn_piped(Stream::Errors)?;
        let mut agent = Agent { dupip: self.clone(), process };
        agent.wait_ready()?;
        Ok((agent, log))
    }

    fn run(&self, mode: Mode, args: &[&str]) -> Command {
        let run = self.command(["run", "--bridge", self.bridge.name(), "--mode", &mode.to_string()]);
        let run =
            run.args(["--database", &self.database, "--socket", SOCKET, "--listen", &LISTEN.to_string()]).args(args);
        // What this machine's own agent is told is nothing to the lab's.
        run.env("DUPIP_CONFIG", "/dev/null")
    }

    fn spawned(&self, run: Command) -> Result<Agent> {
        Ok(Agent { dupip: self.clone(), process: run.env("DUPIP_LOG", &self.logs).spawn()? })
    }

    /// An agent that somebody else has started with the lab's usual socket and port, as in a container.
    #[must_use]
    pub fn watching(&self, process: Process) -> Agent {
        Agent { dupip: self.clone(), process }
    }
}

impl Agent {
    /// The program that the agent runs, to ask it more.
    #[must_use]
    pub fn dupip(&self) -> &Dupip {
        &self.dupip
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// If it does not in time, or if the agent ends; the error shows its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_until(PATIENCE, "the agent to be ready", |agent| {
            ensure!(agent.process.is_running()?, "the agent has ended");
            Ok(agent.http("/readyz").is_ok_and(|(status, _)| status == 200).then_some(()))
        })
    }

    /// Looks at the agent again and again until there is something, and returns it.
    ///
    /// # Errors
    /// If there is nothing within `deadline`, or if a look fails; the error shows the agent's log.
    pub fn wait_until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait_until(deadline, what, || look(self)).map_err(|error| self.process.explain(error))
    }

    /// The rows of `dupip table`.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn table(&self) -> Result<Vec<Value>> {
        rows(self.dupip.ask(&["table"])?)
    }

    /// The incidents of `dupip conflicts`.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn conflicts(&self) -> Result<Vec<Value>> {
        rows(self.dupip.ask(&["conflicts"])?)
    }

    /// The rows of `dupip lease list`.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn leases(&self) -> Result<Vec<Value>> {
        rows(self.dupip.ask(&["lease", "list"])?)
    }

    /// The value of one series, such as `duplicate_ip_total{bridge="rt0"}`; `None` if the agent does not have it.
    ///
    /// # Errors
    /// If the agent does not answer, or not with a number.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let (status, body) = self.http("/metrics")?;
        ensure!(status == 200, "/metrics answers with status {status}");
        let value = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().with_context(|| format!("{series} is `{value}`"))).transpose()
    }

    /// Gets a path over HTTP, such as `/healthz`: the status and the body.
    ///
    /// # Errors
    /// If the agent does not listen, or does not speak HTTP.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        self.dupip.bridge.runner().inside(|| exchange(LISTEN, path))
    }

    /// Waits for a line of the agent's log with `words` in it.
    ///
    /// # Errors
    /// If there is none in time; the error shows the log.
    pub fn wait_for_line(&mut self, words: &str, deadline: Duration) -> Result<String> {
        self.process.wait_for_line(words, deadline)
    }

    /// All that the agent has logged so far.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// Has the agent read its configuration again, as `kill -HUP` does.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hang_up(&mut self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Kills the agent, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill9(self) -> Result<()> {
        self.process.kill()
    }

    /// Asks the agent to end, waits until it has, and returns all that it has logged.
    ///
    /// # Errors
    /// If it does not end; the error shows its log.
    pub fn last_words(self) -> Result<String> {
        self.process.last_words(PATIENCE)
    }

    /// Asks the agent to end and waits until it has.
    ///
    /// # Errors
    /// If it does not end; the error shows its log.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

/// All that may tell why a test fails.
const LOGS: &str = "info,detector=debug";

/// The agent's files, in the runner's directory.
const DATABASE: &str = "/run/lab/dupip.db";
const SOCKET: &str = "/run/dupip/dupip.sock";

/// A program that Cargo builds along with the running one, unless the environment variable names another.
fn beside(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Path::new(&path).canonicalize().with_context(|| format!("{variable} names {}", path.display()));
    }
    let here = env::current_exe()?;
    // A test lies in `deps`, one below the programs.
    let built = here.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    let hint =
        || format!("there is no {name} beside {}: build it with `cargo build -p detector -p tests`", here.display());
    built.with_context(|| format!("{}, or name one in {variable}", hint()))
}

/// One exchange over HTTP/1.0, whose answer ends with the connection: the status and the body.
pub(crate) fn exchange(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("nobody listens on {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without headers")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("an answer without a status: {head}"))?, body.to_owned()))
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("dupip prints no JSON: {text}"))
}

fn rows(answer: Value) -> Result<Vec<Value>> {
    match answer {
        Value::Array(rows) => Ok(rows),
        other => bail!("dupip prints no list: {other}"),
    }
}
