//! The plugin as a runtime calls it, on a database of its own. `probe` is off: there is no bridge here.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    allocator::{Clock, Fence, Pool, SqliteStore, Store as _, Wish},
    net::{Domain, LeaseState},
    time::Span,
};

struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("leases.db")
    }

    fn conf(&self, version: &str, ipam: &Value) -> Value {
        let mut conf = json!({"cniVersion": version, "name": "n", "type": "bridge", "bridge": "rt0", "ipam": {
            "type": "dupip-ipam", "probe": false, "database": self.database(), "socket": self.dir.path().join("sock"),
        }});
        conf["ipam"].as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
        conf
    }

    fn usual(&self) -> Value {
        self.conf("1.1.0", &json!({"ranges": [[{"subnet": "10.8.64.0/29"}]]}))
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.database(), "test", Clock::system().unwrap()).unwrap()
    }
}

fn call(command: &str, container: &str, conf: &Value) -> Result<Value, Value> {
    call_with(&[("CNI_COMMAND", command), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")], &conf.to_string())
}

fn call_with(set: &[(&str, &str)], stdin: &str) -> Result<Value, Value> {
    let env = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let value = |text: String| if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    answer(&env, stdin.as_bytes()).map(value).map_err(value)
}

fn address(result: &Value) -> &str {
    result["ips"][0]["address"].as_str().unwrap()
}

fn code(failure: Result<Value, Value>) -> u64 {
    failure.unwrap_err()["code"].as_u64().unwrap()
}

fn domain() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn leases(path: &Path) -> Vec<(String, String, LeaseState)> {
    let store = SqliteStore::open(path, "test", Clock::system().unwrap()).unwrap();
    let leases = store.leases(None).unwrap();
    leases.into_iter().map(|lease| (lease.address.to_string(), lease.owner.to_string(), lease.state)).collect()
}

#[test]
fn an_interface_gets_an_address_and_the_same_one_when_it_asks_again() {
    let host = Host::new();
    let first = call("ADD", "a", &host.usual()).unwrap();
    let want = json!({"cniVersion": "1.1.0", "dns": {}, "ips": [{"address": "10.8.64.2/29", "gateway": "10.8.64.1"}]});
    assert_eq!(first, want);
    assert_eq!(call("ADD", "a", &host.usual()).unwrap(), want);
    let set = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth1")];
    assert_eq!(address(&call_with(&set, &host.usual().to_string()).unwrap()), "10.8.64.3/29");
    assert_eq!(address(&call("ADD", "b", &host.usual()).unwrap()), "10.8.64.4/29");
}

#[test]
fn del_drains_what_the_interface_holds_and_nothing_else() {
    let host = Host::new();
    for container in ["a", "b"] {
        call("ADD", container, &host.usual()).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(call("DEL", "a", &host.usual()), Ok(Value::Null));
    }
    assert_eq!(call("DEL", "never", &host.usual()), Ok(Value::Null));
    let lease = |address: &str, owner: &str, state| (address.to_owned(), owner.to_owned(), state);
    assert_eq!(
        leases(&host.database()),
        [lease("10.8.64.2", "a", LeaseState::Draining), lease("10.8.64.3", "b", LeaseState::Bound)]
    );
}

#[test]
fn a_late_del_leaves_alone_who_has_the_address_by_now() {
    let host = Host::new();
    let conf = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/30", "cooldown": "0s"}));
    call("ADD", "a", &conf).unwrap();
    call("DEL", "a", &conf).unwrap();
    let store = host.store();
    for lease in store.draining().unwrap() {
        store.retire(&Fence::from(&lease)).unwrap();
    }
    assert_eq!(address(&call("ADD", "b", &conf).unwrap()), "10.8.64.2/30");
    assert_eq!(call("DEL", "a", &conf), Ok(Value::Null));
    assert_eq!(leases(&host.database()), [("10.8.64.2".to_owned(), "b".to_owned(), LeaseState::Bound)]);
}

#[test]
fn where_there_is_no_book_nothing_is_held_and_none_is_made() {
    let host = Host::new();
    let mut conf = host.usual();
    conf["cni.dev/valid-attachments"] = json!([]);
    for command in ["DEL", "GC", "STATUS"] {
        assert_eq!(call(command, "a", &conf), Ok(Value::Null), "{command}");
    }
    conf["prevResult"] = json!({"ips": [{"address": "10.8.64.2/29"}]});
    assert_eq!(code(call("CHECK", "a", &conf)), 101);
    assert!(!host.database().exists());
}

#[test]
fn check_wants_the_lease_that_the_container_was_given() {
    let host = Host::new();
    let mut conf = host.usual();
    let result = call("ADD", "a", &conf).unwrap();
    assert_eq!(code(call("CHECK", "a", &conf)), 7, "no prevResult");
    conf["prevResult"] = result;
    assert_eq!(call("CHECK", "a", &conf), Ok(Value::Null));
    assert_eq!(code(call("CHECK", "b", &conf)), 101);
    conf["prevResult"]["ips"][0]["address"] = json!("10.8.64.3/29");
    assert_eq!(code(call("CHECK", "a", &conf)), 101);
    conf["prevResult"]["ips"] = Value::Null;
    assert_eq!(code(call("CHECK", "a", &conf)), 101);
}

#[test]
fn gc_drains_what_is_not_on_the_list_within_the_network_and_spares_the_rest() {
    let host = Host::new();
    let half = |range: Value| host.conf("1.1.0", &json!({"ranges": [[range]]}));
    let [mut low, high] = [
        half(json!({"subnet": "10.8.64.0/24", "rangeEnd": "10.8.64.127"})),
        half(json!({"subnet": "10.8.64.0/24", "rangeStart": "10.8.64.128"})),
    ];
    for (container, conf) in [("a", &low), ("b", &low), ("other-network", &high)] {
        call("ADD", container, conf).unwrap();
    }
    host.store().allocate(&Wish::new(domain(), "by-hand".parse().unwrap())).unwrap();
    assert_eq!(code(call("GC", "", &low)), 7, "a list that is missing is no empty one");
    low["cni.dev/valid-attachments"] =
        json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]);
    assert_eq!(call("GC", "", &low), Ok(Value::Null));
    let state = |owner: &str| leases(&host.database()).into_iter().find(|lease| lease.1 == owner).unwrap().2;
    assert_eq!(
        ["a", "b", "other-network", "by-hand"].map(state),
        [LeaseState::Bound, LeaseState::Draining, LeaseState::Bound, LeaseState::Bound]
    );
    low["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(call("GC", "", &low), Ok(Value::Null));
    assert_eq!(["a", "other-network"].map(state), [LeaseState::Draining, LeaseState::Bound]);
}

#[test]
fn a_pool_that_is_full_is_told_with_the_time_of_the_next_address() {
    let host = Host::new();
    let conf = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/29", "rangeEnd": "10.8.64.3", "cooldown": "1h"}));
    call("ADD", "a", &conf).unwrap();
    call("ADD", "z", &conf).unwrap();
    let full = call("ADD", "b", &conf).unwrap_err();
    assert_eq!((full["code"].as_u64(), full["cniVersion"].as_str()), (Some(11), Some("1.1.0")), "{full}");
    assert_eq!(code(call("STATUS", "", &conf)), 50);
    call("DEL", "a", &conf).unwrap();
    let store = host.store();
    store.retire(&Fence::from(&store.draining().unwrap()[0])).unwrap();
    for (command, code) in [("ADD", 11), ("STATUS", 50)] {
        let full = call(command, "b", &conf).unwrap_err();
        assert_eq!(full["code"], code);
        let said = full["msg"].as_str().unwrap();
        assert!(["3600 s", "3599 s"].iter().any(|span| said.contains(span)), "{said}");
    }
}

#[test]
fn the_only_address_of_a_network_is_not_asked_for_by_name() {
    let host = Host::new();
    let conf = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/30"}));
    call("ADD", "a", &conf).unwrap();
    assert_eq!(code(call("ADD", "b", &conf)), 11, "it may be given back");
}

#[test]
fn status_is_good_while_an_address_can_be_given() {
    let host = Host::new();
    let conf = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/29", "exclude": ["10.8.64.4-10.8.64.6"]}));
    for container in ["a", "b"] {
        assert_eq!(call("STATUS", "", &conf), Ok(Value::Null));
        call("ADD", container, &conf).unwrap();
    }
    assert_eq!(code(call("STATUS", "", &conf)), 50);
    for log in ["leases.db-wal", "leases.db-shm"] {
        std::fs::remove_file(host.dir.path().join(log)).unwrap();
    }
    std::fs::write(host.database(), "not a database, but of more than a byte").unwrap();
    assert_eq!(code(call("STATUS", "", &conf)), 50);
    assert_eq!(code(call("ADD", "c", &conf)), 5, "and nothing is begun anew over it");
}

#[test]
fn addresses_are_asked_for_by_three_ways_and_only_one_is_given() {
    let host = Host::new();
    let mut by_runtime = host.usual();
    by_runtime["runtimeConfig"] = json!({"ips": ["10.8.64.5/29"], "portMappings": []});
    assert_eq!(address(&call("ADD", "a", &by_runtime).unwrap()), "10.8.64.5/29");
    assert_eq!(code(call("ADD", "b", &by_runtime)), 100, "it is a's");
    let mut by_args = host.usual();
    by_args["args"] = json!({"cni": {"ips": ["10.8.64.6"]}, "labels": 5});
    assert_eq!(address(&call("ADD", "b", &by_args).unwrap()), "10.8.64.6/29");
    assert_eq!(code(call("ADD", "a", &by_args)), 100, "a holds another");
    let env = |args| [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", args)];
    let usual = host.usual().to_string();
    assert_eq!(address(&call_with(&env("IgnoreUnknown=1;IP=10.8.64.4"), &usual).unwrap()), "10.8.64.4/29");
    for (args, conf, want) in [
        ("IP=10.8.64.1", &usual, 7),
        ("IP=10.8.65.1", &usual, 7),
        ("IP=x", &usual, 4),
        ("IP=10.8.64.4", &by_args.to_string(), 7),
    ] {
        assert_eq!(code(call_with(&env(args), conf)), want, "{args}");
    }
    by_args["args"]["cni"]["ips"] = json!("10.8.64.6");
    assert_eq!(code(call("ADD", "b", &by_args)), 7);
}

#[test]
fn a_configuration_leaves_what_it_does_not_name_as_an_operator_had_it() {
    let host = Host::new();
    let pool = Pool::new(domain(), "10.8.64.0/24".parse().unwrap(), Some([10, 8, 64, 254].into()), Span::from_secs(5));
    let pool = pool.unwrap().excluding(["10.8.64.2".parse().unwrap()]).unwrap();
    host.store().ensure_pool(&pool).unwrap();
    let conf = |ipam: &Value| host.conf("1.1.0", ipam);
    let given = call("ADD", "a", &conf(&json!({"subnet": "10.8.64.0/24"}))).unwrap();
    assert_eq!(given["ips"], json!([{"address": "10.8.64.3/24", "gateway": "10.8.64.254"}]));
    assert_eq!(host.store().pools().unwrap(), [pool]);
    let own = json!({"subnet": "10.8.64.0/24", "gateway": "10.8.64.1", "exclude": ["10.8.64.4"], "cooldown": "1m"});
    let given = call("ADD", "b", &conf(&own)).unwrap();
    assert_eq!(given["ips"], json!([{"address": "10.8.64.2/24", "gateway": "10.8.64.1"}]));
    let pools = host.store().pools().unwrap();
    assert_eq!((pools[0].cooldown(), pools[0].excluded()), (Span::from_secs(60), &["10.8.64.4".parse().unwrap()][..]));
}

#[test]
fn what_is_held_and_left_out_later_is_held_on_and_not_given_again() {
    let host = Host::new();
    call("ADD", "a", &host.usual()).unwrap();
    let conf = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/29", "exclude": ["10.8.64.2/31"]}));
    assert_eq!(address(&call("ADD", "b", &conf).unwrap()), "10.8.64.4/29");
    let gateway = host.conf("1.1.0", &json!({"subnet": "10.8.64.0/29", "gateway": "10.8.64.2"}));
    assert_eq!(code(call("ADD", "c", &gateway)), 7, "a gateway that a container holds is no gateway");
}

#[test]
fn routes_and_name_servers_are_handed_on() {
    let host = Host::new();
    let resolv = host.dir.path().join("resolv.conf");
    let ipam = json!({"subnet": "10.8.64.0/29", "resolvConf": resolv, "dataDir": "/tmp/x",
                      "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.8.64.1"}]});
    assert_eq!(code(call("ADD", "a", &host.conf("1.0.0", &ipam))), 5, "there is no such file");
    assert!(!host.database().exists(), "and nothing was given");
    std::fs::write(&resolv, "nameserver 10.8.64.1\n").unwrap();
    let given = call("ADD", "a", &host.conf("1.0.0", &ipam)).unwrap();
    assert_eq!(given["dns"], json!({"nameservers": ["10.8.64.1"]}));
    assert_eq!(given["routes"], ipam["routes"]);
}

#[test]
fn what_cannot_be_called_is_refused_by_its_number() {
    let host = Host::new();
    let usual = host.usual().to_string();
    let env = |command| [("CNI_COMMAND", command), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")];
    let old = |version: &str| host.conf(version, &json!({"subnet": "10.8.64.0/29"})).to_string();
    for (set, stdin, want) in [
        (&env("ADD")[..], old("0.2.0"), 1),
        (&env("ADD"), old("1.2.0"), 1),
        (&env("CHECK"), old("0.3.1"), 1),
        (&env("GC"), old("1.0.0"), 1),
        (&env("STATUS"), old("1.0.0"), 1),
        (&[], usual.clone(), 4),
        (&env("UPDATE"), usual.clone(), 4),
        (&env("ADD")[..2], usual.clone(), 4),
        (&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")], usual.clone(), 4),
        (&env("ADD"), " ".repeat(17 << 20), 5),
        (&env("ADD"), String::new(), 6),
        (&env("ADD"), "[]".to_owned(), 6),
        (&env("ADD"), "[".repeat(100_000), 6),
        (&env("ADD"), usual.replace("\"rt0\"", "5"), 6),
        (&env("ADD"), usual.replace("\"n\"", "\"\""), 7),
        (&env("DEL"), usual.replace("rt0", "a b"), 7),
    ] {
        let failure = call_with(set, &stdin).unwrap_err();
        assert_eq!(failure["code"], want, "{set:?} {failure}");
    }
    assert!(!host.database().exists());
}

#[test]
fn versions_are_told_whatever_else_is_said() {
    let told = call_with(&[("CNI_COMMAND", "VERSION")], "{}").unwrap();
    assert_eq!(told["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn ranges_that_cannot_be_are_refused_with_what_is_wrong() {
    let host = Host::new();
    for (ipam, what) in [
        (json!({}), "no range of addresses is given"),
        (json!({"ranges": []}), "no range of addresses is given"),
        (json!({"ranges": [[]]}), "no range of addresses is given"),
        (json!({"ranges": [[{}]]}), "a range has no subnet"),
        (json!({"subnet": "x"}), "subnet `x` is no network: write 10.8.64.0/24"),
        (json!({"subnet": "fd00::/64"}), "subnet fd00::/64: there are leases for IPv4 only"),
        (json!({"subnet": "10.8.64.0/31"}), "subnet 10.8.64.0/31 is too small for a gateway and an address to give"),
        (json!({"subnet": "10.8.64.1/24"}), "10.8.64.1/24 has host bits set: the subnet is 10.8.64.0/24"),
        (json!({"subnet": "127.0.0.0/24"}), "no host can have an address of 127.0.0.0/24: loopback"),
        (
            json!({"ranges": [[{"subnet": "10.8.64.0/24"}], [{"subnet": "10.8.65.0/24"}]]}),
            "2 sets of ranges would be as many addresses for an interface, which gets one",
        ),
        (
            json!({"subnet": "10.8.64.0/24", "ranges": [[{"subnet": "10.8.65.0/24"}]]}),
            "2 sets of ranges would be as many addresses for an interface, which gets one",
        ),
        (
            json!({"ranges": [[{"subnet": "10.8.64.0/24"}, {"subnet": "10.8.64.0/24", "rangeStart": "10.8.64.9"}]]}),
            "the ranges 10.8.64.0-10.8.64.255 and 10.8.64.9-10.8.64.255 both have 10.8.64.9-10.8.64.255",
        ),
        (
            json!({"ranges": [[{"subnet": "10.8.64.0/24", "rangeEnd": "10.8.64.9", "gateway": "10.8.64.1"},
                               {"subnet": "10.8.64.0/24", "rangeStart": "10.8.64.10", "gateway": "10.8.64.2"}]]}),
            "the ranges of 10.8.64.0/24 name two gateways, 10.8.64.1 and 10.8.64.2: keep one",
        ),
        (json!({"subnet": "10.8.64.0/24", "rangeStart": "10.8.65.1"}), "rangeStart 10.8.65.1 is not in 10.8.64.0/24"),
        (json!({"subnet": "10.8.64.0/24", "rangeEnd": "fd00::1"}), "rangeEnd `fd00::1` is no IPv4 address"),
        (
            json!({"subnet": "10.8.64.0/24", "rangeStart": "10.8.64.9", "rangeEnd": "10.8.64.8"}),
            "rangeEnd 10.8.64.8 comes before rangeStart 10.8.64.9",
        ),
        (
            json!({"subnet": "10.8.64.0/24", "gateway": "10.8.65.1"}),
            "gateway 10.8.65.1 is not a host of 10.8.64.0/24, whose hosts are 10.8.64.1 to 10.8.64.254",
        ),
        (json!({"subnet": "10.8.64.0/24", "rangeEnd": "10.8.64.1"}), "10.8.64.0-10.8.64.1 leaves no address to give"),
        (
            json!({"subnet": "10.8.64.0/24", "exclude": ["10.8.65.1"]}),
            "exclude: 10.8.65.1 is not within the subnet of any range",
        ),
        (
            json!({"ranges": [[{"subnet": "10.8.64.0/24", "exclude": ["10.8.65.1"]}]]}),
            "10.8.65.1 cannot be left out of 10.8.64.0/24: it is not all within it",
        ),
        (
            json!({"subnet": "10.8.64.0/24", "exclude": ["9-5"]}),
            "exclude: `9-5` is no range of addresses: write 10.0.0.5, 10.0.0.5-10.0.0.9 or 10.0.0.0/29",
        ),
        (
            json!({"subnet": "10.8.64.0/24", "routes": [{"dst": "0.0.0.0"}]}),
            "route to `0.0.0.0`: write a network such as 0.0.0.0/0",
        ),
        (
            json!({"subnet": "10.8.64.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}),
            "route to 0.0.0.0/0: its gw `x` is no address",
        ),
        (json!({"subnet": "10.8.64.0/24", "probe": 5}), "probe 5 is not understood"),
        (json!({"subnet": "10.8.64.0/24", "probe": {"count": 0}}), "probe {\"count\":0} is not understood"),
        (
            json!({"subnet": "10.8.64.0/24", "probe": {"interval": "1h"}}),
            "probe {\"interval\":\"1h\"} is not understood",
        ),
    ] {
        let failure = call("ADD", "a", &host.conf("1.1.0", &ipam)).unwrap_err();
        assert_eq!((failure["code"].as_u64(), failure["msg"].as_str()), (Some(7), Some(what)), "{ipam}");
    }
    assert!(!host.database().exists(), "nothing of this is written");
}

#[test]
fn ranges_are_used_one_after_the_other_each_with_its_own_gateway() {
    let host = Host::new();
    let conf = host.conf(
        "0.4.0",
        &json!({"exclude": ["10.8.65.2"], "ranges": [[
            {"subnet": "10.8.64.0/29", "rangeStart": "10.8.64.6", "exclude": []},
            {"subnet": "10.8.65.0/24", "rangeStart": "10.8.65.1", "rangeEnd": "10.8.65.9", "gateway": "10.8.65.254"},
        ]]}),
    );
    let given = |container| call("ADD", container, &conf).unwrap()["ips"][0].clone();
    assert_eq!(given("a"), json!({"version": "4", "address": "10.8.64.6/29", "gateway": "10.8.64.1"}));
    assert_eq!(given("b"), json!({"version": "4", "address": "10.8.65.1/24", "gateway": "10.8.65.254"}));
    assert_eq!(given("c"), json!({"version": "4", "address": "10.8.65.3/24", "gateway": "10.8.65.254"}));
    let mut by_runtime = host.conf("1.0.0", &json!({}));
    by_runtime["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.8.66.0/24"}]]});
    assert_eq!(address(&call("ADD", "a2", &by_runtime).unwrap()), "10.8.66.2/24");
    let overlap = host.conf("1.0.0", &json!({"subnet": "10.8.0.0/16"}));
    assert_eq!(code(call("ADD", "d", &overlap)), 7);
}
