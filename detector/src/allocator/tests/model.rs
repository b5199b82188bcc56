//! Random calls, against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What is called. Numbers stand for owners, addresses (10.8.64.N) and leases that were once given.
#[derive(Clone, Debug)]
enum Call {
    Allocate { owner: u8, avoid: BTreeSet<u8> },
    Reallocate { owner: u8, contested: u8, avoid: BTreeSet<u8> },
    Adopt { address: u8, owner: u8 },
    Bind { lease: usize },
    Release { lease: usize },
    Retire { lease: usize },
    Pass { seconds: u64 },
    Reopen,
    Reboot,
}

/// What is to be answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Lease(Lease),
    Fenced(Option<Lease>),
    Exhausted { ready_in: Option<Span>, in_use: u64 },
    Leased(Lease),
    HoldsAnother(Lease),
    HoldsUseless(Lease),
    NotInPool,
}

#[derive(Clone, Debug)]
struct Row {
    lease: Lease,
    /// Seconds since boot, and which of the resting it is.
    ready: (u64, u64),
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<Ipv4Addr, Row>,
    given: Vec<Lease>,
    rests: u64,
    now: u64,
    boots: u64,
}

/// What a /28 gives whose first host is the gateway.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (2..15).map(ip)
}

fn named(number: u8) -> Owner {
    owner(&format!("owner-{number}"))
}

fn ips(numbers: &BTreeSet<u8>) -> BTreeSet<Ipv4Addr> {
    numbers.iter().copied().map(ip).collect()
}

impl Model {
    fn held(&self, owner: &Owner) -> Option<Lease> {
        self.rows.values().map(|row| &row.lease).find(|lease| lease.state.is_held() && lease.owner == *owner).cloned()
    }

    fn resting(&self) -> impl Iterator<Item = (&Ipv4Addr, &Row)> {
        self.rows.iter().filter(|(_, row)| row.lease.state == LeaseState::Cooldown)
    }

    fn fresh(&self) -> impl Iterator<Item = Ipv4Addr> {
        addresses().filter(|address| !self.rows.contains_key(address))
    }

    fn grant(&mut self, address: Ipv4Addr, owner: &Owner, replaces: Option<Ipv4Addr>) -> Answer {
        let state = if replaces.is_some() { LeaseState::Reserved } else { LeaseState::Bound };
        let generation = Generation(self.given.len() as u64 + 1);
        let lease =
            Lease { domain: rt0(), address, owner: owner.clone(), interface: None, generation, state, replaces };
        self.given.push(lease.clone());
        self.put(lease)
    }

    fn put(&mut self, lease: Lease) -> Answer {
        self.rests += 1;
        let ready = (self.now + COOLDOWN.as_nanos() / 1_000_000_000, self.rests);
        self.rows.insert(lease.address, Row { lease: lease.clone(), ready });
        Answer::Lease(lease)
    }

    fn give(&mut self, owner: &Owner, replaces: Option<Ipv4Addr>, avoid: &BTreeSet<Ipv4Addr>) -> Answer {
        let rested = |row: &Row| row.ready.0 <= self.now;
        let longest = self.resting().filter(|(address, row)| rested(row) && !avoid.contains(address));
        let longest = longest.min_by_key(|(_, row)| row.ready).map(|(address, _)| *address);
        let address = self.fresh().find(|address| !avoid.contains(address)).or(longest);
        match address {
            Some(address) => self.grant(address, owner, replaces),
            None => {
                let waiting = self.resting().filter(|(address, row)| !rested(row) && !avoid.contains(address));
                let ready_in = waiting.map(|(_, row)| Span::from_secs(row.ready.0 - self.now)).min();
                let in_use = self.fresh().count() + self.resting().filter(|(_, row)| rested(row)).count();
                Answer::Exhausted { ready_in, in_use: in_use as u64 }
            }
        }
    }

    fn reallocate(&mut self, owner: &Owner, contested: Ipv4Addr, mut avoid: BTreeSet<Ipv4Addr>) -> Answer {
        avoid.insert(contested);
        match self.held(owner) {
            Some(lease) if avoid.contains(&lease.address) && lease.address != contested => Answer::HoldsUseless(lease),
            Some(lease) if lease.address != contested => {
                self.put(Lease { state: LeaseState::Reserved, replaces: Some(contested), ..lease })
            }
            held => {
                let answer = self.give(owner, Some(contested), &avoid);
                if let (Some(lease), Answer::Lease(_)) = (held, &answer) {
                    self.put(Lease { state: LeaseState::Draining, replaces: None, ..lease });
                }
                answer
            }
        }
    }

    fn adopt(&mut self, address: Ipv4Addr, owner: &Owner) -> Answer {
        let row = self.rows.get(&address).map(|row| row.lease.clone());
        match (self.held(owner), row) {
            _ if !addresses().any(|leasable| leasable == address) => Answer::NotInPool,
            (Some(held), _) if held.address == address => Answer::Lease(held),
            (Some(held), _) => Answer::HoldsAnother(held),
            (None, Some(row)) if row.state != LeaseState::Cooldown => Answer::Leased(row),
            (None, _) => self.grant(address, owner, None),
        }
    }

    fn step(&mut self, lease: &Lease, from: &[LeaseState], to: LeaseState) -> Answer {
        let row = self.rows[&lease.address].lease.clone();
        match row.generation == lease.generation && from.contains(&row.state) {
            true => self.put(Lease { state: to, replaces: None, ..row }),
            false => Answer::Fenced(Some(row)),
        }
    }

    fn reboot(&mut self) {
        self.boots += 1;
        self.now = 0;
        let rest = COOLDOWN.as_nanos() / 1_000_000_000;
        self.rows.values_mut().for_each(|row| row.ready.0 = rest);
    }
}

fn allocated(answer: Result<Lease, AllocateError>) -> Answer {
    match answer {
        Ok(lease) => Answer::Lease(lease),
        Err(AllocateError::Exhausted { ready_in, in_use, .. }) => Answer::Exhausted { ready_in, in_use },
        Err(AllocateError::HoldsUseless(lease)) => Answer::HoldsUseless(*lease),
        Err(error) => panic!("{error}"),
    }
}

fn adopted(answer: Result<Lease, AdoptError>) -> Answer {
    match answer {
        Ok(lease) => Answer::Lease(lease),
        Err(AdoptError::Leased(lease)) => Answer::Leased(*lease),
        Err(AdoptError::HoldsAnother(lease)) => Answer::HoldsAnother(*lease),
        Err(AdoptError::NotInPool { .. }) => Answer::NotInPool,
        Err(AdoptError::Store(error)) => panic!("{error}"),
    }
}

fn changed(answer: Result<Change, StoreError>) -> Answer {
    match answer.unwrap() {
        Change::Applied(lease) => Answer::Lease(lease),
        Change::Fenced { current } => Answer::Fenced(current),
    }
}

/// A store and its model, to which the same is done.
struct Pair {
    home: Home,
    store: SqliteStore,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let home = Home::new();
        let store = home.open_in("boot-0");
        store.ensure_pool(&pool(rt0(), "10.8.64.0/28")).unwrap();
        Self { home, store, model: Model::default() }
    }

    /// What the store answers, and what it should.
    fn call(&mut self, call: &Call) -> Option<(Answer, Answer)> {
        let (store, model) = (&self.store, &mut self.model);
        match call {
            Call::Allocate { owner, avoid } => {
                let (owner, avoid) = (named(*owner), ips(avoid));
                let want = match model.held(&owner) {
                    Some(lease) => Answer::Lease(lease),
                    None => model.give(&owner, None, &avoid),
                };
                Some((allocated(store.allocate(&wish(rt0(), &owner, &avoid))), want))
            }
            Call::Reallocate { owner, contested, avoid } => {
                let (owner, contested, avoid) = (named(*owner), ip(*contested), ips(avoid));
                let answer = allocated(store.reallocate(rt0(), &owner, contested, &avoid));
                Some((answer, model.reallocate(&owner, contested, avoid)))
            }
            Call::Adopt { address, owner } => {
                let (address, owner) = (ip(*address), named(*owner));
                Some((adopted(store.adopt(rt0(), address, &owner, None)), model.adopt(address, &owner)))
            }
            Call::Bind { lease } => {
                let lease = once_given(model, *lease)?;
                let want = model.step(&lease, &[LeaseState::Reserved, LeaseState::Bound], LeaseState::Bound);
                Some((changed(store.bind(&Fence::from(&lease))), want))
            }
            Call::Release { lease } => {
                let lease = once_given(model, *lease)?;
                let want = model.step(&lease, &[LeaseState::Reserved, LeaseState::Bound], LeaseState::Draining);
                Some((changed(store.release(&Fence::from(&lease))), want))
            }
            Call::Retire { lease } => {
                let lease = once_given(model, *lease)?;
                let want = model.step(&lease, &[LeaseState::Draining], LeaseState::Cooldown);
                Some((changed(store.retire(&Fence::from(&lease))), want))
            }
            Call::Pass { seconds } => {
                model.now += seconds;
                self.home.time.pass(Span::from_secs(*seconds));
                None
            }
            Call::Reopen => self.reopen(),
            Call::Reboot => {
                model.reboot();
                self.home.time.set(Span::ZERO);
                self.reopen()
            }
        }
    }

    fn reopen(&mut self) -> Option<(Answer, Answer)> {
        self.store = self.home.open_in(&format!("boot-{}", self.model.boots));
        None
    }
}

fn once_given(model: &Model, number: usize) -> Option<Lease> {
    model.given.get(number % model.given.len().max(1)).cloned()
}

/// What has to be true of a book at any time, whatever was done to it.
fn check(book: &[Lease], generations: &mut BTreeMap<Generation, (Ipv4Addr, Owner)>) {
    let addresses: BTreeSet<_> = book.iter().map(|lease| lease.address).collect();
    assert_eq!(addresses.len(), book.len(), "an address has two leases: {book:?}");
    let holders: Vec<_> = book.iter().filter(|lease| lease.state.is_held()).map(|lease| &lease.owner).collect();
    assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), holders.len(), "an owner holds two: {book:?}");
    for Lease { address, owner, generation, .. } in book {
        let newest = generations.last_key_value().map(|(newest, _)| *newest);
        let known = generations.entry(*generation).or_insert_with(|| {
            assert!(newest < Some(*generation), "{generation} is new but not above {newest:?}");
            (*address, owner.clone())
        });
        assert_eq!(*known, (*address, owner.clone()), "generation {generation} came again");
    }
}

fn call() -> impl Strategy<Value = Call> {
    let (owner, address) = (0..6_u8, 0..16_u8);
    let avoid = || prop_oneof![2 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(2..15_u8, 0..14)];
    prop_oneof![
        6 => (owner.clone(), avoid()).prop_map(|(owner, avoid)| Call::Allocate { owner, avoid }),
        4 => (owner.clone(), address.clone(), avoid())
            .prop_map(|(owner, contested, avoid)| Call::Reallocate { owner, contested, avoid }),
        2 => (address, owner).prop_map(|(address, owner)| Call::Adopt { address, owner }),
        2 => any::<usize>().prop_map(|lease| Call::Bind { lease }),
        5 => any::<usize>().prop_map(|lease| Call::Release { lease }),
        6 => any::<usize>().prop_map(|lease| Call::Retire { lease }),
        3 => (0..40_u64).prop_map(|seconds| Call::Pass { seconds }),
        1 => Just(Call::Reopen),
        1 => Just(Call::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(calls in prop::collection::vec(call(), 50)) {
        let mut pair = Pair::new();
        let mut generations = BTreeMap::new();
        for call in &calls {
            if let Some((answer, want)) = pair.call(call) {
                prop_assert_eq!(answer, want, "{:?}", call);
            }
            let book = pair.store.leases(None).unwrap();
            check(&book, &mut generations);
            let want: Vec<_> = pair.model.rows.values().map(|row| row.lease.clone()).collect();
            prop_assert_eq!(book, want, "after {:?}", call);
        }
    }
}
