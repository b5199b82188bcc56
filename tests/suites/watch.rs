//! `dupip table --watch` on a real terminal: what a person sees while the incident plays, what keys do, and that the
//! terminal is given back.

use anyhow::Result;
use lab::{Bridge, Dupip, Mode, Sandbox, Terminal};
use rustix::process::Signal;

use crate::agent::runner;

/// Wide enough for every column that is shown usually.
const COLUMNS: u16 = 140;
const ROWS: u16 = 24;
/// What the last line says to somebody who types no filter.
const FOOT: &str = "q quit  / filter";

fn watch(dupip: &Dupip, args: &[&str]) -> Result<Terminal> {
    let command = dupip.command(["--socket", "/run/dupip/dupip.sock", "table", "--watch"]).args(args);
    Terminal::start(command, ROWS, COLUMNS)
}

/// The lines of the table that are on the screen, below its headers.
fn rows(screen: &vt100::Screen) -> Vec<String> {
    let lines = screen.rows(0, screen.size().1);
    lines.skip_while(|line| !line.starts_with("BRIDGE")).skip(1).filter(|line| line.starts_with("rt0")).collect()
}

/// The addresses on the screen, from above.
fn addresses(screen: &vt100::Screen) -> Vec<String> {
    rows(screen).iter().filter_map(|row| row.split_whitespace().nth(1).map(str::to_owned)).collect()
}

fn shows(terminal: &mut Terminal, text: &str) -> Result<()> {
    terminal.wait_until(text, |screen| screen.contents().contains(text).then_some(()))
}

fn shows_addresses(terminal: &mut Terminal, wanted: &[&str]) -> Result<()> {
    terminal.wait_until(&wanted.join(", "), |screen| (addresses(screen) == wanted).then_some(()))
}

/// A quiet neighbour with a lower address than those who will have one address.
fn neighbours(bridge: &Bridge) -> Result<[Sandbox; 2]> {
    Ok([
        bridge.sandbox("quiet").address("10.8.64.2/24").start()?,
        bridge.sandbox("other").address("10.8.64.3/24").start()?,
    ])
}

#[test]
fn a_duplicate_rises_to_the_top_with_both_owners_and_keys_do_what_they_say() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _neighbours = neighbours(&bridge)?;
    let _agent = dupip.start(Mode::Observe)?;
    let mut terminal = watch(&dupip, &["--sort", "address"])?;
    shows_addresses(&mut terminal, &["10.8.64.1", "10.8.64.2", "10.8.64.3"])?;
    shows(&mut terminal, FOOT)?;
    assert!(terminal.screen().alternate_screen() && terminal.screen().hide_cursor());

    let _duplicate = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.9/24")?;
    shows_addresses(&mut terminal, &["10.8.64.9", "10.8.64.9", "10.8.64.1", "10.8.64.2", "10.8.64.3"])?;
    terminal.wait_until("both owners in the incident's line", |screen| {
        let line = screen.rows(0, COLUMNS).find(|line| line.starts_with("10.8.64.9 on rt0: "))?;
        (line.contains("sportsagent (") && line.contains("reviewagent (")).then_some(())
    })?;
    let above = rows(terminal.screen());
    assert!(above.iter().take(2).all(|row| row.trim_end().ends_with("duplicate")), "{above:?}");
    assert!(["sportsagent", "reviewagent"].iter().all(|name| above.iter().take(2).any(|row| row.contains(name))));

    terminal.press("r")?;
    shows_addresses(&mut terminal, &["10.8.64.9", "10.8.64.9", "10.8.64.3", "10.8.64.2", "10.8.64.1"])?;
    shows(&mut terminal, "ADDRESS v")?;
    terminal.press(">")?;
    shows(&mut terminal, "MAC ^")?;
    terminal.press("<r/quie")?;
    shows(&mut terminal, "filter: quie_")?;
    shows_addresses(&mut terminal, &["10.8.64.2"])?;
    terminal.press("\x7f\x7f\x7f\x7faddress=10.8.64.0/30\r")?;
    shows(&mut terminal, "filter: address=10.8.64.0/30  (Esc drops it)")?;
    terminal.press("r")?;
    shows_addresses(&mut terminal, &["10.8.64.3", "10.8.64.2", "10.8.64.1"])?;
    terminal.press("?")?;
    shows(&mut terminal, "hold the picture still")?;
    terminal.press("?w")?;
    shows(&mut terminal, "IFINDEX")?;

    terminal.resize(12, 50)?;
    terminal.press("w")?;
    terminal.wait_until("the narrow screen", |screen| {
        let lines: Vec<_> = screen.rows(0, 50).collect();
        lines.last()?.starts_with("filter: address").then_some(())
    })?;
    terminal.press("q")?;
    assert_eq!(terminal.end()?, Some(0));
    terminal.check_restored()
}

#[test]
fn a_picture_that_is_held_still_goes_on_when_it_may() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Observe)?;
    let mut terminal = watch(&dupip, &["--filter", "sandbox!=nobody", "-o", "wide", "--color", "never"])?;
    shows_addresses(&mut terminal, &["10.8.64.1"])?;
    terminal.press(" ")?;
    shows(&mut terminal, "HELD STILL")?;
    let _neighbours = neighbours(&bridge)?;
    agent.wait_until(crate::agent::DEADLINE, "the agent to know of both", |agent| {
        Ok((agent.table()?.len() == 3).then_some(()))
    })?;
    terminal.press("w")?;
    terminal.wait_until("fewer columns", |screen| (!screen.contents().contains("IFINDEX")).then_some(()))?;
    assert_eq!(addresses(terminal.screen()), ["10.8.64.1"]);
    terminal.press(" ")?;
    shows_addresses(&mut terminal, &["10.8.64.1", "10.8.64.2", "10.8.64.3"])?;
    // As a terminal in raw mode says Ctrl-C.
    terminal.press("\x03")?;
    assert_eq!(terminal.end()?, Some(0));
    terminal.check_restored()
}

#[test]
fn an_agent_that_dies_and_comes_back_is_told_of() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _neighbours = neighbours(&bridge)?;
    let agent = dupip.start(Mode::Observe)?;
    let mut terminal = watch(&dupip, &[])?;
    terminal.wait_until("three rows", |screen| (rows(screen).len() == 3).then_some(()))?;
    agent.kill9()?;
    shows(&mut terminal, "The agent does not answer: cannot reach the agent at ")?;
    assert_eq!(rows(terminal.screen()).len(), 3, "what it said last is still shown");
    let _agent = dupip.start(Mode::Enforce)?;
    terminal.wait_until("the agent's new state", |screen| {
        let text = screen.contents();
        (!text.contains("does not answer") && text.contains(" enforce on rt0")).then_some(())
    })?;
    terminal.wait_until("three rows", |screen| (rows(screen).len() == 3).then_some(()))?;
    terminal.signal(Signal::TERM)?;
    assert_eq!(terminal.end()?, Some(0));
    terminal.check_restored()
}

#[test]
fn without_an_agent_no_screen_is_taken() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let mut terminal = watch(&dupip, &[])?;
    assert_eq!(terminal.end()?, Some(3));
    assert!(terminal.screen().contents().contains("cannot reach the agent at "), "{}", terminal.screen().contents());
    terminal.check_restored()
}

#[test]
fn what_cannot_be_watched_is_refused_with_what_can_be_done() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    for (args, words) in [
        (&["table", "--watch"][..], "--watch needs a terminal to draw on\ntry: dupip table, or dupip events --follow"),
        (&["table", "--watch", "-o", "json"], "a program follows what happens\ntry: dupip events --follow -o json"),
    ] {
        let outcome = dupip.outcome(args)?;
        assert_eq!((outcome.status, outcome.output.as_str()), (Some(2), ""), "{outcome:?}");
        assert!(outcome.complaint.contains(words), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_list_fits_the_terminal_and_has_colours_only_there() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _duplicate = bridge.duplicate(["a-sandbox-with-a-very-long-name", "reviewagent"], "10.8.64.9/24")?;
    let mut agent = dupip.start(Mode::Observe)?;
    agent.wait_until(crate::agent::DEADLINE, "an incident", |agent| {
        Ok((!agent.conflicts()?.is_empty()).then_some(()))
    })?;
    let piped = dupip.say(&["table"])?;
    assert!(
        piped.contains("a-sandbox-with-a-very-long-name") && !piped.contains('\x1b') && !piped.contains('…'),
        "{piped}"
    );
    let mut terminal =
        Terminal::start(dupip.command(["--socket", "/run/dupip/dupip.sock", "table"]).env("NO_COLOR", ""), ROWS, 90)?;
    assert_eq!(terminal.end()?, Some(0));
    let screen = terminal.screen();
    let lines: Vec<_> = screen.rows(0, 90).filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 4, "a line for each row: {lines:#?}");
    assert!(screen.contents().contains('…') && screen.contents().contains("10.8.64.9"), "{lines:#?}");
    let red = |row, column| screen.cell(row, column).map(vt100::Cell::fgcolor) != Some(vt100::Color::Default);
    assert!((0..ROWS).any(|row| (0..90).any(|column| red(row, column))), "nothing is coloured");
    let plain = dupip.command(["--socket", "/run/dupip/dupip.sock", "table"]).env("NO_COLOR", "1");
    let mut terminal = Terminal::start(plain, ROWS, 90)?;
    terminal.end()?;
    let screen = terminal.screen();
    let red = |row, column| screen.cell(row, column).map(vt100::Cell::fgcolor) != Some(vt100::Color::Default);
    assert!(!(0..ROWS).any(|row| (0..90).any(|column| red(row, column))), "NO_COLOR is not honoured");
    Ok(())
}
