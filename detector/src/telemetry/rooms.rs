//! How much room pools have, by what an agent says on `/metrics`.

use std::collections::BTreeMap;

use super::metrics::{LEASES, POOL_SIZE};

/// How many addresses a pool has, and how many are leased or rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolRoom {
    /// All that can be leased.
    pub size: u64,
    /// Those that are not free.
    pub taken: u64,
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

    #[test]
    fn rooms_are_summed_over_states() {
        let metrics = "# HELP dupip_leases x\ndupip_leases{pool=\"rt0\",state=\"bound\"} 2\n\
                       dupip_leases{pool=\"rt0\",state=\"cooldown\"} 1\ndupip_pool_size{pool=\"rt0\"} 253\nup 1\n";
        assert_eq!(rooms_in(metrics), [("rt0", PoolRoom { size: 253, taken: 3 })].into());
    }
}
