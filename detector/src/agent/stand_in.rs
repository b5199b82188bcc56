//! An agent without a kernel, for the tests of the rooms that ask one: a real engine that was told of a duplicate, a real
//! lease database, and somebody who answers for both.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    clock,
    handle::{Handle, Query},
    operating::{NotLifted, Quarantined, Release},
    overview::Overview,
    readiness::{Latch, Latches, latches},
    settings::Settings,
};
use crate::{
    allocator::{Clock, Pool, SqliteStore, Store, Wish},
    capture::TapSettings,
    engine::{Action, Bridge, Config, Configured, Engine, Input, Mode, Outcome, Port, Sandbox, Survey},
    hooks::HookSettings,
    net::{Domain, IfIndex, Ipv4Net, Mac, NetnsId, Reach},
    telemetry::Telemetry,
    time::{Span, Timestamp},
};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
pub(crate) const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// Bridge rt0 with the host's 10.8.64.1, and reviewagent and sportsagent with 10.8.64.2 each. reviewagent has the lease;
/// sportsagent has got another one, and its eviction waits for its address to be changed, for good.
pub(crate) struct StandIn {
    pub(crate) handle: Handle,
    latches: Latches,
    answers: JoinHandle<()>,
}

impl StandIn {
    pub(crate) fn start(database: &Path) -> Self {
        let store = Arc::new(SqliteStore::open(database, "test", Clock::system().unwrap()).unwrap());
        let network = Ipv4Net::new(HOST, 24).unwrap();
        let pool = Pool::new(domain(), network.trunc(), Some(HOST), Span::from_secs(600)).unwrap();
        store.ensure_pool(&pool).unwrap();
        let mut engine = contested(store.as_ref(), network);
        let (queries, asked) = mpsc::channel(4);
        let (latches, readiness) = latches();
        let telemetry = Telemetry::new().unwrap();
        telemetry.watch(domain().bridge);
        while let Some(finding) = engine.next_finding() {
            telemetry.finding(&finding);
        }
        let settings = Arc::new(Settings {
            bridges: vec![domain().bridge],
            engine: Config { mode: Mode::Enforce, ..Config::default() },
            database: database.to_owned(),
            cooldown: None,
            wait: false,
            tap: TapSettings::default(),
            hooks: HookSettings::default(),
        });
        let (_, settings) = watch::channel(settings);
        let handle =
            Handle { queries, store, readiness, telemetry: Arc::new(telemetry), settings, pausing: Arc::default() };
        Self { handle, latches, answers: tokio::spawn(answer(engine, asked)) }
    }

    /// Everything that had to be done is done.
    pub(crate) fn become_ready(&self) {
        self.latches.release(Latch::Taps);
        self.latches.release(Latch::Inventory);
    }

    /// Tells something more.
    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.handle.telemetry
    }

    /// As when the loop has ended.
    pub(crate) async fn stop_answering(self) -> Handle {
        self.answers.abort();
        let _ = self.answers.await;
        self.handle
    }
}

pub(crate) fn domain() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn contested(store: &dyn Store, network: Ipv4Net) -> Engine {
    let mut engine = Engine::new(Config { mode: Mode::Enforce, ..Config::default() });
    let began = clock::now();
    let mut tell = |input, after| {
        engine.handle(input, began + Span::from_millis(after));
        while let Some(action) = engine.next_action() {
            if let Some(done) = carry_out(store, action) {
                engine.handle(done, began + Span::from_millis(after + 1));
            }
        }
    };
    tell(
        Input::BridgeUp(Bridge {
            name: domain().bridge,
            port: port(1),
            mac: mac(1),
            networks: vec![network],
            pvid: None,
            vlans: Vec::new(),
        }),
        0,
    );
    tell(Input::InventoryDone, 1);
    store.allocate(&Wish::new(domain(), "reviewagent".parse().unwrap())).unwrap();
    for (at, name) in [(2, "reviewagent"), (3, "sportsagent")] {
        let up = Port { index: port(at), name: format!("veth{at}"), bridge: domain().bridge, pvid: None };
        tell(Input::PortUp(up), 10 * u64::from(at));
        let survey = survey(at, name, began + Span::from_millis(10 * u64::from(at)));
        tell(Input::Surveyed { port: port(at), survey }, 10 * u64::from(at) + 5);
    }
    engine
}

/// Does what concerns the store, and leaves the rest undone.
fn carry_out(store: &dyn Store, action: Action) -> Option<Input> {
    let (action, outcome) = match action {
        Action::LookUpLeases { id, domain, contested, .. } => {
            let contested = store.lease(domain, contested).unwrap();
            (id, Outcome::Leases { held: contested.iter().cloned().collect(), contested })
        }
        Action::Reallocate { id, domain, owner, contested, .. } => {
            (id, Outcome::Lease(store.reallocate(domain, &owner, contested, &[].into()).unwrap()))
        }
        Action::Contain { id, .. } | Action::Keep { id, .. } => (id, Outcome::Finished),
        _ => return None,
    };
    Some(Input::Done { action, outcome })
}

fn survey(at: u32, name: &str, began: Timestamp) -> Survey {
    let sandbox = Sandbox {
        netns: Some(NetnsId { device: 4, inode: u64::from(at) }),
        name: Some(name.to_owned()),
        owners: vec![name.parse().unwrap()],
    };
    Survey {
        at: began,
        sandbox,
        macs: [mac(at)].into(),
        reach: Reach::Netns,
        forwards: false,
        addresses: Some(vec![Configured { tag: None, address: CONTESTED, mac: mac(at) }]),
    }
}

async fn answer(mut engine: Engine, mut asked: mpsc::Receiver<Query>) {
    while let Some(query) = asked.recv().await {
        match query {
            // As few at a time as can be.
            Query::Page(after, reply) => drop(reply.send(engine.rows_after(after, 1))),
            Query::Incidents(reply) => drop(reply.send(engine.incidents().cloned().collect())),
            Query::On(domain, address, reply) => drop(reply.send(engine.rows_on(domain, address).collect())),
            Query::Pause(until, reply) => {
                engine.handle(Input::Paused { until }, clock::now());
                let _ = reply.send(());
            }
            Query::PausedUntil(reply) => drop(reply.send(engine.paused_until())),
            Query::Quarantined(reply) => {
                let of = |containment| Quarantined { containment, dropped: Some(7) };
                drop(reply.send(engine.contained().map(of).collect()));
            }
            Query::Release(release, reply) => drop(reply.send(lift(&mut engine, release))),
            Query::Reconfigure(config, reply) => {
                engine.handle(Input::Reconfigured(config), clock::now());
                let _ = reply.send(());
            }
            Query::Overview(reply) => {
                let bridges = [domain().bridge];
                let duplicates = bridges.iter().map(|name| engine.open_count(*name)).sum();
                let _ = reply.send(Overview { bridges: bridges.len(), absent: Vec::new(), ports: 3, duplicates });
            }
            Query::Gauges(reply) => drop(reply.send(())),
        }
    }
}

fn lift(engine: &mut Engine, release: Release) -> Result<Quarantined, NotLifted> {
    let containment = release.find(engine)?;
    for entry in &containment.entries {
        engine.handle(Input::Lifted(*entry), clock::now());
    }
    Ok(Quarantined { containment, dropped: Some(7) })
}

fn port(at: u32) -> IfIndex {
    IfIndex::new(at).unwrap()
}

fn mac(at: u32) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(at).unwrap()])
}
