//! What the engine wants, done or not, as its fate will have it.

use std::net::Ipv4Addr;

use detector::{
    allocator::{Change, Fence, Incidents as _, Store as _},
    engine::{Action, ActionId, Outcome},
    evidence::kept,
    net::{IfIndex, Owner},
    time::Span,
};

use crate::{
    acts::Fate,
    names::domain,
    world::{Todo, World},
};

const AT_ONCE: Span = Span::from_millis(1);
/// How long an orchestrator takes to make a sandbox anew.
const REPLACED: Span = Span::from_secs(1);

fn id_of(action: &Action) -> Option<ActionId> {
    match action {
        Action::LookUpLeases { id, .. }
        | Action::Adopt { id, .. }
        | Action::Reallocate { id, .. }
        | Action::Contain { id, .. }
        | Action::Lift { id, .. }
        | Action::Keep { id, .. }
        | Action::Recycle { id, .. }
        | Action::DestroySockets { id, .. }
        | Action::Readdress { id, .. }
        | Action::Announce { id, .. }
        | Action::Bind { id, .. }
        | Action::GiveBack { id, .. }
        | Action::Retire { id, .. } => Some(*id),
        _ => None,
    }
}

fn is_of_store(action: &Action) -> bool {
    matches!(
        action,
        Action::LookUpLeases { .. }
            | Action::Adopt { .. }
            | Action::Reallocate { .. }
            | Action::Keep { .. }
            | Action::Bind { .. }
            | Action::GiveBack { .. }
            | Action::Retire { .. }
    )
}

impl World {
    /// The tap is told at once; records are written one after the other; all else happens when it happens.
    pub(crate) fn begin(&mut self, action: Action, fate: Fate) {
        let late = match fate {
            Fate::Late(millis) => Span::from_millis(millis),
            _ => AT_ONCE,
        };
        match action {
            Action::Contain { .. } | Action::Lift { .. } => self.carry_out(action, fate),
            Action::Keep { .. } => {
                self.keeper_free = self.keeper_free.max(self.now) + late;
                self.at(self.keeper_free, Todo::Do(Box::new(action), fate));
            }
            _ => self.later(late, Todo::Do(Box::new(action), fate)),
        }
    }

    pub(crate) fn carry_out(&mut self, action: Action, fate: Fate) {
        let Some(id) = id_of(&action) else { return };
        let fails = |world: &mut Self| {
            if is_of_store(&action) {
                world.store_failed();
            }
            world.answer(id, Err("broken".to_owned()), AT_ONCE);
        };
        match fate {
            Fate::KilledBefore => self.kill(),
            Fate::Fails => fails(self),
            Fate::FailsDone => {
                fails(self);
                let _unheard = self.perform(action);
            }
            Fate::KilledAfter => {
                let _unheard = self.perform(action);
                self.kill();
            }
            Fate::Done | Fate::Late(_) => {
                let answer = self.perform(action);
                self.answer(id, answer, AT_ONCE);
            }
            Fate::AnsweredLate(millis) => {
                let answer = self.perform(action);
                self.answer(id, answer, Span::from_millis(millis));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Result<Outcome, String> {
        match action {
            Action::LookUpLeases { contested, owners, .. } => self.look_up(contested, &owners),
            Action::Adopt { address, owner, .. } => {
                self.store.adopt(domain(), address, &owner, None).map(Outcome::Lease).map_err(|error| error.to_string())
            }
            Action::Reallocate { owner, contested, in_use, .. } => {
                let avoid = in_use.into_iter().collect();
                let lease = self.store.reallocate(domain(), &owner, contested, &avoid);
                lease.map(Outcome::Lease).map_err(|error| error.to_string())
            }
            Action::Bind { lease, .. } => match self.store.bind(&Fence::from(&lease)).unwrap() {
                Change::Applied(lease) => Ok(Outcome::Lease(lease)),
                Change::Fenced { .. } => Err("fenced".to_owned()),
            },
            Action::GiveBack { lease, .. } => {
                self.store.release(&Fence::from(&lease)).map(|_| Outcome::Finished).map_err(|error| error.to_string())
            }
            Action::Retire { lease, .. } => {
                self.store.retire(&Fence::from(&lease)).map(|_| Outcome::Finished).map_err(|error| error.to_string())
            }
            Action::Contain { entries, .. } => {
                self.quarantine.extend(entries);
                Ok(Outcome::Finished)
            }
            Action::Lift { entries, .. } => {
                self.quarantine.retain(|entry| !entries.contains(entry));
                Ok(Outcome::Finished)
            }
            Action::Keep { incident, .. } => self
                .store
                .keep(&[kept(&incident, "boot", 0)])
                .map(|()| Outcome::Finished)
                .map_err(|error| error.to_string()),
            Action::Recycle { port, .. } => {
                self.later(REPLACED, Todo::Replace(port.get()));
                Ok(Outcome::Finished)
            }
            Action::DestroySockets { port, .. } => self.is_there(port),
            Action::Readdress { port, from, to, .. } => self.readdress(port, from, to),
            _ => Ok(Outcome::Finished),
        }
    }

    fn look_up(&mut self, contested: Ipv4Addr, owners: &[Owner]) -> Result<Outcome, String> {
        let held = owners.iter().flat_map(|owner| self.store.held(domain(), owner, None).unwrap()).collect();
        let contested_lease = self.store.lease(domain(), contested).unwrap();
        let holder = contested_lease.as_ref().filter(|lease| lease.state.is_held()).map(|lease| lease.owner.clone());
        self.looked.insert(contested, holder);
        Ok(Outcome::Leases { contested: contested_lease, held })
    }

    fn is_there(&self, port: IfIndex) -> Result<Outcome, String> {
        self.sandbox_at(port.get()).map(|_| Outcome::Finished).ok_or_else(|| "the port is gone".to_owned())
    }

    /// As the netlink room does, which looks behind the port again before it answers.
    fn readdress(&mut self, port: IfIndex, from: Ipv4Addr, to: Ipv4Addr) -> Result<Outcome, String> {
        self.is_there(port)?;
        let (at, behind) = self.behind.iter_mut().find(|(_, of)| of.port == port.get()).ok_or("gone")?;
        if !behind.addresses.contains(&from) && !behind.addresses.contains(&to) {
            return Err(format!("it has neither {from} nor {to}"));
        }
        behind.addresses.remove(&from);
        behind.addresses.insert(to);
        let at = *at;
        self.survey(at);
        Ok(Outcome::Finished)
    }
}
