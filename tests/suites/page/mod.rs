//! The agent's page in a real browser, beside real sandboxes: what a person sees, hears and can do.

mod browser;

use anyhow::Result;
use browser::{Browser, PAGE};
use lab::{Agent, Arp, Bridge, Dupip, Mode, Sandbox};
use serde_json::json;

use crate::agent::{DEADLINE, runner, text};

/// A name that a stranger may choose, and that would be more than a name to a careless page.
const HOSTILE: &str = "<script>document.title=1";

fn sandboxes(bridge: &Bridge) -> Result<[Sandbox; 2]> {
    let start = |name, address| bridge.sandbox(name).address(address).start();
    Ok([start("reviewagent", "10.8.64.2/24")?, start("calagent", "10.8.64.3/24")?])
}

/// Nothing went wrong in the browser, and nobody but the agent was asked for anything.
fn assert_clean(browser: &mut Browser) -> Result<()> {
    assert_eq!(browser.complaints()?, [""; 0]);
    let requests = browser.requests();
    assert!(requests.len() > 3 && requests.iter().all(|url| url.starts_with(PAGE)), "{requests:?}");
    Ok(())
}

#[test]
fn the_incident_is_seen_as_it_happens() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _here = sandboxes(&bridge)?;
    let _agent = dupip.start(Mode::Enforce)?;
    let browser = &mut Browser::start(bridge.runner())?;
    browser.open("/")?;
    browser.until_says("#connection", &["live"])?;
    browser.until_says("#table", &["reviewagent", "10.8.64.2", "calagent", "10.8.64.3", "the host", "10.8.64.1"])?;
    browser.until_says("#ports svg.wide", &["rt0", "reviewagent", "10.8.64.2", "calagent", "10.8.64.3"])?;
    browser.until_says("#summary", &["Every address has one owner.", "enforce", "Ready"])?;
    browser.until_says("#incidents", &["None since the agent started."])?;
    browser.eval("window.isTheSame = true; document.querySelector('#table .scroll').focus()")?;

    // Healing takes no longer than a blink, so it is held up.
    dupip.say(&["pause", "10m"])?;
    browser.until_says("#summary", &["Paused until"])?;
    let late = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let keeps = "reviewagent keeps 10.8.64.2: holds lease generation";
    browser.until_says("#incidents .red", &["Open", "10.8.64.2 on rt0", "reviewagent", "sportsagent", keeps])?;
    browser.until_says("#ports svg.wide .tie", &["10.8.64.2", keeps])?;
    browser.until_says("#table", &["duplicate, keeps it", "duplicate, loses it"])?;
    browser.until_says("#summary .sentence", &["10.8.64.2 has more than one owner."])?;
    browser.until_says("#news", &["reviewagent", "sportsagent", "both use 10.8.64.2"])?;
    browser.until("document.title.startsWith('(1) duplicate')")?;
    browser.until_says("#incidents .held", &["Not healed: the agent is paused; go on with dupip pause --end."])?;

    dupip.say(&["pause", "--end"])?;
    browser.until_says("#incidents .green", &["Healed in ", "sportsagent", "→ 10.8.64.4", "done, now 10.8.64.4"])?;
    browser.until_says("#ports svg.wide", &["10.8.64.4", "moved from 10.8.64.2"])?;
    browser.until("document.querySelector('.tie') === null")?;
    browser.until_says("#table", &["moved from 10.8.64.2", "sportsagent (bound)"])?;
    browser.until_says("#summary .sentence", &["Every address has one owner."])?;
    assert_eq!(late.addresses()?, ["10.8.64.4/24"]);
    let same = "window.isTheSame && document.activeElement === document.querySelector('#table .scroll')";
    assert_eq!(browser.eval(same)?, json!(true), "the page was loaded anew, or the keyboard lost its place");
    assert_clean(browser)
}

/// A duplicate that stays, with a loser of a hostile name in quarantine, and a martian.
fn trouble(bridge: &Bridge, dupip: &Dupip) -> Result<(Agent, [Sandbox; 3])> {
    let [review, cal] = sandboxes(bridge)?;
    dupip.allocate("reviewagent")?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--resolve", "contain"])?;
    let hostile = bridge.sandbox(HOSTILE).address("10.8.64.2/24").start()?;
    cal.send_frame(&Arp::announcement(cal.mac()?, [192, 0, 2, 7].into()).frame())?;
    agent.wait_until(DEADLINE, "the martian and the quarantine", |agent| {
        let is_martian = agent.table()?.iter().any(|row| text(row, "state") == "martian");
        let quarantined = dupip.ask(&["quarantine", "list"])?;
        Ok((is_martian && quarantined.as_array().is_some_and(|of| !of.is_empty())).then_some(()))
    })?;
    Ok((agent, [review, cal, hostile]))
}

#[test]
fn everybody_can_read_it() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let (_agent, _sandboxes) = trouble(&bridge, &dupip)?;
    let browser = &mut Browser::start(bridge.runner())?;
    without_javascript(browser)?;
    browser.open("/")?;
    browser.until_says("#connection", &["live"])?;
    heard(browser)?;
    typed(browser)?;
    light_dark_and_narrow(browser)?;
    assert_clean(browser)
}

fn without_javascript(browser: &mut Browser) -> Result<()> {
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}))?;
    browser.open("/")?;
    for (part, wants) in [
        ("#connection", &["as of 2"][..]),
        ("#summary", &["10.8.64.2 has more than one owner."]),
        ("#table", &["reviewagent", HOSTILE, "duplicate, loses it, contained, ", "martian", "192.0.2.7"]),
        ("#ports svg.wide", &["reviewagent", "<script>", "contained, ", "martian: cannot be here"]),
        ("#incidents", &["Open", "reviewagent keeps 10.8.64.2", HOSTILE]),
    ] {
        let words = browser.words(part)?;
        assert!(wants.iter().all(|want| words.contains(want)), "{part}: {words}");
    }
    assert_eq!(browser.eval("document.querySelectorAll('script').length")?, json!(1));
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": false})).map(drop)
}

/// What a screen reader tells.
fn heard(browser: &mut Browser) -> Result<()> {
    for (role, names) in [
        ("heading", &["dupip rt0", "On the bridge", "Incidents", "Live table"][..]),
        ("region", &["On the bridge", "Incidents", "Live table"]),
        ("image", &["Picture of bridge rt0"]),
        ("article", &["Open 10.8.64.2 on rt0"]),
        ("searchbox", &["Find"]),
        ("columnheader", &["Sandbox", "Address", "State", "Port", "MAC"]),
        ("rowheader", &["reviewagent", HOSTILE, "calagent", "the host"]),
        ("table", &["Who has which address: 4 of 4 ports"]),
    ] {
        let told = browser.named(role)?;
        assert!(names.iter().all(|name| told.iter().any(|told| told == name)), "{role}: {told:?}");
    }
    for landmark in ["banner", "main", "contentinfo", "search", "status"] {
        assert_eq!(browser.named(landmark)?.len(), 1, "{landmark}");
    }
    let picture = browser.words("#ports figcaption")?;
    let parties = format!("10.8.64.2 is contested by reviewagent and {HOSTILE}. reviewagent keeps 10.8.64.2");
    assert!(picture.contains(&parties), "{picture}");
    // Every sign has words beside it.
    let bare = "[...document.querySelectorAll('svg.glyph')].filter((sign) => sign.ariaHidden !== 'true').length";
    assert_eq!(browser.eval(bare)?, json!(0));
    Ok(())
}

/// Everything can be reached with the keyboard, in the order in which it is read.
fn typed(browser: &mut Browser) -> Result<()> {
    let here = "(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim() \
                || document.activeElement.name";
    let mut walk = Vec::new();
    for _ in 0..6 {
        browser.press("Tab", 9)?;
        walk.push(browser.eval(here)?);
        let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle")?;
        assert_eq!(outline, json!("solid"), "nobody sees that the keyboard is at {walk:?}");
    }
    let contained = format!("{HOSTILE}: contained");
    assert_eq!(walk, ["Skip to the table", "find", "Find", &contained, "Live table", "table"]);

    browser.eval("document.querySelector('#find').focus()")?;
    browser.call("Input.insertText", json!({"text": "CALAGENT"}))?;
    let seen = browser.here();
    browser.press("Enter", 13)?;
    browser.loaded_since(seen)?;
    browser.until_says("#table", &["1 of 1 ports", "calagent", "martian"])?;
    assert!(!browser.words("#table")?.contains("reviewagent"));
    browser.until_says("#connection", &["live"])
}

fn light_dark_and_narrow(browser: &mut Browser) -> Result<()> {
    browser.open("/")?;
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme)?;
        papers.push(browser.eval("getComputedStyle(document.documentElement).backgroundColor")?);
    }
    assert_eq!(papers, ["rgb(247, 246, 243)", "rgb(17, 22, 27)"]);
    for (width, there, not_there) in [(1280, "wide", "narrow"), (360, "narrow", "wide")] {
        browser.resize(width, 800)?;
        let shown = |class| format!("document.querySelector('#ports svg.{class}').getBoundingClientRect().width > 0");
        browser.until(&format!("{} && !({})", shown(there), shown(not_there)))?;
        let fits = browser.eval("document.documentElement.scrollWidth <= window.innerWidth")?;
        assert_eq!(fits, json!(true), "the page is wider than {width}");
    }
    Ok(())
}

#[test]
fn it_says_that_the_agent_is_gone_and_comes_back_with_it() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _here = sandboxes(&bridge)?;
    let agent = dupip.start(Mode::Observe)?;
    let browser = &mut Browser::start(bridge.runner())?;
    browser.open("/")?;
    browser.until_says("#connection", &["live"])?;
    assert_clean(browser)?;
    assert!(agent.terminate()?.success());
    browser.until_says("#connection", &["not live: the agent does not answer"])?;
    let _late = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let _agent = dupip.start(Mode::Observe)?;
    browser.until("document.querySelector('#connection').textContent === 'live'")?;
    browser.until_says("#incidents", &["Open", "reviewagent", "sportsagent"])
}

#[test]
fn what_cannot_be_fetched_is_not_called_live() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _here = sandboxes(&bridge)?;
    let _agent = dupip.start(Mode::Observe)?;
    let browser = &mut Browser::start(bridge.runner())?;
    browser.open("/")?;
    browser.until("document.querySelector('#connection').textContent === 'live'")?;
    browser.eval("window.real = window.fetch; window.fetch = async () => { throw new TypeError(); }; 0")?;
    let _late = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    browser.until_says("#connection", &["not live: the agent does not answer"])?;
    browser.eval("window.fetch = window.real; 0")?;
    browser.until("document.querySelector('#connection').textContent === 'live'")?;
    browser.until_says("#incidents", &["Open", "reviewagent", "sportsagent"])?;

    // As in a window behind another one.
    browser.eval("Object.defineProperty(document, 'hidden', { value: true, configurable: true }); 0")?;
    browser.eval("document.dispatchEvent(new Event('visibilitychange')); 0")?;
    browser.until("stream.readyState === EventSource.CLOSED")?;
    let _later = bridge.sandbox("newsagent").address("10.8.64.3/24").start()?;
    browser.eval("delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); 0")?;
    browser.until("document.querySelector('#connection').textContent === 'live'")?;
    browser.until_says("#incidents", &["calagent", "newsagent"])
}
