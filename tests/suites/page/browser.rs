//! A browser on the runner, with nobody in front of it: Chromium, told by its DevTools protocol what to do, and asked what a
//! person would see.

use std::{io, net::TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Process, Runner};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::agent::{DEADLINE, field, text};

/// Where the agent is, for a browser on its runner.
pub(super) const PAGE: &str = "http://127.0.0.1:9477/";

/// What one cannot do without on a server, as root, and without the internet.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--user-data-dir=/run/lab/chromium",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
];

/// A browser with one tab, ended when this value goes.
pub(super) struct Browser {
    _process: Process,
    socket: WebSocket<Patient>,
    /// Names the tab.
    session: Option<String>,
    asked: u64,
    /// What the tab has told by itself.
    events: Vec<Value>,
}

/// Reads on when a signal came in between, which ends a read that has a deadline (signal(7)).
struct Patient(TcpStream);

impl io::Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl io::Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Browser {
    pub(super) fn start(runner: &Runner) -> Result<Self> {
        let chromium = runner.command("chromium").args(ARGUMENTS).arg("about:blank").env("HOME", "/run/lab");
        let mut process = chromium.spawn()?;
        let line = process.wait_for_line("DevTools listening on ws://", 2 * DEADLINE)?;
        let (_, url) = line.split_once(" on ").context("no address")?;
        let address = url.trim_start_matches("ws://").split('/').next().unwrap_or_default().to_owned();
        let stream = runner.inside(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(2 * DEADLINE))?;
        let (socket, _) = tungstenite::client(url.trim(), Patient(stream))?;
        let mut browser = Self { _process: process, socket, session: None, asked: 0, events: Vec::new() };
        browser.open_tab()?;
        Ok(browser)
    }

    fn open_tab(&mut self) -> Result<()> {
        let tab = self.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached =
            self.call("Target.attachToTarget", json!({"targetId": text(&tab, "targetId"), "flatten": true}))?;
        self.session = Some(text(&attached, "sessionId").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// What the browser answers to a command.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.asked += 1;
        let mut command = json!({"id": self.asked, "method": method, "params": params});
        if let (Some(session), Some(fields)) = (&self.session, command.as_object_mut()) {
            fields.insert("sessionId".to_owned(), json!(session));
        }
        self.socket.send(Message::text(command.to_string()))?;
        loop {
            let message = self.read().with_context(|| format!("no answer to {method}"))?;
            if field(&message, "id") == &json!(self.asked) {
                ensure!(message.get("error").is_none(), "{method}: {message}");
                return Ok(field(&message, "result").clone());
            }
            self.events.push(message);
        }
    }

    fn read(&mut self) -> Result<Value> {
        loop {
            if let Message::Text(text) = self.socket.read()? {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }

    /// Goes to a path of the agent's, and waits until all of the page is there.
    pub(super) fn open(&mut self, path: &str) -> Result<()> {
        let seen = self.here();
        let url = format!("{PAGE}{}", path.trim_start_matches('/'));
        self.call("Page.navigate", json!({"url": url}))?;
        self.loaded_since(seen)
    }

    /// How much the tab has told so far.
    pub(super) fn here(&self) -> usize {
        self.events.len()
    }

    /// Waits until all of a page is there, unless it has come after `seen`.
    pub(super) fn loaded_since(&mut self, seen: usize) -> Result<()> {
        let is_loaded = |event: &Value| text(event, "method") == "Page.loadEventFired";
        while !self.events.iter().skip(seen).any(is_loaded) {
            let event = self.read().context("the page does not load")?;
            self.events.push(event);
        }
        Ok(())
    }

    /// What an expression comes to in the page.
    pub(super) fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params)?;
        ensure!(answer.get("exceptionDetails").is_none(), "`{expression}`: {answer}");
        Ok(field(field(&answer, "result"), "value").clone())
    }

    /// All that a person can read on the page, or in a part of it.
    pub(super) fn words(&mut self, selector: &str) -> Result<String> {
        let words = self.eval(&format!("document.querySelector({}).textContent", json!(selector)))?;
        Ok(words.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression holds: it is looked at again whenever something in the page changes.
    pub(super) fn until(&mut self, expression: &str) -> Result<()> {
        let patience = DEADLINE.as_millis();
        let answer = self.eval(&format!(
            "new Promise((done) => {{
                const look = () => {{ if ({expression}) {{ changes.disconnect(); done(true); }} }};
                const changes = new MutationObserver(look);
                changes.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                setTimeout(() => done(document.body.innerText), {patience});
                look();
            }})"
        ))?;
        match answer.as_str() {
            None => Ok(()),
            Some(page) => bail!("never: `{expression}`; the page says\n{page}"),
        }
    }

    /// Waits until a part of the page says all of these.
    pub(super) fn until_says(&mut self, selector: &str, words: &[&str]) -> Result<()> {
        let (selector, words) = (json!(selector), json!(words));
        self.until(&format!(
            "{words}.every((words) => document.querySelector({selector})?.textContent.includes(words))"
        ))
    }

    /// Presses a key once.
    pub(super) fn press(&mut self, key: &str, code: u32) -> Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", params)?;
        }
        Ok(())
    }

    /// The names of what has this role, for whoever hears the page: as the browser tells assistive programs.
    pub(super) fn named(&mut self, role: &str) -> Result<Vec<String>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}))?;
        let nodes = field(&tree, "nodes").as_array().cloned().unwrap_or_default();
        let is_told = |node: &&Value| field(node, "ignored") != &json!(true);
        let of_role = nodes.iter().filter(is_told).filter(|node| text(field(node, "role"), "value") == role);
        Ok(of_role.map(|node| text(field(node, "name"), "value").to_owned()).collect())
    }

    /// Light or dark, as a person has set it.
    pub(super) fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).map(drop)
    }

    /// The size of the window.
    pub(super) fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// What went wrong in the page, in the browser's words.
    pub(super) fn complaints(&mut self) -> Result<Vec<String>> {
        self.eval("0")?;
        let is_bad = |event: &&Value| {
            let params = field(event, "params");
            match text(event, "method") {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => matches!(text(params, "type"), "error" | "warning" | "assert"),
                "Log.entryAdded" => matches!(text(field(params, "entry"), "level"), "error" | "warning"),
                "Network.loadingFailed" => field(params, "canceled") != &json!(true),
                _ => false,
            }
        };
        Ok(self.events.iter().filter(is_bad).map(ToString::to_string).collect())
    }

    /// Everything that was asked for, by address.
    pub(super) fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| text(event, "method") == "Network.requestWillBeSent");
        sent.map(|event| text(field(field(event, "params"), "request"), "url").to_owned()).collect()
    }
}
