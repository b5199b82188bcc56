//! A runner is a host of its own.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use lab::{Runner, Snapshot, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);

#[test]
fn it_starts_with_nothing_of_the_machine() -> Result<()> {
    let runner = Runner::new()?;
    assert_eq!(runner.run(["ls", "/sys/class/net"])?, "lo\n");
    assert_eq!(runner.run(["ip", "netns", "list"])?, "");
    assert_eq!(runner.run(["ls", "/run/lab"])?, "");
    let processes = runner.run(["sh", "-c", "cd /proc; echo [0-9]*"])?;
    assert_eq!(processes.split_whitespace().count(), 2, "the holder and the shell: {processes}");
    Ok(())
}

#[test]
fn what_is_on_it_is_not_on_the_machine() -> Result<()> {
    let runner = Runner::new()?;
    let bridge = runner.bridge("lab-isolation", "10.8.64.1/24")?;
    let sandbox = bridge.sandbox("isolated").address("10.8.64.2/24").start()?;
    let [machine, inside] = [Snapshot::take()?, runner.inside(Snapshot::take)?];
    let has = |snapshot: &Snapshot, link: &str| snapshot.links.iter().any(|one| one.ends_with(&format!(" {link}")));
    for link in [bridge.name(), sandbox.port()] {
        assert_eq!([has(&machine, link), has(&inside, link)], [false, true], "{link}");
    }
    assert_eq!([&machine, &inside].map(|snapshot| snapshot.netns.contains("isolated")), [false, true]);
    Ok(())
}

#[test]
fn two_stand_side_by_side_with_the_same_names_and_addresses() -> Result<()> {
    let runners = [Runner::new()?, Runner::new()?];
    let bridges = [runners[0].bridge("rt0", "10.8.64.1/24")?, runners[1].bridge("rt0", "10.8.64.1/24")?];
    for bridge in &bridges {
        let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
        assert_eq!(sandbox.ping(GATEWAY, 2)?.lost(), 0);
        assert_eq!(bridge.owners(Ipv4Addr::new(10, 8, 64, 2))?, [sandbox.mac()?].into());
    }
    assert_ne!(runners[0].netns()?, runners[1].netns()?);
    Ok(())
}

#[test]
fn a_command_that_fails_shows_itself_and_what_it_said() -> Result<()> {
    let runner = Runner::new()?;
    let error = runner.run(["ip", "link", "show", "dev", "nowhere"]).unwrap_err().to_string();
    assert!(error.contains("`ip link show dev nowhere` failed"), "{error}");
    assert!(error.contains("does not exist"), "{error}");
    let error = runner.run(["no-such-program"]).unwrap_err().to_string();
    assert!(error.contains("cannot start `no-such-program`: is the program installed?"), "{error}");
    Ok(())
}

#[test]
fn a_process_is_logged_and_killed_when_dropped() -> Result<()> {
    let runner = Runner::new()?;
    let mut process = runner.command("sh").args(["-c", "echo one; echo two >&2; sleep infinity"]).spawn()?;
    assert_eq!(process.wait_for_line("two", Duration::from_secs(5))?, "two");
    assert_eq!(process.log()?, "one\ntwo\n");
    let error = format!("{:#}", process.wait_for_line("three", Duration::from_millis(20)).unwrap_err());
    assert!(error.contains("in vain for a line with `three`") && error.contains("one\ntwo\n"), "{error}");
    let path = format!("/proc/{}", process.pid());
    assert!(fs::exists(&path)?);
    drop(process);
    assert!(!fs::exists(&path)?);
    Ok(())
}

#[test]
fn its_files_can_be_read_from_outside() -> Result<()> {
    let runner = Runner::new()?;
    let path = runner.dir().join("note");
    runner.inside(|| Ok(fs::write(&path, "hello")?))?;
    assert_eq!(fs::read_to_string(runner.outside(&path))?, "hello");
    assert!(!path.exists(), "{} is on the machine", path.display());
    Ok(())
}

#[test]
fn waiting_in_vain_tells_what_for() {
    let error = wait_until(Duration::from_millis(20), "rain", || Ok(None::<()>)).unwrap_err();
    assert_eq!(error.to_string(), "waited 20ms in vain for rain");
}
