//! `dupip run`: the agent as a process.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use clap::{ValueEnum, builder::BoolishValueParser, value_parser};
use rustix::process::setpriority_process;
use tokio::{
    join, runtime, select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};
use tracing::{debug, info};

use super::{
    config::{CONFIG, Layers, Told},
    exit::{self, Exit, Failure},
    healing::HealingArgs,
    hooks::HookArgs,
    listening::ListeningArgs,
    logging::{self, LogArgs},
    policy::PolicyArgs,
    preflight,
    reload::Reloader,
    service,
};
use crate::{
    agent::{self, Settings},
    allocator::DATABASE,
    capture::{Hook, KeepQuarantine, TapSettings},
    engine::{Config, Mode},
    hooks::{HookSettings, Hooks, Spool},
    http::{BindError, Endpoints, serve},
    net::BridgeName,
    telemetry::{Suppressed, Telemetry},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip run --bridge rt0                                 watch and tell; change nothing
  dupip run --bridge rt0 --bridge rt1 --mode enforce     also heal, on two bridges
  dupip run --bridge rt0 --mode enforce --resolve contain --resolve-owner 'web-*=readdress'
  dupip run --bridge rt0 --wait                          before the bridge is there
  dupip run --bridge rt0 --listen none                   answer on the Unix socket only
  dupip run --bridge rt0 --listen 0.0.0.0:9477 --tls-certificate runner.pem \\
      --tls-key runner.key --token-file token            answer other machines, over HTTPS
  DUPIP_LOG=detector=debug dupip run --bridge rt0        say more

SIGTERM and SIGINT end it; its taps go with it, however it ends (with clsact, a killed agent
leaves filters, which the next one replaces: they change nothing but to drop what is in quarantine).";

/// Where a quarantine is kept.
const KEPT_IN: &str = "/sys/fs/bpf/dupip";

/// How long changes of leases that are under way may take to finish when the agent ends.
const LAST_CHANGES: Duration = Duration::from_secs(3);

/// Run the agent: watch bridges, name duplicates and, in enforce mode, heal them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration file, whose keys are these flags without the dashes [default: /etc/dupip/dupip.toml, if it is
    /// there]
    #[arg(long, value_name = "PATH", env = "DUPIP_CONFIG")]
    config: Option<PathBuf>,
    /// A bridge to watch; may be given more than once, and must be named here or in the configuration file
    #[arg(long = "bridge", value_name = "NAME", env = "DUPIP_BRIDGE", value_delimiter = ',')]
    bridges: Vec<BridgeName>,
    /// Whether to act on what is found
    #[arg(long, env = "DUPIP_MODE", default_value = "observe")]
    mode: ModeName,
    /// The lease database
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE", default_value = DATABASE)]
    database: PathBuf,
    /// Wait for a bridge that is not there, instead of failing
    #[arg(long, env = "DUPIP_WAIT", value_parser = BoolishValueParser::new())]
    wait: bool,
    /// How the tap hooks in
    #[arg(long, env = "DUPIP_ATTACH", default_value = "auto")]
    attach: Attach,
    /// How many evictions may begin within a minute
    #[arg(
        long,
        value_name = "NUMBER",
        env = "DUPIP_EVICTIONS_PER_MINUTE",
        default_value = "5",
        value_parser = value_parser!(u16).range(1..)
    )]
    evictions_per_minute: u16,
    /// How long a released address of the bridges' networks rests before it is given again, such as 90s [default: what
    /// the pool has; 10m for a new one]
    #[arg(long, value_name = "TIME", env = "DUPIP_COOLDOWN", value_parser = span)]
    cooldown: Option<Span>,
    /// How many claims that are new are taken in per second, of each port (and each CPU that its frames come in by); the
    /// rest is counted, and asked for by probes. 0 sets no limit
    #[arg(long, value_name = "NUMBER", env = "DUPIP_CLAIMS_PER_SECOND", default_value = "1000")]
    claims_per_second: u32,
    /// How many addresses a port may claim on the wire beyond those configured behind it
    #[arg(
        long,
        value_name = "NUMBER",
        env = "DUPIP_CLAIMS_PER_PORT",
        default_value = "1024",
        value_parser = value_parser!(u32).range(1..)
    )]
    claims_per_port: u32,
    /// Do not watch the sources of IPv4 packets: who uses an address without a word of ARP is not seen on the wire then
    #[arg(long, env = "DUPIP_NO_IPV4_WATCH", value_parser = BoolishValueParser::new())]
    no_ipv4_watch: bool,
    /// Keep what is in quarantine there when the agent stops or is killed, in a directory on a BPF file system; the next
    /// agent takes it over. Without it, the quarantine ends with the agent, and what one before has kept in
    /// /sys/fs/bpf/dupip is removed
    #[arg(
        long,
        value_name = "DIRECTORY",
        env = "DUPIP_KEEP_QUARANTINE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = KEPT_IN
    )]
    keep_quarantine: Option<PathBuf>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    healing: HealingArgs,
    #[command(flatten)]
    hooks: HookArgs,
    #[command(flatten)]
    listening: ListeningArgs,
    /// A kind of finding that is only counted, neither logged nor streamed, such as `martian:outside_subnet`, `info` or
    /// `moved`; what opens, changes or ends an incident cannot be suppressed
    #[arg(long, value_name = "KIND", env = "DUPIP_SUPPRESS", value_delimiter = ',')]
    suppress: Vec<Suppressed>,
    /// How nice the agent is to other processes, from -20 to 19: whoever heals must have its turn when sandboxes take all of
    /// the processor. Where it may not be less nice, it goes on as it is
    #[arg(
        long,
        value_name = "NUMBER",
        env = "DUPIP_NICENESS",
        default_value = "-10",
        allow_negative_numbers = true,
        value_parser = value_parser!(i8).range(-20..=19)
    )]
    niceness: i8,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// Tell, and change nothing
    Observe,
    /// Contain losers, and move them to fresh addresses or do what --resolve says
    Enforce,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Attach {
    /// The best that the kernel has
    Auto,
    /// TCX links, from Linux 6.6
    Tcx,
    /// A filter on the clsact qdisc
    Clsact,
}

/// A length of time such as `90s` or `1h 30m`.
pub(super) fn span(text: &str) -> Result<Span, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(duration.as_millis()).map(Span::from_millis).map_err(|_| "longer than anything lasts".to_owned())
}

/// Runs the agent by what this process's flags, its environment and the configuration file say.
pub(super) fn run(socket: &Path) -> Result<Exit, Failure> {
    let layers = Layers::of_process();
    let told = layers.read()?;
    preflight::check()?;
    logging::start(&told.args.log);
    // The threads that are started from here on are as nice.
    if let Err(errno) = setpriority_process(None, told.args.niceness.into()) {
        debug!(event = "not_preferred", "the agent has to wait its turn among all others: {errno}");
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(exit::no_runtime)?;
    let ended = runtime.block_on(live(socket, layers, told));
    // A change that waits for another process's lock is none that anybody was promised.
    runtime.shutdown_timeout(LAST_CHANGES);
    ended.map(|()| Exit::Fine)
}

impl Args {
    /// What is neither logged nor streamed.
    pub(super) fn suppressed(&self) -> Vec<Suppressed> {
        self.suppress.clone()
    }

    /// Whether an agent could go by the flags.
    ///
    /// # Errors
    /// When they say what cannot be together, nothing of what must be said, or name files that are of no use.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.listening.listening()?.check().map_err(BindError::from)?;
        self.settings().map(drop)
    }

    /// What the flags say, checked against each other.
    ///
    /// # Errors
    /// When they say what cannot be together, or nothing of what must be said.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        if self.bridges.is_empty() {
            let hint = format!("dupip run --bridge rt0, or `bridge = [\"rt0\"]` in {CONFIG}");
            return Err(Failure::new(Exit::Usage, "no bridge is named to be watched").hint(hint));
        }
        let hooks = self.hooks.settings()?;
        Ok(Settings {
            bridges: self.bridges.clone(),
            engine: self.config(&hooks)?,
            database: self.database.clone(),
            cooldown: self.cooldown,
            wait: self.wait,
            tap: self.tap(),
            hooks,
        })
    }

    /// How an agent that tells these hooks judges and acts.
    ///
    /// # Errors
    /// When the flags say what cannot be together.
    pub(super) fn config(&self, hooks: &HookSettings) -> Result<Config, Failure> {
        self.healing.apply(self.engine()?, &self.bridges, hooks)
    }

    fn engine(&self) -> Result<Config, Failure> {
        Ok(Config {
            mode: self.mode.into(),
            evictions_per_minute: self.evictions_per_minute.into(),
            claims_per_port: usize::try_from(self.claims_per_port).unwrap_or(usize::MAX),
            policy: self.policy.policy()?,
            ..Config::default()
        })
    }

    fn tap(&self) -> TapSettings {
        let (rate, watch_ipv4) = (self.claims_per_second, !self.no_ipv4_watch);
        let keep_quarantine = match &self.keep_quarantine {
            Some(directory) => KeepQuarantine::Keep(directory.clone()),
            None => KeepQuarantine::Clear(KEPT_IN.into()),
        };
        TapSettings {
            hook: self.attach.into(),
            rate,
            burst: rate.max(1024),
            watch_ipv4,
            keep_quarantine,
            ..TapSettings::default()
        }
    }
}

impl From<ModeName> for Mode {
    fn from(mode: ModeName) -> Self {
        match mode {
            ModeName::Observe => Self::Observe,
            ModeName::Enforce => Self::Enforce,
        }
    }
}

impl From<Attach> for Hook {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tcx => Self::Tcx,
            Attach::Clsact => Self::Clsact,
        }
    }
}

/// The whole life of the agent: it listens before it touches anything, and ends at a signal.
async fn live(socket: &Path, layers: Layers, told: Told) -> Result<(), Failure> {
    let settings = told.args.settings()?;
    let telemetry = Telemetry::new().map_err(|error| Failure::new(Exit::Bug, error))?;
    telemetry.suppress(told.args.suppressed());
    let end = Signals::new().map_err(exit::no_runtime)?;
    // From here on it ends nobody.
    let hangup = signal(SignalKind::hangup()).map_err(exit::no_runtime)?;
    let endpoints = Endpoints::bind(socket, &told.args.listening.listening()?).await?;
    let http: Vec<_> = endpoints.tcp_addresses().iter().map(ToString::to_string).collect();
    let http = (!http.is_empty()).then(|| http.join(","));
    info!(event = "listening", socket = %socket.display(), http, "answers questions");
    let telemetry = Arc::new(telemetry);
    let spool = Arc::new(Spool::beside(&settings.database));
    let hooks = Hooks::start(settings.hooks.clone(), spool, Arc::clone(&telemetry));
    let hooks_told = hooks.ended();
    let (handle, agent) = agent::start(&settings, Arc::clone(&telemetry), hooks).await?;
    let (reloads, wanted) = mpsc::channel(1);
    let reloader =
        Reloader { layers, now: told, agent: handle.clone(), telemetry: Arc::clone(&telemetry), wanted, hangup };
    // It ends when nobody can ask for it any more.
    tokio::spawn(reloader.run());
    let agent = service::accompany(agent, handle.clone());
    let ended = until(end.come(), agent, |stopped| serve(endpoints, handle, reloads, stopped)).await;
    hooks_told.await;
    telemetry.tell_last_repeats();
    Ok(ended?)
}

/// Runs the agent and `serve` for it, until it fails or the end comes.
async fn until<E, S: Future<Output = ()>>(
    end: impl Future<Output = ()>,
    agent: impl Future<Output = Result<(), E>>,
    serve: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> S,
) -> Result<(), E> {
    let (running, stopped) = oneshot::channel::<()>();
    let agent = async {
        let ended = select! {
            ended = agent => ended,
            () = end => Ok(()),
        };
        drop(running);
        ended
    };
    // The sender says nothing: it is gone when the agent is.
    let server = serve(Box::pin(async { drop(stopped.await) }));
    join!(agent, server).0
}

/// The signals that end the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn come(mut self) {
        let name = select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(event = "stopping", "got {name}");
        service::stopping();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::{Cli, Verb},
        engine::{Policy, Way, Ways},
        hooks::HookSettings,
        http::{Guards, Listening},
    };

    fn on_loopback() -> Listening {
        Listening::new(vec![([127, 0, 0, 1], 9477).into()], Guards::default()).unwrap()
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        match Cli::try_parse_from([&["dupip", "run"], flags].concat())?.verb {
            Verb::Run(args) => Ok(*args),
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn a_bridge_is_all_that_must_be_said() {
        let args = parse(&["--bridge", "rt0"]).unwrap();
        let want = Settings {
            bridges: vec!["rt0".parse().unwrap()],
            engine: Config::default(),
            database: "/var/lib/dupip/leases.db".into(),
            cooldown: None,
            wait: false,
            tap: TapSettings {
                keep_quarantine: KeepQuarantine::Clear("/sys/fs/bpf/dupip".into()),
                ..TapSettings::default()
            },
            hooks: HookSettings::default(),
        };
        assert_eq!((args.settings().unwrap(), args.listening.listening().unwrap()), (want, on_loopback()));
    }

    #[test]
    fn everything_can_be_said() {
        let flags = "--bridge rt0 --bridge rt1,rt2 --mode enforce --database l.db --cooldown 90s --wait --attach clsact \
                     --evictions-per-minute 7 --claims-per-second 0 --claims-per-port 70 --no-ipv4-watch \
                     --shared 10.8.64.9 --suppress info,moved --hook-concurrency 2 --listen none --log-format json \
                     --keep-quarantine=/bpf/q --resolve contain --strikes 5";
        let args = parse(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
        let mut hooks = HookSettings::of([]);
        hooks.concurrency = 2;
        let ways = Ways { default: Way::Contain, ..Ways::default() };
        let policy = Policy { shared: vec!["10.8.64.9/32".parse().unwrap()], ways, ..Policy::default() };
        let want = Settings {
            bridges: ["rt0", "rt1", "rt2"].map(|name| name.parse().unwrap()).into(),
            engine: Config {
                mode: Mode::Enforce,
                evictions_per_minute: 7,
                claims_per_port: 70,
                strikes: 5,
                policy,
                ..Config::default()
            },
            database: "l.db".into(),
            cooldown: Some(Span::from_secs(90)),
            wait: true,
            tap: TapSettings {
                hook: Hook::Clsact,
                rate: 0,
                watch_ipv4: false,
                keep_quarantine: KeepQuarantine::Keep("/bpf/q".into()),
                ..TapSettings::default()
            },
            hooks,
        };
        assert_eq!((args.settings().unwrap(), args.listening.listening().unwrap()), (want, Listening::default()));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (flags, reason) in [
            (&["--bridge", "a/b"][..], "cannot be an interface's name"),
            (&["--bridge", "rt0", "--mode", "heal"], "[possible values: observe, enforce]"),
            (&["--bridge", "rt0", "--cooldown", "soon"], "--cooldown <TIME>"),
            (&["--bridge", "rt0", "--cooldown", "600000000000y"], "--cooldown <TIME>"),
            (&["--bridge", "rt0", "--listen", "9477"], "such as 127.0.0.1:9477"),
            (&["--bridge", "rt0", "--evictions-per-minute", "0"], "0 is not in 1..=65535"),
            (&["--bridge", "rt0", "--database", ""], "--database <PATH>"),
            (&["--bridge", "rt0", "--suppress", "duplicate"], "--suppress <KIND>"),
            (&["--bridge", "rt0", "--resolve", "restart"], "use readdress, recycle or contain"),
            (&["--bridge", "rt0", "--shared", "10.8.64"], "a network such as 10.8.64.0/24"),
        ] {
            let error = parse(flags).unwrap_err().to_string();
            assert!(error.contains(reason), "{flags:?}: {error}");
        }
    }
}
