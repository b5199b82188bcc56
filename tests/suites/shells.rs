//! What shells and manual readers make of what dupip says of itself: each shell on a real terminal, with a real Tab.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Terminal};

use crate::agent::runner;

/// Writes a shell's script into the runner, and says where.
fn script(bridge: &Bridge, dupip: &Dupip, shell: &str, name: &str) -> Result<PathBuf> {
    let path = bridge.runner().dir().join(name);
    fs::write(bridge.runner().outside(&path), dupip.command(["completions", shell]).run()?)?;
    Ok(path)
}

/// Types a line with a Tab at its end, and waits for all of the words.
fn offers(terminal: &mut Terminal, line: &str, words: &[&str]) -> Result<()> {
    // Readline's and zle's and fish's way to begin a line anew.
    terminal.press("\x15")?;
    terminal.press(line)?;
    terminal.wait_until(line.trim_end_matches('\t'), |screen| {
        screen.contents().contains(line.trim_end_matches('\t').trim_end()).then_some(())
    })?;
    let all = |screen: &vt100::Screen| words.iter().all(|word| screen.contents().contains(word)).then_some(());
    terminal.wait_until(&words.join(", "), all)
}

/// Formats, columns and colours, and the verbs below a verb.
fn offers_everything(terminal: &mut Terminal, tab: &str) -> Result<()> {
    offers(terminal, &format!("dupip table --sort {tab}"), &["last-seen", "sandbox", "ifindex"])?;
    offers(terminal, &format!("dupip lease list --output {tab}"), &["wide", "csv", "json"])?;
    offers(terminal, &format!("dupip pool list --color {tab}"), &["auto", "always", "never"])?;
    offers(terminal, &format!("dupip quarantine {tab}"), &["list", "lift"])
}

#[test]
fn bash_completes_values() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let script = script(&bridge, &dupip, "bash", "dupip.bash")?;
    let bash = bridge.runner().command("bash").args(["--norc", "--noprofile", "-i"]).env("PS1", "ready> ");
    let mut terminal = Terminal::start(bash, 50, 100)?;
    terminal.press(&format!("source {}; bind 'set bell-style none'; clear; echo sour''ced\r", script.display()))?;
    terminal.wait_until("the script", |screen| screen.contents().contains("sourced").then_some(()))?;
    offers_everything(&mut terminal, "\t\t")
}

#[test]
fn zsh_completes_values() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let script = script(&bridge, &dupip, "zsh", "_dupip")?;
    let home = script.parent().context("a script in no directory")?.display();
    let zsh = bridge.runner().command("zsh").args(["-f", "-i"]).env("HISTFILE", "").env("HISTSIZE", "0");
    let mut terminal = Terminal::start(zsh, 50, 100)?;
    let line = format!("fpath=({home} $fpath); autoload -Uz compinit; compinit -u -D; clear; echo sour''ced\r");
    terminal.press(&line)?;
    terminal.wait_until("the script", |screen| screen.contents().contains("sourced").then_some(()))?;
    offers_everything(&mut terminal, "\t")
}

#[test]
fn fish_completes_values() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let script = script(&bridge, &dupip, "fish", "dupip.fish")?;
    for (line, words) in [
        ("dupip table --sort ", &["last-seen", "sandbox", "ifindex"][..]),
        ("dupip lease list --output ", &["wide", "csv", "json"]),
        ("dupip pool list --color ", &["auto", "always", "never"]),
        ("dupip quarantine l", &["list", "lift"]),
    ] {
        // fish completes what it is given as the terminal would, without one.
        let complete = format!("source {}; complete --do-complete '{line}'", script.display());
        let offered = bridge.runner().run(["fish", "--no-config", "--command", &complete])?;
        let offered: Vec<_> = offered.lines().filter_map(|line| line.split('\t').next()).collect();
        assert!(words.iter().all(|word| offered.contains(word)), "{line}: {offered:?}");
    }
    Ok(())
}

#[test]
fn every_manual_page_is_sound() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let pages = bridge.runner().dir().join("man1");
    dupip.command(["man", "--directory"]).arg(&pages).run()?;
    let mut count = 0;
    for page in fs::read_dir(bridge.runner().outside(&pages))? {
        let page = pages.join(page?.file_name());
        let lint = bridge.runner().command("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page).output()?;
        assert!(lint.status.success(), "{}: {}", page.display(), String::from_utf8_lossy(&lint.stdout));
        count += 1;
    }
    assert!(count > 25, "{count} pages");
    let shown = bridge.runner().command("mandoc").args(["-T", "utf8"]).arg(pages.join("dupip-table.1")).run()?;
    assert!(shown.contains("dupip table --watch") && shown.contains("last-seen"), "{shown}");
    Ok(())
}
