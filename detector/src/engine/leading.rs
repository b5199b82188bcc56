//! An incident of several addresses goes by the first of them, and by another when that one has a single owner again.

use std::net::Ipv4Addr;

use super::{Engine, incident::IncidentId};

impl Engine {
    /// Has an incident go by an address that is contested still. What was done for the first one is over; who keeps this one
    /// is contested anew.
    pub(super) fn go_by(&mut self, id: IncidentId, address: Ipv4Addr) {
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        let (domain, before) = (incident.domain, std::mem::replace(&mut incident.address, address));
        incident.addresses.remove(&before);
        (incident.contest, incident.held, incident.attempts) = (None, None, 0);
        incident.plan.clear();
        incident.evictions.clear();
        self.open.remove(&(domain, before));
        self.lift_all(id, None);
        let key = (domain, address);
        let stations = self.contradiction(key, None).unwrap_or_default();
        for party in self.parties(key, &stations) {
            self.note_party(id, &party);
        }
        self.note(id);
        self.hold_contest(id);
    }
}
