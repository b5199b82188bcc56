//! `dupip events`: what the agent has told, and what it tells.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

use super::{
    exit::{self, Exit, Failure, note},
    render::{Format, Output, domain, or_dash, plain, print},
    small_runtime,
};
use crate::http::{
    Client, ClientError,
    api::{Event, Events},
    encoded,
};

const EXAMPLES: &str = "\
Examples:
  dupip events                                       what was told lately, oldest first
  dupip events -f                                    the last ten, and each one as it comes
  dupip events -f --kind duplicate,reopened,healed   only these kinds
  dupip events -n 1 -o json | jq -r .cursor          where the stream stands
  dupip events --after CURSOR -f -o json             from there on, nothing twice

With -o json each line is one event with its cursor. The agent keeps some thousand events; what was
dropped before it could be shown, and that the agent was restarted, is told on standard error.";

/// How many of the events that are there already are shown before those to come.
const LAST: usize = 10;
/// Events that are asked for at a time.
const PAGE: usize = 1024;
/// How long the agent may wait for an event before it answers that there is none.
const WAIT: Duration = Duration::from_secs(25);
/// How long an agent that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Show what the agent has told: duplicates, martians, evictions and everything else that happened
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Go on with each event as it comes, also when the agent is restarted
    #[arg(short, long)]
    follow: bool,
    /// Only events after this one; an event's cursor is in its JSON
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Only the last of the events that are there [default: all; with -f and without --after: 10]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<usize>,
    /// Only events of these kinds, such as duplicate, reopened, healed, gone, held, martian, moved, flood or degraded
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        small_runtime()?.block_on(async {
            let end = end().map_err(exit::no_runtime)?;
            select! {
                shown = self.show(socket) => shown.map(|()| Exit::Fine),
                () = end => Ok(Exit::Fine),
                () = nobody_reads() => Ok(Exit::Fine),
            }
        })
    }

    async fn show(self, socket: &Path) -> Result<(), Failure> {
        let last = self.lines.or((self.follow && self.after.is_none()).then_some(LAST));
        let output = self.format.output;
        let mut source = Source::new(socket, self.after, &self.kinds);
        let mut kept = VecDeque::new();
        while let Some(events) = source.more().await? {
            kept.extend(events);
            let surplus = last.map_or(0, |last| kept.len().saturating_sub(last));
            kept.drain(..surplus);
        }
        write(kept.make_contiguous(), output)?;
        if !self.follow {
            return Ok(());
        }
        loop {
            write(&source.next().await?, output)?;
        }
    }
}

/// The agent's events from a place on.
pub(super) struct Source {
    client: Client,
    socket: PathBuf,
    after: Option<String>,
    kinds: String,
    /// Whether it answered when it was last asked.
    answers: bool,
}

impl Source {
    pub(super) fn new(socket: &Path, after: Option<String>, kinds: &[impl AsRef<str>]) -> Self {
        let kinds = kinds.iter().map(|kind| encoded(kind.as_ref())).collect::<Vec<_>>().join(",");
        Self { client: Client::new(socket), socket: socket.to_owned(), after, kinds, answers: true }
    }

    /// The next of the events that are there already; `None` at their end.
    pub(super) async fn more(&mut self) -> Result<Option<Vec<Event>>, Failure> {
        let page = self.client.ask(&self.question(Duration::ZERO)).await?;
        let events = self.take(page);
        Ok((!events.is_empty()).then_some(events))
    }

    /// Waits for what comes, however long the agent is away; none if there was nothing for a while.
    pub(super) async fn next(&mut self) -> Result<Vec<Event>, Failure> {
        match self.client.wait_for(&self.question(WAIT), WAIT).await {
            Ok(page) => {
                if !std::mem::replace(&mut self.answers, true) {
                    note("the agent answers again");
                }
                Ok(self.take(page))
            }
            Err(error) if may_pass(&error) => {
                if std::mem::replace(&mut self.answers, false) {
                    note(format_args!("{error}; asking {} again until somebody answers", self.socket.display()));
                }
                sleep(PAUSE).await;
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on behind the page, and says what is not in it.
    fn take(&mut self, page: Events) -> Vec<Event> {
        let Events { events, next, missed, restarted, .. } = page;
        if restarted {
            note("the agent was restarted since: what follows is all that it has told from then on");
        }
        if missed > 0 {
            note(format_args!("{missed} events are not kept any more and cannot be shown"));
        }
        self.after = Some(next);
        events
    }

    fn question(&self, wait: Duration) -> String {
        let mut question = format!("/api/v1/events?limit={PAGE}&wait={}", wait.as_secs());
        if let Some(after) = &self.after {
            question += &format!("&after={}", encoded(after));
        }
        if !self.kinds.is_empty() {
            question += &format!("&kind={}", self.kinds);
        }
        question
    }
}

/// Whether another try may have more luck: the agent is away, on its way, or has too many who wait.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Late(_) | ClientError::Broken(_) => true,
        ClientError::Refused(problem) => problem.status == 503,
        ClientError::NotPermitted(_) | ClientError::Garbled(_) => false,
    }
}

/// Waits until a person or a supervisor has seen enough.
pub(super) fn end() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Waits until whoever read from standard output, through a pipe, has gone: nothing may come for long that could tell.
///
/// A thread looks, as standard output may be anything, and a poll for no event in particular ends only by an error or a
/// hang-up (poll(2)). It ends with the process.
async fn nobody_reads() {
    let (gone, told) = oneshot::channel();
    thread::spawn(move || {
        let out = io::stdout();
        if poll(&mut [PollFd::new(&out, PollFlags::empty())], None).is_ok() {
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        pending().await
    }
}

fn write(events: &[Event], output: Output) -> Result<(), Failure> {
    let lines: Vec<String> = events.iter().map(|event| show(event, output)).collect::<Result<_, _>>()?;
    if lines.is_empty() { Ok(()) } else { print(lines.concat()) }
}

/// One event: a line for a person, or JSON on a line.
pub(super) fn show(event: &Event, output: Output) -> Result<String, Failure> {
    match output {
        Output::Json => one_line(event),
        Output::Table => Ok(line(event, "")),
        Output::Wide => Ok(line(event, &format!("{}  ", place(event)))),
    }
}

fn one_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| Failure::new(Exit::Bug, error))
}

/// Columns of a fixed width, since nobody knows what is to come.
fn line(event: &Event, place: &str) -> String {
    let Event { time, severity, kind, message, .. } = event;
    plain(&format!("{time}  {severity:<8}  {kind:<15}  {place}{message}")).replace('\n', " ") + "\n"
}

fn place(event: &Event) -> String {
    let bridge = event.bridge.as_ref().map(|bridge| domain(bridge, event.vlan));
    let port = event.port.clone().or(event.ifindex.map(|index| index.to_string()));
    format!(
        "{:<12}  {:<15}  {:<8}  {:<15}  {:<17}",
        or_dash(bridge),
        or_dash(event.address),
        or_dash(event.incident),
        or_dash(port),
        or_dash(event.mac.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str, json};

    use super::*;

    fn martian() -> Value {
        json!({
            "seq": 7, "cursor": "0123456789abcdef:7", "time": "2026-06-12T09:00:00.120Z", "boot_us": 120_000,
            "kind": "martian", "severity": "warning", "bridge": "rt0", "vlan": 12, "address": "192.0.2.1",
            "incident": null, "port": null, "ifindex": 7, "mac": "02:00:00:00:00:07", "reason": "outside_subnet",
            "message": "so\nit\u{1b} is", "detail": {"source_mac": "02:00:00:00:00:07"},
        })
    }

    fn shown(output: Output) -> String {
        show(&serde_json::from_value(martian()).unwrap(), output).unwrap()
    }

    #[test]
    fn a_person_reads_one_line_for_each_event() {
        assert_eq!(shown(Output::Table), "2026-06-12T09:00:00.120Z  warning   martian          so it\u{fffd} is\n");
        assert_eq!(
            shown(Output::Wide),
            "2026-06-12T09:00:00.120Z  warning   martian          rt0.12        192.0.2.1        -         7                \
             02:00:00:00:00:07  so it\u{fffd} is\n"
        );
    }

    #[test]
    fn json_is_one_line_and_what_the_agent_says() {
        let text = shown(Output::Json);
        assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true));
        assert_eq!(from_str::<Value>(&text).unwrap(), martian());
    }

    #[test]
    fn a_question_says_from_where_and_of_what() {
        let kinds = ["healed".to_owned(), "a&b".to_owned()];
        let mut source = Source::new(Path::new("/run/s"), None, &kinds);
        assert_eq!(source.question(Duration::ZERO), "/api/v1/events?limit=1024&wait=0&kind=healed,a%26b");
        source.after = Some("abc:7".to_owned());
        source.kinds.clear();
        assert_eq!(source.question(WAIT), "/api/v1/events?limit=1024&wait=25&after=abc%3A7");
    }
}
