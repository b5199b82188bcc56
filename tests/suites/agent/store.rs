//! A store that cannot be reached, or not be written: dupip sees and tells all the same, moves nobody and gives nothing
//! away, and goes on when it can (scenario 39).

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, Bridge, Dupip, Mode, Runner, Sandbox, wait_until};
use serde_json::json;

use super::{DEADLINE, closed, field, text};

/// A file system of its own, so that it can be filled up or made read-only.
const DISK: &str = "/run/store";
const DATABASE: &str = "/run/store/leases.db";
const DEGRADED: &str = "dupip_degraded{feature=\"store\"}";

fn runner() -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    bridge.runner().run(["mkdir", DISK])?;
    bridge.runner().run(["mount", "-t", "tmpfs", "-o", "size=1m", "store", DISK])?;
    let dupip = Dupip::on(&bridge)?.keeping(DATABASE);
    Ok((bridge, dupip))
}

fn fill(bridge: &Bridge) -> Result<()> {
    let full = bridge.runner().command("dd").args(["if=/dev/zero", "of=/run/store/ballast", "bs=4096"]).output()?;
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    ensure!(said.contains("No space left"), "{said}");
    Ok(())
}

fn make_room(bridge: &Bridge) -> Result<()> {
    bridge.runner().run(["rm", "/run/store/ballast"]).map(drop)
}

/// Waits until two are named, and shows that it is all that happens: it is counted and told that the store is missed,
/// nothing is handed out, and each is where it was.
fn assert_only_told(agent: &mut Agent, sandboxes: [&Sandbox; 2]) -> Result<()> {
    let incident = agent.wait_until(DEADLINE, "the duplicate to be named", |agent| {
        let incident = agent.conflicts()?.into_iter().find(|incident| text(incident, "status") == "open");
        Ok(incident.filter(|_| agent.metric(DEGRADED).is_ok_and(|degraded| degraded == Some(1.0))))
    })?;
    let parties = field(&incident, "parties").as_array().context("no parties")?;
    let mut names: Vec<_> = parties.iter().map(|party| text(party, "sandbox")).collect();
    names.sort_unstable();
    assert_eq!(names, sandboxes.map(Sandbox::name));
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(1.0));
    assert_eq!(agent.http("/readyz")?.0, 200);
    let given = agent.dupip().outcome(&["lease", "allocate", "--bridge", "rt0", "--owner", "x"])?;
    assert!(given.status != Some(0) && given.complaint.contains("lease database"), "{given:?}");
    for sandbox in sandboxes {
        assert_eq!(sandbox.addresses()?, ["10.8.64.2/24"], "{}", sandbox.name());
    }
    Ok(())
}

fn assert_restored(agent: &mut Agent) -> Result<()> {
    agent.wait_until(
        DEADLINE,
        "the store to work",
        |agent| Ok((agent.metric(DEGRADED)? == Some(0.0)).then_some(())),
    )?;
    let kinds = |kind: &str| -> Result<usize> {
        let events = agent.dupip().say(&["events", "--kind", kind, "-o", "json"])?;
        Ok(events.lines().filter(|line| line.contains("\"store\"")).count())
    };
    assert!(kinds("degraded")? > 0 && kinds("restored")? > 0, "{}", agent.log()?);
    Ok(())
}

/// The bridge with a lease for one of two that have the address.
fn with_holder() -> Result<(Bridge, Dupip, [Sandbox; 2])> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let sandboxes = bridge.duplicate(["holder", "orphan"], "10.8.64.2/24")?;
    Ok((bridge, dupip, sandboxes))
}

fn assert_healed(agent: &mut Agent, [holder, orphan]: [&Sandbox; 2]) -> Result<()> {
    closed(agent, "healed")?;
    assert_restored(agent)?;
    assert_eq!(
        (holder.addresses()?, orphan.addresses()?),
        (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.3/24".to_owned()])
    );
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(1.0), "it is the same incident");
    Ok(())
}

#[test]
fn with_no_directory_for_the_store_a_duplicate_is_told_and_healed_when_there_is_one() -> Result<()> {
    let (bridge, dupip, [holder, orphan]) = with_holder()?;
    let runner = bridge.runner();
    runner.run(["sh", "-c", "mkdir /run/aside && mv /run/store/* /run/aside && umount /run/store"])?;
    runner.run(["sh", "-c", "rmdir /run/store && echo no directory > /run/store"])?;
    let mut agent = dupip.start(Mode::Enforce)?;
    assert_only_told(&mut agent, [&holder, &orphan])?;
    let table = agent.table()?;
    assert_eq!(table.iter().filter(|row| text(row, "state") == "duplicate").count(), 2);
    assert!(table.iter().all(|row| field(row, "lease_known") == &json!(false)), "{table:?}");
    let given = dupip.outcome(&["lease", "allocate", "--bridge", "rt0", "--owner", "x"])?;
    assert!(given.status == Some(3) && given.complaint.contains("tried again and again"), "{given:?}");
    let shown = dupip.outcome(&["table"])?;
    assert!(shown.status == Some(0) && shown.complaint.contains("cannot read the lease database"), "{shown:?}");
    runner.run(["sh", "-c", "rm /run/store && mv /run/aside /run/store"])?;
    assert_healed(&mut agent, [&holder, &orphan])?;
    assert!(agent.table()?.iter().all(|row| field(row, "lease_known") == &json!(true)));
    Ok(())
}

#[test]
fn a_store_that_can_only_be_read_at_the_start_is_written_as_soon_as_it_can_be() -> Result<()> {
    let (bridge, dupip, [holder, orphan]) = with_holder()?;
    bridge.runner().run(["mount", "-o", "remount,ro", DISK])?;
    let mut agent = dupip.start(Mode::Enforce)?;
    assert_only_told(&mut agent, [&holder, &orphan])?;
    bridge.runner().run(["mount", "-o", "remount,rw", DISK])?;
    assert_healed(&mut agent, [&holder, &orphan])
}

#[test]
fn a_disk_that_is_full_at_the_start_is_used_when_it_has_room() -> Result<()> {
    let (bridge, dupip, [holder, orphan]) = with_holder()?;
    fill(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    assert_only_told(&mut agent, [&holder, &orphan])?;
    make_room(&bridge)?;
    assert_healed(&mut agent, [&holder, &orphan])
}

/// A first start, with nothing to open yet: whoever was there is written down when it can be, and then may stay.
#[test]
fn a_book_that_cannot_be_begun_for_want_of_room_is_begun_later_with_all_that_is_due() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let first = bridge.sandbox("first").address("10.8.64.2/24").start()?;
    let other = bridge.sandbox("other").address("10.8.64.9/24").start()?;
    fill(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let second = bridge.sandbox("second").address("10.8.64.2/24").start()?;
    assert_only_told(&mut agent, [&first, &second])?;
    make_room(&bridge)?;
    let adopted = agent.wait_until(DEADLINE, "who was there to be adopted", |agent| {
        Ok(agent.leases().unwrap_or_default().into_iter().find(|lease| text(lease, "owner") == "other"))
    })?;
    assert_eq!((text(&adopted, "address"), other.addresses()?), ("10.8.64.9", vec!["10.8.64.9/24".to_owned()]));
    assert_restored(&mut agent)?;
    assert_eq!(second.addresses()?, ["10.8.64.2/24"], "nobody has a right to it yet");
    agent.dupip().ask(&["lease", "adopt", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "first"])?;
    closed(&mut agent, "healed")?;
    assert_eq!(
        (first.addresses()?, second.addresses()?),
        (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.3/24".to_owned()])
    );
    Ok(())
}

#[test]
fn a_disk_that_fills_up_while_the_agent_runs_keeps_everybody_where_they_are_until_it_has_room() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    agent.wait_until(DEADLINE, "the holder to be adopted", |agent| Ok(agent.leases()?.into_iter().next()))?;
    assert_eq!(agent.metric(DEGRADED)?, Some(0.0));
    fill(&bridge)?;
    let orphan = bridge.sandbox("orphan").address("10.8.64.2/24").start()?;
    assert_only_told(&mut agent, [&holder, &orphan])?;
    assert!(agent.table()?.iter().any(|row| field(row, "lease").is_object()), "it can still be read");
    make_room(&bridge)?;
    assert_healed(&mut agent, [&holder, &orphan])
}

/// Another process that has the write lock for long, of a book without the bridge's pool: the loop does not wait for it.
#[test]
fn another_process_that_keeps_the_store_to_itself_blinds_nobody() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let other = ["lease", "allocate", "--offline", "--database", DATABASE, "--bridge", "br9", "--owner", "x"];
    dupip.command(other).args(["--pool", "10.9.0.0/24", "--gateway", "10.9.0.1"]).run()?;
    let book = bridge.runner().inside(|| {
        let book = rusqlite::Connection::open(DATABASE)?;
        book.execute_batch("BEGIN IMMEDIATE")?;
        Ok(book)
    })?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let [a, b] = bridge.duplicate(["a", "b"], "10.8.64.2/24")?;
    agent.wait_until(DEADLINE, "the duplicate", |agent| Ok(agent.conflicts()?.into_iter().next()))?;
    for sandbox in [&a, &b] {
        assert_eq!(sandbox.addresses()?, ["10.8.64.2/24"]);
    }
    bridge.runner().inside(|| {
        drop(book);
        Ok(())
    })?;
    agent.wait_until(DEADLINE, "the pool to be kept", |agent| {
        Ok(agent.metric("dupip_pool_size{pool=\"rt0\"}")?.filter(|size| *size > 0.0))
    })?;
    Ok(())
}

/// Scenario 48.
#[test]
fn a_damaged_store_is_refused_at_the_start_and_left_as_it_is() -> Result<()> {
    let (bridge, dupip) = runner()?;
    bridge.runner().run(["sh", "-c", "echo no database at all > /run/store/leases.db"])?;
    let mut agent = dupip.spawn(Mode::Enforce, &[])?;
    agent.wait_for_line("is damaged", DEADLINE)?;
    let left = bridge.runner().run(["cat", DATABASE])?;
    assert_eq!(left.trim(), "no database at all");
    let run = ["run", "--bridge", "rt0", "--database", DATABASE, "--listen", "none"];
    let refused = wait_until(DEADLINE, "the agent to have ended", || {
        let refused = dupip.outcome(&run)?;
        Ok((!refused.complaint.contains("another agent")).then_some(refused))
    })?;
    assert_eq!((refused.status, refused.complaint.contains("is damaged")), (Some(1), true), "{refused:?}");
    Ok(())
}
