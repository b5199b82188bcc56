//! What must hold: of each action when it is wanted, of everything at any time, and of everything in the end.

use std::{collections::BTreeSet, net::Ipv4Addr};

use detector::{
    allocator::{Incidents as _, Store as _},
    engine::{Action, Held, Incident, Status},
    net::{Contained, IfIndex, Lease},
};

use crate::{
    names::{HOST_PORT, domain, owner, port},
    world::World,
};

impl World {
    fn open_incident(&self, address: Ipv4Addr) -> Option<&Incident> {
        let is_open = |incident: &&Incident| incident.status == Status::Open && incident.addresses.contains(&address);
        self.engine.incidents().find(is_open)
    }

    /// Whether the engine knows that somebody behind a port has the address.
    fn knows(&self, address: Ipv4Addr, port: IfIndex) -> bool {
        self.engine.rows_on(domain(), address).any(|row| row.station.port == port)
    }

    /// Nothing is done about anybody but a loser, whose winner is there.
    pub(crate) fn check_wanted(&self, action: &Action) {
        match action {
            Action::Contain { entries, .. } => entries.iter().for_each(|entry| self.check_contained(*entry)),
            Action::Readdress { port, from, to, .. } => self.check_readdress(*port, *from, *to),
            Action::Recycle { port, incident, .. } => self.check_loser(*port, incident.address),
            Action::DestroySockets { port, address, .. } => {
                let winner = self.open_incident(*address).expect("of an open incident").contest.as_ref();
                assert_ne!(winner.and_then(|contest| contest.winner), Some(*port), "the winner is touched");
            }
            Action::Reallocate { owner, contested, .. } => {
                let holder = self.looked.get(contested).cloned().flatten();
                assert_ne!(holder.as_ref(), Some(owner), "who holds the lease on {contested} is moved");
            }
            Action::GiveBack { lease, .. } => {
                let user = self.behind.iter().find(|(at, of)| {
                    owner(**at) == lease.owner && of.readable && of.addresses.contains(&lease.address)
                });
                assert!(user.is_none(), "the lease on {} is given back, and its owner uses it", lease.address);
            }
            _ => {}
        }
    }

    fn check_contained(&self, entry: Contained) {
        assert_ne!(entry.port.get(), HOST_PORT, "the host is contained");
        let incident = self.open_incident(entry.address).expect("what is contained is contested");
        if entry.address == incident.address {
            let winner = incident.contest.as_ref().and_then(|contest| contest.winner);
            // Of a move that only a lease tells of there is no contest; whoever is moved has let go.
            let is_away = incident.contest.is_none() && !self.knows(entry.address, entry.port);
            let is_loser = winner.is_some_and(|winner| winner != entry.port);
            assert!(is_loser || is_away, "{entry:?} is the winner's, or there is none");
        }
    }

    /// The contest goes against whoever is behind the port, and both it and the winner have the address.
    fn check_loser(&self, port: IfIndex, contested: Ipv4Addr) {
        let incident = self.open_incident(contested).expect("of an open incident");
        let contest = incident.contest.as_ref().expect("after a contest");
        let winner = contest.winner.expect("after a contest with a winner");
        assert!(contest.is_settled(), "an unsettled contest moves nobody");
        assert_ne!(winner, port, "the winner is touched");
        assert!(self.knows(contested, winner), "the winner does not have {contested} any more");
    }

    fn check_readdress(&self, index: IfIndex, from: Ipv4Addr, to: Ipv4Addr) {
        let (at, behind) = self.sandbox_at(index.get()).expect("a port that is there");
        let is_there = behind.addresses.contains(&from);
        if is_there {
            self.check_loser(index, from);
        }
        let lease = self.store.lease(domain(), to).unwrap().expect("a lease on the new address");
        // An operator may take it back at any time.
        if !self.touched_leases.contains(&to) {
            assert_eq!((lease.owner, lease.state.is_held()), (owner(at), true), "the lease is on disk before");
            assert!(!is_there || lease.replaces == Some(from), "the lease says what it replaces: {:?}", lease.replaces);
        }
    }

    pub(crate) fn check_always(&self) {
        for known in &self.known {
            let entry = Contained { port: known.port, tag: known.tag, address: known.address };
            assert!(
                !self.engine.contained().any(|of| of.entries.contains(&entry)),
                "{entry:?} is contained and absorbed"
            );
        }
    }

    /// When nothing fails any more and time has passed.
    pub(crate) fn check_rest(&self) {
        self.check_incidents_at_rest();
        self.check_owners();
        self.check_quarantine();
        self.check_leases();
        self.check_records();
    }

    fn check_incidents_at_rest(&self) {
        for incident in self.engine.incidents().filter(|incident| incident.status == Status::Open) {
            let id = incident.id;
            for (port, eviction) in &incident.evictions {
                let (step, failure) = (eviction.step, &eviction.failure);
                // What only an operator can mend is tried again for ever.
                let is_done = step.is_at_rest() || failure.as_deref().is_some_and(is_lasting);
                assert!(is_done, "incident {id}: port {port} is not at rest, at {step:?}: {failure:?}");
            }
            if incident.evictions.values().any(|eviction| !eviction.step.is_at_rest()) {
                continue;
            }
            let held = incident.held.unwrap_or_else(|| panic!("incident {id} is open, and nothing is in the way"));
            let passes = matches!(held, Held::Observing | Held::Paused | Held::Brake);
            assert!(!passes, "incident {id} is held by what passes: {held:?}");
            let failure = incident.evictions.values().find_map(|eviction| eviction.failure.clone());
            let is_lasting = failure.as_deref().is_some_and(is_lasting);
            assert!(held != Held::GivenUp || is_lasting, "incident {id} was given up: {failure:?}");
        }
    }

    /// Never two owners at rest: whoever is there beside another is contained, or it is told why not.
    fn check_owners(&self) {
        let all = self.behind.values().filter(|behind| behind.readable);
        let addresses: BTreeSet<Ipv4Addr> = all.clone().flat_map(|behind| behind.addresses.clone()).collect();
        for address in addresses {
            let speaks = |index: u32| !self.quarantine.contains(&Contained { port: port(index), tag: None, address });
            let owners = all.clone().filter(|behind| behind.addresses.contains(&address) && speaks(behind.port));
            let owners: Vec<u32> = owners.map(|behind| behind.port).collect();
            if owners.len() > 1 {
                let incident = self.open_incident(address);
                let incident = incident.unwrap_or_else(|| panic!("{owners:?} have {address}, and nobody is told"));
                let is_tried = incident.evictions.values().any(|eviction| eviction.failure.is_some());
                assert!(incident.held.is_some() || is_tried, "{owners:?} have {address}, and it is not told why");
            }
        }
    }

    fn check_quarantine(&self) {
        for entry in &self.quarantine {
            assert!(self.open_incident(entry.address).is_some(), "{entry:?} is contained for nothing");
        }
        let said: BTreeSet<Contained> = self.engine.contained().flat_map(|of| of.entries).collect();
        assert_eq!(said, self.quarantine, "what the engine takes for contained is what is");
        for of in self.engine.contained() {
            assert!(of.incident.is_some(), "{of:?} is contained for no incident");
        }
    }

    fn check_leases(&self) {
        let leases = self.store.leases(None).unwrap();
        // What is of no use to its owner, and cannot be given back but by an operator, is told of.
        let is_told = |contested: Ipv4Addr| {
            let incident = self.open_incident(contested);
            let mut evictions = incident.into_iter().flat_map(|incident| incident.evictions.values());
            evictions.any(|eviction| eviction.failure.as_deref().is_some_and(is_lasting))
        };
        // Nor is a move over whose owner contests the address still, before anybody has a right to it.
        let is_open = |lease: &Lease, contested: Ipv4Addr| {
            let here =
                self.behind.iter().any(|(at, of)| owner(*at) == lease.owner && of.addresses.contains(&contested));
            here && self.open_incident(contested).is_some()
        };
        let is_over = |lease: &Lease, contested| !is_told(contested) && !is_open(lease, contested);
        let is_moving = |lease: &&Lease| lease.replaces.is_some_and(|contested| is_over(lease, contested));
        let moving: Vec<&Lease> = leases.iter().filter(is_moving).collect();
        assert_eq!(moving, Vec::<&Lease>::new(), "nobody is moved any more");
        for at in self.behind.keys() {
            let held = self.store.held(domain(), &owner(*at), None).unwrap();
            assert!(held.len() < 2, "{held:?}");
        }
        for (at, behind) in self.behind.iter().filter(|(_, behind)| self.moved.contains_key(&behind.port)) {
            let lease = self.moved.get(&behind.port).expect("it was moved").clone();
            if behind.addresses.contains(&lease.address) && !self.touched_leases.contains(&lease.address) {
                let held = self.store.held(domain(), &owner(*at), None).unwrap();
                let held: Vec<_> = held.iter().map(|lease| lease.address).collect();
                assert_eq!(held, [lease.address], "s{at} was moved and has one lease");
            }
        }
    }

    fn check_records(&self) {
        let open = |incident: &&Incident| incident.status == Status::Open;
        let mut open: Vec<u64> = self.engine.incidents().filter(open).map(|incident| incident.id.0).collect();
        open.sort_unstable();
        let mut kept: Vec<u64> = self.store.kept_open().unwrap().iter().map(|kept| kept.number).collect();
        kept.sort_unstable();
        assert_eq!(kept, open, "what is written down as open is open");
    }
}

/// The loser holds a lease that is of no use to it, or there is no address left.
fn is_lasting(failure: &str) -> bool {
    failure.contains("release that lease first") || failure.contains("no address left")
}
