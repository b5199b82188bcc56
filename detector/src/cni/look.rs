//! The look before an address is given to a container.

use std::fs::canonicalize;

use super::{
    failure::{Code, Failure},
    network::{Look, Network},
    place::Place,
};
use crate::{
    allocator::{AllocateError, Store, Terms, Unwitnessed, Wish, hand_out},
    capture::Probing,
    http::{LiveTable, Witnesses},
    net::{Lease, LeaseState},
    reconcile::{Looker, retire_drained},
    witness::Wire,
};

/// Where it is looked whether anybody uses an address.
pub(super) enum Eyes {
    /// Nowhere: no agent watches, and the configuration forbids to probe.
    Shut,
    Table(LiveTable),
    Wire(Wire),
    Both(Witnesses),
}

impl Eyes {
    pub(super) fn open(network: &Network) -> Result<Self, Failure> {
        let Place { domain, socket, .. } = &network.place;
        let table = LiveTable::connect(socket).map_err(blind)?.filter(|table| table.watches(*domain));
        if let Some(table) = &table {
            has_our_book(table, &network.place)?;
        }
        Ok(match (network.look, table) {
            (Look::Wire(probing), Some(_)) => Self::Both(Witnesses::beside(socket, probing, true).map_err(blind)?),
            (Look::Wire(probing), None) => Self::Wire(Wire::new(probing)),
            (Look::Usual | Look::TableOnly, Some(table)) => Self::Table(table),
            (Look::Usual, None) => Self::Wire(Wire::new(Probing::default())),
            (Look::TableOnly, None) => Self::Shut,
        })
    }

    /// The lease that `wish` asks for, on an address that nobody was seen to use.
    ///
    /// Where no agent watches, nobody else lets rest what containers have given back.
    pub(super) fn lease(&self, store: &dyn Store, wish: &Wish, place: &Place) -> Result<Lease, AllocateError> {
        match self.hand_out(store, wish) {
            Err(error) if waits_for_proof(&error) && matches!(self, Self::Shut | Self::Wire(_)) => {
                let looker = Looker::new(&place.socket, Probing::default());
                let retired = retire_drained(store, &looker, wish.domain);
                retired.map_err(|error| AllocateError::Unwitnessed(Unwitnessed(error.to_string())))?;
                self.hand_out(store, wish)
            }
            done => done,
        }
    }

    fn hand_out(&self, store: &dyn Store, wish: &Wish) -> Result<Lease, AllocateError> {
        match self {
            Self::Shut => store.allocate(wish),
            Self::Table(table) => hand_out(store, wish, table, Terms::default()),
            Self::Wire(wire) => hand_out(store, wish, wire, Terms::default()),
            Self::Both(both) => hand_out(store, wish, both, Terms::default()),
        }
    }
}

/// Whether what drains may be all that is missing.
fn waits_for_proof(error: &AllocateError) -> bool {
    match error {
        AllocateError::Exhausted { .. } => true,
        AllocateError::Leased(lease) => lease.state == LeaseState::Draining,
        _ => false,
    }
}

/// Two books for one bridge would each give what the other has given.
fn has_our_book(table: &LiveTable, place: &Place) -> Result<(), Failure> {
    let (theirs, ours) = (&table.about().database, &place.database);
    // A file that is not there yet is nobody's book.
    let same = theirs == ours || canonicalize(theirs).ok().is_some_and(|file| canonicalize(ours).ok() == Some(file));
    if same {
        return Ok(());
    }
    let what =
        format_args!("the agent that watches {} keeps its leases in {}", place.domain, theirs.display()).to_string();
    Err(Failure::config(what).hint(format_args!(r#"set "database" in `ipam` to that file, not {}"#, ours.display())))
}

fn blind(error: Unwitnessed) -> Failure {
    Failure::new(Code::TryAgain, error).about("the agent was asked in vain who uses which address")
}
