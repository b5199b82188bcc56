//! How much room pools have, on `/metrics`: said by an agent, and read from what it says.

use std::{collections::BTreeMap, sync::PoisonError};

use super::{
    Telemetry,
    metrics::{LEASES, POOL_SIZE, as_gauge},
};
use crate::{
    allocator::Pool,
    net::{Domain, Lease, LeaseState},
};

/// How many addresses a pool has, and how many are leased or rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolRoom {
    /// All that can be leased.
    pub size: u64,
    /// Those that are not free.
    pub taken: u64,
}

impl Telemetry {
    /// Sets what the store has: how many addresses the pools of each domain have to give in all, and how many of these are
    /// leased, in each state. What is in no pool takes no room in one.
    pub fn set_pools(&self, pools: &[Pool], leases: &[Lease]) {
        let mut rooms: BTreeMap<Domain, (u64, BTreeMap<LeaseState, usize>)> = BTreeMap::new();
        for pool in pools {
            rooms.entry(pool.domain()).or_default().0 += pool.size();
        }
        let is_pooled =
            |lease: &&Lease| pools.iter().any(|pool| pool.domain() == lease.domain && pool.can_lease(lease.address));
        for lease in leases.iter().filter(is_pooled) {
            *rooms.entry(lease.domain).or_default().1.entry(lease.state).or_default() += 1;
        }
        // A pool that is no more keeps nothing.
        let _shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        self.pool_size.reset();
        self.leases.reset();
        for (domain, (size, counts)) in rooms {
            let domain = domain.to_string();
            self.pool_size.with_label_values(&[&domain]).set(i64::try_from(size).unwrap_or(i64::MAX));
            for state in LeaseState::ALL {
                let count = counts.get(&state).copied().unwrap_or_default();
                self.leases.with_label_values(&[domain.as_str(), state.as_str()]).set(as_gauge(count));
            }
        }
    }
}

/// The pools that an agent has, by what it says on `/metrics`.
#[must_use]
pub fn rooms_in(metrics: &str) -> BTreeMap<&str, PoolRoom> {
    let mut rooms: BTreeMap<_, PoolRoom> = BTreeMap::new();
    for (name, pool, value) in metrics.lines().filter_map(series) {
        match name {
            POOL_SIZE => rooms.entry(pool).or_default().size += value,
            LEASES => rooms.entry(pool).or_default().taken += value,
            _ => {}
        }
    }
    rooms
}

/// A series' name, its pool and its value.
fn series(line: &str) -> Option<(&str, &str, u64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once("{pool=\"")?;
    Some((name, labels.split_once('"')?.0, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Generation, time::Span};

    #[test]
    fn rooms_are_summed_over_states() {
        let metrics = "# HELP dupip_leases x\ndupip_leases{pool=\"rt0\",state=\"bound\"} 2\n\
                       dupip_leases{pool=\"rt0\",state=\"cooldown\"} 1\ndupip_pool_size{pool=\"rt0\"} 253\nup 1\n";
        assert_eq!(rooms_in(metrics), [("rt0", PoolRoom { size: 253, taken: 3 })].into());
    }

    fn lease(address: [u8; 4]) -> Lease {
        Lease {
            domain: Domain::untagged("rt0".parse().unwrap()),
            address: address.into(),
            owner: "a".parse().unwrap(),
            interface: None,
            generation: Generation(1),
            state: LeaseState::Cooldown,
            replaces: None,
        }
    }

    #[test]
    fn a_pool_that_is_no_more_has_no_room() {
        let telemetry = Telemetry::new().unwrap();
        let pool = |network: &str| {
            let domain = Domain::untagged("rt0".parse().unwrap());
            Pool::new(domain, network.parse().unwrap(), Some([10, 8, 64, 1].into()), Span::from_secs(60)).unwrap()
        };
        let shown = || {
            let text = String::from_utf8(telemetry.render().unwrap()).unwrap();
            rooms_in(&text).get("rt0").map(|room| (room.taken, room.size))
        };
        let leases = [[10, 8, 64, 2], [10, 8, 64, 200], [10, 8, 64, 201]].map(lease);
        telemetry.set_pools(&[pool("10.8.64.0/24")], &leases);
        assert_eq!(shown(), Some((3, 253)));
        telemetry.set_pools(&[pool("10.8.64.0/25")], &leases);
        assert_eq!(shown(), Some((1, 125)), "what is beyond takes no room");
        telemetry.set_pools(&[], &leases);
        assert_eq!(shown(), None);
    }
}
