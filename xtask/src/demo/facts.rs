//! What the demo found out, for programs.

use std::collections::BTreeMap;

use lab::Kept;
use serde_json::{Value, json};

/// What was seen. `None` for what was not reached.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) mode: &'static str,
    pub(super) before: Value,
    /// The incident as `dupip conflicts -o json` tells it.
    pub(super) incident: Value,
    pub(super) duplicate_ip_total: Option<u64>,
    /// What went over the winner's connection while all of it happened; null if there was none.
    pub(super) connection: Value,
    /// Percent of pings to the gateway that got no answer in the end, by sandbox; a part of a percent counts as one.
    pub(super) gateway_ping_loss: BTreeMap<String, u32>,
    /// The addresses of each sandbox, before and after.
    pub(super) addresses: BTreeMap<String, [Vec<String>; 2]>,
    /// Who answers for each address in the end.
    pub(super) owners: BTreeMap<String, Vec<String>>,
    pub(super) table: Value,
    /// The lab, if it was left.
    pub(super) kept: Option<Kept>,
}

impl Facts {
    /// In enforce, that all is well again; in observe, that nothing was changed.
    pub(super) fn is_as_promised(&self) -> bool {
        let named = self.duplicate_ip_total == Some(1);
        match self.mode {
            "enforce" => named && self.is_healed() && self.is_quiet() && !self.connection.is_null(),
            _ => named && !self.is_healed() && self.addresses.values().all(|[before, after]| before == after),
        }
    }

    pub(super) fn is_healed(&self) -> bool {
        self.incident.get("healed") == Some(&Value::Bool(true))
    }

    /// From the first contradiction until what the loser says was dropped, in milliseconds.
    pub(super) fn contained_ms(&self) -> Option<f64> {
        let steps = self.incident.pointer("/evictions/0/steps")?.as_array()?;
        steps.iter().find(|taken| taken.get("step") == Some(&json!("contain")))?.get("at_ms")?.as_f64()
    }

    fn is_quiet(&self) -> bool {
        self.gateway_ping_loss.values().all(|loss| *loss == 0) && self.owners.values().all(|owners| owners.len() == 1)
    }

    pub(super) fn json(&self) -> Value {
        let addresses = |which: usize| -> Value {
            self.addresses.iter().map(|(name, both)| (name.clone(), json!(both.get(which)))).collect()
        };
        let kept =
            self.kept.map(|kept| json!({ "holder": kept.holder, "enter": kept.enter(), "remove": kept.remove() }));
        json!({
            "kept": kept,
            "mode": self.mode,
            "before": self.before,
            "incident": self.incident,
            "duplicate_ip_total": self.duplicate_ip_total,
            "named_us": self.incident.get("named_us"),
            "contained_ms": self.contained_ms(),
            "heal_ms": self.incident.get("heal_ms"),
            "connection": self.connection,
            "gateway_ping_loss": self.gateway_ping_loss,
            "addresses": { "before": addresses(0), "after": addresses(1) },
            "owners": self.owners,
            "table": self.table,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(mode: &'static str, healed: bool, after: &str) -> Facts {
        let addresses = [vec!["10.8.64.2/24".to_owned()], vec![after.to_owned()]];
        Facts {
            mode,
            incident: json!({ "healed": healed }),
            duplicate_ip_total: Some(1),
            connection: json!({ "echoes": 12 }),
            gateway_ping_loss: [("a".to_owned(), 0)].into(),
            addresses: [("a".to_owned(), addresses)].into(),
            owners: [("10.8.64.2".to_owned(), vec!["02:00:00:00:00:01".to_owned()])].into(),
            ..Facts::default()
        }
    }

    #[test]
    fn success_is_what_was_asked_for() {
        assert!(facts("enforce", true, "10.8.64.4/24").is_as_promised());
        assert!(facts("observe", false, "10.8.64.2/24").is_as_promised());
        assert!(!facts("enforce", false, "10.8.64.2/24").is_as_promised());
        assert!(!Facts { connection: Value::Null, ..facts("enforce", true, "10.8.64.4/24") }.is_as_promised());
        assert!(!facts("observe", false, "10.8.64.4/24").is_as_promised());
    }

    #[test]
    fn one_lost_ping_or_one_more_owner_is_a_failure() {
        let mut lossy = facts("enforce", true, "10.8.64.4/24");
        lossy.gateway_ping_loss.insert("b".to_owned(), 5);
        assert!(!lossy.is_as_promised());
        let mut doubled = facts("enforce", true, "10.8.64.4/24");
        doubled.owners.insert("10.8.64.3".to_owned(), vec!["x".to_owned(), "y".to_owned()]);
        assert!(!doubled.is_as_promised());
    }
}
