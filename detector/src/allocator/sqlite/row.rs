//! How values stand in the database's columns.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use crate::{
    allocator::Pool,
    net::{Domain, Generation, InvalidOwner, Ipv4Net, Lease, LeaseState, Owner, VlanId},
    time::{Span, Timestamp},
};

/// 146 years. A moment since boot and a cooldown, each at most this, can be added up in a column.
const LONGEST_NS: i64 = i64::MAX / 2;

/// A domain: the bridge's name, with a slash and the VLAN behind it unless it is untagged.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) Domain);

/// An owner.
struct Name(Owner);

/// A lease's state.
struct State(LeaseState);

/// What a lease's row begins with, as [`lease`] reads it.
macro_rules! lease_columns {
    () => {
        "domain, address, owner, generation, state, replaces"
    };
}
pub(super) use lease_columns;

/// A lease, from the first six columns of `row`.
pub(super) fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let (Key(domain), Name(owner), State(state)) = (row.get(0)?, row.get(2)?, row.get(4)?);
    Ok(Lease {
        domain,
        address: address(row, 1)?,
        owner,
        generation: generation(row, 3)?,
        state,
        replaces: row.get::<_, Option<u32>>(5)?.map(Ipv4Addr::from_bits),
    })
}

/// A pool, from `domain, network, prefix, gateway, cooldown_ns`.
pub(super) fn pool(row: &Row<'_>) -> rusqlite::Result<Pool> {
    let Key(domain) = row.get(0)?;
    let subnet = Ipv4Net::new(address(row, 1)?, row.get(2)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Integer, error.into()))?;
    let gateway = row.get::<_, Option<u32>>(3)?.map(Ipv4Addr::from_bits);
    Ok(Pool { domain, subnet, gateway, cooldown: moment(row, 4)?.since(Timestamp::from_nanos(0)) })
}

/// An address, from a column with its number in host byte order.
pub(super) fn address(row: &Row<'_>, column: usize) -> rusqlite::Result<Ipv4Addr> {
    row.get(column).map(Ipv4Addr::from_bits)
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

impl FromSql for Name {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error: InvalidOwner| FromSqlError::Other(error.into()))
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
