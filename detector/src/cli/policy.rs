//! What an operator decides about certain addresses and ports, as flags.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::exit::{Exit, Failure};
use crate::{
    engine::{Policy, PortPattern},
    net::{Ipv4Net, Owner},
};

/// What is special about certain addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Special addresses and ports")]
pub(super) struct PolicyArgs {
    /// An address, or a network, that moves between sandboxes by design, such as a cluster's virtual address
    #[arg(long, value_name = "ADDRESS|NETWORK", env = "DUPIP_SHARED", value_delimiter = ',', value_parser = network)]
    shared: Vec<Ipv4Net>,
    /// Whose an address is, whatever the leases say
    #[arg(long = "pin", value_name = "ADDRESS=OWNER", env = "DUPIP_PINS", value_delimiter = ',', value_parser = pin)]
    pins: Vec<(Ipv4Addr, Owner)>,
    /// A network that is at home on the bridges beside those that the host has an address in
    #[arg(
        long = "extra-network",
        value_name = "NETWORK",
        env = "DUPIP_EXTRA_NETWORKS",
        value_delimiter = ',',
        value_parser = network
    )]
    extra_networks: Vec<Ipv4Net>,
    /// A port that leads to the outside, or how the names of several begin, as in `eth*`: who is there is not moved
    #[arg(long, value_name = "PORT", env = "DUPIP_EXTERNAL", value_delimiter = ',')]
    external: Vec<PortPattern>,
    /// A port that nobody wants to hear of, or how the names of several begin
    #[arg(long = "ignore-port", value_name = "PORT", env = "DUPIP_IGNORE_PORTS", value_delimiter = ',')]
    ignored: Vec<PortPattern>,
}

impl PolicyArgs {
    /// What the flags say.
    ///
    /// # Errors
    /// When they give one address to two.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let Self { shared, pins, extra_networks, external, ignored } = self.clone();
        Ok(Policy { shared, pins: pinned(pins)?, networks: extra_networks, external, ignored, ..Policy::default() })
    }
}

fn pinned(pins: Vec<(Ipv4Addr, Owner)>) -> Result<BTreeMap<Ipv4Addr, Owner>, Failure> {
    let mut pinned = BTreeMap::new();
    for (address, owner) in pins {
        if let Some(other) = pinned.insert(address, owner.clone()).filter(|other| *other != owner) {
            let what = format!("--pin gives {address} to both {other} and {owner}");
            return Err(Failure::new(Exit::Usage, what));
        }
    }
    Ok(pinned)
}

/// An address alone is a network of one. Bits behind the prefix are of no account.
fn network(text: &str) -> Result<Ipv4Net, String> {
    let alone = || text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
    let network = text.parse::<Ipv4Net>().ok().or_else(alone);
    network
        .map(|network| network.trunc())
        .ok_or_else(|| "write an address, or a network such as 10.8.64.0/24".to_owned())
}

fn pin(text: &str) -> Result<(Ipv4Addr, Owner), String> {
    let (address, owner) = text.split_once('=').ok_or("write ADDRESS=OWNER, as in 10.8.64.9=gateway")?;
    let address = address.parse().map_err(|_| format!("`{address}` is no IPv4 address"))?;
    Ok((address, owner.parse().map_err(|error| format!("{error}"))?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    fn policy(flags: &str) -> Result<Policy, String> {
        let flags = ["dupip"].into_iter().chain(flags.split_whitespace());
        let flags = Flags::try_parse_from(flags).map_err(|error| error.to_string())?;
        flags.policy.policy().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn nothing_is_special_unless_it_is_said() {
        assert_eq!(policy(""), Ok(Policy::default()));
    }

    #[test]
    fn flags_may_be_given_again_or_with_commas() {
        let all = "--shared 10.8.64.9 --shared 10.8.65.7/24 --pin 10.8.64.2=a,10.8.64.3=b --extra-network 10.9.0.0/16 \
                   --external eth* --ignore-port veth0,veth1";
        let policy = policy(all).unwrap();
        assert!(policy.is_shared([10, 8, 64, 9].into()) && policy.is_shared([10, 8, 65, 1].into()));
        assert!(!policy.is_shared([10, 8, 64, 8].into()));
        assert_eq!(policy.pins.len(), 2);
        assert_eq!(policy.networks, ["10.9.0.0/16".parse().unwrap()]);
        assert!(policy.is_external("eth1") && policy.is_ignored("veth1") && !policy.is_ignored("veth2"));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (flags, reason) in [
            ("--shared 10.8.64", "a network such as 10.8.64.0/24"),
            ("--pin 10.8.64.2", "write ADDRESS=OWNER"),
            ("--pin x=a", "`x` is no IPv4 address"),
            ("--pin 10.8.64.2=a --pin 10.8.64.2=b", "--pin gives 10.8.64.2 to both a and b"),
            ("--external a/b", "names no port"),
        ] {
            let error = policy(flags).unwrap_err();
            assert!(error.contains(reason), "{flags}: {error}");
        }
        assert!(policy("--pin 10.8.64.2=a --pin 10.8.64.2=a").is_ok());
    }
}
