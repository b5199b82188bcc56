//! The built program, as a person or a script runs it.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails the test")]

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use detector::{
    allocator::{Clock, Incidents as _, Kept, SqliteStore},
    net::Domain,
};
use rustix::process::{Pid, Signal, kill_process};

use serde_json::{Value, json};

const DUPIP: &str = env!("CARGO_BIN_EXE_dupip");

/// What one run of the program came to.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn dupip(args: &str) -> Ran {
    let mut command = Command::new(DUPIP);
    clean(&mut command).args(args.split_whitespace()).output().unwrap().into()
}

/// Without what an operator may have set for an agent of their own.
fn clean(command: &mut Command) -> &mut Command {
    for name in ["SOCKET", "BRIDGE", "MODE", "DATABASE", "LISTEN", "WAIT", "ATTACH", "COOLDOWN", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("DUPIP_{name}"));
    }
    command.env_remove("DUPIP_EVICTIONS_PER_MINUTE")
}

fn offline(verb: &str, database: &Path, rest: &str) -> Ran {
    dupip(&format!("lease {verb} --offline --database {} {rest}", database.display()))
}

/// Every verb and the verbs below it, as one types them.
fn verbs() -> Vec<String> {
    fn below(command: &clap::Command, before: &str) -> Vec<String> {
        let verbs = command.get_subcommands().map(|verb| (format!("{before}{} ", verb.get_name()), verb));
        verbs.flat_map(|(name, verb)| [vec![name.trim().to_owned()], below(verb, &name)].concat()).collect()
    }
    below(&<detector::cli::Cli as clap::CommandFactory>::command(), "")
}

#[test]
fn every_verb_explains_itself_with_examples() {
    let verbs = verbs();
    for verb in ["lease list", "quarantine lift", "pool create", "man"] {
        assert!(verbs.iter().any(|found| found == verb), "no {verb} in {verbs:?}");
    }
    for verb in [String::new()].iter().chain(&verbs) {
        let help = dupip(&format!("{verb} --help"));
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{verb}");
        assert!(help.out.contains("Usage: dupip"), "{}", help.out);
        let examples = help.out.split_once("Examples:\n").map(|(_, examples)| examples).unwrap_or_default();
        assert!(examples.contains(&format!("  dupip {verb}")), "no example of `{verb}` in {}", help.out);
    }
    assert_eq!(dupip("--version").out, format!("dupip {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_exit_2() {
    for (args, reason) in [
        ("", "Usage: dupip"),
        ("tabel", "a similar subcommand exists: 'table'"),
        ("table --out json", "unexpected argument '--out'"),
        ("table -o yaml", "[possible values: table, wide, csv, json]"),
        (
            "run --config /dev/null",
            "no bridge is named to be watched\ntry: dupip run --bridge rt0, or `bridge = [\"rt0\"]`",
        ),
        ("run --config /no/such/file", "cannot read the configuration file /no/such/file"),
        ("config check /no/such/file", "cannot read the configuration file /no/such/file"),
        ("run --bridge a/b", "cannot be an interface's name"),
        ("run --bridge rt0 --mode heal", "[possible values: observe, enforce]"),
        ("replay", "<[PORT=]FILE>..."),
        ("replay a.pcap --network 10.8.64", "--network <ADDRESS/LEN>"),
        ("replay a.pcap --pin 10.8.64.2", "write ADDRESS=OWNER"),
        ("scan --bridge a/b", "cannot be an interface's name"),
        ("scan --timeout soon", "--timeout <TIME>"),
        ("explain", "<INCIDENT>"),
        ("explain 3 -o csv", "[possible values: table, wide, json]"),
        ("explain 3 --sort address", "unexpected argument '--sort'"),
        (
            "table --sort adress",
            "there is no column `adress`; did you mean `address`? Columns are: bridge, address, mac",
        ),
        ("table --sort -colour", "there is no column `colour`; columns are: bridge, address, mac"),
        ("lease list --sort sandbox", "there is no column `sandbox`; columns are: bridge, address, owner"),
        ("table --filter duplicate", "write COLUMN=VALUE, COLUMN!=VALUE or COLUMN~PART, such as state=duplicate"),
        ("conflicts --filter stauts=open", "there is no column `stauts`; did you mean `status`?"),
        ("events --filter address=10.8", "`10.8` is neither an address nor a network, such as address=10.8.64.0/28"),
        ("pool list --filter gateway=x", "`x` is neither an address nor a network, such as gateway=10.8.64.0/28"),
        ("events -f --sort time", "--sort needs an end, and --follow has none"),
        ("table --watch", "--watch needs a terminal to draw on\ntry: dupip table, or dupip events --follow"),
        (
            "table --watch -o json",
            "--watch is for people; a program follows what happens\ntry: dupip events --follow -o json",
        ),
        ("table --color red", "[possible values: auto, always, never]"),
        ("explain one", "invalid digit found"),
        ("drill", "--bridge <NAME>"),
        ("quarantine lift veth0", "<ADDRESS>"),
        ("quarantine lift a/b 10.8.64.2", "cannot be an interface's name"),
        ("pause 25h", "a pause lasts at most 24h"),
        ("pause 5m --end", "cannot be used with"),
        ("run --bridge rt0 --resolve restart", "use readdress, recycle or contain"),
        ("run --bridge rt0 --resolve-on rt1", "write DOMAIN=WAY"),
        ("scan --resolve contain", "unexpected argument '--resolve'"),
        ("replay a.pcap --protect-port eth0", "unexpected argument '--protect-port'"),
        ("doctor -o yaml", "[possible values: table, wide, csv, json]"),
        ("lease allocate --bridge rt0 --owner a --vlan 4095", "VLANs go from 1 to 4094"),
        ("lease allocate --bridge rt0 --owner a --pool 10.0.0.0/24", "--offline"),
        ("lease release --bridge rt0 --address 10.8.64.2 --owner a", "--generation <NUMBER>"),
        ("lease release --bridge rt0 --address 10.8.64 --owner a --generation 1", "invalid IPv4 address"),
    ] {
        let ran = dupip(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args}: {ran:?}");
        assert!(ran.err.contains(reason), "{args}: no `{reason}` in {}", ran.err);
    }
}

#[test]
fn an_agent_that_does_not_run_is_exit_3_with_what_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dupip.sock");
    for dead in [false, true] {
        if dead {
            drop(UnixListener::bind(&socket).unwrap());
        }
        for verb in [
            "table",
            "conflicts --fail",
            "explain 3",
            "quarantine list",
            "quarantine lift veth0 10.8.64.2",
            "pause",
            "pause 10m",
            "events -f",
            "lease list -o json",
            "drill --bridge rt0",
            "lease allocate --bridge rt0 --owner a",
            "lease release --bridge rt0 --address 10.8.64.2 --owner a --generation 1",
        ] {
            let ran = dupip(&format!("{verb} --socket {}", socket.display()));
            assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{verb}: {ran:?}");
            let first = format!("dupip: error: cannot reach the agent at {}: ", socket.display());
            assert!(ran.err.starts_with(&first) && ran.err.contains(": is it running?\n"), "{ran:?}");
            let hint = "try: systemctl status dupip, or start it with: dupip run --bridge rt0\n";
            assert!(ran.err.ends_with(hint), "{ran:?}");
        }
    }
}

/// A pcap file with one ARP request for each hardware address given, all for 10.8.64.2.
fn capture(macs: &[u8]) -> Vec<u8> {
    let mut file = [&0xa1b2_c3d4_u32.to_le_bytes()[..], &[2, 0, 4, 0], &[0; 8], &[0, 0, 4, 0], &[1, 0, 0, 0]].concat();
    for (second, mac) in (1_u32..).zip(macs) {
        let mac = [2, 0, 0, 0, 0, *mac];
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &[10, 8, 64, 2], &[0; 6], &[10, 8, 64, 1]].concat();
        let frame = [&[0xff; 6][..], &mac, &[8, 6], &arp].concat();
        let (time, len) = ((1_781_222_400 + second).to_le_bytes(), u32::try_from(frame.len()).unwrap().to_le_bytes());
        file.extend([&time[..], &[0; 4], &len, &len, &frame].concat());
    }
    file
}

#[test]
fn a_capture_is_judged_and_a_damaged_one_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bridge.pcap");
    let replay = |bytes: &[u8], args: &str| {
        fs::write(&path, bytes).unwrap();
        dupip(&format!("replay {} --network 10.8.64.1/24 --bridge rt0 {args}", path.display()))
    };
    let one = replay(&capture(&[7]), "");
    assert_eq!((one.code, one.err.as_str()), (Some(0), ""), "{one:?}");
    assert!(one.out.starts_with("1 frames of 1 ports, 2026-06-12T00:00:01.000Z to "), "{one:?}");
    let two = replay(&capture(&[7, 9]), "");
    assert_eq!((two.code, two.err.as_str()), (Some(1), ""), "{two:?}");
    for words in [
        "2026-06-12T00:00:02.000Z  error     duplicate",
        "10.8.64.2 on rt0: open (incident 1)",
        "  02:00:00:00:00:07  02:00:00:00:00:07  02:00:00:00:00:07",
    ] {
        assert!(two.out.contains(words), "no `{words}` in {}", two.out);
    }
    let found: Value = serde_json::from_str(&replay(&capture(&[7, 9]), "-o json").out).unwrap();
    assert_eq!(
        (&found["incidents"][0]["address"], &found["findings"][0]["kind"]),
        (&"10.8.64.2".into(), &"duplicate".into())
    );
    let whole = capture(&[7, 9]);
    let cut = replay(&[&whole[..], &whole[24..70]].concat(), "");
    assert_eq!((cut.code, cut.out.contains("10.8.64.2 on rt0: open")), (Some(65), true), "{cut:?}");
    assert!(cut.err.contains(&format!("is cut off within the block at byte {}", whole.len())), "{cut:?}");
    let none = replay(b"#!/bin/sh and nothing else in here", "");
    assert_eq!((none.code, none.err.contains("is neither a pcap nor a pcapng file")), (Some(2), true), "{none:?}");
    let missing = dupip("replay /nonexistent.pcap --network 10.8.64.1/24");
    assert_eq!((missing.code, missing.out.as_str()), (Some(2), ""), "{missing:?}");
}

#[test]
fn doctor_needs_nothing_and_keeps_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let (database, socket) = (directory.path().join("l.db"), directory.path().join("s"));
    let ran = dupip(&format!("--socket {} doctor --database {} -o json", socket.display(), database.display()));
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let names: Vec<_> = found["checks"].as_array().unwrap().iter().filter_map(|check| check["name"].as_str()).collect();
    for name in [
        "kernel.version",
        "kernel.bpf",
        "kernel.tc_programs",
        "kernel.ring_buffer",
        "kernel.tcx",
        "kernel.tap",
        "capability.cap_bpf",
        "capability.cap_syslog",
        "proc",
        "netns_directory",
        "kernel_log",
        "clock",
        "bridge",
        "lease_database",
        "agent.reachable",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    assert!(!database.exists(), "to look makes nothing");
}

#[test]
fn the_socket_may_be_named_by_the_environment() {
    let mut command = Command::new(DUPIP);
    let ran: Ran = clean(&mut command).env("DUPIP_SOCKET", "/nonexistent/s").arg("table").output().unwrap().into();
    assert!(ran.err.contains("cannot reach the agent at /nonexistent/s"), "{ran:?}");
}

#[test]
fn leases_are_kept_without_an_agent() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("leases.db");
    let pool = "--pool 10.8.64.0/24 --gateway 10.8.64.1";
    let give = |owner| offline("allocate", &database, &format!("--bridge rt0 --owner {owner} {pool} -o json"));

    let first = give("sportsagent");
    let want = json!({
        "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "owner": "sportsagent", "interface": null,
        "generation": 1, "state": "bound", "replaces": null,
    });
    assert_eq!(first.json(), want);
    assert_eq!(give("sportsagent").json(), want, "the same owner has the same lease");
    assert_eq!(give("reviewagent").json()["address"], "10.8.64.3");

    let shown = "\
BRIDGE  ADDRESS    OWNER        GENERATION  STATE  LEFT
rt0     10.8.64.2  sportsagent  1           bound  -
rt0     10.8.64.3  reviewagent  2           bound  -
";
    let list = offline("list", &database, "");
    assert_eq!((list.code, list.out.as_str(), list.err.as_str()), (Some(0), shown, ""));

    let list = |flags: &str| offline("list", &database, flags);
    let sorted = list("--sort -address --filter state=bound --filter address=10.8.64.0/28 --no-header");
    assert_eq!(sorted.out, "rt0  10.8.64.3  reviewagent  2  bound  -\nrt0  10.8.64.2  sportsagent  1  bound  -\n");
    let csv = list("-o csv --filter owner~SPORTS");
    let want = "bridge,address,owner,interface,generation,state,since,left,replaces,reason\r\nrt0,10.8.64.2,sportsagent,,1,bound,";
    assert!(csv.out.starts_with(want), "{csv:?}");
    let names = list("-o json --sort owner").json();
    assert_eq!([&names[0]["owner"], &names[1]["owner"]], ["reviewagent", "sportsagent"]);
    let none = list("--filter owner=nobody --no-header");
    let want = "dupip: note: no row matches --filter; without it there are 2\n";
    assert_eq!(none, Ran { code: Some(0), out: String::new(), err: want.to_owned() });
    let coloured = list("--color always");
    assert!(coloured.out.starts_with("\u{1b}[1mBRIDGE") && !coloured.out.contains('…'), "{coloured:?}");

    let release = "--bridge rt0 --address 10.8.64.2 --owner sportsagent --generation 1";
    let released = offline("release", &database, release);
    assert_eq!((released.code, released.err.as_str()), (Some(0), ""));
    assert!(released.out.ends_with("rt0     10.8.64.2  sportsagent  1           draining\n"), "{released:?}");
    let again = offline("release", &database, release);
    let want = "dupip: error: nothing was released: 10.8.64.2 was given back already and is in state draining\n";
    assert_eq!(again, Ran { code: Some(1), out: String::new(), err: want.to_owned() });
    let stale = offline("release", &database, "--bridge rt0 --address 10.8.64.3 --owner sportsagent --generation 1");
    let want = "dupip: error: nothing was released: 10.8.64.3 is now held by reviewagent, generation 2, state bound\n";
    assert_eq!((stale.code, stale.err.as_str()), (Some(1), want));
    let stale = offline("release", &database, "--bridge rt0 --address 10.8.64.9 --owner a --generation 1 -o json");
    assert_eq!((stale.code, stale.out.as_str()), (Some(1), "{\n  \"released\": false,\n  \"lease\": null\n}\n"));
}

#[test]
fn an_address_that_is_in_use_is_given_to_whom_it_belongs() {
    let home = tempfile::tempdir().unwrap();
    let database = home.path().join("leases.db");
    offline("allocate", &database, "--bridge rt0 --owner a --pool 10.8.64.0/24 --gateway 10.8.64.1");
    let adopted = offline("adopt", &database, "--bridge rt0 --address 10.8.64.9 --owner b -o json").json();
    assert_eq!((&adopted["address"], &adopted["state"]), (&"10.8.64.9".into(), &"bound".into()));
    let taken = offline("adopt", &database, "--bridge rt0 --address 10.8.64.9 --owner c");
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.err.contains("b holds it (generation 2, bound)"), "{taken:?}");
    let second = offline("adopt", &database, "--bridge rt0 --address 10.8.64.10 --owner b");
    assert_eq!((second.code, second.err.contains("b holds 10.8.64.9 already")), (Some(1), true), "{second:?}");
    let nowhere = offline("adopt", &database, "--bridge rt0 --address 10.8.64.1 --owner d");
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
}

#[test]
fn offline_says_what_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("leases.db");
    let named = dupip(&format!("lease list --socket /nonexistent/s --database {}", database.display()));
    assert!(named.err.contains("cannot open the lease database"), "an agent was not asked for: {named:?}");
    let missing = offline("list", &database, "");
    assert_eq!((missing.code, database.exists()), (Some(1), false), "{missing:?}");
    assert!(missing.err.starts_with("dupip: error: cannot open the lease database "), "{missing:?}");

    let bad = offline("allocate", &database, "--bridge rt0 --owner a --pool 10.8.64.1/24");
    let want = "dupip: error: 10.8.64.1/24 has host bits set: the subnet is 10.8.64.0/24\n";
    assert_eq!((bad.code, bad.err.as_str(), database.exists()), (Some(2), want, false));

    let only = "--bridge rt0 --owner a --pool 10.8.64.0/30 --gateway 10.8.64.1 -o json";
    assert_eq!(offline("allocate", &database, only).json()["address"], "10.8.64.2");
    let full = offline("allocate", &database, "--bridge rt0 --owner b");
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.err.starts_with("dupip: error: rt0 has no address left: "), "{full:?}");
    let no_pool = offline("allocate", &database, "--bridge rt1 --owner b");
    let want = "dupip: error: rt1 has no pool: none was made for it, and no agent watches it with an IPv4 \
                network\ntry: dupip pool create --bridge rt1 --subnet 10.8.64.0/24 --gateway 10.8.64.1\n";
    assert_eq!((no_pool.code, no_pool.err.as_str()), (Some(2), want));

    fs::write(&database, "this is no database, but somebody's only copy of something else").unwrap();
    let foreign = offline("list", &database, "");
    assert_eq!(foreign.code, Some(1), "{foreign:?}");
    assert!(foreign.err.contains("is damaged"), "{foreign:?}");
}

/// Without an agent, from the lease database.
#[test]
fn an_incident_that_is_over_is_explained_out_of_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("leases.db");
    let store = SqliteStore::open(&database, "test", Clock::system().unwrap()).unwrap();
    let kept = Kept {
        number: 3,
        boot: "7d4c".to_owned(),
        domain: Domain::untagged("rt0".parse().unwrap()),
        address: [10, 8, 64, 2].into(),
        is_open: true,
        opened: std::time::UNIX_EPOCH,
        record: include_str!("../../tests/fuzz/corpus/incident_record/moving").to_owned(),
    };
    store.keep(&[kept]).unwrap();
    drop(store);
    let explain = |rest: &str| dupip(&format!("explain --offline --database {} {rest}", database.display()));
    let told = explain("3");
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    for words in [
        "Incident 3: duplicate of 10.8.64.2 on rt0, opened 2025-11-26T10:40:00.009Z; claimed 2 times",
        "sportsagent (veth9, 02:00:00:00:00:09): sent a packet from 10.8.64.2 that a kernel logged as a martian",
        "sportsagent: its new lease is on disk: 10.8.64.4, generation 4",
        "Contest: reviewagent keeps 10.8.64.2: holds",
        "failed and is tried again: the namespace is gone",
    ] {
        assert!(told.out.contains(words), "no `{words}` in {}", told.out);
    }
    let value = explain("3 -o json").json();
    assert_eq!((&value["incident"]["id"], &value["history"]), (&json!(3), &json!([])));
    let missing = explain("4");
    let want = (Some(2), "dupip: error: there is no incident 4; the newest: 3\n");
    assert_eq!((missing.code, missing.err.as_str()), want, "{missing:?}");
}

#[test]
fn a_shell_can_complete_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let script = dupip(&format!("completions {shell}"));
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""));
        for verb in [
            "run",
            "table",
            "conflicts",
            "explain",
            "quarantine",
            "lift",
            "pause",
            "resolve-owner",
            "protect-port",
            "events",
            "lease",
            "allocate",
            "release",
            "completions",
            "man",
            "evictions-per-minute",
        ] {
            assert!(script.out.contains(verb), "{shell} knows no {verb}");
        }
    }
    assert_eq!(dupip("completions powershell").code, Some(2));
}

#[test]
fn every_verb_has_a_manual_page() {
    let page = dupip("man");
    assert!(page.code == Some(0) && page.out.contains(".TH dupip 1") && page.out.contains("Exit codes:"), "{page:?}");
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("share/man1");
    assert_eq!(dupip(&format!("man --directory {}", pages.display())).code, Some(0));
    for verb in [String::new()].iter().chain(&verbs()) {
        let name = format!("dupip {verb}").trim().replace(' ', "-");
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Examples:"), "{name}.1");
    }
    fs::write(directory.path().join("file"), "").unwrap();
    assert_eq!(dupip(&format!("man --directory {}/file", directory.path().display())).code, Some(1));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let ran: Ran = Command::new(DUPIP).args(["completions", "zsh"]).stdout(writer).output().unwrap().into();
    assert_eq!(ran, Ran { code: Some(0), out: String::new(), err: String::new() });
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let ran: Ran = Command::new(DUPIP).args(["completions", "zsh"]).stdout(full).output().unwrap().into();
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("dupip: error: cannot write to standard output: "), "{ran:?}");
}

/// Answers as an agent would.
struct Teller {
    listener: UnixListener,
    stream: &'static str,
}

impl Teller {
    fn listen(socket: &Path, stream: &'static str) -> Self {
        let _ = fs::remove_file(socket);
        Self { listener: UnixListener::bind(socket).unwrap(), stream }
    }

    /// Answers one question with these events; returns what was asked.
    fn answer(&self, numbers: &[u64], next: u64, missed: u64, restarted: bool) -> String {
        let (mut peer, _) = self.listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&peer).read_line(&mut asked).unwrap();
        let events: Vec<Value> = numbers.iter().map(|number| self.event(*number)).collect();
        let next = format!("{}:{next}", self.stream);
        let body = json!({
            "stream": self.stream, "events": events, "next": next, "missed": missed, "restarted": restarted,
        });
        let body = body.to_string();
        write!(peer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        asked.split(' ').nth(1).unwrap().to_owned()
    }

    fn event(&self, number: u64) -> Value {
        json!({
            "seq": number, "cursor": format!("{}:{number}", self.stream), "time": "2026-06-12T09:00:00.120Z",
            "boot_us": number, "kind": "moved", "severity": "info", "bridge": "rt0", "vlan": null,
            "address": "10.8.64.2", "incident": null, "port": null, "ifindex": null, "mac": null, "reason": null,
            "message": format!("event {number}"), "detail": {},
        })
    }
}

fn follow(socket: &Path, args: &str) -> Child {
    let mut command = Command::new(DUPIP);
    clean(&mut command).arg("--socket").arg(socket).arg("events").args(args.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn events_are_followed_across_a_restart_until_a_signal_comes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dupip.sock");
    let before = Teller::listen(&socket, "aa");
    let follower = follow(&socket, "-f -n 1 --kind moved -o json");
    assert_eq!(before.answer(&[1, 2], 2, 0, false), "/api/v1/events?limit=1024&wait=0&kind=moved");
    assert_eq!(before.answer(&[], 2, 0, false), "/api/v1/events?limit=1024&wait=0&after=aa%3A2&kind=moved");
    assert_eq!(before.answer(&[3], 3, 0, false), "/api/v1/events?limit=1024&wait=25&after=aa%3A2&kind=moved");
    // It goes without an answer, as when it is killed.
    drop(before.listener.accept().unwrap());
    let after = Teller::listen(&socket, "bb");
    assert_eq!(after.answer(&[8], 8, 7, true), "/api/v1/events?limit=1024&wait=25&after=aa%3A3&kind=moved");
    let waits = after.listener.accept().unwrap();
    let pid = Pid::from_raw(follower.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = Ran::from(follower.wait_with_output().unwrap());
    drop(waits);
    let events: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cursors: Vec<_> = events.iter().map(|event| event["cursor"].as_str().unwrap()).collect();
    assert_eq!((ran.code, cursors), (Some(0), vec!["aa:2", "aa:3", "bb:8"]), "{}", ran.err);
    let notes: Vec<_> = ran.err.lines().collect();
    let [away, back, restarted, missed] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(away.starts_with("dupip: note: ") && away.contains("; asking "), "{away}");
    assert_eq!(
        [*back, *restarted, *missed],
        [
            "dupip: note: the agent answers again",
            "dupip: note: the agent was restarted since: what follows is all that it has told from then on",
            "dupip: note: 7 events are not kept any more and cannot be shown",
        ]
    );
}

#[test]
fn following_ends_with_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dupip.sock");
    let agent = Teller::listen(&socket, "aa");
    let mut follower = follow(&socket, "-f --no-header");
    agent.answer(&[1], 1, 0, false);
    agent.answer(&[], 1, 0, false);
    let waits = agent.listener.accept().unwrap();
    let mut out = follower.stdout.take().unwrap();
    let line = "2026-06-12T09:00:00.120Z  info      moved            event 1\n";
    let mut read = vec![0; line.len()];
    out.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), line);
    // Nothing is told any more, and it ends all the same.
    drop(out);
    let ran = Ran::from(follower.wait_with_output().unwrap());
    drop(waits);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn an_agent_without_capabilities_says_which_and_why() {
    // Root keeps its files, so that the program is found wherever it was built.
    let dropped = "-bpf,-net_admin,-net_raw,-net_broadcast,-sys_admin,-sys_ptrace";
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", dropped, "--inh-caps", dropped, DUPIP, "run", "--bridge", "dupip-none"]);
    let ran: Ran = clean(&mut command).output().unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""), "{ran:?}");
    for line in [
        "  CAP_BPF to load the tap",
        "  CAP_NET_ADMIN to attach the tap, change addresses and neighbours",
        "  CAP_NET_RAW to send probes and announcements",
        "  CAP_NET_BROADCAST to hear of address changes in every sandbox (NETLINK_LISTEN_ALL_NSID)",
        "  CAP_SYS_ADMIN to enter the namespaces of sandboxes",
        "  CAP_SYS_PTRACE to see which namespace a process is in",
    ] {
        assert!(ran.err.lines().any(|found| found == line), "no `{line}` in {}", ran.err);
    }
    assert!(ran.err.contains("\ntry: sudo dupip run …, or AmbientCapabilities=CAP_BPF CAP_NET_ADMIN "), "{}", ran.err);
}
