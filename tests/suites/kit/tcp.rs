//! Conversations go on until something is wrong, and then say what.

use std::io::ErrorKind;

use anyhow::Result;
use lab::{Bridge, Conversation, Echo, Sandbox};

use super::{DEADLINE, rt0};

struct Talk {
    bridge: Bridge,
    server: Sandbox,
    client: Sandbox,
    echo: Echo,
}

impl Talk {
    fn new() -> Result<Self> {
        let bridge = rt0()?;
        let server = bridge.sandbox("server").address("10.8.64.2/24").start()?;
        let client = bridge.sandbox("client").address("10.8.64.3/24").start()?;
        let echo = server.echo(7)?;
        Ok(Self { bridge, server, client, echo })
    }

    fn converse(&self) -> Result<Conversation> {
        self.client.converse([10, 8, 64, 2].into(), 7)
    }
}

#[test]
fn messages_go_to_and_fro_and_nothing_is_said_twice() -> Result<()> {
    let lab = Talk::new()?;
    let talks = [lab.converse()?, lab.bridge.runner().converse([10, 8, 64, 2].into(), 7)?];
    talks.iter().try_for_each(|talk| talk.wait_for(50, DEADLINE))?;
    let peers: Vec<_> = lab.echo.peers().iter().map(|peer| peer.ip().to_string()).collect();
    assert_eq!(peers, ["10.8.64.3", "10.8.64.1"]);
    for again in [lab.server.done_again()?, lab.client.done_again()?, lab.bridge.runner().done_again()?] {
        assert_eq!((again.timeouts, again.segments), (0, 0));
    }
    assert!(talks.iter().all(|talk| talk.trouble().is_none()));
    Ok(())
}

#[test]
fn one_that_rests_goes_on_where_it_was() -> Result<()> {
    let lab = Talk::new()?;
    let talk = lab.converse()?;
    talk.wait_for(5, DEADLINE)?;
    talk.rest();
    // Nothing is under way that this could take long to say, and nothing new is said.
    assert!(talk.wait_for(1, std::time::Duration::from_millis(50)).is_err());
    talk.go_on();
    talk.wait_for(5, DEADLINE)
}

#[test]
fn a_wire_that_is_cut_for_a_while_is_a_time_out_and_no_more() -> Result<()> {
    let lab = Talk::new()?;
    let talk = lab.converse()?;
    talk.wait_for(5, DEADLINE)?;
    let before = lab.client.done_again()?;
    let set = |word| lab.bridge.runner().run(["bridge", "link", "set", "dev", lab.server.port(), "state", word]);
    set("0")?;
    lab::wait_until(
        DEADLINE,
        "a time-out",
        || Ok((lab.client.done_again()?.timeouts > before.timeouts).then_some(())),
    )?;
    set("3")?;
    talk.wait_for(5, DEADLINE)?;
    assert!(lab.client.done_again()?.segments > before.segments);
    Ok(())
}

#[test]
fn a_reset_and_a_destroyed_socket_are_told_apart() -> Result<()> {
    let lab = Talk::new()?;
    let [reset, destroyed] = [lab.converse()?, lab.converse()?];
    [&reset, &destroyed].into_iter().try_for_each(|talk| talk.wait_for(5, DEADLINE))?;
    let port = |at: usize| lab.echo.peers()[at].port().to_string();
    // Whoever destroys a socket resets its peer, if it has a way there.
    lab.server.run(["ss", "-K", "dport", "=", &port(0)])?;
    assert!(reset.wait_for(u64::MAX / 2, DEADLINE).is_err());
    lab.client.run(["ss", "-K", "sport", "=", &port(1)])?;
    assert!(destroyed.wait_for(u64::MAX / 2, DEADLINE).is_err());
    assert_eq!(
        [reset.trouble(), destroyed.trouble()],
        [Some(ErrorKind::ConnectionReset), Some(ErrorKind::ConnectionAborted)]
    );
    Ok(())
}
