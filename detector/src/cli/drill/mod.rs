//! `dupip drill`: a duplicate planted on purpose, and what the agent does about it.

mod course;
mod planted;
mod report;

use std::{path::Path, time::Duration};

use super::{
    exit::{Exit, Failure, note},
    render::{Format, print},
    run::span,
    small_runtime,
};
use crate::{
    http::{Client, api::About},
    net::BridgeName,
    time::Span,
};
use course::Course;
use planted::{Lock, clear_away};
use report::Report;

const EXAMPLES: &str = "\
Examples:
  dupip drill --bridge rt0                  what the agent does about a duplicate, and how long it takes
  dupip drill --bridge rt0 -o json | jq .steps
  dupip drill --bridge rt0 --timeout 30s    on a runner that has much else to do

Two sandboxes with nothing in them, dupip-drill-a and dupip-drill-b, get one address that the
allocator sets aside for the first of them: nobody else's. The agent must name both, contain the
second, move it to an address of its own and leave the first as it is. Afterwards everything is
removed and both leases are given back, also after Ctrl-C; what a drill leaves that is killed, the
next one removes. It takes root and a running agent; a mode of observe has only the naming tested.

It is a real incident: duplicate_ip_total counts it, the alert fires, hooks are called, and it uses
one of the evictions that are allowed within a minute.

Exit codes: 0 every step was done, 1 one was not, and which, 3 no agent, 4 not permitted.";

/// Plant a harmless duplicate and see it named, contained and healed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The bridge to plant it on
    #[arg(long, value_name = "NAME")]
    bridge: BridgeName,
    /// How long the agent may take to see the first sandbox, and then to heal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    timeout: Span,
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let report = small_runtime()?.block_on(self.drill(socket))?;
        print(report.show(&self.format)?)?;
        report.end()
    }

    async fn drill(&self, socket: &Path) -> Result<Report, Failure> {
        let client = Client::new(socket);
        let about: About = client.ask("/api/v1/about").await?;
        self.check(&about)?;
        let _lock = Lock::take()?;
        for left in clear_away(&client).await? {
            note(format_args!("an earlier drill had left {left}: removed"));
        }
        let mut course = Course::new(&client, socket, self.bridge, Duration::from(self.timeout), about.mode)?;
        let ran = course.run().await;
        let removed = course.end().await;
        let report = ran?;
        removed.map(|()| report)
    }

    /// Whether the agent watches the bridge, and knows already who is there.
    fn check(&self, About { bridges, waits_for, .. }: &About) -> Result<(), Failure> {
        if !bridges.iter().any(|watched| watched == self.bridge.as_str()) {
            let what = format!("the agent does not watch {}, only {}", self.bridge, bridges.join(", "));
            return Err(Failure::new(Exit::Usage, what));
        }
        if !waits_for.is_empty() {
            let what = format!("the agent is not ready: it waits for {}", waits_for.join(" and "));
            return Err(Failure::new(Exit::Unreachable, what).hint("dupip doctor, and again when it is ready"));
        }
        Ok(())
    }
}
