//! What becomes of losers, as flags.

use std::{collections::BTreeMap, str::FromStr};

use clap::{builder::BoolishValueParser, value_parser};

use super::{
    exit::{Exit, Failure},
    run::span,
};
use crate::{
    engine::{Config, OwnerPattern, Policy, PortPattern, Way, Ways},
    hooks::{HookSettings, Occasion},
    net::{BridgeName, Domain, VlanId},
    time::Span,
};

/// What is done about losers in enforce mode, and where the agent stops.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Healing")]
pub(super) struct HealingArgs {
    /// What is done about whoever loses a settled contest, after what it says as the address is dropped: `readdress` gives
    /// it a fresh address, `recycle` asks a hook to replace it, `contain` leaves it at that
    #[arg(long, value_name = "WAY", env = "DUPIP_RESOLVE", default_value = "readdress", value_parser = Way::from_str)]
    resolve: Way,
    /// Another way for one bridge (what goes untagged on it) or one VLAN of it, as in rt0=contain or rt0.12=recycle
    #[arg(long, value_name = "DOMAIN=WAY", env = "DUPIP_RESOLVE_ON", value_delimiter = ',', value_parser = way_on)]
    resolve_on: Vec<(String, Way)>,
    /// Another way for certain owners, wherever they are, as in db-*=contain; `*` stands for anything, and the first that
    /// fits counts
    #[arg(long, value_name = "PATTERN=WAY", env = "DUPIP_RESOLVE_OWNER", value_delimiter = ',', value_parser = way_of)]
    resolve_owner: Vec<(OwnerPattern, Way)>,
    /// Where nobody holds a lease, deal with whoever came later as with a loser, instead of containing it only
    #[arg(long, env = "DUPIP_MOVE_NEWCOMERS", value_parser = BoolishValueParser::new())]
    move_newcomers: bool,
    /// A port behind which nobody is contained or moved, or how the names of several begin, as in `eth*`
    #[arg(long = "protect-port", value_name = "PORT", env = "DUPIP_PROTECT_PORTS", value_delimiter = ',')]
    protected: Vec<PortPattern>,
    /// How often within an hour whoever comes back to an address is moved away from it; after that it is only contained
    #[arg(
        long,
        value_name = "NUMBER",
        env = "DUPIP_STRIKES",
        default_value = "3",
        value_parser = value_parser!(u32).range(1..=1000)
    )]
    strikes: u32,
    /// How long an orchestrator may take to replace a sandbox
    #[arg(long, value_name = "TIME", env = "DUPIP_RECYCLE_TIMEOUT", default_value = "60s", value_parser = recycle_time)]
    recycle_timeout: Span,
    /// Leave the connections that a loser has from its old address alone; they hang until they time out
    #[arg(long, env = "DUPIP_KEEP_SOCKETS", value_parser = BoolishValueParser::new())]
    keep_sockets: bool,
}

/// The domain is told from its text only when the bridges are known: their names may have dots.
fn way_on(text: &str) -> Result<(String, Way), String> {
    let (domain, way) = text.rsplit_once('=').ok_or("write DOMAIN=WAY, as in rt0=contain or rt0.12=recycle")?;
    Ok((domain.to_owned(), way.parse().map_err(|error| format!("{error}"))?))
}

fn way_of(text: &str) -> Result<(OwnerPattern, Way), String> {
    let (pattern, way) = text.rsplit_once('=').ok_or("write PATTERN=WAY, as in db-*=contain")?;
    Ok((pattern.parse().map_err(|error| format!("{error}"))?, way.parse().map_err(|error| format!("{error}"))?))
}

/// Long enough for a port to go at all, short enough that somebody still waits.
fn recycle_time(text: &str) -> Result<Span, String> {
    let time = span(text)?;
    let in_reason = Span::from_secs(1)..=Span::from_secs(24 * 3600);
    if in_reason.contains(&time) { Ok(time) } else { Err("not between 1s and 24h".to_owned()) }
}

impl HealingArgs {
    /// `config` with what the flags say of an agent that watches `bridges` and tells `hooks`.
    ///
    /// # Errors
    /// When they name a domain that is not watched, give one two ways, or want somebody asked to replace a sandbox and
    /// nobody is told.
    pub(super) fn apply(
        &self,
        config: Config,
        bridges: &[BridgeName],
        hooks: &HookSettings,
    ) -> Result<Config, Failure> {
        let ways = Ways {
            default: self.resolve,
            by_domain: by_domain(&self.resolve_on, bridges)?,
            by_owner: self.resolve_owner.clone(),
        };
        recyclable(&ways, hooks)?;
        let (protected, moves_newcomers) = (self.protected.clone(), self.move_newcomers);
        Ok(Config {
            strikes: self.strikes,
            recycle_time: self.recycle_timeout,
            destroys_sockets: !self.keep_sockets,
            policy: Policy { ways, protected, moves_newcomers, ..config.policy },
            ..config
        })
    }
}

fn by_domain(given: &[(String, Way)], bridges: &[BridgeName]) -> Result<BTreeMap<Domain, Way>, Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, format_args!("--resolve-on {what}"));
    let mut ways = BTreeMap::new();
    for (text, way) in given {
        let domain = domain(text, bridges).map_err(|why| wrong(format!("{text}={}: {why}", way.as_str())))?;
        if let Some(other) = ways.insert(domain, *way).filter(|other| other != way) {
            return Err(wrong(format!("gives {domain} both {} and {}", other.as_str(), way.as_str())));
        }
    }
    Ok(ways)
}

/// A watched bridge, or one of its VLANs behind a dot.
fn domain(text: &str, bridges: &[BridgeName]) -> Result<Domain, String> {
    let watched = |name: &str| bridges.iter().find(|bridge| bridge.as_str() == name).copied();
    if let Some(bridge) = watched(text) {
        return Ok(Domain::untagged(bridge));
    }
    let (bridge, vlan) = text.rsplit_once('.').unwrap_or((text, ""));
    let Some(bridge) = watched(bridge) else {
        return Err(format!("no such bridge is watched; name one of those that --bridge names: {}", names(bridges)));
    };
    let vlan = vlan.parse().ok().and_then(VlanId::new).ok_or_else(|| format!("`{vlan}` is no VLAN from 1 to 4094"))?;
    Ok(Domain { bridge, vlan: Some(vlan) })
}

fn names(bridges: &[BridgeName]) -> String {
    bridges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn recyclable(ways: &Ways, hooks: &HookSettings) -> Result<(), Failure> {
    let mut wanted = [ways.default]
        .into_iter()
        .chain(ways.by_domain.values().copied())
        .chain(ways.by_owner.iter().map(|(_, way)| *way));
    let is_wanted = wanted.any(|way| way == Way::Recycle);
    let is_told = hooks.hooks().iter().any(|hook| hook.occasions.contains(&Occasion::Recycle));
    if is_wanted && !is_told {
        let what = "`recycle` has a hook replace the loser's sandbox, and no hook is there that can";
        let hint = "--hook recycle=/path/to/a/program, or a URL; packaging/hooks.md tells what it is told";
        return Err(Failure::new(Exit::Usage, what).hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::net::Owner;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        healing: HealingArgs,
    }

    fn config(flags: &str, hooks: &HookSettings) -> Result<Config, String> {
        let flags = ["dupip"].into_iter().chain(flags.split_whitespace());
        let flags = Flags::try_parse_from(flags).map_err(|error| error.to_string())?;
        let bridges = ["rt0", "br.5"].map(|name| name.parse().unwrap());
        flags.healing.apply(Config::default(), &bridges, hooks).map_err(|failure| format!("{failure:?}"))
    }

    fn recycler() -> HookSettings {
        HookSettings::of(["opened,recycle=/bin/true".parse().unwrap()])
    }

    #[test]
    fn losers_are_moved_unless_something_else_is_said() {
        assert_eq!(config("", &HookSettings::default()), Ok(Config::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let flags = "--resolve contain --resolve-on rt0=readdress,br.5.12=recycle --resolve-on br.5=contain \
                     --resolve-owner db-*=contain --resolve-owner a=b=recycle --move-newcomers --protect-port eth*,veth0 \
                     --strikes 7 --recycle-timeout 5m --keep-sockets";
        let config = config(flags, &recycler()).unwrap();
        let ways = &config.policy.ways;
        let on = |bridge: &str, vlan| Domain { bridge: bridge.parse().unwrap(), vlan: VlanId::new(vlan) };
        let way = |domain, owner: &str| ways.of(domain, &[owner.parse::<Owner>().unwrap()]);
        assert_eq!([on("rt0", 0), on("rt0", 3)].map(|at| way(at, "web")), [Way::Readdress, Way::Contain]);
        assert_eq!([on("br.5", 12), on("br.5", 0)].map(|at| way(at, "web")), [Way::Recycle, Way::Contain]);
        assert_eq!(["db-1", "a=b"].map(|owner| way(on("rt0", 0), owner)), [Way::Contain, Way::Recycle]);
        assert!(config.policy.is_protected("eth3") && config.policy.is_protected("veth0"));
        assert!(config.policy.moves_newcomers && !config.destroys_sockets);
        assert_eq!((config.strikes, config.recycle_time), (7, Span::from_secs(300)));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (flags, reason) in [
            (
                "--resolve restart",
                "there is no way `restart` to resolve a duplicate: use readdress, recycle or contain",
            ),
            ("--resolve-on rt0", "write DOMAIN=WAY"),
            ("--resolve-on rt0=", "there is no way ``"),
            ("--resolve-on rt1=contain", "--resolve-on rt1=contain: no such bridge is watched"),
            ("--resolve-on =contain", "no such bridge is watched; name one of those that --bridge names: rt0, br.5"),
            ("--resolve-on rt0.0=contain", "`0` is no VLAN from 1 to 4094"),
            ("--resolve-on rt0.x=contain", "`x` is no VLAN from 1 to 4094"),
            ("--resolve-on rt0=contain,rt0=readdress", "--resolve-on gives rt0 both contain and readdress"),
            ("--resolve-owner db", "write PATTERN=WAY"),
            ("--resolve-owner =contain", "`` fits no owner"),
            ("--protect-port a/b", "names no port"),
            ("--strikes 0", "0 is not in 1..=1000"),
            ("--recycle-timeout 10ms", "not between 1s and 24h"),
            ("--recycle-timeout soon", "--recycle-timeout <TIME>"),
        ] {
            let error = config(flags, &recycler()).unwrap_err();
            assert!(error.contains(reason), "{flags}: {error}");
        }
        assert!(config("--resolve-on rt0=contain,rt0=contain", &recycler()).is_ok());
    }

    #[test]
    fn nobody_is_recycled_without_a_hook() {
        let hooks = HookSettings::of(["opened=/bin/true".parse().unwrap()]);
        for flags in ["--resolve recycle", "--resolve-on rt0=recycle", "--resolve-owner *=recycle"] {
            let error = config(flags, &hooks).unwrap_err();
            assert!(error.contains("no hook is there that can") && error.contains("--hook recycle="), "{error}");
            assert!(config(flags, &recycler()).is_ok());
        }
    }
}
