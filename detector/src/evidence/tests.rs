//! Records of incidents that are as strange as their types allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::{Duration, UNIX_EPOCH},
};

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;

use super::{words::Word, *};
use crate::{
    allocator::LONGEST_RECORD,
    engine::{Contest, Eviction, Holding, Incident, IncidentId, Party, PartyKey, Plan, Reason, Sandbox, Sighting},
    net::{BridgeName, Domain, Generation, IfIndex, Lease, Mac, NetnsId, Owner, Station, VlanId},
    time::{Span, Timestamp},
};

fn one<T: Word + Debug>() -> impl Strategy<Value = T> {
    select(T::ALL)
}

fn at() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<u64>(), 0..9_000_000_000_000_u64].prop_map(Timestamp::from_nanos)
}

fn span() -> impl Strategy<Value = Span> {
    at().prop_map(|at| at.since(Timestamp::default()))
}

fn port() -> impl Strategy<Value = IfIndex> {
    prop_oneof![1..9_u32, 1..=u32::MAX].prop_map(|index| IfIndex::new(index).unwrap())
}

fn station() -> impl Strategy<Value = Station> {
    (port(), any::<[u8; 6]>().prop_map(Mac)).prop_map(|(port, mac)| Station { port, mac })
}

fn netns() -> impl Strategy<Value = NetnsId> {
    any::<(u64, u64)>().prop_map(|(device, inode)| NetnsId { device, inode })
}

fn owner() -> impl Strategy<Value = Owner> {
    r#"[a-zü"\\:{/]{1,12}"#.prop_map(|name| name.parse().unwrap())
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<u64>().prop_map(Generation)
}

fn domain() -> impl Strategy<Value = Domain> {
    let bridge = "[a-z0-9\"-]{1,15}".prop_map(|name| name.parse::<BridgeName>().unwrap());
    (bridge, 0..=4095_u16).prop_map(|(bridge, vlan)| Domain { bridge, vlan: VlanId::new(vlan) })
}

fn key() -> impl Strategy<Value = PartyKey> {
    prop_oneof![
        netns().prop_map(PartyKey::Netns),
        port().prop_map(PartyKey::Behind),
        station().prop_map(PartyKey::Station)
    ]
}

prop_compose! {
    fn party()(
        station in station(),
        port_name in "\\PC{0,15}",
        netns in option::of(netns()),
        name in option::of(any::<String>()),
        owners in vec(owner(), 0..3),
        (is_host, is_external, configured, initial) in any::<(bool, bool, bool, bool)>(),
        first_seen in at(),
        evidence in one(),
        address in any::<std::net::Ipv4Addr>(),
        key in key(),
    ) -> Party {
        let sandbox = Sandbox { netns, name, owners };
        Party { station, port_name, sandbox, is_host, is_external, first_seen, evidence, configured, initial, address, key }
    }
}

prop_compose! {
    fn lease()(
        domain in domain(),
        (address, replaces) in any::<(std::net::Ipv4Addr, Option<std::net::Ipv4Addr>)>(),
        owner in owner(),
        interface in option::of("[a-z]{1,15}".prop_map(|name| name.parse().unwrap())),
        generation in generation(),
        state in one(),
    ) -> Lease {
        Lease { domain, address, owner, interface, generation, state, replaces }
    }
}

prop_compose! {
    fn eviction()(
        (way, owner, strikes) in (one(), option::of(owner()), any::<u32>()),
        (began, failed_at) in (at(), option::of(at())),
        step in one(),
        lease in option::of(lease()),
        taken in vec((one(), at()), 0..9),
        failure in any::<Option<String>>(),
        attempts in any::<u8>(),
    ) -> Eviction {
        Eviction { strikes, step, lease, taken, failure, attempts, failed_at, ..Eviction::new(way, owner, began) }
    }
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::HostAddress),
        Just(Reason::External),
        owner().prop_map(|owner| Reason::Pinned { owner }),
        (owner(), generation()).prop_map(|(owner, generation)| Reason::LeaseHolder { owner, generation }),
        (owner(), generation()).prop_map(|(owner, generation)| Reason::NewerOfOwner { owner, generation }),
        span().prop_map(|ahead| Reason::Incumbent { ahead }),
        Just(Reason::NoClearOwner),
        owner().prop_map(|owner| Reason::SharedOwner { owner }),
    ]
}

fn contest() -> impl Strategy<Value = Contest> {
    let lease = option::of((any::<std::net::Ipv4Addr>(), generation()));
    let holding = (port(), lease).prop_map(|(port, lease)| Holding { port, lease });
    (option::of(port()), reason(), vec(holding, 0..3)).prop_map(|(winner, reason, losers)| Contest {
        winner,
        reason,
        losers,
    })
}

prop_compose! {
    fn plan()(
        port in port(),
        (way, owner, held) in (option::of(one()), option::of(owner()), option::of(one())),
    ) -> Plan {
        Plan { port, way, owner, held }
    }
}

prop_compose! {
    fn sighting()(
        at in at(),
        address in any::<std::net::Ipv4Addr>(),
        station in station(),
        evidence in option::of(one()),
    ) -> Sighting {
        Sighting { at, address, station, evidence }
    }
}

prop_compose! {
    fn incident()(
        (id, claims, told_claims) in any::<(u64, u64, u64)>(),
        domain in domain(),
        address in any::<std::net::Ipv4Addr>(),
        others in vec(any::<std::net::Ipv4Addr>(), 0..4),
        parties in vec(party(), 0..4),
        first_evidence in one(),
        (first_at, named_at, closed_at) in (at(), at(), option::of(at())),
        contest in option::of(contest()),
        (held, plan) in (option::of(one()), vec(plan(), 0..3)),
        evictions in vec((port(), eviction()), 0..3),
        (status, times, told_losers, attempts) in (one(), any::<u32>(), any::<u32>(), any::<u8>()),
        sightings in vec(sighting(), 0..4),
    ) -> Incident {
        Incident {
            id: IncidentId(id),
            domain,
            address,
            addresses: others.into_iter().chain([address]).collect(),
            parties,
            first_evidence,
            first_at,
            named_at,
            contest,
            held,
            plan,
            evictions: evictions.into_iter().collect(),
            status,
            closed_at,
            times,
            claims,
            sightings: sightings.into(),
            told_losers,
            told_claims,
            attempts,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_down_is_read_again(incident in incident(), boot in any::<String>(), wall_offset in any::<u64>()) {
        let record = Record::of(&incident, &boot, wall_offset);
        let read = Record::from_json(&record.to_json()).unwrap();
        prop_assert_eq!((&read.boot, read.wall_offset), (&boot, wall_offset));
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(read.incident().unwrap(), incident);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_refused_with_words_or_reads_the_same(
        incident in incident(), cut in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut json = Record::of(&incident, "b", 1).to_json().into_bytes();
        let cut = cut.index(json.len());
        prop_assert!(Record::from_json(&String::from_utf8_lossy(&json[..cut])).is_err());
        json[cut] = byte;
        properties::incident_record(&json);
    }
}

#[test]
fn no_two_words_are_the_same() {
    fn distinct<T: Word>() {
        let words: BTreeSet<_> = T::ALL.iter().map(|value| value.word()).collect();
        assert_eq!(words.len(), T::ALL.len(), "{}", T::WHAT);
    }
    distinct::<crate::engine::Status>();
    distinct::<crate::engine::Step>();
    distinct::<crate::engine::Held>();
    distinct::<crate::engine::Evidence>();
    distinct::<crate::net::LeaseState>();
}

/// 10.8.64.2 on rt0, of reviewagent, which has the lease, and sportsagent, which is being moved.
fn moving() -> Incident {
    let address = [10, 8, 64, 2].into();
    let at = |millis| Timestamp::from_nanos(3_600_000_000_000 + millis * 1_000_000);
    let domain = Domain::untagged("rt0".parse().unwrap());
    let party = |port: u8, name: &str, evidence| {
        let station = Station { port: IfIndex::new(port.into()).unwrap(), mac: Mac([2, 0, 0, 0, 0, port]) };
        let netns = NetnsId { device: 4, inode: 4_026_532_000 + u64::from(port) };
        Party {
            station,
            port_name: format!("veth{port}"),
            sandbox: Sandbox { netns: Some(netns), name: Some(name.to_owned()), owners: vec![name.parse().unwrap()] },
            is_host: false,
            is_external: false,
            first_seen: at(u64::from(port)),
            evidence,
            configured: true,
            initial: false,
            address,
            key: PartyKey::Netns(netns),
        }
    };
    let [review, sports]: [Owner; 2] = ["reviewagent", "sportsagent"].map(|name| name.parse().unwrap());
    let parties = [
        party(7, review.as_str(), crate::engine::Evidence::Configured),
        party(9, sports.as_str(), crate::engine::Evidence::Ipv4),
    ];
    let lease = Lease {
        domain,
        address: [10, 8, 64, 4].into(),
        owner: sports.clone(),
        interface: None,
        generation: Generation(4),
        state: crate::net::LeaseState::Reserved,
        replaces: Some(address),
    };
    let taken = vec![(crate::engine::Step::Reallocate, at(12))];
    let failure = Some("the namespace is gone".to_owned());
    let (step, lease) = (crate::engine::Step::Readdress, Some(lease));
    let new = Eviction::new(crate::engine::Way::Readdress, Some(sports), Timestamp::default());
    let eviction = Eviction { step, lease, taken, failure, attempts: 1, ..new };
    Incident {
        id: IncidentId(3),
        domain,
        address,
        addresses: [address].into(),
        first_evidence: crate::engine::Evidence::Ipv4,
        first_at: at(9),
        named_at: at(10),
        contest: Some(Contest {
            winner: Some(parties[0].station.port),
            reason: Reason::LeaseHolder { owner: review, generation: Generation(1) },
            losers: Vec::new(),
        }),
        held: None,
        plan: Vec::new(),
        evictions: BTreeMap::from([(parties[1].station.port, eviction)]),
        status: crate::engine::Status::Open,
        closed_at: None,
        times: 1,
        claims: 2,
        sightings: [Sighting { at: at(9), address, station: parties[1].station, evidence: None }].into(),
        parties: parties.into(),
        told_losers: 0,
        told_claims: 0,
        attempts: 0,
    }
}

/// Whether all that `old` says stands in `new`, too, by the same names.
fn is_part(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(name, value)| new.get(name).is_some_and(|new| is_part(value, new)))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| is_part(old, new))
        }
        _ => old == new,
    }
}

/// The names are a contract: this text was written once, and every later dupip reads it and says the same.
#[test]
fn version_1_is_read_for_ever() {
    let text = include_str!("../../../tests/fuzz/corpus/incident_record/moving");
    assert_eq!(Record::from_json(text).unwrap().incident().unwrap(), moving());
    let new = Record::of(&moving(), "7d4c", 1_764_150_000_000_000_000).to_json();
    assert!(is_part(&serde_json::from_str(text).unwrap(), &serde_json::from_str(&new).unwrap()), "{new}");
}

#[test]
fn what_is_absent_or_not_known_yet_does_no_harm() {
    let mut value = serde_json::to_value(Record::of(&moving(), "b", 1)).unwrap();
    let record = value.as_object_mut().unwrap();
    for field in ["addresses", "times", "attempts", "told_claims", "left_out", "closed_at_ns", "held"] {
        record.remove(field).unwrap();
    }
    record.insert("mood".to_owned(), "sunny".into());
    record["parties"][0]["mood"] = "sunny".into();
    let read = Record::from_json(&value.to_string()).unwrap();
    assert_eq!(read.incident().unwrap(), moving());
}

#[test]
fn what_cannot_be_read_is_said() {
    let with = |field: &str, value: Value| {
        let mut record = serde_json::to_value(Record::of(&moving(), "b", 1)).unwrap();
        *record.pointer_mut(field).unwrap() = value;
        let read = Record::from_json(&record.to_string()).and_then(|record| record.incident());
        read.unwrap_err().to_string()
    };
    for (field, value, want) in [
        ("/schema", 2.into(), "the record has version 2, and this dupip knows versions up to 1: use the newer dupip"),
        ("/schema", 0.into(), "the record has `0` for a version"),
        ("/status", "dreaming".into(), "the record has `dreaming` for a status of an incident"),
        ("/vlan", 4095.into(), "the record has `4095` for a VLAN"),
        ("/parties/0/mac", "02:00".into(), "the record has `02:00` for a hardware address"),
        ("/parties/1/ifindex", 0.into(), "the record has `0` for an interface index"),
        ("/evictions/0/taken/0/step", "fly".into(), "the record has `fly` for a step of an eviction"),
        ("/evictions/0/owner", "".into(), "the record has `` for an owner"),
        ("/held", "unwilling".into(), "the record has `unwilling` for a hindrance"),
    ] {
        assert_eq!(with(field, value), want, "{field}");
    }
    let no_reason = with("/contest/reason/why", "because".into());
    assert!(no_reason.starts_with("this is no record of an incident: unknown variant `because`"), "{no_reason}");
    let error = Record::from_json("{}").unwrap_err().to_string();
    assert_eq!(error, "this is no record of an incident: missing field `schema` at line 1 column 2");
}

#[test]
fn the_store_is_told_what_it_looks_for() {
    let kept = kept(&moving(), "7d4c", 1_764_150_000_000_000_000);
    assert_eq!((kept.number, kept.boot.as_str(), kept.is_open), (3, "7d4c", true));
    assert_eq!(kept.opened, UNIX_EPOCH + Duration::from_millis(1_764_150_000_000 + 3_600_009));
    assert_eq!(Record::from_json(&kept.record).unwrap().incident().unwrap(), moving());
}

/// A hostile sandbox claims with as many hardware addresses as it likes, and must not keep itself from being moved by that.
#[test]
fn a_record_that_is_too_long_keeps_those_that_matter() {
    let mut crowd = moving();
    let names: Vec<Owner> = (0..4).map(|_| "x".repeat(Owner::MAX_LEN).parse().unwrap()).collect();
    let strangers = (0..5000_u32).map(|n| Party {
        station: Station { port: IfIndex::new(100 + n).unwrap(), ..crowd.parties[0].station },
        sandbox: Sandbox { owners: names.clone(), ..Sandbox::default() },
        ..crowd.parties[0].clone()
    });
    crowd.parties = strangers.chain(crowd.parties.clone()).collect();
    crowd.addresses.extend((0..5000_u32).map(|n| std::net::Ipv4Addr::from_bits(0x0a09_0000 + n)));
    let kept = kept(&crowd, "b", 1);
    assert!(kept.record.len() <= LONGEST_RECORD, "{}", kept.record.len());
    let record = Record::from_json(&kept.record).unwrap();
    let read = record.incident().unwrap();
    assert_eq!((read.winner(), read.party(IfIndex::new(9).unwrap())), (crowd.winner(), crowd.parties.last()));
    assert!(read.parties.len() > 50 && read.addresses.contains(&read.address), "{}", read.parties.len());
    assert!(record.left_out > 9000, "{}", record.left_out);
    assert_eq!(read.evictions, crowd.evictions);
}
