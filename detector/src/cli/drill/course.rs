//! The course of a drill: who is planted when, and what is waited for.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    planted::{KEEPER, NEWCOMER, clear_away, failed, plant},
    report::{Answers, Report, Step},
};
use crate::{
    capture::Probing,
    cli::{
        events::{self, Source},
        exit::{self, Exit, Failure, note},
    },
    http::{
        Client,
        api::{Allocate, Event, Explained, Incident, Lease, Row},
        encoded,
    },
    net::{BridgeName, Domain, Ipv4Net, Mac},
    netlink::{Host, Throwaway},
    witness::Wire,
};

/// Whatever may change how a duplicate stands.
const KINDS: [&str; 10] = [
    "duplicate",
    "reopened",
    "judged",
    "held",
    "contained",
    "evicted",
    "eviction_failed",
    "given_up",
    "healed",
    "gone",
];
/// How often the live table is asked for the first sandbox: no event tells that somebody is there whom nobody contradicts.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A drill on its way.
pub(super) struct Course<'a> {
    client: &'a Client,
    socket: PathBuf,
    bridge: BridgeName,
    patience: Duration,
    mode: String,
    /// Comes when a person or a supervisor has had enough. Only waiting is cut short by it: whatever is being made is made,
    /// and then removed.
    interrupted: Pin<Box<dyn Future<Output = ()>>>,
    sandboxes: Vec<Throwaway>,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        client: &'a Client,
        socket: &Path,
        bridge: BridgeName,
        patience: Duration,
        mode: String,
    ) -> Result<Self, Failure> {
        let interrupted = Box::pin(events::end().map_err(exit::no_runtime)?);
        let (socket, sandboxes) = (socket.to_owned(), Vec::new());
        Ok(Self { client, socket, bridge, patience, mode, interrupted, sandboxes })
    }

    pub(super) async fn run(&mut self) -> Result<Report, Failure> {
        let address = self.set_aside().await?;
        let mut report = Report::new(self.bridge, &self.mode, address.addr());
        let keeper = self.plant(KEEPER, address, false).await?;
        if !self.is_seen(address.addr()).await? {
            let why = format!("the agent did not see {KEEPER} with {address} within {:?}", self.patience);
            return Ok(report.failed(Step::Planted, why));
        }
        let mut events = Source::new(&self.socket, None, &KINDS);
        while events.more().await?.is_some() {}
        let newcomer = self.plant(NEWCOMER, address, true).await?;
        let incident = self.follow(&mut events, address.addr()).await?;
        report.take(incident.as_ref(), self.patience);
        if let Some(new) = report.new_address().filter(|_| report.is_fine()) {
            let expected = [(address.addr(), [keeper].into()), (new, [newcomer].into())].into();
            report.verify(&expected, &self.answers([address.addr(), new]).await?);
        }
        Ok(report)
    }

    /// Takes everything away again, whatever has come of it.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        let mut removed = Ok(());
        for sandbox in self.sandboxes.drain(..) {
            removed = removed.and(sandbox.remove().await.map_err(failed));
        }
        removed
            .and(clear_away(self.client).await.map(drop))
            .map_err(|failure| failure.hint("what the drill has left, the next one removes: dupip drill --bridge …"))
    }

    /// An address that is nobody's, with the length of the bridge's prefix.
    async fn set_aside(&mut self) -> Result<Ipv4Net, Failure> {
        let (bridge, owner) = (self.bridge.to_string(), KEEPER.to_owned());
        let wish = Allocate { bridge, vlan: None, owner, interface: None, address: None, probe: true };
        let client = self.client;
        let lease: Lease = self.or_interrupted(client.change("/api/v1/leases", &wish)).await??;
        note(format_args!("the allocator set {} aside for {KEEPER}", lease.address));
        let host = Host::open().map_err(failed)?.outside(self.bridge).await.map_err(failed)?;
        let network = host.addresses.iter().find(|network| network.contains(&lease.address));
        let of_prefix = network.and_then(|network| Ipv4Net::new(lease.address, network.prefix_len()).ok());
        of_prefix.ok_or_else(|| {
            let what = format!("the host has no address on {} in the network of {}", self.bridge, lease.address);
            Failure::new(Exit::No, what).hint("give the bridge the gateway's address, and see `dupip pool list`")
        })
    }

    async fn plant(&mut self, name: &str, address: Ipv4Net, announce: bool) -> Result<Mac, Failure> {
        let sandbox = plant(self.bridge, name, address, announce).await?;
        let mac = sandbox.mac();
        self.sandboxes.push(sandbox);
        note(format_args!("{name} has {address} behind port {name}, MAC {mac}"));
        Ok(mac)
    }

    /// Waits until the agent knows that the first sandbox has the address.
    async fn is_seen(&mut self, address: Ipv4Addr) -> Result<bool, Failure> {
        let (client, patience) = (self.client, self.patience);
        let path = format!("/api/v1/table?bridge={}&address={address}", encoded(self.bridge.as_str()));
        let look = async {
            let mut again = interval(LOOK_EVERY);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                again.tick().await;
                let rows: Vec<Row> = client.ask(&path).await?;
                if rows.iter().any(|row| row.sandbox.as_deref() == Some(KEEPER)) {
                    return Ok::<_, Failure>(());
                }
            }
        };
        self.or_interrupted(timeout(patience, look)).await?.map_or(Ok(false), |seen| seen.map(|()| true))
    }

    /// The incident of the address once nothing more is to be waited for, or as it stands when patience is over.
    async fn follow(&mut self, events: &mut Source, address: Ipv4Addr) -> Result<Option<Incident>, Failure> {
        let (deadline, bridge) = (Instant::now() + self.patience, self.bridge.to_string());
        let is_of_it = |event: &&Event| event.address == Some(address) && event.bridge.as_ref() == Some(&bridge);
        let mut found = None;
        loop {
            let page = self.or_interrupted(timeout_at(deadline, events.next())).await?;
            let Ok(page) = page else { return Ok(found) };
            let mut number = found.as_ref().map(|incident: &Incident| incident.id);
            for event in page?.iter().filter(is_of_it) {
                number = event.incident.or(number);
                note(&event.message);
            }
            let Some(number) = number else { continue };
            let explained: Explained = self.client.ask(&format!("/api/v1/incidents/{number}")).await?;
            let is_over = self.is_over(&explained.incident);
            found = Some(explained.incident);
            if is_over {
                return Ok(found);
            }
        }
    }

    fn is_over(&self, incident: &Incident) -> bool {
        let is_given_up = incident.evictions.iter().any(|eviction| eviction.step == "failed");
        let is_only_held = self.mode == "observe" && incident.held.is_some();
        incident.closed.is_some() || is_given_up || is_only_held
    }

    /// Who answers for each address on the wire: the kernel does for what a sandbox has, and for nothing else.
    async fn answers(&self, addresses: [Ipv4Addr; 2]) -> Result<Answers, Failure> {
        let domain = Domain::untagged(self.bridge);
        let ask = spawn_blocking(move || Wire::new(Probing::default()).users_of(domain, &addresses));
        let answers = ask.await.map_err(|error| Failure::new(Exit::Bug, error))?;
        answers.map_err(|error| Failure::new(Exit::No, error))
    }

    async fn or_interrupted<T>(&mut self, waited: impl Future<Output = T>) -> Result<T, Failure> {
        select! {
            biased;
            () = &mut self.interrupted => Err(Failure::new(Exit::No, "interrupted: the drill is not over, and is removed")),
            done = waited => Ok(done),
        }
    }
}
