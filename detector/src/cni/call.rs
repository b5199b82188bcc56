//! What the runtime says by the environment: what is to be done, and for whom.

use std::net::Ipv4Addr;

use super::failure::{Code, Failure};
use crate::net::{IfName, Ipv4Net, Owner};

/// Reads a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// A container's interface: what a lease is held by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) owner: Owner,
    pub(super) interface: IfName,
}

impl Command {
    pub(super) fn of(env: Environment<'_>) -> Result<Self, Failure> {
        match needed(env, "CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            other => Err(invalid("CNI_COMMAND", format_args!("`{other}` is no command of CNI 1.1"))),
        }
    }
}

impl Attachment {
    pub(super) fn of(env: Environment<'_>) -> Result<Self, Failure> {
        Self::new(&needed(env, "CNI_CONTAINERID")?, &needed(env, "CNI_IFNAME")?)
    }

    fn new(container: &str, interface: &str) -> Result<Self, Failure> {
        if !is_identifier(container) {
            let rule = "a container id is letters, digits, `_`, `.` and `-`, a letter or digit first";
            return Err(invalid("CNI_CONTAINERID", rule));
        }
        let owner = container.parse().map_err(|error| invalid("CNI_CONTAINERID", error))?;
        Ok(Self { owner, interface: interface.parse().map_err(|error| invalid("CNI_IFNAME", error))? })
    }
}

/// The addresses that are asked for in `CNI_ARGS`: `IP=10.8.64.7;IgnoreUnknown=1`. Other keys are for others.
pub(super) fn wanted(env: Environment<'_>) -> Result<Vec<Ipv4Addr>, Failure> {
    let args = env("CNI_ARGS").unwrap_or_default();
    let pairs = args.split(';').filter(|pair| !pair.is_empty());
    let values = pairs.map(|pair| pair.split_once('=').ok_or_else(|| invalid("CNI_ARGS", no_pair(pair))));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let address = |text| address(text).ok_or_else(|| invalid("CNI_ARGS", format!("IP={text} is no IPv4 address")));
    values.into_iter().filter(|(key, _)| *key == "IP").map(|(_, text)| address(text)).collect()
}

/// An address that is asked for, with or without a prefix length, as host-local takes it.
pub(super) fn address(text: &str) -> Option<Ipv4Addr> {
    text.parse::<Ipv4Net>().map(|net| net.addr()).or_else(|_| text.parse()).ok()
}

fn no_pair(pair: &str) -> String {
    format!("`{pair}` is no KEY=VALUE")
}

/// What the specification lets a container or a network be called.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn needed(env: Environment<'_>, variable: &str) -> Result<String, Failure> {
    let value = env(variable).filter(|value| !value.is_empty());
    value.ok_or_else(|| invalid(variable, "the runtime must set it"))
}

fn invalid(variable: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::InvalidEnvironment, format_args!("{variable}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_command_is_one_of_six() {
        for (text, command) in [
            ("ADD", Command::Add),
            ("DEL", Command::Del),
            ("CHECK", Command::Check),
            ("GC", Command::Gc),
            ("STATUS", Command::Status),
            ("VERSION", Command::Version),
        ] {
            assert_eq!(Command::of(&env(&[("CNI_COMMAND", text)])), Ok(command));
        }
        for set in [&[("CNI_COMMAND", "add")][..], &[("CNI_COMMAND", "")], &[]] {
            let failure = Command::of(&env(set)).unwrap_err();
            assert_eq!(failure.code, Code::InvalidEnvironment, "{set:?}");
            assert!(failure.what.starts_with("CNI_COMMAND: "), "{failure:?}");
        }
    }

    #[test]
    fn an_attachment_is_a_container_and_an_interface() {
        let attachment =
            |container, interface| Attachment::of(&env(&[("CNI_CONTAINERID", container), ("CNI_IFNAME", interface)]));
        let good = attachment("a.b_c-9", "eth0").unwrap();
        assert_eq!((good.owner.as_str(), good.interface.as_str()), ("a.b_c-9", "eth0"));
        let long = "x".repeat(Owner::MAX_LEN + 1);
        for (container, interface, variable) in [
            ("", "eth0", "CNI_CONTAINERID"),
            ("-a", "eth0", "CNI_CONTAINERID"),
            ("a/b", "eth0", "CNI_CONTAINERID"),
            ("ä", "eth0", "CNI_CONTAINERID"),
            (&long, "eth0", "CNI_CONTAINERID"),
            ("a", "", "CNI_IFNAME"),
            ("a", "eth/0", "CNI_IFNAME"),
            ("a", "..", "CNI_IFNAME"),
            ("a", "sixteen-letters-", "CNI_IFNAME"),
        ] {
            let failure = attachment(container, interface).unwrap_err();
            assert_eq!(failure.code, Code::InvalidEnvironment, "{container} {interface}");
            assert!(failure.what.starts_with(&format!("{variable}: ")), "{failure:?}");
        }
    }

    #[test]
    fn an_address_may_be_asked_for() {
        let wanted = |args| wanted(&env(&[("CNI_ARGS", args)]));
        assert_eq!(wanted("IgnoreUnknown=1;IP=10.8.64.7;K8S_POD_NAME=x"), Ok(vec![[10, 8, 64, 7].into()]));
        assert_eq!(wanted("IP=10.8.64.7/24"), Ok(vec![[10, 8, 64, 7].into()]));
        assert_eq!(wanted("K8S_POD_NAME=x;"), Ok(vec![]));
        for args in ["IP=fd00::1", "IP=", "IP", "IP=10.8.64.7/33"] {
            assert_eq!(wanted(args).unwrap_err().code, Code::InvalidEnvironment, "{args}");
        }
    }
}
