//! How the program ends, and what it says then.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use tracing::Level;

use super::{logging::marked, render::plain};
use crate::{
    agent,
    allocator::{AdoptError, AllocateError, OpenError, Refusal, StoreError},
    capture::{CaptureError, SendError},
    http::{BindError, ClientError, Flaw, Unexplained, Unguarded, Unusable, api::Problem},
    netlink,
    telemetry::with_causes,
};

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Fine = 0,
    /// The answer is no: there is a duplicate, or what was asked for cannot be as things stand.
    No = 1,
    /// It was asked for something that makes no sense.
    Usage = 2,
    /// The agent cannot be reached.
    Unreachable = 3,
    /// It may not do that.
    NotPermitted = 4,
    /// The kernel cannot do it.
    Unsupported = 5,
    /// A file that it was to read is damaged, so the answer is of a part of it (`EX_DATAERR` of sysexits).
    Damaged = 65,
    /// It is wrong itself.
    Bug = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why it ended otherwise than fine, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Display) -> Self {
        Self { exit, what: what.to_string(), hint: None }
    }

    /// With what a person could do next.
    pub(super) fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Tells it on standard error.
    pub(super) fn tell(self) -> Exit {
        to_stderr(&marked(Level::ERROR, &self.text()));
        self.exit
    }

    fn text(&self) -> String {
        let hint = self.hint.iter().map(|hint| format!("try: {}\n", plain(hint)));
        format!("dupip: error: {}\n{}", with_details(&self.what), hint.collect::<String>())
    }
}

/// Without the hint, for whoever logs it.
impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// Tells something on standard error that is no error.
pub(super) fn note(what: impl Display) {
    to_stderr(&noted(&what.to_string()));
}

fn noted(what: &str) -> String {
    format!("dupip: note: {}\n", plain(what))
}

/// What there are several of, such as faults of a file, stands indented below; whoever is quoted begins no line of ours.
fn with_details(what: &str) -> String {
    what.split("\n  ").map(plain).collect::<Vec<_>>().join("\n  ")
}

fn to_stderr(text: &str) {
    // Nothing helps if even that cannot be written to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

pub(super) fn no_runtime(error: io::Error) -> Failure {
    Failure::new(Exit::Unsupported, format_args!("cannot start threads or timers: {error}"))
}

/// What a kernel or a file system said no with.
pub(super) fn of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::No,
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, format_args!("{error}: is it running?"))
                .hint("systemctl status dupip, or start it with: dupip run --bridge rt0"),
            ClientError::NotPermitted(_) => Self::new(Exit::NotPermitted, error).hint("sudo dupip …"),
            ClientError::Late(_) | ClientError::Broken(_) => Self::new(Exit::Unreachable, error)
                .hint("ask again, which is safe; if it stays like that: systemctl restart dupip"),
            ClientError::Garbled(_) => Self::new(Exit::Unreachable, error)
                .hint("systemctl restart dupip, if the agent is older than this command"),
            ClientError::Refused(problem) => refused(problem),
        }
    }
}

fn refused(problem: &Problem) -> Failure {
    let exit = match problem.status {
        403 => Exit::NotPermitted,
        503 => Exit::Unreachable,
        400 | 404 | 405 | 413 | 415 | 422 => Exit::Usage,
        _ => Exit::No,
    };
    Failure::new(exit, &problem.detail)
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let exit = match &error {
            BindError::Unix { source, .. } | BindError::Tcp { source, .. } => of_io(source),
            BindError::NotASocket(_) => Exit::Usage,
            BindError::Unusable(Unusable { reason: Flaw::Unreadable(source), .. }) => of_io(source),
            BindError::Unusable(_) => Exit::Usage,
            BindError::Running(_) => Exit::No,
        };
        Self::new(exit, error)
    }
}

impl From<Unguarded> for Failure {
    fn from(error: Unguarded) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        let exit = match &error {
            agent::Error::Capture(CaptureError::NotPermitted | CaptureError::NotPermittedToListen)
            | agent::Error::Send(SendError::NotPermitted) => Exit::NotPermitted,
            agent::Error::Netlink(netlink::Error::NoBridge(_) | netlink::Error::NotABridge(_)) => Exit::Usage,
            agent::Error::Capture(_)
            | agent::Error::Ring(_)
            | agent::Error::Thread(_)
            | agent::Error::Send(_)
            | agent::Error::Netlink(_)
            | agent::Error::Clock(_) => Exit::Unsupported,
            agent::Error::Open(OpenError { reason: Refusal::Unreachable(source), .. }) => of_io(source),
            agent::Error::Surveyor => Exit::Bug,
            agent::Error::Open(_) => Exit::No,
        };
        Self::new(exit, with_causes(&error))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::from(agent::Error::Open(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::No, error)
    }
}

impl From<Unexplained> for Failure {
    fn from(error: Unexplained) -> Self {
        match error {
            Unexplained::NotThere { .. } => Self::new(Exit::Usage, error),
            Unexplained::Unreadable { .. } => Self::new(Exit::No, error),
            Unexplained::Store(error) => error.into(),
        }
    }
}

impl From<AdoptError> for Failure {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Store(error) => error.into(),
            AdoptError::NotInPool { .. } => Self::new(Exit::Usage, error),
            AdoptError::Leased(_) | AdoptError::HoldsAnother(_) => Self::new(Exit::No, error),
        }
    }
}

impl From<AllocateError> for Failure {
    fn from(error: AllocateError) -> Self {
        match &error {
            AllocateError::NoPool(domain) => {
                let vlan = domain.vlan.map(|vlan| format!(" --vlan {}", vlan.get())).unwrap_or_default();
                let bridge = domain.bridge;
                let hint =
                    format!("dupip pool create --bridge {bridge}{vlan} --subnet 10.8.64.0/24 --gateway 10.8.64.1");
                Self::new(Exit::Usage, error).hint(hint)
            }
            AllocateError::NotInPool { .. } => Self::new(Exit::Usage, error),
            _ => Self::new(Exit::No, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_what_to_try_another() {
        let failure = Failure::new(Exit::Usage, "no \u{1b}[31mway");
        assert_eq!(failure.text(), "dupip: error: no \u{fffd}[31mway\n");
        let text = failure.hint("another\u{202e} way\ndupip: all is well").text();
        assert_eq!(text, "dupip: error: no \u{fffd}[31mway\ntry: another\u{fffd} way\u{fffd}dupip: all is well\n");
        let several = Failure::new(Exit::Usage, "two faults\n  line 1: x\ndupip: y\n  line 2: z").text();
        assert_eq!(several, "dupip: error: two faults\n  line 1: x\u{fffd}dupip: y\n  line 2: z\n");
        assert_eq!(noted("no row has \u{1b}[2J\nx"), "dupip: note: no row has \u{fffd}[2J\u{fffd}x\n");
    }

    #[test]
    fn what_to_try_is_a_line_of_its_own() {
        let text = Failure::new(Exit::Usage, "no way").hint("another way").text();
        assert_eq!(text, "dupip: error: no way\ntry: another way\n");
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_twice() {
        let refused = || io::Error::from(rustix::io::Errno::INVAL);
        let ring = Failure::from(agent::Error::Ring(refused()));
        assert_eq!(ring.what, "cannot wait for the tap's ring buffer: Invalid argument (os error 22)");
        let wait = Failure::from(agent::Error::Capture(CaptureError::Wait(refused())));
        assert_eq!(wait.what, "cannot wait for the ARP tap's events: Invalid argument (os error 22)");
        assert_eq!((ring.exit, wait.exit), (Exit::Unsupported, Exit::Unsupported));
    }

    #[test]
    fn what_the_agent_refuses_ends_by_its_kind() {
        let exit = |status| {
            Failure::from(ClientError::Refused(Problem {
                title: String::new(),
                status,
                detail: String::new(),
                ready_in_ms: None,
            }))
            .exit
        };
        assert_eq!(
            [403, 404, 409, 422, 500, 503].map(exit),
            [Exit::NotPermitted, Exit::Usage, Exit::No, Exit::Usage, Exit::No, Exit::Unreachable]
        );
    }
}
