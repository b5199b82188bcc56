//! What holds of a call, whatever the environment and the configuration say.

use serde_json::Value;

use super::{
    answer,
    call::{self, Attachment, Command, Environment},
    conf::{self, NetConf},
    failure::{Code, Failure},
    network::Network,
    resolv_conf,
    version::Version,
};
use crate::net::{Ipv4Net, Ipv4Range};

/// Of a call, `VARIABLE=VALUE` in each line, then an empty line and the configuration: it is understood or refused with
/// words that a runtime can read, and a network that is understood gives only addresses of its own.
pub fn cni(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (env, conf) = text.split_once("\n\n").unwrap_or_default();
    let pairs = || env.lines().filter_map(|line| line.split_once('='));
    let env = |name: &str| pairs().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
    if let Err(failure) = called(&env) {
        refused(&failure);
    }
    match understood(conf) {
        Ok((version, conf, network)) => {
            sound(&network);
            asked_for(&network, &conf, &env);
            granted(version, &network);
        }
        Err(failure) => refused(&failure),
    }
}

fn called(env: Environment<'_>) -> Result<(Command, Attachment), Failure> {
    Ok((Command::of(env)?, Attachment::of(env)?))
}

fn understood(text: &str) -> Result<(Version, NetConf, Network), Failure> {
    let version = conf::version(text)?;
    let conf = NetConf::of(text)?;
    let network = Network::of(&conf)?;
    Ok((version, conf, network))
}

fn refused(failure: &Failure) {
    assert_ne!(failure.code, Code::Bug);
    let said: Option<Value> = serde_json::from_str(&answer::failed(Version::NEWEST, failure)).ok();
    let message = said.as_ref().and_then(|said| said.get("msg")?.as_str());
    assert_eq!(message, Some(failure.what.as_str()));
}

/// Some address to give, each in one of the ranges that are named, which have nothing in common.
fn sound(network: &Network) {
    let is_named = |run: &Ipv4Range| network.ranges.iter().any(|range| range.intersection(*run) == Some(*run));
    assert!(!network.within.is_empty() && network.within.iter().all(is_named));
    let mut ranges = network.ranges.clone();
    ranges.sort_unstable();
    assert!(ranges.array_windows().all(|[lower, upper]| lower.last() < upper.first()));
}

fn asked_for(network: &Network, conf: &NetConf, env: Environment<'_>) {
    let wanted = call::wanted(env).and_then(|wanted| network.wanted(conf, wanted));
    match wanted {
        Ok(wanted) => assert!(wanted.iter().all(|one| network.within.iter().any(|range| range.contains(*one)))),
        Err(failure) => refused(&failure),
    }
    let _ = (conf.valid_attachments(), conf.prev_result.as_ref().map(conf::PrevResult::addresses));
}

fn granted(version: Version, network: &Network) {
    let first = network.within.iter().filter_map(|run| Ipv4Net::new(run.first(), 24).ok()).next();
    let dns = resolv_conf::parse(&format!("{network:?}"));
    let answer = first.map(|first| answer::granted(version, first, None, &network.routes, &dns));
    let answer = answer.and_then(Result::ok).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let routes = answer.as_ref().and_then(|answer| answer.get("routes")).and_then(Value::as_array).map(Vec::len);
    assert!(answer.is_some() && routes.unwrap_or_default() == network.routes.len());
}
