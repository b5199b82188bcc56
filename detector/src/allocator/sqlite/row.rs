//! How values stand in the database's columns.

use std::{
    fmt,
    net::Ipv4Addr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, ValueRef},
};

use crate::{
    allocator::{JournalEntry, Pool, Standing},
    net::{
        Domain, Generation, IfName, InvalidName, InvalidOwner, Ipv4Net, Ipv4Range, Lease, LeaseState, Mac, Owner,
        VlanId,
    },
    time::{Span, Timestamp},
};

/// 146 years. A moment since boot and a cooldown, each at most this, can be added up in a column.
const LONGEST_NS: i64 = i64::MAX / 2;

/// A domain: the bridge's name, with a slash and the VLAN behind it unless it is untagged.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) Domain);

/// An address, as its bytes in network order.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub(super) Ipv4Addr);

/// An interface's name, empty if none is named.
#[derive(Clone, Copy)]
pub(super) struct Interface(pub(super) Option<IfName>);

/// An owner.
struct Name(Owner);

/// A lease's state.
struct State(LeaseState);

/// What a lease's row begins with, as [`lease`] reads it.
macro_rules! lease_columns {
    () => {
        "domain, address, owner, interface, generation, state, replaces"
    };
}
pub(super) use lease_columns;

/// A lease, from the first seven columns of `row`.
pub(super) fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let (Key(domain), Bytes(address), Name(owner)) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (Interface(interface), State(state)) = (row.get(3)?, row.get(5)?);
    let replaces = row.get::<_, Option<Bytes>>(6)?.map(|Bytes(address)| address);
    Ok(Lease { domain, address, owner, interface, generation: generation(row, 4)?, state, replaces })
}

/// A lease and how it stands at `now`, from a lease's columns and `since_ns, until_ns, mac, reason`.
pub(super) fn standing(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Standing> {
    let until = row.get::<_, Option<i64>>(8)?.map(|nanos| Timestamp::from_nanos(nanos.unsigned_abs()));
    let mac = row.get::<_, Option<[u8; 6]>>(9)?.map(Mac);
    Ok(Standing {
        lease: lease(row)?,
        since: now.since(moment(row, 7)?),
        left: until.map(|until| until.since(now)),
        quarantine: mac.zip(row.get(10)?),
    })
}

/// A pool without its exclusions, from `domain, network, prefix, gateway, cooldown_ns`.
pub(super) fn pool(row: &Row<'_>) -> rusqlite::Result<Pool> {
    let (Key(domain), Bytes(network)) = (row.get(0)?, row.get(1)?);
    let subnet = Ipv4Net::new(network, row.get(2)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Integer, error.into()))?;
    let gateway = row.get::<_, Option<Bytes>>(3)?.map(|Bytes(gateway)| gateway);
    let cooldown = moment(row, 4)?.since(Timestamp::from_nanos(0));
    Ok(Pool { domain, subnet, gateway, cooldown, excluded: Vec::new() })
}

/// A run of addresses, from `first, last`.
pub(super) fn range(row: &Row<'_>) -> rusqlite::Result<Ipv4Range> {
    let (Bytes(first), Bytes(last)) = (row.get(0)?, row.get(1)?);
    Ipv4Range::new(first, last).map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, error.into()))
}

/// A line of the journal, from all its columns.
pub(super) fn journal_entry(row: &Row<'_>) -> rusqlite::Result<JournalEntry> {
    let wall = Duration::from_millis(row.get::<_, i64>(1)?.unsigned_abs());
    Ok(JournalEntry {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        wall: SystemTime::UNIX_EPOCH.checked_add(wall).unwrap_or(SystemTime::UNIX_EPOCH),
        boot: row.get(2)?,
        at: moment(row, 3)?,
        actor: row.get(4)?,
        op: row.get(5)?,
        domain: row.get::<_, Option<Key>>(6)?.map(|Key(domain)| domain),
        address: row.get::<_, Option<Bytes>>(7)?.map(|Bytes(address)| address),
        owner: row.get::<_, Option<Name>>(8)?.map(|Name(owner)| owner),
        interface: row.get::<_, Option<Interface>>(9)?.and_then(|Interface(name)| name),
        generation: row.get::<_, Option<i64>>(10)?.map(|number| Generation(number.unsigned_abs())),
        from: row.get::<_, Option<State>>(11)?.map(|State(state)| state),
        to: row.get::<_, Option<State>>(12)?.map(|State(state)| state),
        reason: row.get(13)?,
    })
}

/// A generation.
pub(super) fn generation(row: &Row<'_>, column: usize) -> rusqlite::Result<Generation> {
    row.get::<_, i64>(column).map(|number| Generation(number.unsigned_abs()))
}

/// A moment, from nanoseconds since boot.
pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get::<_, i64>(column).map(|nanos| Timestamp::from_nanos(nanos.unsigned_abs()))
}

/// The number of `generation` as a column takes it. The largest is never reached: it is the count of leases given.
pub(super) fn number(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}

/// Nanoseconds since boot, as a column takes them.
pub(super) fn moment_ns(moment: Timestamp) -> i64 {
    clamped(moment.as_nanos())
}

/// A length of time, as a column takes it.
pub(super) fn span_ns(span: Span) -> i64 {
    clamped(span.as_nanos())
}

fn clamped(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX).min(LONGEST_NS)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.vlan {
            Some(vlan) => write!(f, "{}/{}", self.0.bridge, vlan.get()),
            None => write!(f, "{}", self.0.bridge),
        }
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Key {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        domain(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Bytes {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.octets().to_vec().into())
    }
}

impl FromSql for Bytes {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 4]>::column_result(value).map(|octets| Self(octets.into()))
    }
}

impl ToSql for Interface {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_ref().map_or("", IfName::as_str).into())
    }
}

impl FromSql for Interface {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "" => Ok(Self(None)),
            name => name.parse().map(|name| Self(Some(name))).map_err(|error: InvalidName| FromSqlError::other(error)),
        }
    }
}

impl FromSql for Name {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error: InvalidOwner| FromSqlError::other(error))
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let state = LeaseState::ALL.into_iter().find(|state| state.as_str() == text);
        state.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

fn domain(text: &str) -> Option<Domain> {
    let Some((bridge, vlan)) = text.split_once('/') else {
        return text.parse().ok().map(Domain::untagged);
    };
    let vlan = VlanId::new(u16::from_str(vlan).ok()?)?;
    Some(Domain { bridge: bridge.parse().ok()?, vlan: Some(vlan) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_domains_have_one_key() {
        let (plain, dotted) = ("rt0".parse().unwrap(), "rt0.12".parse().unwrap());
        let tagged = Domain { bridge: plain, vlan: VlanId::new(12) };
        for (of, key) in [(Domain::untagged(plain), "rt0"), (Domain::untagged(dotted), "rt0.12"), (tagged, "rt0/12")] {
            assert_eq!(Key(of).to_string(), key);
            assert_eq!(domain(key), Some(of));
        }
        assert_eq!([domain(""), domain("rt0/"), domain("rt0/0"), domain("rt0/4095"), domain("/1")], [None; 5]);
    }
}
