//! What is called, and where the process that calls dies.

use std::{collections::BTreeSet, net::Ipv4Addr};

use proptest::prelude::*;

use super::super::*;
use crate::net::{IfName, Ipv4Net, Ipv4Range};

/// Seconds, of which every span here is a number.
pub(super) type Seconds = u64;

/// The shortest cooldown and the shortest quarantine.
pub(super) const SHORTEST: Seconds = 20;

/// A call, and what becomes of the process that makes it.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) call: Call,
    pub(super) end: End,
}

/// What becomes of the process that makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It hears the reply, and lives on.
    Reply,
    /// It dies when all is done but the commit.
    BeforeCommit,
    /// It dies, and the machine with it, while the commit is on its way to the disk: so many 65536ths of what the log
    /// gets are there, and nothing behind it, or rubbish.
    Torn { part: u16, rubbish: bool },
    /// It dies when the commit is on the disk, and never hears the reply.
    BeforeReply,
}

/// Something that is done to a book.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Allocate(Wish),
    Reserve(Wish, Seconds),
    Reallocate { domain: Domain, owner: Owner, contested: Ipv4Addr, avoid: BTreeSet<Ipv4Addr> },
    Adopt { domain: Domain, address: Ipv4Addr, owner: Owner, interface: Option<IfName> },
    Bind(Which),
    Release(Which),
    Retire(Which),
    Discard(Which),
    Quarantine(Which, Seconds),
    Sweep,
    SetPool(Pool),
    RemovePool(Domain, Ipv4Net),
    Pass(Seconds),
    SetWallClock(i64),
    Reopen,
    Reboot,
}

/// Which lease a change is meant for: the one that was given so many grants ago, by its owner or by somebody else.
#[derive(Clone, Debug)]
pub(super) struct Which {
    back: usize,
    stranger: bool,
}

impl Which {
    /// The fence that is used, if so many leases were given by now.
    pub(super) fn fence(&self, given: &[Lease]) -> Option<Fence> {
        let fence = Fence::from(given.iter().rev().nth(self.back)?);
        Some(if self.stranger { Fence { owner: owner("stranger"), ..fence } } else { fence })
    }
}

/// Two domains in which equal addresses may be leased.
pub(super) fn domains() -> [Domain; 2] {
    [rt0(), Domain { vlan: VlanId::new(12), ..rt0() }]
}

/// Two pools of a domain side by side, and one that overlaps both.
pub(super) fn subnets() -> [Ipv4Net; 3] {
    ["10.8.64.0/28", "10.8.64.16/29", "10.8.64.0/27"].map(|subnet| subnet.parse().unwrap())
}

/// An act, of those that a life is made of.
pub(super) fn act() -> impl Strategy<Value = Act> {
    let end = prop_oneof![
        44 => Just(End::Reply),
        2 => Just(End::BeforeCommit),
        2 => (any::<u16>(), any::<bool>()).prop_map(|(part, rubbish)| End::Torn { part, rubbish }),
        2 => Just(End::BeforeReply),
    ];
    (call(), end).prop_map(|(call, end)| Act { call, end })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        10 => wish().prop_map(Call::Allocate),
        8 => (wish(), 1..60_u64).prop_map(|(wish, hold)| Call::Reserve(wish, hold)),
        6 => (domain(), name(), address(), in_use())
            .prop_map(|(domain, owner, contested, avoid)| Call::Reallocate { domain, owner, contested, avoid }),
        3 => (domain(), address(), name(), interface())
            .prop_map(|(domain, address, owner, interface)| Call::Adopt { domain, address, owner, interface }),
        5 => which().prop_map(Call::Bind),
        10 => which().prop_map(Call::Release),
        14 => which().prop_map(Call::Retire),
        1 => which().prop_map(Call::Discard),
        3 => (which(), SHORTEST..90).prop_map(|(which, lasts)| Call::Quarantine(which, lasts)),
        5 => Just(Call::Sweep),
        3 => set_pool().prop_map(Call::SetPool),
        1 => (domain(), 0..3_usize).prop_map(|(domain, at)| Call::RemovePool(domain, subnets()[at])),
        8 => (0..40_u64).prop_map(Call::Pass),
        1 => any::<i32>().prop_map(|seconds| Call::SetWallClock(i64::from(seconds))),
        1 => Just(Call::Reopen),
        1 => Just(Call::Reboot),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    (domain(), name(), interface(), within(), in_use()).prop_map(|(domain, owner, interface, within, avoid)| Wish {
        domain,
        owner,
        interface,
        within,
        avoid,
    })
}

/// Mostly the untagged domain, so that it gets crowded.
fn domain() -> impl Strategy<Value = Domain> {
    prop_oneof![4 => Just(domains()[0]), 1 => Just(domains()[1])]
}

fn name() -> impl Strategy<Value = Owner> {
    (0..8_u8).prop_map(|number| owner(&format!("owner-{number}")))
}

fn interface() -> impl Strategy<Value = Option<IfName>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some("eth0".parse().unwrap())),
        1 => Just(Some("eth1".parse().unwrap())),
    ]
}

/// Up to one beyond the pools.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    (0..33_u8).prop_map(ip)
}

/// Anywhere, one address, a range, or one of two ranges that do not overlap.
fn within() -> impl Strategy<Value = Vec<Ipv4Range>> {
    let range = |first: u8, len: u8| Ipv4Range::new(ip(first), ip(first + len)).unwrap();
    prop_oneof![
        8 => Just(Vec::new()),
        1 => address().prop_map(|only| vec![only.into()]),
        1 => (0..28_u8, 0..10_u8).prop_map(move |(first, len)| vec![range(first, len)]),
        1 => (0..8_u8, 9..20_u8).prop_map(move |(low, high)| vec![range(high, 9), range(low, 1)]),
    ]
}

fn in_use() -> impl Strategy<Value = BTreeSet<Ipv4Addr>> {
    prop_oneof![4 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(address(), 0..20)]
}

/// Mostly one that was given lately, so that most fences name a lease that is still there.
fn which() -> impl Strategy<Value = Which> {
    let back = prop_oneof![6 => 0..25_usize, 1 => 0..400_usize];
    (back, prop::bool::weighted(0.03)).prop_map(|(back, stranger)| Which { back, stranger })
}

fn set_pool() -> impl Strategy<Value = Pool> {
    let excluded = prop_oneof![2 => Just(None), 1 => (0..5_u8, 0..2_u8).prop_map(Some)];
    let subnet = prop_oneof![5 => Just(0), 4 => Just(1), 1 => Just(2_usize)];
    (domain(), subnet, prop::option::of(1..7_u8), excluded, 0..4_u64).prop_map(
        |(domain, at, gateway, excluded, cooldown)| {
            let subnet = subnets()[at];
            let host = |number: u8| Ipv4Addr::from_bits(subnet.network().to_bits() + u32::from(number));
            let cooldown = Span::from_secs(SHORTEST + 15 * cooldown);
            let excluded = excluded.map(|(first, len)| Ipv4Range::new(host(first), host(first + len)).unwrap());
            Pool::new(domain, subnet, gateway.map(host), cooldown).unwrap().excluding(excluded).unwrap()
        },
    )
}
