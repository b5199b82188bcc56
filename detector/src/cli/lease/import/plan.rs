//! What is to become of each row of another allocator's book: the whole decision, without doing anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use serde::Serialize;

use super::live::{Live, Sandbox};
use crate::{
    allocator::{
        AdoptError, Pool,
        import::{Row, Word},
    },
    net::{Domain, IfName, Lease, LeaseState, Owner},
};

/// What a row is judged by.
pub(super) struct Evidence<'a> {
    pub(super) domain: Domain,
    pub(super) live: &'a Live,
    pub(super) pools: &'a [Pool],
    /// Every lease of the domain.
    pub(super) leases: &'a [Lease],
    /// The operator's word on single addresses.
    pub(super) owners: &'a BTreeMap<Ipv4Addr, Owner>,
    /// Whether the operator stands for what the book says.
    pub(super) trust: bool,
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) step: Step,
    pub(super) reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To be taken over.
    Take(Claim),
    /// Taken over by this run.
    Taken(Claim),
    /// The lease is in the book already.
    Held(Claim),
    /// To be left alone.
    Leave,
}

/// Who is to have the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) address: Ipv4Addr,
    pub(super) owner: Owner,
    pub(super) interface: Option<IfName>,
    /// Whose word it is: the kernel's, or an operator's.
    pub(super) by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    Kernel,
    Operator,
}

impl Step {
    /// The step in one word.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Take(_) => "take over",
            Self::Taken(_) => "taken over",
            Self::Held(_) => "have",
            Self::Leave => "leave",
        }
    }

    pub(super) const fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Take(claim) | Self::Taken(claim) | Self::Held(claim) => Some(claim),
            Self::Leave => None,
        }
    }
}

/// The plan for `rows`, line by line. An owner's interface gets one address at most, the lowest.
pub(super) fn plan(rows: Vec<Row>, evidence: &Evidence<'_>) -> Vec<Line> {
    let mut given = BTreeSet::new();
    rows.into_iter().map(|row| line(row, evidence, &mut given)).collect()
}

type Given = BTreeSet<(Owner, Option<IfName>)>;

fn line(row: Row, evidence: &Evidence<'_>, given: &mut Given) -> Line {
    let judged = evidence.judge(&row).map_err(|reason| evidence.beside_the_lease(&row, reason));
    let judged = judged.and_then(|(claim, reason)| evidence.against_the_book(claim, reason, given));
    let (step, reason) = judged.unwrap_or_else(|reason| (Step::Leave, reason));
    Line { name: row.name, address: row.address, step, reason }
}

impl Evidence<'_> {
    /// Who is to have the row's address and why, or why nobody.
    fn judge(&self, row: &Row) -> Result<(Claim, String), String> {
        let (file, interface) = said(&row.word)?;
        let address = row.address.ok_or("not an IPv4 address")?;
        self.leasable(address)?;
        let claim = |owner: &Owner, by| Claim { address, owner: owner.clone(), interface, by };
        match (self.live.of(address).as_slice(), self.owners.get(&address), file) {
            ([_, _, ..], ..) => Err(several(&self.live.of(address))),
            (_, Some(owner), _) => Ok((claim(owner, By::Operator), "your word: --owner".to_owned())),
            ([sandbox], None, Some(owner)) if sandbox.owners.contains(owner) => {
                Ok((claim(owner, By::Kernel), format!("alive in {sandbox}")))
            }
            (_, None, Some(owner)) if self.trust => Ok((claim(owner, By::Operator), "your word: --trust".to_owned())),
            ([sandbox], None, Some(owner)) => Err(another(sandbox, owner, address)),
            ([sandbox], None, None) => {
                let owner = sandbox.owners.first().ok_or_else(|| nameless(sandbox, address))?;
                Ok((claim(owner, By::Kernel), format!("alive in {sandbox}")))
            }
            ([], None, _) => Err(self.dead(address)),
        }
    }

    /// The claim, unless the lease book says otherwise.
    fn against_the_book(&self, claim: Claim, reason: String, given: &mut Given) -> Result<(Step, String), String> {
        let on_it = self.leases.iter().find(|lease| lease.address == claim.address);
        if let Some(lease) = on_it.filter(|lease| lease.state.is_held() && lease.owner == claim.owner) {
            return Ok((Step::Held(claim), format!("leased already, generation {}", lease.generation)));
        }
        if let Some(lease) = on_it.filter(|lease| !may_be_lifted(lease.state)) {
            return Err(AdoptError::Leased(lease.clone().into()).to_string());
        }
        let same =
            |lease: &&Lease| lease.state.is_held() && lease.owner == claim.owner && meets(lease, claim.interface);
        if let Some(lease) = self.leases.iter().find(same) {
            return Err(AdoptError::HoldsAnother(lease.clone().into()).to_string());
        }
        match given.iter().any(|(owner, interface)| *owner == claim.owner && overlap(*interface, claim.interface)) {
            true => Err(format!("{} gets another of these addresses; each interface has one", claim.owner)),
            false => {
                given.insert((claim.owner.clone(), claim.interface));
                Ok((Step::Take(claim), reason))
            }
        }
    }

    /// Why the row is left; with whose the address is, where the lease book knows it, whatever that one is.
    fn beside_the_lease(&self, row: &Row, reason: String) -> String {
        let held = |lease: &&Lease| lease.state.is_held() && Some(lease.address) == row.address;
        match self.leases.iter().find(held) {
            Some(Lease { owner, generation, .. }) => {
                format!("{owner} holds it already (generation {generation}); {reason}")
            }
            None => reason,
        }
    }

    fn leasable(&self, address: Ipv4Addr) -> Result<(), String> {
        if self.live.host.contains(&address) {
            return Err(format!("the host's own address on {}", self.domain.bridge));
        }
        match self.pools.iter().find(|pool| pool.subnet().contains(&address)) {
            Some(pool) if pool.can_lease(address) => Ok(()),
            Some(pool) => {
                Err(format!("pool {} never gives it: gateway, network, broadcast or excluded", pool.subnet()))
            }
            None => {
                Err(format!("outside every pool of {0}: dupip pool create --bridge {0} --subnet …", self.domain.bridge))
            }
        }
    }

    fn dead(&self, address: Ipv4Addr) -> String {
        let hidden = match self.live.hidden.as_slice() {
            [] => String::new(),
            hidden => format!(" that can be looked into (not behind {})", hidden.join(", ")),
        };
        format!("no sandbox{hidden} has it; if you know whose it is: --owner {address}=NAME")
    }
}

/// Whom the row names, or why there is nothing to take over.
fn said(word: &Word) -> Result<(Option<&Owner>, Option<IfName>), String> {
    match word {
        Word::Owner { owner, interface } => Ok((Some(owner), *interface)),
        Word::Somebody => Ok((None, None)),
        Word::Released => Err("was given back; nothing is taken over of it".to_owned()),
        Word::Nobody => Err("nobody holds it".to_owned()),
        Word::Unclear(why) => Err(why.clone()),
    }
}

/// Whether adoption ends this state.
const fn may_be_lifted(state: LeaseState) -> bool {
    matches!(state, LeaseState::Cooldown | LeaseState::Quarantined)
}

fn meets(lease: &Lease, interface: Option<IfName>) -> bool {
    overlap(lease.interface, interface)
}

/// Without an interface's name it cannot be told which is meant.
fn overlap(one: Option<IfName>, other: Option<IfName>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn several(sandboxes: &[&Sandbox]) -> String {
    let all: Vec<_> = sandboxes.iter().map(ToString::to_string).collect();
    format!("a duplicate, alive in {}: settle that first", all.join(" and in "))
}

fn another(sandbox: &Sandbox, owner: &Owner, address: Ipv4Addr) -> String {
    format!("the file says {owner}, but it is alive in {sandbox}; if you know whose it is: --owner {address}=NAME")
}

fn nameless(sandbox: &Sandbox, address: Ipv4Addr) -> String {
    format!("alive in {sandbox}, which has no name of its own: --owner {address}=NAME")
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (port {})", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::{Generation, NetnsId},
        time::Span,
    };

    fn domain() -> Domain {
        Domain::untagged("rt0".parse().unwrap())
    }

    fn at(host: u8) -> Ipv4Addr {
        [10, 8, 64, host].into()
    }

    fn row(host: u8, word: Word) -> Row {
        Row { name: at(host).to_string(), address: Some(at(host)), word }
    }

    fn of(owner: &str) -> Word {
        Word::Owner { owner: owner.parse().unwrap(), interface: Some("eth0".parse().unwrap()) }
    }

    fn live(all: &[(u8, u64, &str)]) -> Live {
        let mut live = Live { host: [at(1)].into(), ..Live::default() };
        for &(host, inode, name) in all {
            let owners = name.parse().ok().into_iter().collect();
            let sandbox = Sandbox { name: name.to_owned(), owners, port: format!("veth{inode}") };
            live.by_address.entry(at(host)).or_default().insert(NetnsId { device: 4, inode }, sandbox);
        }
        live
    }

    struct Case {
        live: Live,
        leases: Vec<Lease>,
        owners: BTreeMap<Ipv4Addr, Owner>,
        trust: bool,
    }

    impl Case {
        fn with(live: Live) -> Self {
            Self { live, leases: Vec::new(), owners: BTreeMap::new(), trust: false }
        }

        fn lines(&self, rows: Vec<Row>) -> Vec<String> {
            let subnet = "10.8.64.0/24".parse().unwrap();
            let pools = [Pool::new(domain(), subnet, Some(at(1)), Span::ZERO).unwrap()];
            let Self { live, leases, owners, trust } = self;
            let evidence = Evidence { domain: domain(), live, pools: &pools, leases, owners, trust: *trust };
            let lines = plan(rows, &evidence);
            let owner = |line: &Line| line.step.claim().map_or("-".to_owned(), |claim| claim.owner.to_string());
            lines.iter().map(|line| format!("{} {}: {}", line.step.as_str(), owner(line), line.reason)).collect()
        }

        fn line(&self, row: Row) -> String {
            self.lines(vec![row]).remove(0)
        }
    }

    #[test]
    fn only_a_live_owner_of_the_same_name_takes_over_what_a_file_says() {
        let case = Case::with(live(&[(2, 1, "web"), (3, 2, "db"), (5, 3, "x"), (5, 4, "y")]));
        assert_eq!(case.line(row(2, of("web"))), "take over web: alive in web (port veth1)");
        assert!(case.line(row(3, of("web"))).starts_with("leave -: the file says web, but it is alive in db"));
        assert!(case.line(row(4, of("web"))).starts_with("leave -: no sandbox has it"));
        let two = case.line(row(5, of("x")));
        assert_eq!(two, "leave -: a duplicate, alive in x (port veth3) and in y (port veth4): settle that first");
        assert!(case.line(row(1, of("web"))).contains("the host's own address"));
        let outside = Row { address: Some([10, 9, 0, 2].into()), ..row(2, of("web")) };
        assert!(case.line(outside).contains("dupip pool create --bridge rt0"));
    }

    #[test]
    fn an_operators_word_stands_for_the_dead_but_settles_no_duplicate() {
        let mut case = Case::with(live(&[(5, 3, "x"), (5, 4, "y")]));
        case.owners = [(at(4), "known".parse().unwrap()), (at(5), "x".parse().unwrap())].into();
        assert_eq!(case.line(row(4, of("web"))), "take over known: your word: --owner");
        assert_eq!(case.line(row(4, Word::Somebody)), "take over known: your word: --owner");
        assert!(case.line(row(5, Word::Somebody)).starts_with("leave -: a duplicate"));
        assert_eq!(case.line(row(4, Word::Released)), "leave -: was given back; nothing is taken over of it");
        case.trust = true;
        assert_eq!(case.line(row(6, of("web"))), "take over web: your word: --trust");
        assert!(case.line(row(6, Word::Somebody)).starts_with("leave -: no sandbox has it"));
    }

    #[test]
    fn a_book_without_names_takes_those_of_the_sandboxes() {
        let case = Case::with(live(&[(2, 1, "web"), (3, 2, "a name with spaces")]));
        assert_eq!(case.line(row(2, Word::Somebody)), "take over web: alive in web (port veth1)");
        assert!(case.line(row(3, Word::Somebody)).contains("has no name of its own: --owner 10.8.64.3=NAME"));
    }

    #[test]
    fn what_the_lease_book_has_is_not_overruled() {
        let lease = |host, owner: &str, state| Lease {
            domain: domain(),
            address: at(host),
            owner: owner.parse().unwrap(),
            interface: None,
            generation: Generation(7),
            state,
            replaces: None,
        };
        let mut case = Case::with(live(&[(2, 1, "web"), (3, 2, "db"), (4, 3, "x"), (6, 4, "rested")]));
        case.leases = vec![
            lease(2, "web", LeaseState::Bound),
            lease(3, "other", LeaseState::Draining),
            lease(6, "other", LeaseState::Cooldown),
            lease(9, "x", LeaseState::Bound),
        ];
        assert_eq!(case.line(row(2, of("web"))), "have web: leased already, generation 7");
        assert!(
            case.line(row(2, of("old"))).starts_with("leave -: web holds it already (generation 7); the file says")
        );
        assert!(case.line(row(3, of("db"))).starts_with("leave -: 10.8.64.3 cannot be adopted"));
        assert!(case.line(row(4, of("x"))).starts_with("leave -: x holds 10.8.64.9 already"));
        assert_eq!(case.line(row(6, of("rested"))), "take over rested: alive in rested (port veth4)");
    }

    #[test]
    fn an_interface_gets_one_address() {
        let case = Case::with(live(&[(2, 1, "web"), (3, 1, "web")]));
        let lines = case.lines(vec![row(2, of("web")), row(3, of("web"))]);
        assert_eq!(lines[0], "take over web: alive in web (port veth1)");
        assert_eq!(lines[1], "leave -: web gets another of these addresses; each interface has one");
    }
}
