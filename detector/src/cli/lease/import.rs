//! `dupip lease import`: takes over what another allocator's book says, where the kernel or an operator vouches for it.

mod live;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
};

use clap::ValueEnum;
use live::Live;
use plan::{By, Claim, Evidence, Line, Step};
use serde::Serialize;

use super::{Place, place::actor};
use crate::{
    agent,
    allocator::{
        AdoptError, SqliteStore, Store,
        import::{self, ImportError, Row},
    },
    cli::{
        exit::{self, Exit, Failure, note},
        render::{Column, Format, Output, columns, json, or_dash, print},
        small_runtime,
    },
    net::{BridgeName, Domain, Owner},
};

const EXAMPLES: &str = "\
Examples:
  dupip lease import --from host-local /var/lib/cni/networks/rt0 --bridge rt0
  dupip lease import --from host-local /var/lib/cni/networks/rt0 --bridge rt0 --apply
  dupip lease import --from miren /var/lib/miren/net.db --bridge rt0
  dupip lease import --from miren net.db --bridge rt0 --owner 10.8.64.9=sportsagent --apply

Without --apply it only tells what it would do, one line for each row, with the reason. A row is
taken over if the kernel shows its address in exactly one sandbox behind the bridge: one that goes
by the container id in the file (host-local), or whatever it is called (miren, which does not note
whose an address is). Your word stands for sandboxes that do not run: --owner ADDRESS=NAME, or
--trust for all that host-local's files say; the journal has whose word it was. An address that two
sandboxes have is left alone, whoever says what. What is imported from is only read, never changed,
and doing it again changes nothing.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose book it is
    #[arg(long, value_name = "KIND")]
    from: Kind,
    /// The book: host-local's directory for one network, or Miren's net.db
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The bridge that the addresses are on
    #[arg(long, value_name = "NAME")]
    bridge: BridgeName,
    /// Do it; without this it is only told what would be done
    #[arg(long)]
    apply: bool,
    /// Your word on whose an address is, even if no sandbox has it now; may be said several times
    #[arg(long, value_name = "ADDRESS=NAME", value_parser = word)]
    owner: Vec<(Ipv4Addr, Owner)>,
    /// Your word that host-local's files are right, even where no sandbox has the address now
    #[arg(long)]
    trust: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

/// Allocators whose books can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The CNI plugin host-local
    HostLocal,
    /// The Miren runner
    Miren,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
struct Report {
    bridge: String,
    applied: bool,
    /// Ports behind which nothing could be seen.
    hidden_ports: Vec<String>,
    rows: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    row: String,
    address: Option<Ipv4Addr>,
    step: &'static str,
    owner: Option<String>,
    interface: Option<String>,
    by: Option<By>,
    reason: String,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let rows = self.rows()?;
        let owners = self.owners(&rows)?;
        let store = self.place.store(&socket, false)?;
        let live = small_runtime()?.block_on(Live::look(self.bridge)).map_err(agent::Error::Netlink)?;
        let mut lines = self.plan(rows, &store, &live, &owners)?;
        if self.apply {
            lines = take(lines, &store, self.bridge)?;
        }
        self.tell(&lines, live.hidden)
    }

    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let rows = match self.from {
            Kind::Miren if self.trust => {
                let what = "--trust is for host-local: Miren's table does not say whose an address is";
                return Err(Failure::new(Exit::Usage, what).hint("--owner ADDRESS=NAME, for each address you know"));
            }
            Kind::HostLocal => import::host_local(&self.path),
            Kind::Miren => import::miren(&self.path),
        };
        rows.map_err(|error| Failure::new(exit_of(&error), error))
    }

    /// The operator's words, each on an address that the book has, and one on each.
    fn owners(&self, rows: &[Row]) -> Result<BTreeMap<Ipv4Addr, Owner>, Failure> {
        let there: BTreeSet<_> = rows.iter().filter_map(|row| row.address).collect();
        let mut owners = BTreeMap::new();
        for (address, owner) in &self.owner {
            if !there.contains(address) {
                let what = format!("{address} is not in {}", self.path.display());
                let hint = format!("dupip lease adopt --bridge {} --address {address} --owner {owner}", self.bridge);
                return Err(Failure::new(Exit::Usage, what).hint(hint));
            }
            if owners.insert(*address, owner.clone()).is_some_and(|other| other != *owner) {
                return Err(Failure::new(Exit::Usage, format_args!("--owner names two owners for {address}")));
            }
        }
        Ok(owners)
    }

    fn plan(
        &self,
        rows: Vec<Row>,
        store: &SqliteStore,
        live: &Live,
        owners: &BTreeMap<Ipv4Addr, Owner>,
    ) -> Result<Vec<Line>, Failure> {
        let domain = Domain::untagged(self.bridge);
        let mut pools = store.pools()?;
        pools.retain(|pool| pool.domain() == domain);
        let leases = store.leases(Some(domain))?;
        let evidence = Evidence { domain, live, pools: &pools, leases: &leases, owners, trust: self.trust };
        Ok(plan::plan(rows, &evidence))
    }

    fn tell(&self, lines: &[Line], hidden_ports: Vec<String>) -> Result<Exit, Failure> {
        let rows: Vec<_> = lines.iter().map(told).collect();
        print(match self.format.output {
            Output::Json => json(&Report { bridge: self.bridge.to_string(), applied: self.apply, hidden_ports, rows })?,
            _ => columns(TOLD, &rows, self.format.look()),
        })?;
        note(summary(lines, self.apply));
        Ok(Exit::Fine)
    }
}

/// Takes over what the plan says, row by row. What has become impossible meanwhile is left, and said.
fn take(lines: Vec<Line>, store: &SqliteStore, bridge: BridgeName) -> Result<Vec<Line>, Failure> {
    let by = |how: &str| store.on_behalf_of(&format!("{}, importing {how}", actor()));
    let (kernel, operator) = (by("what the kernel shows"), by("by an operator's word"));
    let take = |line: Line| match &line.step {
        Step::Take(claim) => {
            let store = if claim.by == By::Kernel { &kernel } else { &operator };
            let adopted = adopt(store, Domain::untagged(bridge), claim)?;
            Ok(adopted.map_or_else(
                |reason| Line { step: Step::Leave, reason, ..line.clone() },
                |reason| Line {
                    step: Step::Taken(claim.clone()),
                    reason: format!("{}; {reason}", line.reason),
                    ..line.clone()
                },
            ))
        }
        _ => Ok(line),
    };
    lines.into_iter().map(take).collect()
}

/// Which lease there is now, or why there is none.
fn adopt(store: &Arc<dyn Store>, domain: Domain, claim: &Claim) -> Result<Result<String, String>, Failure> {
    match store.adopt(domain, claim.address, &claim.owner, claim.interface) {
        Ok(lease) => Ok(Ok(format!("generation {}", lease.generation))),
        Err(AdoptError::Store(error)) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn exit_of(error: &ImportError) -> Exit {
    match error {
        ImportError::Unreadable { source, .. } => exit::of_io(source),
        ImportError::NotMiren { .. } => Exit::Usage,
        _ => Exit::No,
    }
}

fn told(line: &Line) -> Told {
    let claim = line.step.claim();
    Told {
        row: line.name.clone(),
        address: line.address,
        step: line.step.as_str(),
        owner: claim.map(|claim| claim.owner.to_string()),
        interface: claim.and_then(|claim| claim.interface).map(|name| name.to_string()),
        by: claim.map(|claim| claim.by),
        reason: line.reason.clone(),
    }
}

const TOLD: &[Column<Told>] = &[
    Column::text("ROW", |row| row.row.clone()),
    Column::text("PLAN", |row| row.step.to_owned()),
    Column::text("OWNER", |row| or_dash(row.owner.as_ref())),
    Column::wide(Column::text("INTERFACE", |row| or_dash(row.interface.as_ref()))),
    Column::prose("REASON", |row| row.reason.clone()),
];

fn summary(lines: &[Line], applied: bool) -> String {
    let count = |word: &str| lines.iter().filter(|line| line.step.as_str() == word).count();
    let (taken, had, left) = (count("taken over"), count("have"), count("leave"));
    match (applied, count("take over")) {
        (false, 0) => format!("nothing to take over: {had} leased already, {left} left"),
        (false, some) => {
            format!("nothing was changed; --apply would take over {some}: {had} leased already, {left} left")
        }
        (true, _) => format!("{taken} taken over, {had} leased already, {left} left"),
    }
}

fn word(text: &str) -> Result<(Ipv4Addr, Owner), String> {
    let (address, owner) = text.split_once('=').ok_or("write ADDRESS=NAME, such as 10.8.64.9=sportsagent")?;
    let address = address.parse().map_err(|_| format!("`{address}` is no IPv4 address"))?;
    Ok((address, owner.parse().map_err(|error: crate::net::InvalidOwner| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::Look;

    #[test]
    fn an_operators_word_is_an_address_and_a_name() {
        assert_eq!(word("10.8.64.9=a=b").unwrap(), ([10, 8, 64, 9].into(), "a=b".parse().unwrap()));
        for text in ["10.8.64.9", "10.8.64=x", "=x", "10.8.64.9=", "10.8.64.9=a b"] {
            assert!(word(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_is_one_line_for_each_row() {
        let claim = Claim {
            address: [10, 8, 64, 2].into(),
            owner: "web".parse().unwrap(),
            interface: Some("eth0".parse().unwrap()),
            by: By::Kernel,
        };
        let line = |host: u8, step| Line {
            name: format!("10.8.64.{host}"),
            address: Some([10, 8, 64, host].into()),
            step,
            reason: "so".to_owned(),
        };
        let lines = [line(2, Step::Take(claim)), line(30, Step::Leave)];
        let rows: Vec<_> = lines.iter().map(told).collect();
        let want = "\
ROW         PLAN       OWNER  REASON
10.8.64.2   take over  web    so
10.8.64.30  leave      -      so
";
        assert_eq!(columns(TOLD, &rows, Look::piped(Output::Table)), want);
        assert_eq!(summary(&lines, false), "nothing was changed; --apply would take over 1: 0 leased already, 1 left");
    }
}
