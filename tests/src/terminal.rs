//! A terminal that a program in the lab runs on, and what a person would see on it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use vt100::{Parser, Screen};

use crate::{Command, Process};

/// How long anything may take to show.
const DEADLINE: Duration = Duration::from_secs(20);

/// A program on a terminal of its own.
pub struct Terminal {
    process: Process,
    /// Our end.
    master: File,
    /// The program's end, kept open so that what it leaves behind can be looked at.
    slave: OwnedFd,
    before: Termios,
    parser: Parser,
}

impl Terminal {
    /// Starts a command on a new terminal of so many rows and columns, which is its controlling terminal.
    ///
    /// # Errors
    /// If there is no terminal to be had, or the command cannot be started.
    pub fn start(command: Command, rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&slave, size(rows, columns))?;
        let before = tcgetattr(&slave)?;
        let process = command.env("TERM", "xterm-256color").spawn_on(&slave)?;
        Ok(Self { process, master: master.into(), slave, before, parser: Parser::new(rows, columns, 0) })
    }

    /// Types keys, as bytes.
    ///
    /// # Errors
    /// If the terminal does not take them.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("the terminal takes no keys")
    }

    /// Makes the terminal another size; the program is told by SIGWINCH.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        self.parser.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.slave, size(rows, columns)).context("the terminal keeps its size")
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// What is on the screen now.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        self.parser.screen()
    }

    /// Waits until the screen shows what is looked for, and returns it.
    ///
    /// # Errors
    /// If it does not in time; the error shows the screen.
    pub fn wait_until<T>(&mut self, what: &str, mut look: impl FnMut(&Screen) -> Option<T>) -> Result<T> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self.parser.screen()) {
                return Ok(found);
            }
            if !self.read(end)? {
                bail!("waited in vain for {what}; the screen is\n{}", self.screen().contents());
            }
        }
    }

    /// Waits until the program has ended, and returns its exit status and all that is left on the screen.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(&mut self) -> Result<Option<i32>> {
        let status = self.process.wait(DEADLINE)?;
        while self.read(Instant::now())? {}
        Ok(status.code())
    }

    /// Checks that the terminal is as it was before the program came: its screen, its cursor and its modes.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_restored(&self) -> Result<()> {
        let (screen, after) = (self.screen(), tcgetattr(&self.slave)?);
        ensure!(!screen.alternate_screen(), "the alternate screen was not left");
        ensure!(!screen.hide_cursor(), "the cursor is hidden");
        let modes = |of: &Termios| (of.input_modes, of.output_modes, of.local_modes, of.control_modes);
        ensure!(modes(&after) == modes(&self.before), "the modes are {after:?}, and were {:?}", self.before);
        Ok(())
    }

    /// Takes what the program has written; false if there is nothing until `end`.
    fn read(&mut self, end: Instant) -> Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec::try_from(left)?))? == 0 {
            return Ok(false);
        }
        let mut bytes = [0; 1 << 16];
        let count = self.master.read(&mut bytes).context("the terminal is gone")?;
        self.parser.process(bytes.get(..count).unwrap_or_default());
        Ok(true)
    }
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
