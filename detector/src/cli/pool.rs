//! `dupip pool`: which addresses there are to lease.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::{
    exit::{Exit, Failure, note},
    lease::{Place, Within},
    render::{Column, Format, List as Listing, Listed, Look, Output, columns, domain, json, or_dash, print},
    run::span,
};
use crate::{
    allocator::{InvalidPool, Pool, PoolError, SqliteStore, Standing, Store as _},
    net::{BridgeName, Domain, Ipv4Net, Ipv4Range, LeaseState},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip pool create --bridge rt0 --subnet 10.8.64.0/24 --gateway 10.8.64.1
  dupip pool create --bridge rt0 --vlan 7 --subnet 10.8.70.0/24 --exclude 10.8.70.200-10.8.70.254
  dupip pool list
  dupip pool remove --bridge rt0 --subnet 10.8.64.0/24

A bridge may have several pools, none overlapping another. The network and broadcast addresses,
the gateway and what is excluded are never given. The agent makes the pools of its bridges' own
networks by itself; the verbs work on its database while it runs, and without it.";

/// At most so many leases are named when a pool is still in use.
const NAMED: usize = 8;

/// Make, list and remove the pools that addresses are leased from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a pool, or alter what is named of one that is there
    Create(Create),
    /// Show every pool, and how much of it is in use
    List(List),
    /// Remove a pool that nothing is leased from
    Remove(Remove),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  dupip pool create --bridge rt0 --subnet 10.8.64.0/24 --gateway 10.8.64.1
  dupip pool create --bridge rt0 --subnet 10.8.64.0/24 --exclude 10.8.64.2-10.8.64.9 --exclude 10.8.64.128/25
  dupip pool create --bridge rt0 --subnet 10.8.64.0/24 --cooldown 1h     alters the pool's cooldown only

A subnet with host bits, a gateway or an exclusion outside of it: exit code 2. A subnet that
overlaps another pool, or a gateway or an exclusion that is leased: exit code 1.";

#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
struct Create {
    #[command(flatten)]
    within: Within,
    /// The subnet to give addresses from, such as 10.8.64.0/24
    #[arg(long)]
    subnet: Ipv4Net,
    /// The runner's own address there, which is nobody's to have
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// What is not to be given: an address, a range A-B or a network; may be said several times
    #[arg(long, value_name = "ADDRESSES")]
    exclude: Vec<Ipv4Range>,
    /// How long a released address rests before it is given again [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = span)]
    cooldown: Option<Span>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

const LIST_EXAMPLES: &str = "\
Examples:
  dupip pool list
  dupip pool list -o wide       also what is excluded, how long addresses rest, and how many are reserved
  dupip pool list --sort free       the fullest first
  dupip pool list -o json | jq '.[] | select(.free < 10)'";

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    /// Only this bridge's
    #[arg(long, value_name = "NAME")]
    bridge: Option<BridgeName>,
    #[command(flatten)]
    list: Listing<Row>,
    #[command(flatten)]
    place: Place,
}

const REMOVE_EXAMPLES: &str = "\
Examples:
  dupip pool remove --bridge rt0 --subnet 10.8.64.0/24

Refused with exit code 1 while an address of it is leased or drains. What rests goes on resting, in case
the pool comes back. An agent that watches the bridge makes the pool of its network again when it starts.";

#[derive(Debug, clap::Args)]
#[command(after_help = REMOVE_EXAMPLES)]
struct Remove {
    #[command(flatten)]
    within: Within,
    /// The pool's subnet
    #[arg(long)]
    subnet: Ipv4Net,
    #[command(flatten)]
    place: Place,
}

/// A pool with how much of it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    bridge: String,
    vlan: Option<u16>,
    subnet: String,
    gateway: Option<Ipv4Addr>,
    excluded: Vec<String>,
    cooldown_ms: u64,
    size: u64,
    free: u64,
    reserved: u64,
    bound: u64,
    draining: u64,
    cooldown: u64,
    quarantined: u64,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Create(args) => args.run(socket),
            Verb::List(args) => args.run(socket),
            Verb::Remove(args) => args.run(socket),
        }
    }
}

impl Create {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        // What cannot be is refused before a database is made for it.
        self.pool(None).map_err(senseless)?;
        let store = self.place.store(&socket, true)?;
        let domain = Domain::from(self.within);
        let there = store.pools()?.into_iter().find(|pool| (pool.domain(), pool.subnet()) == (domain, self.subnet));
        let pool = self.pool(there.as_ref()).map_err(senseless)?;
        if let Some(there) = there.filter(|there| *there != pool) {
            note(format_args!("{domain} had {} already: only what you named was altered", there.subnet()));
        }
        store.ensure_pool(&pool).map_err(clashes)?;
        let row = row(&pool, &store.standings(Some(domain))?);
        print(match self.format.output {
            Output::Json => json(&row)?,
            _ => show(&[row], self.format.look()),
        })?;
        Ok(Exit::Fine)
    }

    /// The pool that is asked for. What is not said stays as it is in the one that is there.
    fn pool(&self, there: Option<&Pool>) -> Result<Pool, InvalidPool> {
        let gateway = self.gateway.or_else(|| there.and_then(Pool::gateway));
        let cooldown = self.cooldown.or_else(|| there.map(Pool::cooldown)).unwrap_or(Pool::COOLDOWN);
        let excluded = match there {
            Some(pool) if self.exclude.is_empty() => pool.excluded().to_vec(),
            _ => self.exclude.clone(),
        };
        Pool::new(self.within.into(), self.subnet, gateway, cooldown)?.excluding(excluded)
    }
}

impl List {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let store = self.place.store(&socket, false)?;
        let mut pools = store.pools()?;
        pools.retain(|pool| self.bridge.is_none_or(|bridge| pool.domain().bridge == bridge));
        let standings = store.standings(None)?;
        let rows: Vec<_> = pools.iter().map(|pool| row(pool, &standings)).collect();
        self.list.print(
            rows,
            "there is no pool; make one: dupip pool create --bridge rt0 --subnet 10.8.64.0/24 --gateway 10.8.64.1",
        )?;
        Ok(Exit::Fine)
    }
}

impl Remove {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let store = self.place.store(&socket, false)?;
        match store.remove_pool(self.within.into(), self.subnet) {
            Err(PoolError::Leased(_)) => Err(self.in_use(&store)?),
            done => done.map(|()| Exit::Fine).map_err(clashes),
        }
    }

    /// Names the leases that are in the way.
    fn in_use(&self, store: &SqliteStore) -> Result<Failure, Failure> {
        let mut leases = store.leases(Some(self.within.into()))?;
        leases.retain(|lease| self.subnet.contains(&lease.address) && in_the_way(lease.state));
        let named = leases.iter().take(NAMED).map(|lease| {
            format!("{} of {} (generation {}, {})", lease.address, lease.owner, lease.generation, lease.state)
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match leases.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format_args!("pool {} is still in use: {named}{more}", self.subnet).to_string();
        Ok(Failure::new(Exit::No, what).hint("dupip lease release …, and once they rest: dupip pool remove … again"))
    }
}

const fn in_the_way(state: LeaseState) -> bool {
    state.is_held() || matches!(state, LeaseState::Draining)
}

fn senseless(error: InvalidPool) -> Failure {
    Failure::new(Exit::Usage, error)
}

fn clashes(error: PoolError) -> Failure {
    match error {
        PoolError::NoSuchPool { .. } => Failure::new(Exit::Usage, error).hint("dupip pool list"),
        PoolError::Store(error) => error.into(),
        error => Failure::new(Exit::No, error).hint("dupip pool list; dupip lease list"),
    }
}

fn row(pool: &Pool, standings: &[Standing]) -> Row {
    let taken: Vec<_> = standings.iter().filter(|row| is_taken(row) && is_of(pool, row)).collect();
    let count = |state| count(taken.iter().filter(|row| row.lease.state == state).count());
    Row {
        bridge: pool.domain().bridge.to_string(),
        vlan: pool.domain().vlan.map(|vlan| vlan.get()),
        subnet: pool.subnet().to_string(),
        gateway: pool.gateway(),
        excluded: pool.excluded().iter().map(ToString::to_string).collect(),
        cooldown_ms: pool.cooldown().as_nanos() / 1_000_000,
        size: pool.size(),
        free: pool.size().saturating_sub(self::count(taken.len())),
        reserved: count(LeaseState::Reserved),
        bound: count(LeaseState::Bound),
        draining: count(LeaseState::Draining),
        cooldown: count(LeaseState::Cooldown),
        quarantined: count(LeaseState::Quarantined),
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

fn is_of(pool: &Pool, row: &Standing) -> bool {
    row.lease.domain == pool.domain() && pool.can_lease(row.lease.address)
}

/// Whether the address cannot be given now. One that has rested can be, and is free whatever its row says.
fn is_taken(row: &Standing) -> bool {
    let ends = matches!(row.lease.state, LeaseState::Cooldown | LeaseState::Quarantined);
    !(ends && row.left == Some(Span::ZERO))
}

impl Listed for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("BRIDGE", |row| domain(&row.bridge, row.vlan)),
        Column::address("SUBNET", |row| row.subnet.clone()),
        Column::address("GATEWAY", |row| or_dash(row.gateway)),
        Column::wide(Column::text("EXCLUDED", |row| {
            or_dash((!row.excluded.is_empty()).then(|| row.excluded.join(",")))
        })),
        Column::wide(Column::text("RESTS", |row| rest(row.cooldown_ms))),
        Column::text("SIZE", |row| row.size.to_string()),
        Column::text("FREE", |row| row.free.to_string()),
        Column::wide(Column::text("RESERVED", |row| row.reserved.to_string())),
        Column::text("BOUND", |row| row.bound.to_string()),
        Column::text("DRAINING", |row| row.draining.to_string()),
        Column::text("COOLDOWN", |row| row.cooldown.to_string()),
        Column::text("QUARANTINED", |row| row.quarantined.to_string()),
    ];
}

fn show(rows: &[Row], look: Look) -> String {
    columns(Row::COLUMNS, rows, look)
}

fn rest(millis: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;
    use crate::net::{Generation, Lease};

    fn pool() -> Pool {
        let domain = Domain::untagged("rt0".parse().unwrap());
        let pool = Pool::new(domain, "10.8.64.0/28".parse().unwrap(), Some([10, 8, 64, 1].into()), Span::from_secs(90));
        pool.unwrap().excluding(["10.8.64.8/29".parse().unwrap()]).unwrap()
    }

    fn standing(host: u8, state: LeaseState, left: Option<Span>) -> Standing {
        let lease = Lease {
            domain: pool().domain(),
            address: [10, 8, 64, host].into(),
            owner: "x".parse().unwrap(),
            interface: None,
            generation: Generation(u64::from(host)),
            state,
            replaces: None,
        };
        Standing { lease, since: Span::ZERO, left, quarantine: None }
    }

    #[test]
    fn a_pool_says_how_much_of_it_is_taken() {
        let rows = [
            standing(2, LeaseState::Bound, None),
            standing(3, LeaseState::Cooldown, Some(Span::from_secs(1))),
            standing(4, LeaseState::Cooldown, Some(Span::ZERO)),
            standing(9, LeaseState::Bound, None),
        ];
        let row = row(&pool(), &rows);
        assert_eq!((row.size, row.free, row.bound, row.cooldown), (6, 4, 1, 1), "what has rested is free");
        expect_file!["golden/pool.txt"].assert_eq(&forms(&[row]));
    }
}
