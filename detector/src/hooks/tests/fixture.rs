//! What every test of hooks needs: messages, an outbox that says what it does, a pipe that a program writes to.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::*;
use crate::{
    engine::IncidentId,
    telemetry::{Telemetry, degraded_in, tests::metric},
};

/// A message of an incident; of each occasion the first.
pub(in crate::hooks) fn message(incident: u64, occasion: &str) -> Message {
    let party = |at: u32| PartyInfo {
        sandbox: Some(format!("sandbox{at}")),
        port: format!("veth{at}"),
        ifindex: at,
        mac: format!("02:00:00:00:00:0{at}"),
        netns: Some(4_026_531_840),
    };
    Message {
        id: MessageId { incident: IncidentId(incident), occasion: occasion.parse().unwrap(), count: 1 },
        time: "2026-01-02T03:04:05.678Z".to_owned(),
        host: "runner".to_owned(),
        bridge: "rt0".to_owned(),
        vlan: None,
        address: [10, 8, 64, 2].into(),
        old_address: Some([10, 8, 64, 2].into()),
        new_address: Some([10, 8, 64, 4].into()),
        generation: Some(17),
        winner: Some(party(1)),
        loser: Some(party(2)),
        reason: Some("holds the lease, generation 1".to_owned()),
        status: "healed".to_owned(),
        message: "sandbox2 moved from 10.8.64.2 to 10.8.64.4".to_owned(),
    }
}

/// What an outbox was asked to do, and did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Did {
    Keep(String),
    Forget(String),
}

/// An outbox that says what it does.
struct Watched<T> {
    outbox: T,
    did: mpsc::UnboundedSender<Did>,
}

impl<T: Outbox> Outbox for Watched<T> {
    fn keep(&self, pending: &Pending) -> io::Result<()> {
        let done = self.outbox.keep(pending);
        let _ = self.did.send(Did::Keep(pending.message.id.to_string()));
        done
    }

    fn forget(&self, pending: &Pending) -> io::Result<()> {
        let done = self.outbox.forget(pending);
        let _ = self.did.send(Did::Forget(pending.message.id.to_string()));
        done
    }

    fn pending(&self, most: usize) -> io::Result<Kept> {
        self.outbox.pending(most)
    }
}

/// An outbox whose disk is full.
pub(super) struct Broken;

impl Outbox for Broken {
    fn keep(&self, _: &Pending) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn forget(&self, _: &Pending) -> io::Result<()> {
        Ok(())
    }

    fn pending(&self, _: usize) -> io::Result<Kept> {
        Ok(Kept::default())
    }
}

/// A folder of one test's own, with the hooks that run there.
pub(super) struct Lab {
    folder: TempDir,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), telemetry: Arc::new(Telemetry::new().unwrap()) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn spool(&self) -> Spool {
        Spool::beside(&self.path("leases.db"))
    }

    /// The names of what is kept.
    pub(super) fn kept(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.path("hooks")) else { return Vec::new() };
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A pipe by name: reading it waits until somebody has written and closed it.
    pub(super) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    /// Hooks with a program or URL each.
    pub(super) fn start(&self, settings: HookSettings) -> (Hooks, mpsc::UnboundedReceiver<Did>) {
        self.start_with(settings, self.spool())
    }

    pub(super) fn start_with(
        &self,
        settings: HookSettings,
        outbox: impl Outbox + 'static,
    ) -> (Hooks, mpsc::UnboundedReceiver<Did>) {
        let (did, done) = mpsc::unbounded_channel();
        let outbox = Arc::new(Watched { outbox, did });
        (Hooks::start(settings, outbox, Arc::clone(&self.telemetry)), done)
    }

    pub(super) fn count(&self, occasion: &str, result: &str) -> u64 {
        metric(&self.telemetry, &format!("dupip_hooks_total{{occasion=\"{occasion}\",result=\"{result}\"}}"))
    }

    pub(super) fn is_degraded(&self) -> bool {
        degraded_in(&String::from_utf8(self.telemetry.render().unwrap()).unwrap()).contains(&"hooks")
    }
}

/// These hooks, tried again soon.
pub(super) fn settings(hooks: &[String]) -> HookSettings {
    let mut settings = HookSettings::of(hooks.iter().map(|hook| hook.parse().unwrap()));
    settings.patience.first = Duration::from_millis(1);
    settings
}

/// A hook that is a piece of shell.
pub(super) fn shell(occasions: &str, script: &str) -> String {
    format!("{occasions}=/bin/sh -c {}", shell_words::quote(script))
}

/// Waits until this message is not on its way any more.
pub(super) async fn over(done: &mut mpsc::UnboundedReceiver<Did>, id: &str) {
    while done.recv().await.unwrap() != Did::Forget(id.to_owned()) {}
}

/// Lets the hooks go and waits for what is under way.
pub(super) async fn stopped(hooks: Hooks) {
    let ended = hooks.ended();
    drop(hooks);
    ended.await;
}

/// What is written to a pipe by name.
pub(super) async fn read(fifo: PathBuf) -> String {
    tokio::task::spawn_blocking(|| fs::read_to_string(fifo).unwrap()).await.unwrap()
}
