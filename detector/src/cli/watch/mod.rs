//! `dupip table --watch`: the live table on the whole terminal.
//!
//! `feed` asks the agent on a thread of its own, `model` is what is shown and what keys do, `screen` draws it. The
//! terminal is given back however it ends.

mod feed;
mod model;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use anstream::{AutoStream, ColorChoice};
use crossterm::event::{Event, EventStream, KeyEvent, KeyEventKind};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, Receiver},
    time::interval,
};

use self::{
    feed::{Feed, News},
    model::{Model, Next},
};
use super::{
    events,
    exit::{self, Exit, Failure},
    render::{List, Output},
    small_runtime,
};
use crate::http::{Client, api::Row};

/// How often ages are shown anew, if nothing else is.
const TICK: Duration = Duration::from_secs(1);

/// Shows the table until somebody has seen enough.
pub(super) fn watch(socket: &Path, list: &List<Row>) -> Result<Exit, Failure> {
    check(list)?;
    let runtime = small_runtime()?;
    let mut feed = Feed::new(Client::new(socket));
    let picture = runtime.block_on(feed.look())?;
    let model = Model::new(picture, list, SystemTime::now());
    let news = hear(feed)?;
    let screen = Screen::take().map_err(|error| broken(&error))?;
    runtime.block_on(show(screen, model, news))
}

/// What cannot be watched, with what can be done instead.
fn check(list: &List<Row>) -> Result<(), Failure> {
    let usage = |what: &str, hint: &str| Err(Failure::new(Exit::Usage, what).hint(hint));
    match list.output {
        Output::Csv | Output::Json => {
            usage("--watch is for people; a program follows what happens", "dupip events --follow -o json")
        }
        Output::Table | Output::Wide if !io::stdout().is_terminal() => {
            usage("--watch needs a terminal to draw on", "dupip table, or dupip events --follow")
        }
        Output::Table | Output::Wide => Ok(()),
    }
}

/// Asks on a thread of its own, so that a long answer holds up no key. It ends with the process.
fn hear(feed: Feed) -> Result<Receiver<News>, Failure> {
    let (tell, news) = mpsc::channel(1);
    let runtime = small_runtime()?;
    thread::Builder::new()
        .name("feed".to_owned())
        .spawn(move || runtime.block_on(feed.tell(tell)))
        .map_err(exit::no_runtime)?;
    Ok(news)
}

/// The terminal, taken until this value goes: by a key, a signal or a panic.
struct Screen {
    terminal: DefaultTerminal,
    colour: bool,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let colour = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        crossterm::style::force_color_output(colour);
        Ok(Self { terminal: ratatui::try_init()?, colour })
    }

    fn draw(&mut self, model: &mut Model) -> io::Result<()> {
        let (colour, now) = (self.colour, SystemTime::now());
        self.terminal.draw(|frame| screen::draw(frame, model, colour, now)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has left the screen already; to leave it twice would write over the reason.
        if !thread::panicking() {
            ratatui::restore();
        }
        // Nothing helps if even that cannot be written.
        let _ = self.terminal.show_cursor();
    }
}

async fn show(mut screen: Screen, mut model: Model, mut news: Receiver<News>) -> Result<Exit, Failure> {
    let mut keys = EventStream::new();
    let mut tick = interval(TICK);
    let mut hangup = signal(SignalKind::hangup()).map_err(exit::no_runtime)?;
    let end = events::end().map_err(exit::no_runtime)?;
    let mut end = std::pin::pin!(end);
    loop {
        screen.draw(&mut model).map_err(|error| broken(&error))?;
        select! {
            () = &mut end => return Ok(Exit::Fine),
            _ = hangup.recv() => return Ok(Exit::Fine),
            key = keys.next() => match key {
                Some(Ok(event)) if press(&mut model, &event) == Next::End => return Ok(Exit::Fine),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(&error)),
                None => return Ok(Exit::Fine),
            },
            told = news.recv() => match told {
                Some(told) => model.hear(told, SystemTime::now()),
                None => return Err(Failure::new(Exit::Bug, "nobody asks the agent any more")),
            },
            _ = tick.tick() => {}
        }
    }
}

fn press(model: &mut Model, event: &Event) -> Next {
    match event {
        Event::Key(key @ KeyEvent { kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) => model.press(*key),
        _ => Next::Go,
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Exit::No, format_args!("cannot draw on the terminal: {error}")).hint("dupip table")
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod panics {
    use std::{env, fs::File, io::Read as _, process::Command};

    use rustix::{
        fs::{Mode, OFlags, open},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{Winsize, tcgetattr, tcsetwinsize},
    };

    use super::*;

    /// In the environment of this test's own child, which is to panic on a terminal.
    const PANICS: &str = "DUPIP_TEST_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if env::var_os(PANICS).is_some() {
            let _screen = Screen::take().unwrap();
            panic!("as it should");
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let modes = || {
            let of = tcgetattr(&slave).unwrap();
            (of.input_modes, of.output_modes, of.local_modes)
        };
        let before = modes();
        let end = || slave.try_clone().unwrap();
        let test = "cli::watch::panics::a_panic_gives_the_terminal_back";
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(PANICS, "").stdin(end()).stdout(end()).stderr(end());
        let status = child.status().unwrap();
        drop(child);
        assert!(!status.success());
        assert_eq!(modes(), before);
        drop(slave);
        let mut said = Vec::new();
        // Linux ends what a terminal without a program says by EIO.
        let _ = File::from(master).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let at = |sequence: &str| said.rfind(sequence);
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049h").is_some(), "{said}");
        assert!(at("\u{1b}[?1049l") < at("as it should"), "the reason is not on the screen that stays: {said}");
        assert!(at("\u{1b}[?25l") <= at("\u{1b}[?25h"), "{said}");
    }
}
