//! What is written to standard output: results, versions and failures, in the words of the configuration's version.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::{
    conf::Route,
    failure::{Code, Failure},
    resolv_conf::Dns,
    version::Version,
};
use crate::net::Ipv4Net;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Granted<'a> {
    cni_version: &'a str,
    ips: [Ip; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Way<'a>>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct Ip {
    /// Until 1.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Ipv4Addr>,
}

/// All but the destination and the next hop came with 1.1.0.
#[derive(Serialize)]
struct Way<'a> {
    dst: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advmss: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spoken<'a> {
    cni_version: &'a str,
    supported_versions: [&'a str; Version::ALL.len()],
}

/// An address that was given, with the prefix length of its network.
pub(super) fn granted(
    version: Version,
    address: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    routes: &[Route],
    dns: &Dns,
) -> Result<String, Failure> {
    let family = (version < Version::V1_0_0).then_some("4");
    json(&Granted {
        cni_version: version.as_str(),
        ips: [Ip { version: family, address: address.to_string(), gateway }],
        routes: routes.iter().map(|route| way(version, route)).collect(),
        dns,
    })
}

fn way(version: Version, route: &Route) -> Way<'_> {
    let Route { dst, gw, mtu, advmss, priority, table, scope } = route;
    let [mtu, advmss, priority, table, scope] =
        [mtu, advmss, priority, table, scope].map(|value| value.filter(|_| version >= Version::V1_1_0));
    Way { dst, gw: gw.as_deref(), mtu, advmss, priority, table, scope }
}

/// The versions that are spoken here.
pub(super) fn versions() -> Result<String, Failure> {
    json(&Spoken { cni_version: Version::NEWEST.as_str(), supported_versions: Version::ALL.map(Version::as_str) })
}

pub(super) fn failed(version: Version, failure: &Failure) -> String {
    let Failure { code, what, hint } = failure;
    let failed = Failed { cni_version: version.as_str(), code: *code as u32, msg: what, details: hint.as_deref() };
    // A struct of texts and numbers can always be written; a runtime takes no answer for a failure, too.
    json(&failed).unwrap_or_default()
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Failure::new(Code::Bug, error))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn route() -> Route {
        let dst = "0.0.0.0/0".to_owned();
        let gw = Some("10.8.64.9".to_owned());
        Route { dst, gw, mtu: Some(1400), advmss: None, priority: Some(0), table: None, scope: None }
    }

    fn result(version: Version) -> Value {
        let address = "10.8.64.2/24".parse().unwrap();
        let text = granted(version, address, Some([10, 8, 64, 1].into()), &[route()], &Dns::default()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn each_version_has_its_own_words() {
        let old = |version| {
            json!({"cniVersion": version, "dns": {}, "routes": [{"dst": "0.0.0.0/0", "gw": "10.8.64.9"}],
                   "ips": [{"version": "4", "address": "10.8.64.2/24", "gateway": "10.8.64.1"}]})
        };
        let ips = json!([{"address": "10.8.64.2/24", "gateway": "10.8.64.1"}]);
        assert_eq!(result(Version::V0_3_0), old("0.3.0"));
        assert_eq!(result(Version::V0_3_1), old("0.3.1"));
        assert_eq!(result(Version::V0_4_0), old("0.4.0"));
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.8.64.9"}]);
        assert_eq!(result(Version::V1_0_0), json!({"cniVersion": "1.0.0", "dns": {}, "routes": routes, "ips": ips}));
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.8.64.9", "mtu": 1400, "priority": 0}]);
        assert_eq!(result(Version::V1_1_0), json!({"cniVersion": "1.1.0", "dns": {}, "routes": routes, "ips": ips}));
    }

    #[test]
    fn a_failure_is_a_number_and_a_text_and_perhaps_what_to_do() {
        let value = |failure: &Failure| serde_json::from_str::<Value>(&failed(Version::V0_4_0, failure)).unwrap();
        let failure = Failure::new(Code::TryAgain, "\"no\"\n");
        assert_eq!(value(&failure), json!({"cniVersion": "0.4.0", "code": 11, "msg": "\"no\"\n"}));
        let failure = failure.hint("wait");
        assert_eq!(value(&failure), json!({"cniVersion": "0.4.0", "code": 11, "msg": "\"no\"\n", "details": "wait"}));
    }

    #[test]
    fn every_version_is_told() {
        let value: Value = serde_json::from_str(&versions().unwrap()).unwrap();
        let all = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(value, json!({"cniVersion": "1.1.0", "supportedVersions": all}));
    }
}
