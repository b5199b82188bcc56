//! What is written down of incidents: after everything that is told of one, and before each step about a loser.

use std::collections::VecDeque;

use super::{Engine, Purpose, finding::Finding, incident::IncidentId, output::Action};

/// What is to be told, with how much of it has been looked through for what is to be written down.
#[derive(Debug, Default)]
pub(super) struct Findings {
    queue: VecDeque<Finding>,
    noted: usize,
}

impl Findings {
    pub(super) fn push_back(&mut self, finding: Finding) {
        self.queue.push_back(finding);
    }

    pub(super) fn pop_front(&mut self) -> Option<Finding> {
        self.noted = self.noted.saturating_sub(1);
        self.queue.pop_front()
    }

    fn changed(&mut self) -> impl Iterator<Item = IncidentId> {
        let noted = std::mem::replace(&mut self.noted, self.queue.len());
        self.queue.iter().skip(noted).filter_map(Finding::changes)
    }
}

impl Engine {
    /// Has it written down how an incident stands, once all that has just happened is taken in.
    pub(super) fn note(&mut self, id: IncidentId) {
        self.unkept.insert(id);
    }

    pub(super) fn keep_news(&mut self) {
        self.unkept.extend(self.findings.changed());
        let due: Vec<IncidentId> = self.unkept.difference(&self.being_kept).copied().collect();
        for id in due {
            self.unkept.remove(&id);
            if let Some(incident) = self.incidents.get(&id).cloned().map(Box::new) {
                self.being_kept.insert(id);
                self.act(Purpose::Evidence(id), |id| Action::Keep { id, incident });
            }
        }
    }

    /// A record is on disk, or not: then it is tried again when the store works again. Of what has happened meanwhile there
    /// is one more, however much that was.
    pub(super) fn kept(&mut self, id: IncidentId, is_kept: bool) {
        self.being_kept.remove(&id);
        if !is_kept {
            self.owed.insert(id);
        }
    }

    pub(super) fn keep_owed(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        self.unkept.extend(owed);
    }
}
