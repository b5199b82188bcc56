//! Pools by hand, and taking over what other allocators have given: the real host-local, and a table like Miren's.

use std::{collections::BTreeMap, fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use lab::{Bridge, Command, Dupip, Mode, Runner, Sandbox};
use rusqlite::Connection;
use serde_json::Value;

/// From the Debian package containernetworking-plugins.
const HOST_LOCAL: &str = "/usr/lib/cni/host-local";
/// Where host-local keeps its files, in the runner.
const NETWORKS: &str = "/run/lab/networks";
const BOOK: &str = "/run/lab/networks/rt0";
const DATABASE: [&str; 2] = ["--database", "/run/lab/dupip.db"];

struct Lab {
    bridge: Bridge,
    dupip: Dupip,
}

impl Lab {
    fn new() -> Result<Self> {
        let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
        let dupip = Dupip::on(&bridge)?;
        Ok(Self { bridge, dupip })
    }

    fn with_pool() -> Result<Self> {
        let lab = Self::new()?;
        lab.json(&["pool", "create", "--bridge", "rt0", "--subnet", "10.8.64.0/24", "--gateway", "10.8.64.1"])?;
        Ok(lab)
    }

    fn command(&self, args: &[&str]) -> Command {
        self.dupip.command(args).args(DATABASE)
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.command(args).args(["-o", "json"]).run()?)?)
    }

    /// The exit code, and what was said on standard error.
    fn refused(&self, args: &[&str]) -> Result<(i32, String)> {
        said(&self.command(args).output()?)
    }

    fn create(&self, args: &[&str]) -> Result<(i32, String)> {
        self.refused(&[&["pool", "create", "--bridge", "rt0"], args].concat())
    }

    fn import(&self, args: &[&str]) -> Result<Plan> {
        let answer = self.json(&[&["lease", "import", "--bridge", "rt0"], args].concat())?;
        let rows = answer.get("rows").and_then(Value::as_array).context("a report without rows")?;
        Ok(Plan(rows.iter().map(|row| (text(row, "row"), row.clone())).collect()))
    }

    fn import_host_local(&self, args: &[&str]) -> Result<Plan> {
        self.import(&[&["--from", "host-local", BOOK], args].concat())
    }

    fn bound(&self) -> Result<Vec<String>> {
        let leases = self.json(&["lease", "list", "--offline"])?;
        let leases = leases.as_array().context("no list")?;
        Ok(leases.iter().map(|lease| format!("{} {}", text(lease, "address"), text(lease, "owner"))).collect())
    }

    /// Has the real host-local give `sandbox` an address, under `container`'s name.
    fn host_local(&self, container: &str) -> Result<String> {
        let conf = format!(
            r#"{{"cniVersion":"1.0.0","name":"rt0","type":"bridge","ipam":{{"type":"host-local","dataDir":"{NETWORKS}",
               "ranges":[[{{"subnet":"10.8.64.0/24","gateway":"10.8.64.1"}}]]}}}}"#
        );
        // The plugin never looks at the namespace.
        let add = self.bridge.runner().command(HOST_LOCAL).env("CNI_COMMAND", "ADD").env("CNI_NETNS", "/none");
        let add = add.env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
        let answer: Value = serde_json::from_str(&add.input(&conf)?.run()?)?;
        let address = answer.pointer("/ips/0/address").and_then(Value::as_str).context("host-local gave nothing")?;
        Ok(address.to_owned())
    }

    /// A live sandbox with the address that host-local gave it.
    fn live(&self, name: &str) -> Result<(Sandbox, String)> {
        let address = self.host_local(name)?;
        let sandbox = self.bridge.sandbox(name).address(&address).start()?;
        Ok((sandbox, address.split('/').next().unwrap_or_default().to_owned()))
    }

    fn put(&self, file: &str, content: &str) -> Result<()> {
        self.bridge.runner().inside(|| Ok(fs::write(file, content)?))
    }
}

struct Plan(BTreeMap<String, Value>);

impl Plan {
    fn step(&self, row: &str) -> String {
        self.0.get(row).map(|row| text(row, "step")).unwrap_or_default()
    }

    fn reason(&self, row: &str) -> String {
        self.0.get(row).map(|row| text(row, "reason")).unwrap_or_default()
    }

    fn owner(&self, row: &str) -> String {
        self.0.get(row).map(|row| text(row, "owner")).unwrap_or_default()
    }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn said(output: &Output) -> Result<(i32, String)> {
    let code = output.status.code().context("killed")?;
    Ok((code, String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_pool_is_made_altered_listed_and_removed_by_hand() -> Result<()> {
    let lab = Lab::with_pool()?;
    lab.json(&["pool", "create", "--bridge", "rt0", "--subnet", "10.8.64.0/24", "--exclude", "10.8.64.2-10.8.64.9"])?;
    lab.json(&["pool", "create", "--bridge", "rt0", "--vlan", "7", "--subnet", "10.8.64.0/30", "--cooldown", "1h"])?;
    let lease = lab.json(&["lease", "allocate", "--offline", "--bridge", "rt0", "--owner", "web"])?;
    assert_eq!(text(&lease, "address"), "10.8.64.10", "what is excluded is not given");
    let pools = lab.json(&["pool", "list"])?;
    let of = |index: usize, name: &str| pools.get(index).and_then(|pool| pool.get(name)).cloned().unwrap_or_default();
    assert_eq!((of(0, "size"), of(0, "free"), of(0, "bound")), (245.into(), 244.into(), 1.into()));
    assert_eq!((of(0, "gateway"), of(0, "cooldown_ms")), ("10.8.64.1".into(), 600_000.into()), "kept when altered");
    assert_eq!((of(1, "vlan"), of(1, "size"), of(1, "cooldown_ms")), (7.into(), 2.into(), 3_600_000.into()));

    let remove = ["pool", "remove", "--bridge", "rt0", "--subnet", "10.8.64.0/24"];
    let (code, why) = lab.refused(&remove)?;
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("10.8.64.10 of web (generation 1, bound)"), "{why}");
    lab.command(&[&remove[..], &["--vlan", "7"]].concat()).output()?;
    let (code, why) = lab.refused(&["pool", "remove", "--bridge", "rt0", "--vlan", "7", "--subnet", "10.8.64.0/30"])?;
    assert_eq!(code, 0, "{why}");
    let (code, why) = lab.refused(&["pool", "remove", "--bridge", "rt0", "--vlan", "7", "--subnet", "10.8.64.0/30"])?;
    assert_eq!((code, why.contains("rt0.7 has no pool 10.8.64.0/30")), (2, true), "{why}");
    Ok(())
}

#[test]
fn a_pool_that_cannot_be_or_clashes_is_refused_with_the_reason() -> Result<()> {
    let lab = Lab::new()?;
    let refused = |args: &[&str], code: i32, words: &str| -> Result<()> {
        let (was, why) = lab.create(args)?;
        ensure!((was, why.contains(words)) == (code, true), "{args:?} ended with {was}: {why}");
        Ok(())
    };
    refused(&["--subnet", "10.8.64.1/24"], 2, "host bits set: the subnet is 10.8.64.0/24")?;
    refused(&["--subnet", "10.8.64.0/24", "--gateway", "10.8.65.1"], 2, "is not a host of 10.8.64.0/24")?;
    refused(&["--subnet", "10.8.64.0/24", "--gateway", "10.8.64.255"], 2, "is not a host of 10.8.64.0/24")?;
    refused(&["--subnet", "10.8.64.0/24", "--exclude", "10.8.65.0/24"], 2, "it is not all within it")?;
    refused(&["--subnet", "10.8.64.0/24", "--exclude", "10.8.64.0/24"], 2, "no address to give")?;
    refused(&["--subnet", "10.8.64.0/24", "--exclude", "9-5"], 2, "no range of addresses")?;
    refused(&["--subnet", "127.0.0.0/24"], 2, "no host can have an address")?;
    refused(&["--subnet", "10.8.64.0"], 2, "--subnet")?;
    let nothing_made = lab.refused(&["pool", "list"])?;
    assert_eq!(nothing_made.0, 1, "no database is made for a pool that cannot be: {}", nothing_made.1);

    lab.json(&["pool", "create", "--bridge", "rt0", "--subnet", "10.8.64.0/24", "--gateway", "10.8.64.1"])?;
    refused(&["--subnet", "10.8.64.128/25"], 1, "overlaps 10.8.64.0/24")?;
    refused(&["--subnet", "10.8.0.0/16"], 1, "overlaps 10.8.64.0/24")?;
    lab.json(&["lease", "allocate", "--offline", "--bridge", "rt0", "--owner", "web"])?;
    refused(&["--subnet", "10.8.64.0/24", "--exclude", "10.8.64.2"], 1, "web holds it")?;
    refused(&["--subnet", "10.8.64.0/24", "--gateway", "10.8.64.2"], 1, "web holds it")
}

#[test]
fn gateway_network_broadcast_and_what_is_excluded_are_never_given() -> Result<()> {
    let lab = Lab::new()?;
    let create = ["pool", "create", "--bridge", "rt0", "--subnet", "10.8.64.0/28", "--gateway", "10.8.64.1"];
    lab.json(&[&create[..], &["--exclude", "10.8.64.4-10.8.64.6", "--exclude", "10.8.64.14"]].concat())?;
    let allocate = ["lease", "allocate", "--offline", "--bridge", "rt0", "--owner"];
    let mut given = Vec::new();
    while let Ok(lease) = lab.json(&[&allocate[..], &[&format!("o{}", given.len())]].concat()) {
        given.push(text(&lease, "address"));
        ensure!(given.len() <= 16, "more given than there are: {given:?}");
    }
    let want = [2, 3, 7, 8, 9, 10, 11, 12, 13].map(|host| format!("10.8.64.{host}"));
    assert_eq!(given, want);
    let (code, why) = lab.refused(&[&allocate[..], &["more"]].concat())?;
    assert_eq!((code, why.contains("no address left")), (1, true), "{why}");
    for host in [0, 1, 5, 14, 15] {
        let address = format!("10.8.64.{host}");
        let (code, why) = lab.refused(&[&allocate[..], &["this", "--address", &address]].concat())?;
        assert_eq!((code, why.contains("no pool of rt0 gives")), (2, true), "{address}: {why}");
        let adopt = ["lease", "adopt", "--offline", "--bridge", "rt0", "--owner", "this", "--address", &address];
        let (code, why) = lab.refused(&adopt)?;
        assert_eq!(code, 2, "{address}: {why}");
    }
    Ok(())
}

#[test]
fn what_the_real_host_local_gave_to_live_sandboxes_is_taken_over_and_nothing_else() -> Result<()> {
    let lab = Lab::with_pool()?;
    let (_web, web) = lab.live("web")?;
    let (_db, db) = lab.live("db")?;
    let (gone, dead) = lab.live("gone")?;
    gone.remove()?;
    // A killed host-local has made the file and not written to it.
    lab.put(&format!("{BOOK}/10.8.64.77"), "")?;
    lab.put(&format!("{BOOK}/10.8.65.9"), "far\r\neth0")?;
    let (_other, other) = {
        let address = lab.host_local("somebody")?;
        (lab.bridge.sandbox("other").address(&address).start()?, address.replace("/24", ""))
    };
    let plan = lab.import_host_local(&[])?;
    assert_eq!((plan.step(&web), plan.owner(&web)), ("take over".into(), "web".into()));
    assert_eq!(lab.bound()?, [""; 0], "a plan changes nothing");

    let done = lab.import_host_local(&["--apply"])?;
    assert_eq!([&web, &db].map(|row| done.step(row)), ["taken over", "taken over"]);
    let left = [&dead, "10.8.64.77", "10.8.65.9", &other];
    assert_eq!(left.map(|row| done.step(row)), ["leave"; 4]);
    assert!(done.reason(&dead).contains("no sandbox has it"), "{}", done.reason(&dead));
    assert!(done.reason("10.8.64.77").contains("host-local was killed"), "{}", done.reason("10.8.64.77"));
    assert!(done.reason("10.8.65.9").contains("dupip pool create"), "{}", done.reason("10.8.65.9"));
    assert!(
        done.reason(&other).contains("the file says somebody, but it is alive in other"),
        "{}",
        done.reason(&other)
    );
    assert_eq!(done.0.len(), 6, "host-local's own notes are no rows: {:?}", done.0.keys());
    let bound = lab.bound()?;
    assert_eq!(bound, [format!("{web} web"), format!("{db} db")]);

    let again = lab.import_host_local(&["--apply"])?;
    assert_eq!([&web, &db].map(|row| again.step(row)), ["have", "have"]);
    assert_eq!(lab.bound()?, bound, "again changes nothing");
    let history = lab.json(&["lease", "history", "--offline", &web])?;
    assert_eq!(history.as_array().map(Vec::len), Some(1));
    let lease =
        lab.json(&["lease", "allocate", "--offline", "--bridge", "rt0", "--owner", "web", "--interface", "eth0"])?;
    assert_eq!(text(&lease, "address"), web, "the owner keeps its address");
    Ok(())
}

#[test]
fn an_operators_word_stands_for_the_dead_and_is_journaled_but_settles_no_duplicate() -> Result<()> {
    let lab = Lab::with_pool()?;
    let (gone, dead) = lab.live("gone")?;
    let (lost, known) = lab.live("lost")?;
    gone.remove()?;
    lost.remove()?;
    let (_first, twice) = lab.live("first")?;
    let _second = lab.bridge.sandbox("second").address(&format!("{twice}/24")).start()?;
    let word = format!("{known}=renamed");
    let one = lab.import_host_local(&["--owner", &word, "--apply"])?;
    assert_eq!((one.step(&known), one.owner(&known)), ("taken over".into(), "renamed".into()));
    assert_eq!(one.step(&dead), "leave");
    let all = lab.import_host_local(&["--trust", "--apply"])?;
    assert_eq!((all.step(&dead), all.owner(&dead)), ("taken over".into(), "gone".into()));
    assert_eq!(all.step(&twice), "leave");
    let reason = all.reason(&twice);
    assert!(
        ["alive in ", " and in ", "first (port veth", "second (port veth"].iter().all(|words| reason.contains(words)),
        "{reason}"
    );
    let history = lab.json(&["lease", "history", "--offline", &dead])?;
    let actor = history.get(0).map(|entry| text(entry, "actor")).unwrap_or_default();
    assert!(actor.starts_with("dupip for uid 0") && actor.ends_with("by an operator's word"), "{actor}");
    let unknown =
        lab.refused(&["lease", "import", "--from", "host-local", BOOK, "--bridge", "rt0", "--owner", "10.8.64.200=x"])?;
    assert_eq!((unknown.0, unknown.1.contains("10.8.64.200 is not in")), (2, true), "{}", unknown.1);
    Ok(())
}

#[test]
fn of_mirens_table_only_what_a_live_sandbox_has_is_taken_over_and_the_file_stays_as_it_is() -> Result<()> {
    let lab = Lab::with_pool()?;
    let _web = lab.bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let _twice = lab.bridge.duplicate(["reviewagent", "newsagent"], "10.8.64.3/24")?;
    let _released = lab.bridge.sandbox("late").address("10.8.64.5/24").start()?;
    let dir = tempfile::tempdir()?;
    let made = dir.path().join("net.db");
    // Left open: what was written last stands in the log beside the file only, as with a runner that works on.
    let conn = Connection::open(&made)?;
    conn.execute_batch(
        "PRAGMA journal_mode = wal;
         CREATE TABLE ips(ip TEXT PRIMARY KEY, subnet TEXT, reserved INTEGER, released_at INTEGER);
         INSERT INTO ips VALUES ('10.8.64.2', '10.8.64.0/24', 1, NULL), ('10.8.64.3', '10.8.64.0/24', 1, NULL),
             ('10.8.64.4', '10.8.64.0/24', 1, NULL), ('10.8.64.5', '10.8.64.0/24', 0, 1718182800),
             ('nonsense', '10.8.64.0/24', 1, NULL);",
    )?;
    let path = made.to_str().context("a path that is no text")?;
    let files =
        || -> Result<Vec<_>> { ["", "-wal"].iter().map(|part| Ok(fs::read(format!("{path}{part}"))?)).collect() };
    let before = files()?;
    let done = lab.import(&["--from", "miren", path, "--apply"])?;
    assert_eq!((done.step("10.8.64.2"), done.owner("10.8.64.2")), ("taken over".into(), "sportsagent".into()));
    for row in ["10.8.64.3", "10.8.64.4", "10.8.64.5", "nonsense"] {
        assert_eq!(done.step(row), "leave", "{row}");
    }
    let two = done.reason("10.8.64.3");
    assert!(two.contains("reviewagent") && two.contains("newsagent"), "{two}");
    assert!(done.reason("10.8.64.5").contains("given back"), "{}", done.reason("10.8.64.5"));
    assert_eq!(lab.bound()?, ["10.8.64.2 sportsagent"]);
    let again = lab.import(&["--from", "miren", path, "--apply"])?;
    assert_eq!(again.step("10.8.64.2"), "have");
    assert_eq!(files()?, before, "the runner's table and its log are as they were");
    let trust = lab.refused(&["lease", "import", "--from", "miren", path, "--bridge", "rt0", "--trust"])?;
    assert_eq!(trust.0, 2, "{}", trust.1);
    drop(conn);
    Ok(())
}

#[test]
fn while_an_agent_runs_its_own_database_is_imported_into() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.dupip.start(Mode::Observe)?;
    let (_web, web) = lab.live("web")?;
    let done = agent.dupip().ask(&["lease", "import", "--from", "host-local", BOOK, "--bridge", "rt0", "--apply"])?;
    assert_eq!(done.pointer("/rows/0/step").and_then(Value::as_str), Some("taken over"), "{done}");
    let leases = agent.leases()?;
    assert_eq!(leases.iter().map(|lease| text(lease, "address")).collect::<Vec<_>>(), [web]);
    let pools = agent.dupip().ask(&["pool", "list"])?;
    assert_eq!(pools.pointer("/0/bound"), Some(&1.into()), "{pools}");
    Ok(())
}
