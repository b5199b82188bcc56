//! Against the kernel: sandboxes of many kinds, and the change stopped after each of its steps.

use std::{collections::BTreeSet, path::Path};

use super::*;

#[path = "../../../tests/runner/mod.rs"]
mod runner;

use runner::{ip, on_a_runner};

const OLD: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const NEW: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 9);

fn to_new(prefix_len: u8) -> Readdress {
    Readdress { old: OLD, new: NEW, prefix_len }
}

/// Steps of a change, in order.
const STEPS: usize = 6;

/// One step, after which every default route and every route to what is on the link must still be there.
async fn step(change: &mut Move, number: usize) {
    let (defaults, on_link) = standing();
    do_step(change, number).await;
    let (defaults_after, on_link_after) = standing();
    assert!(defaults_after >= defaults && on_link_after >= on_link, "step {number} took a route away");
}

/// How many destinations the default routes and the routes to what is on the link have.
fn standing() -> (usize, usize) {
    let routes = ip("-n sb -4 route show table all");
    let of = |wanted: fn(&str) -> bool| {
        let metrics = |line: &str| line.split_once(" metric ").map(|(_, metric)| metric.to_owned());
        let key = |line: &str| (line.split(' ').next().map(str::to_owned), metrics(line));
        routes.lines().filter(|line| wanted(line)).map(key).collect::<BTreeSet<_>>().len()
    };
    (of(|line| line.starts_with("default")), of(|line| line.contains("scope link") && !line.contains("table local")))
}

async fn do_step(change: &mut Move, number: usize) {
    match number {
        0 => change.hold().await.unwrap(),
        1 => drop(change.rewrite_routes().await.unwrap()),
        2 => change.drop_old().await.unwrap(),
        3 => change.settle().await.unwrap(),
        4 => change.let_go().await.unwrap(),
        _ => assert_eq!(change.restore_routes().await.unwrap(), 0, "a route was lost on the way"),
    }
}

/// Neighbours that somebody set by hand.
const STATIC: [&str; 2] =
    ["10.8.64.77 lladdr 02:00:00:00:00:77 dev eth0", "172.16.0.77 lladdr 02:00:00:00:00:78 dev eth1"];

/// A sandbox `sb` with an interface eth0, its peer on the runner, and a second network card eth1.
async fn sandbox(setup: &[&str]) -> (NetnsFile, IfIndex) {
    ip("netns add sb");
    ip("link add v0 type veth peer name eth0 netns sb");
    ip("link add v1 type veth peer name eth1 netns sb");
    ip("link set v0 up");
    ip("link set v1 up");
    ip("-n sb link set lo up");
    ip("-n sb link set eth0 mtu 1442 txqueuelen 77 up");
    ip("-n sb link set eth1 up");
    STATIC.iter().for_each(|entry| drop(ip(&format!("-n sb neigh add {entry} nud permanent"))));
    ["eth0", "eth1"].into_iter().for_each(settled);
    setup.iter().for_each(|command| drop(ip(&format!("-n sb {command}"))));
    ["eth0", "eth1"].into_iter().for_each(settled);
    let index = ip("-n sb -o link show eth0").split_once(':').unwrap().0.parse().unwrap();
    (NetnsFile::open(Path::new("/run/netns/sb")).unwrap(), IfIndex::new(index).unwrap())
}

/// Waits until the kernel has made up its mind whether the link works.
fn settled(interface: &str) {
    let link = || ip(&format!("-n sb -o link show {interface}"));
    let is_settled = |link: &str| match link.contains("UP,") || link.contains(",UP") {
        true => link.contains("state UP"),
        false => link.contains("state DOWN"),
    };
    while !is_settled(&link()) {
        std::thread::yield_now();
    }
}

fn remove_sandbox() {
    ip("link del v0");
    ip("link del v1");
    ip("netns del sb");
}

/// Whether secondary addresses are to take a primary one's place.
fn promote(wanted: u8) {
    ip(&format!("netns exec sb sysctl -qw net.ipv4.conf.eth0.promote_secondaries={wanted}"));
}

/// Everything that should be the same afterwards, line by line, with `NEW` where `OLD` was; order does not count.
fn state() -> Vec<String> {
    let what =
        ["-4 -d -o addr show", "-4 -d route show table all", "rule show", "neigh show nud permanent", "-o link show"];
    let all = what.map(|what| ip(&format!("-n sb {what}")));
    let lines = all.iter().flat_map(|text| text.lines());
    // Interfaces made anew have other numbers and hardware addresses.
    let line = |line: &str| {
        let words = line.split_whitespace().skip_while(|word| word.trim_end_matches(':').parse::<u32>().is_ok());
        words
            .map(|word| word.split('@').next().unwrap_or(word))
            .take_while(|word| *word != "link/ether")
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines: Vec<_> = lines.map(line).collect();
    lines.sort_unstable();
    lines
}

fn with_new(state: &[String]) -> Vec<String> {
    let word = |word: &str| match word.strip_prefix(&OLD.to_string()) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{NEW}{rest}"),
        _ => word.to_owned(),
    };
    let mut lines: Vec<_> = state.iter().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    lines
}

/// Makes the sandbox, changes its address, compares, and changes it back; then once more for each step that the change may
/// be stopped after, and each that may have been stopped after half of it was done twice. And all that whatever the kernel
/// does with secondary addresses.
fn readdresses(prefix_len: u8, setup: &'static [&'static str]) {
    readdresses_but(prefix_len, setup, str::to_owned);
}

/// The same, where a line of the outcome is to differ from what was there before.
fn readdresses_but(prefix_len: u8, setup: &'static [&'static str], but: fn(&str) -> String) {
    on_a_runner(move || async move {
        let change = to_new(prefix_len);
        for (stop, secondaries) in (0..=STEPS).flat_map(|stop| [(stop, 0), (stop, 1)]) {
            let (netns, eth0) = sandbox(setup).await;
            promote(secondaries);
            let before = state();
            if let Some(mut stopped) = begin(&netns, eth0, change).await {
                for number in 0..stop {
                    step(&mut stopped, number).await;
                }
            }
            let outcome = readdress(&netns, eth0, change).await.unwrap();
            let again = readdress(&netns, eth0, change).await.unwrap();
            assert_eq!(again, Readdressed::AlreadyDone, "stopped after step {stop}");
            let wanted: Vec<_> = with_new(&before).iter().map(|line| but(line)).collect();
            assert_eq!(state(), wanted, "stopped after step {stop}");
            if stop == 0 {
                unseen(outcome);
            }
            let back = Readdress { old: NEW, new: OLD, prefix_len };
            unseen(readdress(&netns, eth0, back).await.unwrap());
            let wanted: Vec<_> = before.iter().map(|line| but(line)).collect();
            assert_eq!(state(), wanted, "stopped after step {stop}, and back");
            drop(netns);
            remove_sandbox();
        }
    });
}

/// Nobody in the sandbox could tell the difference, but by the address.
#[track_caller]
fn unseen(outcome: Readdressed) {
    let fine = matches!(outcome, Readdressed::Moved { restored: 0, without_default: Span::ZERO, .. });
    assert!(fine, "{outcome:?}");
}

/// Makes the sandbox, has an address in it changed, and looks whether it is then like another sandbox; stopped after each
/// step as above.
fn becomes(change: Readdress, setup: &'static [&'static str], like: &'static [&'static str]) {
    on_a_runner(move || async move {
        drop(sandbox(like).await);
        let wanted = state();
        remove_sandbox();
        for (stop, secondaries) in (0..=STEPS).flat_map(|stop| [(stop, 0), (stop, 1)]) {
            let (netns, eth0) = sandbox(setup).await;
            promote(secondaries);
            if let Some(mut stopped) = begin(&netns, eth0, change).await {
                for number in 0..stop {
                    do_step(&mut stopped, number).await;
                }
            }
            let outcome = readdress(&netns, eth0, change).await.unwrap();
            assert_eq!(state(), wanted, "stopped after step {stop}, promote_secondaries {secondaries}");
            if stop == 0 {
                unseen(outcome);
            }
            drop(netns);
            remove_sandbox();
        }
    });
}

async fn begin(netns: &NetnsFile, interface: IfIndex, change: Readdress) -> Option<Move> {
    let (route, heard) = netns::open_inside(netns, || Ok((Route::open()?, defaults::listen()?))).await.unwrap();
    Move::begin(route, heard, interface, change).await.unwrap()
}

#[test]
fn a_plain_sandbox() {
    readdresses(24, &["addr add 10.8.64.2/24 brd + dev eth0", "route add default via 10.8.64.1"]);
}

#[test]
fn without_a_broadcast_address() {
    readdresses(24, &["addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1"]);
}

#[test]
fn routes_with_a_source_metric_or_other_gateway() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "route add default via 10.8.64.1 src 10.8.64.2 metric 50",
            "route add default via 10.8.64.3 metric 200 proto static",
            "route add 192.0.2.0/24 via 10.8.64.7 src 10.8.64.2 mtu 1400 advmss 1300",
            "route add 198.51.100.0/24 via 10.8.64.8",
            "route add 203.0.113.0/24 dev eth0 scope link src 10.8.64.2",
            "route append 203.0.113.0/24 via 10.8.64.8",
            "route add 203.0.113.128/25 nexthop via 10.8.64.7 weight 2 nexthop via 10.8.64.8 weight 3",
            "route add blackhole 198.18.0.0/15",
        ],
    );
}

#[test]
fn a_table_and_a_rule_of_their_own() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "route add default via 10.8.64.1",
            "route add default via 10.8.64.3 src 10.8.64.2 table 100",
            "route add 192.0.2.0/24 via 10.8.64.3 table 1000",
            "rule add fwmark 7 lookup 100",
        ],
    );
}

#[test]
fn the_first_of_several_addresses() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.20/24 brd + dev eth0",
            "addr add 10.8.64.21/24 dev eth0",
            "addr add 172.16.0.2/16 dev eth0",
            "addr add 10.8.64.50/32 dev eth0",
            "route add default via 10.8.64.1",
            "route add 192.0.2.0/24 via 10.8.64.1 src 10.8.64.20",
            "route add 198.51.100.0/24 via 172.16.0.1",
        ],
    );
}

#[test]
fn stopped_between_two_secondary_addresses() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.20/24 brd + dev eth0",
            "addr add 10.8.64.21/24 dev eth0",
            "route add default via 10.8.64.1 src 10.8.64.20",
        ])
        .await;
        let before = state();
        let mut stopped = begin(&netns, eth0, to_new(24)).await.unwrap();
        stopped.hold().await.unwrap();
        let first = stopped.dependants().next().unwrap().clone();
        stopped.delete(first).await.unwrap();
        readdress(&netns, eth0, to_new(24)).await.unwrap();
        assert_eq!(state(), with_new(&before));
    });
}

#[test]
fn stopped_when_the_new_address_that_was_there_is_only_held() {
    on_a_runner(|| async {
        let default = "route add default via 10.8.64.1";
        drop(sandbox(&["addr add 10.8.64.9/24 dev eth0", "addr add 10.8.64.20/24 dev eth0", default]).await);
        let wanted = state();
        remove_sandbox();
        let old = "addr add 10.8.64.2/24 brd + dev eth0";
        let (netns, eth0) =
            sandbox(&[old, "addr add 10.8.64.9/24 dev eth0", "addr add 10.8.64.20/24 dev eth0", default]).await;
        let mut stopped = begin(&netns, eth0, to_new(24)).await.unwrap();
        stopped.hold().await.unwrap();
        stopped.rewrite_routes().await.unwrap();
        let first = stopped.dependants().next().unwrap().clone();
        assert_eq!(local(&first), Some(NEW));
        stopped.delete(first).await.unwrap();
        readdress(&netns, eth0, to_new(24)).await.unwrap();
        assert_eq!(state(), wanted);
    });
}

#[test]
fn one_of_several_addresses_but_not_the_first() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.20/24 brd + dev eth0",
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.21/24 dev eth0",
            "route add default via 10.8.64.1 src 10.8.64.2",
        ],
    );
}

#[test]
fn a_single_host_address_with_the_gateway_on_the_link() {
    readdresses(
        32,
        &[
            "addr add 10.8.64.2/32 dev eth0",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink",
        ],
    );
}

#[test]
fn a_point_to_point_link() {
    readdresses(
        32,
        &["addr add 10.8.64.2 peer 10.8.64.1/32 dev eth0", "route add default via 10.8.64.1 dev eth0 src 10.8.64.2"],
    );
}

#[test]
fn the_network_reached_through_the_gateway_only() {
    // As the CNI plugin ptp leaves it. That the kernel's own route to the network stays away takes a flag.
    readdresses_but(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "route del 10.8.64.0/24 dev eth0",
            "route add 10.8.64.1 dev eth0 scope link src 10.8.64.2",
            "route add 10.8.64.0/24 via 10.8.64.1 dev eth0 src 10.8.64.2",
            "route add default via 10.8.64.1 dev eth0",
        ],
        |line| line.replace("scope global eth0", "scope global noprefixroute eth0"),
    );
}

#[test]
fn a_network_route_that_a_daemon_keeps() {
    // As NetworkManager sets it up.
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0 noprefixroute",
            "route add 10.8.64.0/24 dev eth0 proto kernel scope link src 10.8.64.2 metric 100",
            "route add default via 10.8.64.1 dev eth0 proto dhcp src 10.8.64.2 metric 100",
        ],
    );
}

#[test]
fn an_address_with_a_metric_and_a_scope() {
    readdresses(
        24,
        &["addr add 10.8.64.2/24 brd 10.8.64.127 dev eth0 scope link metric 77", "route add default via 10.8.64.1"],
    );
}

#[test]
fn routes_over_another_interface_from_the_old_address() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 172.16.0.2/16 dev eth1",
            "route add default via 10.8.64.1",
            "route add 192.0.2.0/24 via 172.16.0.1 dev eth1 src 10.8.64.2",
            "route add 198.51.100.0/24 via 172.16.0.1 dev eth1",
            "route add 203.0.113.0/24 nexthop via 10.8.64.7 dev eth0 nexthop via 172.16.0.1 dev eth1",
        ],
    );
}

#[test]
fn routes_by_next_hop_objects() {
    readdresses(
        24,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "nexthop add id 7 via 10.8.64.1 dev eth0",
            "route add default nhid 7 src 10.8.64.2",
            "route add 192.0.2.0/24 nhid 7",
        ],
    );
}

#[test]
fn an_interface_that_is_down() {
    readdresses(24, &["link set eth0 down", "addr add 10.8.64.2/24 brd + dev eth0"]);
}

#[test]
fn the_old_address_was_put_back_beside_the_new() {
    becomes(
        to_new(24),
        &["addr add 10.8.64.9/24 dev eth0", "route add default via 10.8.64.1", "addr add 10.8.64.2/24 brd + dev eth0"],
        &["addr add 10.8.64.9/24 dev eth0", "route add default via 10.8.64.1"],
    );
}

#[test]
fn the_new_address_is_secondary_to_the_old_already() {
    becomes(
        to_new(24),
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.20/24 dev eth0",
            "addr add 10.8.64.9/24 dev eth0",
            "route add default via 10.8.64.1 src 10.8.64.2",
        ],
        &[
            "addr add 10.8.64.20/24 dev eth0",
            "addr add 10.8.64.9/24 dev eth0",
            "route add default via 10.8.64.1 src 10.8.64.9",
        ],
    );
}

#[test]
fn the_new_address_is_the_only_one_beside_the_old() {
    becomes(
        to_new(24),
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.9/24 dev eth0",
            "route add default via 10.8.64.1",
            "route add 192.0.2.0/24 via 10.8.64.1 src 10.8.64.2",
        ],
        &[
            "addr add 10.8.64.9/24 dev eth0",
            "route add default via 10.8.64.1",
            "route add 192.0.2.0/24 via 10.8.64.1 src 10.8.64.9",
        ],
    );
}

/// To an address of another network, which the sandbox has already.
const TO_ELSEWHERE: Readdress = Readdress { old: OLD, new: Ipv4Addr::new(172, 16, 0, 9), prefix_len: 24 };

#[test]
fn the_new_address_is_in_another_network_already() {
    becomes(
        TO_ELSEWHERE,
        &[
            "addr add 172.16.0.9/16 dev eth0",
            "addr add 10.8.64.2/24 brd + dev eth0",
            "route add default via 172.16.0.1",
            "route add 192.0.2.0/24 via 172.16.0.1 src 10.8.64.2",
        ],
        &[
            "addr add 172.16.0.9/16 dev eth0",
            "route add default via 172.16.0.1",
            "route add 192.0.2.0/24 via 172.16.0.1 src 172.16.0.9",
        ],
    );
}

#[test]
fn the_old_address_is_the_first_of_several_in_another_network() {
    becomes(
        TO_ELSEWHERE,
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.20/24 dev eth0",
            "addr add 10.8.64.21/24 dev eth0",
            "addr add 172.16.0.9/24 dev eth0",
            "route add default via 10.8.64.1",
        ],
        &[
            "addr add 10.8.64.20/24 dev eth0",
            "addr add 10.8.64.21/24 dev eth0",
            "addr add 172.16.0.9/24 dev eth0",
            "route add default via 10.8.64.1",
        ],
    );
}

#[test]
fn the_new_address_is_there_already_and_alone_in_its_network() {
    becomes(
        to_new(24),
        &["addr add 10.8.64.9/32 dev eth0", "addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1"],
        &[
            "addr add 10.8.64.9/32 dev eth0",
            "route add 10.8.64.0/24 dev eth0 proto kernel scope link src 10.8.64.9",
            "route add default via 10.8.64.1",
        ],
    );
}

#[test]
fn the_old_address_stays_on_another_interface() {
    becomes(
        to_new(24),
        &[
            "addr add 10.8.64.2/24 brd + dev eth0",
            "addr add 10.8.64.2/24 brd + dev eth1",
            "route add default via 10.8.64.1 dev eth0 src 10.8.64.2",
            "route add 192.0.2.0/24 via 10.8.64.7 dev eth1 src 10.8.64.2",
        ],
        &[
            "addr add 10.8.64.9/24 brd + dev eth0",
            "addr add 10.8.64.2/24 brd + dev eth1",
            "route add default via 10.8.64.1 dev eth0 src 10.8.64.9",
            "route add 192.0.2.0/24 via 10.8.64.7 dev eth1 src 10.8.64.2",
        ],
    );
}

#[test]
fn done_is_done_whatever_the_prefix_length_is() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&["addr add 10.8.64.9/16 dev eth0"]).await;
        assert_eq!(readdress(&netns, eth0, to_new(24)).await.unwrap(), Readdressed::AlreadyDone);
    });
}

#[test]
fn an_address_that_ends_by_itself_still_does() {
    on_a_runner(|| async {
        let lent = "addr add 10.8.64.2/24 dev eth0 valid_lft 3600 preferred_lft 1800";
        let (netns, eth0) = sandbox(&[lent, "route add default via 10.8.64.1"]).await;
        unseen(readdress(&netns, eth0, to_new(24)).await.unwrap());
        let address = ip("-n sb -4 -o addr show dev eth0");
        let left = |what: &str| -> u32 {
            let after = address.split(&format!("{what} ")).nth(1).unwrap();
            after.split("sec").next().unwrap().parse().unwrap()
        };
        assert!(
            (3000..=3600).contains(&left("valid_lft")) && (1500..=1800).contains(&left("preferred_lft")),
            "{address}"
        );
    });
}

#[test]
fn a_default_route_that_somebody_takes_away_meanwhile_is_missed_and_comes_back() {
    on_a_runner(|| async {
        let setup = ["addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1 src 10.8.64.2"];
        let (netns, eth0) = sandbox(&setup).await;
        let before = state();
        let mut change = begin(&netns, eth0, to_new(24)).await.unwrap();
        change.hold().await.unwrap();
        change.rewrite_routes().await.unwrap();
        assert_eq!(change.defaults.longest_gap(), Span::ZERO);
        ip("-n sb route del default");
        change.drop_old().await.unwrap();
        let open = change.defaults.longest_gap();
        assert!(open > Span::ZERO);
        // One in another table, and one that is no way out, are none.
        ip("-n sb route add default via 10.8.64.1 table 100");
        ip("-n sb route add blackhole default metric 7");
        ip("-n sb route del blackhole default metric 7");
        ip("-n sb route del default table 100");
        ip("-n sb route add default via 10.8.64.1 table 100");
        change.settle().await.unwrap();
        change.let_go().await.unwrap();
        assert_eq!(change.restore_routes().await.unwrap(), 1);
        let gap = change.defaults.longest_gap();
        assert!(gap > open);
        ip("-n sb route flush table 100");
        assert_eq!(state(), with_new(&before));
        assert_eq!(change.restore_routes().await.unwrap(), 0);
    });
}

#[test]
fn a_default_route_that_goes_without_a_word_is_missed_too() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&["addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1"]).await;
        let mut change = begin(&netns, eth0, to_new(24)).await.unwrap();
        change.hold().await.unwrap();
        change.rewrite_routes().await.unwrap();
        change.drop_old().await.unwrap();
        // Its last address: the kernel takes all routes over it, and tells of no default route.
        ip("-n sb addr flush dev eth0");
        assert_eq!(ip("-n sb route show default"), "");
        assert_eq!(change.defaults.longest_gap(), Span::ZERO, "the kernel does tell of it");
        change.settle().await.unwrap();
        assert_eq!(change.restore_routes().await.unwrap(), 1);
        assert!(change.defaults.longest_gap() > Span::ZERO);
    });
}

#[test]
fn a_default_route_put_in_the_place_of_another_leaves_no_gap() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&["addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1"]).await;
        let mut change = begin(&netns, eth0, to_new(24)).await.unwrap();
        ip("-n sb route replace default via 10.8.64.3");
        ip("-n sb route append default via 10.8.64.4");
        ip("-n sb route del default via 10.8.64.3");
        assert_eq!(change.defaults.longest_gap(), Span::ZERO);
        ip("-n sb route del default");
        ip("-n sb route add default via 10.8.64.5");
        assert!(change.defaults.longest_gap() > Span::ZERO);
    });
}

#[test]
fn what_was_not_heard_is_not_taken_for_no_gap() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&["addr add 10.8.64.2/24 dev eth0", "route add default via 10.8.64.1"]).await;
        let mut change = begin(&netns, eth0, to_new(24)).await.unwrap();
        let routes: String =
            (0..4000).map(|n| format!("route add 198.18.{}.{}/32 dev eth0\n", n / 250, n % 250)).collect();
        std::fs::write("/run/batch", routes).unwrap();
        ip("-n sb -batch /run/batch");
        assert!(change.defaults.longest_gap() > Span::ZERO);
    });
}

#[test]
fn a_label_stays() {
    on_a_runner(|| async {
        let setup = ["addr add 10.8.64.2/24 dev eth0 label eth0:a", "addr add 10.8.64.3/24 dev eth0 label eth0:b"];
        let (netns, eth0) = sandbox(&setup).await;
        let before = state();
        readdress(&netns, eth0, to_new(24)).await.unwrap();
        assert_eq!(state(), with_new(&before));
    });
}

#[test]
fn what_cannot_be_done_changes_nothing_and_says_why() {
    on_a_runner(|| async {
        let (netns, eth0) = sandbox(&["addr add 10.8.64.2/16 dev eth0"]).await;
        let before = state();
        let other = readdress(&netns, eth0, to_new(24)).await.unwrap_err();
        assert_eq!(
            other.to_string(),
            format!("interface {eth0} has 10.8.64.2/16, not 10.8.64.2/24; nothing was changed")
        );
        ip("-n sb addr del 10.8.64.2/16 dev eth0");
        let neither = readdress(&netns, eth0, to_new(24)).await.unwrap_err();
        assert_eq!(
            neither.to_string(),
            format!("interface {eth0} has neither 10.8.64.2/24 nor 10.8.64.9/24; nothing was changed")
        );
        ip("-n sb addr add 10.8.64.2/16 dev eth0");
        ip(&format!("-n sb neigh add {} nud permanent", STATIC[0]));
        assert_eq!(state(), before);
        let nowhere = IfIndex::new(9999).unwrap();
        let gone = readdress(&netns, nowhere, to_new(24)).await.unwrap_err();
        assert_eq!(gone.to_string(), "there is no interface with index 9999 any more");
    });
}
