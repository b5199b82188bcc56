//! `dupip reload`, and SIGHUP: the running agent reads its configuration again.
//!
//! What can count at once does, and the rest is told. If anything in it is wrong, nothing is changed.

use std::{path::Path, sync::Arc};

use tokio::{select, signal::unix::Signal, sync::mpsc};
use tracing::{info, warn};

use super::{
    config::{self, Layers, Told, Values, is_live, is_secret},
    exit::{Exit, Failure, note},
    render::{Format, Output, json, print},
    service, small_runtime,
};
use crate::{
    agent::Handle,
    http::{
        Client, Reloading,
        api::{Changed, Reloaded, Setting},
    },
    telemetry::Telemetry,
};

const EXAMPLES: &str = "\
Examples:
  dupip reload
  sudo systemctl reload dupip         the same
  dupip config check && sudo dupip reload -o json

What can count at once does: the mode, ways to resolve, limits, pins, shared addresses, protected ports,
and what is suppressed. For the rest it says that the agent must be started anew. A file that is wrong
changes nothing. Needs root, or group dupip.";

/// Have the agent read its configuration file again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let reloaded: Reloaded = small_runtime()?.block_on(Client::new(socket).change("/api/v1/reload", &()))?;
        if !reloaded.waiting.is_empty() {
            let keys: Vec<&str> = reloaded.waiting.iter().map(|changed| changed.key.as_str()).collect();
            note(format_args!(
                "{} will count when the agent is started anew: systemctl restart dupip",
                keys.join(", ")
            ));
        }
        print(show(&reloaded, self.format.output)?)?;
        Ok(Exit::Fine)
    }
}

fn show(reloaded: &Reloaded, output: Output) -> Result<String, Failure> {
    if output == Output::Json {
        return json(reloaded);
    }
    let file = reloaded.file.as_deref().unwrap_or("no configuration file is there");
    if reloaded.applied.is_empty() && reloaded.waiting.is_empty() {
        return Ok(format!("{file}: nothing has changed\n"));
    }
    let line = |changed: &Changed| format!("  {}: {} -> {}\n", changed.key, said(&changed.from), said(&changed.to));
    let part = |title: &str, changes: &[Changed]| match changes {
        [] => String::new(),
        changes => format!("{title}:\n{}", changes.iter().map(line).collect::<String>()),
    };
    Ok(format!(
        "{file}\n{}{}",
        part("counts now", &reloaded.applied),
        part("counts after a restart", &reloaded.waiting)
    ))
}

fn said(values: &Option<Vec<String>>) -> String {
    match values.as_deref() {
        None => "(hidden)".to_owned(),
        Some([]) => "-".to_owned(),
        Some(values) => values.join(", "),
    }
}

/// Reads the layers again whenever somebody wants it, and has the agent go by them.
pub(super) struct Reloader {
    pub(super) layers: Layers,
    /// What the agent goes by.
    pub(super) now: Told,
    pub(super) agent: Handle,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) wanted: mpsc::Receiver<Reloading>,
    /// SIGHUP.
    pub(super) hangup: Signal,
}

impl Reloader {
    /// Until nobody can want it any more.
    pub(super) async fn run(mut self) {
        loop {
            select! {
                Some(()) = self.hangup.recv() => drop(self.reload().await),
                wanted = self.wanted.recv() => match wanted {
                    // Who asked may have given up.
                    Some(Reloading::Reload(reply)) => drop(reply.send(self.reload().await)),
                    Some(Reloading::Show(reply)) => drop(reply.send(self.settings())),
                    None => return,
                },
            }
        }
    }

    fn settings(&self) -> Vec<Setting> {
        config::settings(&self.now)
    }

    async fn reload(&mut self) -> Result<Reloaded, String> {
        service::reloading();
        let done = self.apply().await;
        service::reloaded();
        match &done {
            Ok(reloaded) => {
                let keys = |of: &[Changed]| of.iter().map(|changed| changed.key.as_str()).collect::<Vec<_>>().join(",");
                let (applied, waiting) = (keys(&reloaded.applied), keys(&reloaded.waiting));
                info!(event = "reloaded", applied, waiting, "read the configuration again");
            }
            Err(failure) => {
                let reason = failure.to_string();
                warn!(event = "not_reloaded", reason, "the configuration stays as it was");
            }
        }
        done.map_err(|failure| failure.to_string())
    }

    async fn apply(&mut self) -> Result<Reloaded, Failure> {
        let wanted = self.layers.read()?;
        self.require_file(&wanted)?;
        // Whatever cannot count now must be right all the same: the agent would not start with it.
        wanted.args.check()?;
        let changes: Vec<Changed> = changes(&self.now.values, &wanted.values).collect();
        guarded(&changes, &wanted.values)?;
        let next = config::with(&merged(&self.now.values, &wanted.values))?;
        let engine = next.args.config(&self.agent.settings().hooks).map_err(|failure| together(&failure, &changes))?;
        self.agent.reconfigure(engine).await.map_err(|error| Failure::new(Exit::No, error))?;
        self.telemetry.suppress(next.args.suppressed());
        let file = wanted.file.as_ref().map(|file| file.display().to_string());
        self.now.from.extend(wanted.from.into_iter().filter(|(key, _)| is_live(key)));
        (self.now.values, self.now.args, self.now.file) = (next.values, next.args, wanted.file);
        let (applied, waiting) = changes.into_iter().partition(|changed| changed.live);
        Ok(Reloaded { file, applied, waiting })
    }

    /// A file that is gone, or has nothing in it any more, is one that is being written, or lost: what it said of pins and
    /// protected ports is not to be dropped for that.
    fn require_file(&self, wanted: &Told) -> Result<(), Failure> {
        let said = |told: &Told| told.from.values().any(|from| *from == "file");
        match (&self.now.file, &wanted.file) {
            (Some(file), None) => Err(format!("{} is gone", file.display())),
            (Some(file), Some(_)) if said(&self.now) && !said(wanted) => {
                Err(format!("{} says nothing any more", file.display()))
            }
            _ => Ok(()),
        }
        .map_err(|what| Failure::new(Exit::No, format!("{what}; to go on without it, start the agent anew")))
    }
}

/// Keys without which enforce mode would do what the operator did not mean, and that cannot count at once: whom it must leave
/// alone, and whom it must tell.
const BEFORE_ENFORCE: [&str; 6] =
    ["external", "extra-network", "hook", "hook-secret-file", "ignore-port", "keep-quarantine"];
/// Those of them that say whom it must leave alone.
const LEFT_ALONE: [&str; 2] = ["external", "ignore-port"];

/// Refuses what would have the agent act before it knows all that it is told of how.
fn guarded(changes: &[Changed], wanted: &Values) -> Result<(), Failure> {
    let enforces = wanted.get("mode").is_some_and(|mode| *mode == ["enforce"]);
    let begins = changes.iter().any(|changed| changed.key == "mode");
    let matter: &[&str] = if begins { &BEFORE_ENFORCE } else { &LEFT_ALONE };
    let waiting: Vec<&str> =
        changes.iter().map(|changed| changed.key.as_str()).filter(|key| matter.contains(key)).collect();
    if enforces && !waiting.is_empty() {
        let what = format!(
            "{} will count only when the agent is started anew, and enforce mode is not to act without it",
            waiting.join(", ")
        );
        return Err(Failure::new(Exit::No, format!("{what}: systemctl restart dupip")));
    }
    Ok(())
}

/// The file by itself is right: only what counts at once cannot be together with what still holds of the rest.
fn together(failure: &Failure, changes: &[Changed]) -> Failure {
    let waiting: Vec<&str> =
        changes.iter().filter(|changed| !changed.live).map(|changed| changed.key.as_str()).collect();
    let what = format!(
        "this counts only together with {}, which will count when the agent is started anew: systemctl restart dupip \
         (until then: {failure})",
        waiting.join(", ")
    );
    Failure::new(Exit::No, what)
}

/// What is wanted of the keys that can count at once, and what holds of the others.
fn merged(now: &Values, wanted: &Values) -> Values {
    let of = |name: &String| if is_live(name) { wanted.get(name) } else { now.get(name) };
    now.keys().map(|name| (name.clone(), of(name).cloned().unwrap_or_default())).collect()
}

fn changes<'a>(now: &'a Values, wanted: &'a Values) -> impl Iterator<Item = Changed> + 'a {
    wanted.iter().filter_map(|(key, to)| {
        let from = now.get(key).cloned().unwrap_or_default();
        let shown = |values: Vec<String>| (!is_secret(key)).then_some(values);
        (from != *to).then(|| Changed {
            key: key.clone(),
            from: shown(from),
            to: shown(to.clone()),
            live: is_live(key),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key with its values.
    type Said = (&'static str, &'static [&'static str]);

    fn values(all: &[(&str, &[&str])]) -> Values {
        all.iter().map(|(key, values)| ((*key).to_owned(), values.iter().map(ToString::to_string).collect())).collect()
    }

    #[test]
    fn only_what_can_count_at_once_is_taken() {
        let now = values(&[("mode", &["observe"]), ("listen", &["none"]), ("hook", &["opened=/a"])]);
        let wanted = values(&[("mode", &["enforce"]), ("listen", &["127.0.0.1:1"]), ("hook", &[])]);
        let want = values(&[("mode", &["enforce"]), ("listen", &["none"]), ("hook", &["opened=/a"])]);
        assert_eq!(merged(&now, &wanted), want);
        let changes: Vec<_> = changes(&now, &wanted).map(|of| (of.key, of.live, of.to)).collect();
        let said = |value: &str| Some(vec![value.to_owned()]);
        let want = [("hook", false, None), ("listen", false, said("127.0.0.1:1")), ("mode", true, said("enforce"))];
        assert_eq!(changes, want.map(|(key, live, to)| (key.to_owned(), live, to)));
    }

    #[test]
    fn enforce_does_not_begin_before_all_that_it_must_know_counts() {
        let refused = |now: &[Said], wanted: &[Said]| {
            let (now, wanted) = (values(now), values(wanted));
            guarded(&changes(&now, &wanted).collect::<Vec<_>>(), &wanted).err().map(|failure| failure.to_string())
        };
        let (observe, enforce): (Said, Said) = (("mode", &["observe"]), ("mode", &["enforce"]));
        let (uplink, hook): (Said, Said) = (("external", &["eth0"]), ("hook", &["evicted=/a"]));
        let (none, untold): (Said, Said) = (("external", &[]), ("hook", &[]));
        let why = refused(&[observe, none, untold], &[enforce, uplink, hook]).unwrap();
        assert!(why.starts_with("external, hook will count only when the agent is started anew"), "{why}");
        assert!(refused(&[enforce, none], &[enforce, uplink]).is_some(), "whom it must leave alone counts in any case");
        assert_eq!(refused(&[enforce, untold], &[enforce, hook]), None);
        assert_eq!(refused(&[observe, none], &[observe, uplink]), None);
        assert_eq!(refused(&[enforce, none], &[observe, uplink]), None);
        assert_eq!(refused(&[observe, uplink], &[enforce, uplink]), None);
    }

    #[test]
    fn a_person_sees_what_counts_and_what_waits() {
        let of = |key: &str, from: Option<&[&str]>, to: Option<&[&str]>| {
            let values = |of: Option<&[&str]>| of.map(|of| of.iter().map(ToString::to_string).collect());
            Changed { key: key.to_owned(), from: values(from), to: values(to), live: is_live(key) }
        };
        let mut reloaded = Reloaded {
            file: Some("/etc/dupip/dupip.toml".to_owned()),
            applied: vec![
                of("mode", Some(&["observe"]), Some(&["enforce"])),
                of("shared", Some(&[]), Some(&["a", "b"])),
            ],
            waiting: vec![of("hook", None, None)],
        };
        let want = "\
/etc/dupip/dupip.toml
counts now:
  mode: observe -> enforce
  shared: - -> a, b
counts after a restart:
  hook: (hidden) -> (hidden)
";
        assert_eq!(show(&reloaded, Output::Table).unwrap(), want);
        (reloaded.applied, reloaded.waiting) = (Vec::new(), Vec::new());
        assert_eq!(show(&reloaded, Output::Table).unwrap(), "/etc/dupip/dupip.toml: nothing has changed\n");
    }
}
