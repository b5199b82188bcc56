//! Makes a lab, says what it consists of, and then waits to be killed (`doomed wait`) or leaves the lab behind
//! (`doomed keep`).

use std::{env, thread};

use anyhow::Result;
use lab::Runner;

fn main() -> Result<()> {
    let runner = Runner::new()?;
    let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
    let named = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let anonymous = bridge.sandbox("reviewagent").cgroup("pod/container").address("10.8.64.3/24").start()?;
    let _tap = bridge.tap("vm1")?;
    let sealed = bridge.sealed(&["10.8.64.5/24"])?;
    let _process = runner.command("sleep").arg("infinity").spawn()?;
    let namespaces =
        [runner.netns()?, named.netns()?, anonymous.netns()?, sealed.netns()?].map(|namespace| namespace.0);
    let facts = serde_json::json!([runner.holder(), namespaces]);
    if env::args().nth(1).as_deref() == Some("keep") {
        runner.keep()?;
        println!("{facts}");
        return Ok(());
    }
    println!("{facts}");
    loop {
        thread::park();
    }
}
