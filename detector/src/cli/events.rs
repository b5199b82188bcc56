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
    render::{Column, List, Listed, Look, Output, csv, domain, or_dash, paint, print},
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
  dupip events --filter severity=error --sort address
  dupip events -f -o csv --filter address=10.8.64.2
  dupip events -n 1 -o json | jq -r .cursor          where the stream stands
  dupip events --after CURSOR -f -o json             from there on, nothing twice

--filter looks at what has come; --kind also spares the agent sending the rest. -n counts what is shown.
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
    /// Only events of these kinds, such as duplicate, reopened, contained, evicted, healed, gone, held, given_up, lifted,
    /// taken_up, paused, pause_ended, martian, moved, flood or degraded
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
    #[command(flatten)]
    list: List<Event>,
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
        if self.follow && self.list.sort.is_some() {
            return Err(Failure::new(Exit::Usage, "--sort needs an end, and --follow has none"));
        }
        let (list, mut seen) = (self.list, 0);
        let mut source = Source::new(socket, self.after, &self.kinds);
        let mut kept = VecDeque::new();
        while let Some(events) = source.more().await? {
            seen += events.len();
            kept.extend(events.into_iter().filter(|event| list.is_asked_for(event)));
            let surplus = last.map_or(0, |last| kept.len().saturating_sub(last));
            kept.drain(..surplus);
        }
        print(head(&list)?)?;
        let kept = list.pick(kept.into());
        write(&kept, &list)?;
        if !self.follow {
            list.tell_if_empty(kept.len(), seen, "the agent has told of nothing yet");
            return Ok(());
        }
        loop {
            write(&list.pick(source.next().await?), &list)?;
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

impl Listed for Event {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("TIME", |event| event.time.clone()),
        Column::word("SEVERITY", |event| event.severity.clone()),
        Column::text("KIND", |event| event.kind.clone()),
        Column::wide(Column::text("BRIDGE", |event| {
            or_dash(event.bridge.as_ref().map(|bridge| domain(bridge, event.vlan)))
        })),
        Column::wide(Column::address("ADDRESS", |event| or_dash(event.address))),
        Column::wide(Column::text("INCIDENT", |event| or_dash(event.incident))),
        Column::wide(Column::text("PORT", |event| {
            or_dash(event.port.clone().or(event.ifindex.map(|index| index.to_string())))
        })),
        Column::wide(Column::text("MAC", |event| or_dash(event.mac.as_ref()))),
        Column::prose("MESSAGE", |event| event.message.clone()),
    ];
}

/// How wide each column is, since nobody knows what is to come.
const WIDTHS: [usize; 9] = [24, 8, 15, 12, 15, 8, 15, 17, 0];

/// What stands above the events.
fn head(list: &List<Event>) -> Result<String, Failure> {
    match (list.output, list.look()) {
        (Output::Json, _) | (_, Look { header: false, .. }) => Ok(String::new()),
        (Output::Csv, _) => csv::<Event>([], true),
        (_, look) => Ok(padded(look, |column| column.name.to_owned())),
    }
}

fn write(events: &[Event], list: &List<Event>) -> Result<(), Failure> {
    let look = list.look();
    let text = match list.output {
        Output::Json => events.iter().map(one_line).collect::<Result<_, _>>()?,
        Output::Csv => csv(events, false)?,
        _ => events.iter().map(|event| line(event, look)).collect::<String>(),
    };
    if text.is_empty() { Ok(()) } else { print(text) }
}

fn one_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| Failure::new(Exit::Bug, error))
}

/// One event as a person reads it, all of it.
pub(super) fn line(event: &Event, look: Look) -> String {
    padded(look, |column| column.shown(event, look))
}

fn padded(look: Look, cell: impl Fn(&Column<Event>) -> String) -> String {
    let shown = Event::COLUMNS.iter().zip(WIDTHS).filter(|(column, _)| column.is_shown(look.wide));
    let cells = shown.map(|(column, width)| {
        let text = format!("{:<width$}", cell(column));
        if column.is_coloured() { paint(&text, look) } else { text }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use serde_json::{Value, from_str, json};

    use super::*;
    use crate::cli::render::golden::visible;

    fn martian() -> Value {
        json!({
            "seq": 7, "cursor": "0123456789abcdef:7", "time": "2026-06-12T09:00:00.120Z", "boot_us": 120_000,
            "kind": "martian", "severity": "warning", "bridge": "rt0", "vlan": 12, "address": "192.0.2.1",
            "incident": null, "port": null, "ifindex": 7, "mac": "02:00:00:00:00:07", "reason": "outside_subnet",
            "message": "so\nit\u{1b} is", "detail": {"source_mac": "02:00:00:00:00:07"},
        })
    }

    #[test]
    fn a_person_reads_one_line_for_each_event() {
        let event: Event = serde_json::from_value(martian()).unwrap();
        let look = Look::piped(Output::Table);
        let looks = [look, Look { wide: true, ..look }, Look { colour: true, ..look }];
        let shown = looks.map(|look| padded(look, |column| column.name.to_owned()) + &line(&event, look)).concat();
        expect_file!["golden/events.txt"].assert_eq(&visible(&(shown + &csv([&event], true).unwrap())));
    }

    #[test]
    fn json_is_one_line_and_what_the_agent_says() {
        let text = one_line(&serde_json::from_value::<Event>(martian()).unwrap()).unwrap();
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
