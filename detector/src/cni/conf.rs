//! The network configuration as it is written, nothing checked but its shape.
//!
//! Go's runtimes write `null` for what is absent, so every field may be. Fields that are for others, and host-local's
//! `dataDir` among them, are passed over.

use serde::Deserialize;
use serde_json::Value;

use super::{
    failure::{Code, Failure},
    version::Version,
};

/// The configuration of the plugin that asks us for an address. Ours is its `ipam`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetConf {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) plugin: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) master: Option<String>,
    pub(super) vlan: Option<u16>,
    pub(super) ipam: Option<Ipam>,
    pub(super) args: Option<Value>,
    pub(super) runtime_config: Option<RuntimeConfig>,
    pub(super) prev_result: Option<PrevResult>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    /// What the first text of CNI 1.1 called the same; runtimes send both.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ipam {
    /// One range as it was written before there was `ranges`.
    #[serde(flatten)]
    pub(super) range: Range,
    pub(super) ranges: Option<Vec<Vec<Range>>>,
    pub(super) routes: Option<Vec<Route>>,
    pub(super) resolv_conf: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) vlan: Option<u16>,
    pub(super) database: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) cooldown: Option<String>,
    pub(super) probe: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    pub(super) subnet: Option<String>,
    pub(super) range_start: Option<String>,
    pub(super) range_end: Option<String>,
    pub(super) gateway: Option<String>,
    pub(super) exclude: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Route {
    pub(super) dst: String,
    pub(super) gw: Option<String>,
    pub(super) mtu: Option<i64>,
    pub(super) advmss: Option<i64>,
    pub(super) priority: Option<i64>,
    pub(super) table: Option<i64>,
    pub(super) scope: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    pub(super) ips: Option<Vec<String>>,
    pub(super) ip_ranges: Option<Vec<Vec<Range>>>,
}

/// What an earlier ADD came to.
#[derive(Debug, Deserialize)]
pub(super) struct PrevResult {
    ips: Option<Vec<PrevIp>>,
}

#[derive(Debug, Deserialize)]
struct PrevIp {
    address: String,
}

/// An interface that a runtime still has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    #[serde(rename = "ifname")]
    pub(super) interface: String,
}

impl NetConf {
    /// Reads a configuration whose version is known to be spoken here.
    pub(super) fn of(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(undecodable)
    }

    /// What a runtime says it still has; `None` if it says nothing.
    pub(super) fn valid_attachments(&self) -> Option<&[ValidAttachment]> {
        self.valid_attachments.as_deref().or(self.attachments.as_deref())
    }
}

impl PrevResult {
    /// The addresses that the container was given, with their prefix lengths.
    pub(super) fn addresses(&self) -> Vec<&str> {
        self.ips.iter().flatten().map(|ip| ip.address.as_str()).collect()
    }
}

/// The version that a configuration is written in, read before all else: it says how to answer.
pub(super) fn version(text: &str) -> Result<Version, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        cni_version: Option<String>,
    }
    let head: Head = serde_json::from_str(text).map_err(undecodable)?;
    Version::of(head.cni_version.as_deref())
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn undecodable(error: serde_json::Error) -> Failure {
    Failure::new(Code::Undecodable, format_args!("the network configuration cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_and_what_is_for_others_is_passed_over() {
        let conf = NetConf::of(
            r#"{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":null,"isGateway":true,"args":null,
                "runtimeConfig":null,"prevResult":null,"dns":{},
                "ipam":{"type":"dupip-ipam","dataDir":"/x","ranges":null,"routes":null,"subnet":null,"exclude":null}}"#,
        );
        let ipam = conf.unwrap().ipam.unwrap();
        assert!(ipam.ranges.is_none() && ipam.range.subnet.is_none());
    }

    #[test]
    fn what_is_not_the_json_that_it_should_be_is_told_with_its_place() {
        for (text, what) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            (r#"{"ipam": 5}"#, "invalid type: integer `5`, expected struct Ipam at line 1 column 10"),
            (r#"{"vlan": 70000}"#, "invalid value: integer `70000`, expected u16 at line 1 column 14"),
            (r#"{"cni.dev/valid-attachments": [{"ifname": "x"}]}"#, "missing field `containerID` at line 1 column 46"),
        ] {
            let failure = NetConf::of(text).unwrap_err();
            assert_eq!(failure.code, Code::Undecodable);
            assert_eq!(failure.what, format!("the network configuration cannot be read: {what}"), "{text}");
        }
    }

    #[test]
    fn attachments_go_by_either_name() {
        let list = r#"[{"containerID":"a","ifname":"eth0"}]"#;
        for (text, count) in [
            (format!(r#"{{"cni.dev/valid-attachments":{list}}}"#), Some(1)),
            (format!(r#"{{"cni.dev/attachments":{list}}}"#), Some(1)),
            (format!(r#"{{"cni.dev/valid-attachments":{list},"cni.dev/attachments":{list}}}"#), Some(1)),
            (r#"{"cni.dev/valid-attachments":[]}"#.to_owned(), Some(0)),
            (r#"{"cni.dev/valid-attachments":null}"#.to_owned(), None),
            ("{}".to_owned(), None),
        ] {
            assert_eq!(NetConf::of(&text).unwrap().valid_attachments().map(<[_]>::len), count, "{text}");
        }
    }
}
