//! What the engine wants, carried out: changes of the store on threads that may wait, the kernel by the surveyor, frames at
//! once.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use super::{
    clock,
    run::Agent,
    surveyor::{Errand, News},
};
use crate::{
    allocator::{Change, Fence, Quarantine, Store, StoreError, Terms, Wish},
    engine::{Action, ActionId, Input, Outcome},
    net::{ArpPacket, Domain, IfIndex, InvalidOwner, Lease, LeaseState, Mac, Owner},
    netlink::{Bridge, Readdress},
    telemetry::Telemetry,
};

/// How many probes go out together, and how long the next ones wait: many must not fill the bridge's queues.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);
/// In whose name an address is reserved that somebody outside uses, for the moment until it is in quarantine.
const OUTSIDE: &str = "dupip-outside";
/// How long the next ones of a sweep wait, which nobody is in a hurry for.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

impl Agent {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::LookUpLeases { id, domain, contested, owners } => {
                let found = look_up(self.store.as_ref(), domain, contested, &owners);
                self.tell(done(id, found.map_err(|error| error.to_string())));
            }
            Action::Adopt { id, domain, address, owner } => self.with_store(id, move |store| {
                store.adopt(domain, address, &owner, None).map(Outcome::Lease).map_err(|error| error.to_string())
            }),
            Action::Reallocate { id, domain, owner, contested, in_use } => {
                let telemetry = Arc::clone(&self.telemetry);
                self.with_store(id, move |store| reallocate(store, &telemetry, domain, &owner, contested, in_use));
            }
            Action::Bind { id, lease } => {
                let telemetry = Arc::clone(&self.telemetry);
                self.with_store(id, move |store| bind(store, &telemetry, &lease));
            }
            Action::GiveBack { id, lease } => self.with_store(id, move |store| {
                store.release(&Fence::from(&lease)).map(|_| Outcome::Finished).map_err(|error| error.to_string())
            }),
            Action::SetAside { id, domain, address, mac } => {
                self.with_store(id, move |store| set_aside(store, domain, address, mac).map(|()| Outcome::Finished))
            }
            Action::Retire { id, lease } => self.with_store(id, move |store| {
                store.retire(&Fence::from(&lease)).map(|_| Outcome::Finished).map_err(|error| error.to_string())
            }),
            Action::Readdress { id, port, from, to, prefix_len } => self.readdress(id, port, from, to, prefix_len),
            Action::Contain { id, entries } => self.contain(id, &entries),
            Action::Lift { id, entries } => self.lift(id, &entries),
            Action::Keep { id, incident } => self.keeper.keep(id, incident),
            Action::Recycle { id, incident, port } => self.recycle(id, &incident, port),
            Action::DestroySockets { id, port, address } => self.destroy_sockets(id, port, address),
            Action::Announce { id, domain, address, mac, port } => self.announce(id, domain, address, (mac, port)),
            Action::Probe { domain, addresses } => self.probe(domain, addresses, PAUSE),
            Action::Poll { domain, address, mac } => self.poll(domain, address, mac),
            Action::Sweep { domain, seen } => self.plan_sweep(domain, seen),
            Action::IgnoreIpv4 { port } => self.ignore_ipv4(port),
            Action::Absorb(known) => self.absorb(&known),
            Action::Forget(known) => self.forget(&known),
        }
    }

    /// Asks the store where waiting for the disk blocks nobody; the answer comes back as an input.
    fn with_store(&self, action: ActionId, ask: impl FnOnce(&dyn Store) -> Result<Outcome, String> + Send + 'static) {
        let (store, news) = (Arc::clone(&self.store), self.news.clone());
        self.workers.spawn_blocking(move || {
            // Nobody listens any more only while the agent stops.
            let _ = news.send(News::Input(done(action, ask(store.as_ref()))));
        });
    }

    /// Has the engine told which leases drain.
    pub(super) fn tell_draining(&self) {
        let (store, news) = (Arc::clone(&self.store), self.news.clone());
        self.workers.spawn_blocking(move || match store.draining() {
            Ok(leases) => drop(news.send(News::Input(Input::Draining(leases)))),
            Err(error) => tracing::debug!(event = "store_unread", "it is not known which leases drain: {error}"),
        });
    }

    fn readdress(&mut self, id: ActionId, port: IfIndex, old: Ipv4Addr, new: Ipv4Addr, prefix_len: u8) {
        match self.ports.get(&port).cloned() {
            Some(port) => self.send_errand(Errand::Readdress { id, port, change: Readdress { old, new, prefix_len } }),
            None => self.answer(Input::Failed { action: id, failure: "the port is gone".to_owned() }),
        }
    }

    /// Tells the domain by a frame, and the host's neighbour table and the bridge's forwarding table by netlink: the host
    /// does not hear its own frames, and the bridge would learn from them that the address is the host's.
    fn announce(&mut self, id: ActionId, domain: Domain, address: Ipv4Addr, (mac, port): (Mac, Option<IfIndex>)) {
        let Some(bridge) = self.bridge(domain) else {
            return self.answer(Input::Failed { action: id, failure: format!("the bridge {} is gone", domain.bridge) });
        };
        let frame = ArpPacket::announcement(mac, address).broadcast_frame(domain.vlan);
        match self.sender.send(bridge.index, &frame) {
            Ok(()) => self.send_errand(Errand::Caches { id, domain, bridge: bridge.index, address, mac, port }),
            Err(error) => self.answer(Input::Failed { action: id, failure: error.to_string() }),
        }
    }

    /// Adds what is leased to what is seen, and has the surveyor add what the host knows of. If the store fails, what is
    /// seen is asked for all the same.
    fn plan_sweep(&self, domain: Domain, seen: Vec<Ipv4Addr>) {
        let Some(bridge) = self.bridge(domain) else { return };
        let (store, errands) = (Arc::clone(&self.store), self.errands.clone());
        self.workers.spawn_blocking(move || {
            let leases = store.leases(Some(domain)).unwrap_or_else(|error| {
                tracing::debug!(event = "store_unread", "a sweep goes without what is leased: {error}");
                Vec::new()
            });
            let may_be_used = |lease: &Lease| lease.state.is_held() || lease.state == LeaseState::Draining;
            let leased = leases.iter().filter(|lease| may_be_used(lease)).map(|lease| lease.address);
            let addresses = seen.into_iter().chain(leased).collect();
            // The surveyor ends only with the loop.
            let _ = errands.send(Errand::Sweep { domain, bridge: bridge.index, addresses });
        });
    }

    /// Asks, without hurry, for all that is known to anybody.
    pub(super) fn sweep(&self, domain: Domain, addresses: BTreeSet<Ipv4Addr>) {
        self.probe(domain, addresses.into_iter().collect(), SWEEP_PAUSE);
    }

    /// Asks for each address by a broadcast from nobody. A probe that cannot be sent is one that nobody answers.
    fn probe(&self, domain: Domain, addresses: Vec<Ipv4Addr>, pause: Duration) {
        let Some(bridge) = self.bridge(domain) else { return };
        let sender = Arc::clone(&self.sender);
        let ask = move |address: &Ipv4Addr| {
            let frame = ArpPacket::probe(bridge.mac, *address).broadcast_frame(domain.vlan);
            if let Err(error) = sender.send(bridge.index, &frame) {
                tracing::debug!(event = "probe_failed", %domain, "{error}");
            }
        };
        if addresses.len() <= BURST {
            return addresses.iter().for_each(ask);
        }
        self.workers.spawn(async move {
            for burst in addresses.chunks(BURST) {
                burst.iter().for_each(&ask);
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Asks one station. That the bridge does not know where it is costs no more than a broadcast.
    fn poll(&self, domain: Domain, address: Ipv4Addr, mac: Mac) {
        let Some(bridge) = self.bridge(domain) else { return };
        let frame = ArpPacket::probe(bridge.mac, address).frame_to(mac, domain.vlan);
        if let Err(error) = self.sender.send(bridge.index, &frame) {
            tracing::debug!(event = "probe_failed", %domain, "{error}");
        }
    }

    fn bridge(&self, domain: Domain) -> Option<Bridge> {
        Some(self.bridges.get(&domain.bridge)?.as_ref()?.bridge)
    }

    /// Answers an action with what is known at once, in its turn.
    pub(super) fn answer(&self, input: Input) {
        let _ = self.news.send(News::Input(input));
    }
}

fn done(action: ActionId, result: Result<Outcome, String>) -> Input {
    match result {
        Ok(outcome) => Input::Done { action, outcome },
        Err(failure) => Input::Failed { action, failure },
    }
}

/// Reads some leases by their keys, as a name waits for it: that takes as long as to have it done elsewhere, and nobody's
/// change or list is waited for.
fn look_up(store: &dyn Store, domain: Domain, contested: Ipv4Addr, owners: &[Owner]) -> Result<Outcome, StoreError> {
    let held = owners.iter().map(|owner| store.held(domain, owner, None)).collect::<Result<Vec<_>, _>>()?;
    Ok(Outcome::Leases { contested: store.lease(domain, contested)?, held: held.concat() })
}

fn reallocate(
    store: &dyn Store,
    telemetry: &Telemetry,
    domain: Domain,
    owner: &Owner,
    contested: Ipv4Addr,
    in_use: Vec<Ipv4Addr>,
) -> Result<Outcome, String> {
    let began = clock::now();
    let avoid: BTreeSet<_> = in_use.into_iter().collect();
    let lease = store.reallocate(domain, owner, contested, &avoid).map_err(|error| error.to_string())?;
    telemetry.allocated(clock::now().since(began));
    Ok(Outcome::Lease(lease))
}

fn bind(store: &dyn Store, telemetry: &Telemetry, lease: &Lease) -> Result<Outcome, String> {
    match store.bind(&Fence::from(lease)).map_err(|error| error.to_string())? {
        Change::Applied(lease) => Ok(Outcome::Lease(lease)),
        Change::Fenced { .. } => {
            telemetry.tell_fenced("bind", format_args!("{} at {}", lease.owner, lease.address));
            Err(format!("the lease of {} on {} is not the one that was given", lease.owner, lease.address))
        }
    }
}

/// Quarantines an address. Its last holder is verified to be away, so it need not drain any more; and what nobody has had is
/// reserved first.
fn set_aside(store: &dyn Store, domain: Domain, address: Ipv4Addr, mac: Mac) -> Result<(), String> {
    let (terms, reason) = (Terms::default(), "somebody outside uses it".to_owned());
    let quarantine = Quarantine { mac, reason, lasts: terms.quarantine };
    let failed = |error: StoreError| error.to_string();
    let lease = match store.lease(domain, address).map_err(failed)? {
        Some(lease) => lease,
        None => {
            let owner = OUTSIDE.parse().map_err(|error: InvalidOwner| error.to_string())?;
            let wish = Wish { within: vec![address.into()], ..Wish::new(domain, owner) };
            store.reserve(&wish, terms.reservation).map_err(|error| error.to_string())?
        }
    };
    if lease.state == LeaseState::Draining {
        store.retire(&Fence::from(&lease)).map_err(failed)?;
    }
    store.quarantine(&Fence::from(&lease), &quarantine).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator::{Clock, Pool, SqliteStore},
        time::Span,
    };

    #[test]
    fn what_somebody_outside_uses_is_in_quarantine_whoever_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("l.db"), "test", Clock::system().unwrap()).unwrap();
        let domain = Domain::untagged("rt0".parse().unwrap());
        let pool = Pool::new(domain, "10.8.64.0/24".parse().unwrap(), None, Span::from_secs(600)).unwrap();
        store.ensure_pool(&pool).unwrap();
        let lease = store.allocate(&Wish::new(domain, "ours".parse().unwrap())).unwrap();
        let kept = store.allocate(&Wish::new(domain, "other".parse().unwrap())).unwrap();
        store.reallocate(domain, &lease.owner, lease.address, &BTreeSet::new()).unwrap();
        let mac = Mac([2; 6]);
        for address in [lease.address, [10, 8, 64, 77].into(), kept.address] {
            set_aside(&store, domain, address, mac).unwrap();
            set_aside(&store, domain, address, mac).unwrap();
        }
        let state = |address: Ipv4Addr| store.lease(domain, address).unwrap().unwrap().state;
        assert_eq!([state(lease.address), state([10, 8, 64, 77].into())], [LeaseState::Quarantined; 2]);
        assert_eq!(state(kept.address), LeaseState::Bound, "what is held stays");
    }
}
