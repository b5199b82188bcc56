//! `cargo xtask bench scale`.

mod crowd;
mod idle;
mod newcomers;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Bench,
    cpu::Resident,
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};
use crowd::{BINDINGS, Crowd};

/// How many ports the bridges have; what is more is compared with the first.
const PORTS: [usize; 3] = [10, 100, 1000];

/// How often each agent is started, how many new ports there are, and how long nothing happens.
const STARTS: usize = 5;
const NEW_PORTS: usize = 100;
const IDLE: Duration = Duration::from_secs(60);
const STARTS_QUICK: usize = 2;
const NEW_PORTS_QUICK: usize = 20;
const IDLE_QUICK: Duration = Duration::from_secs(20);
const ANSWERS: usize = 5;

/// A station that is known only from the wire is asked when it was silent for so long: what an agent takes while nothing
/// happens it takes from then on.
const SILENCE: Duration = Duration::from_secs(65);

/// What is to be reached.
const READY_AT_100: f64 = 1_000_000.0;
const READY_AT_1000: f64 = 5_000_000.0;
const IDLE_AT_1000: f64 = 0.5;
const MEMORY: f64 = 64.0;
const WATCHED: f64 = 5_000.0;

const MEBIBYTE: f64 = 1_048_576.0;

const COLUMNS: [Column; 11] = [
    Column { title: "READY", key: "ready_p50_us", unit: Unit::Micros },
    Column { title: "MAX", key: "ready_max_us", unit: Unit::Micros },
    Column { title: "MEMORY", key: "memory_mib", unit: Unit::Mebibytes },
    Column { title: "IDLE", key: "idle_percent", unit: Unit::Percent },
    Column { title: "NEW PORT", key: "new_port_p50_us", unit: Unit::Micros },
    Column { title: "P99", key: "new_port_p99_us", unit: Unit::Micros },
    Column { title: "TABLE", key: "table_p50_us", unit: Unit::Micros },
    Column { title: "SIZE", key: "table_mib", unit: Unit::Mebibytes },
    Column { title: "METRICS", key: "metrics_p50_us", unit: Unit::Micros },
    Column { title: "BYTES", key: "metrics_bytes", unit: Unit::Count },
    Column { title: "BINDINGS", key: "bindings", unit: Unit::Count },
];

/// What one has to know to read the table.
const NOTES: &str = "\
READY is from spawning the agent to its word that it is ready, with every port watched and every sandbox looked at. IDLE is
of one core, after a minute of silence; what asking for every address costs, every five minutes, is not in it. NEW PORT is from the kernel's notice of a port to the first word at it that is heard, at the latest. TABLE is
dupip table -o json as a process of its own. RATIO is what one port costs, beside what one of 10 costs.
";

/// One agent's figures.
struct Measured {
    ports: usize,
    ready: Samples,
    memory: f64,
    idle: f64,
    watched: Samples,
    table: (Samples, usize),
    metrics: (Samples, usize),
}

/// Gathers crowds, has them talk, and looks at what that costs their agents.
///
/// # Errors
/// When a lab cannot be made, or an agent fails.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let (starts, new_ports, idle) =
        if bench.quick { (STARTS_QUICK, NEW_PORTS_QUICK, IDLE_QUICK) } else { (STARTS, NEW_PORTS, IDLE) };
    // The largest takes longest to make; until then the others would already be asking for everybody, every five minutes.
    let gathered = PORTS.iter().rev().map(|ports| Crowd::gather(bench, *ports, starts)).collect::<Result<Vec<_>>>()?;
    let mut crowds: Vec<_> = gathered.into_iter().rev().collect();
    crowds.iter_mut().try_for_each(|crowd| crowd.fill(bench))?;
    let filled = Instant::now();
    let asked = crowds.iter_mut().map(|crowd| ask(bench, crowd, new_ports)).collect::<Result<Vec<_>>>()?;
    while filled.elapsed() < SILENCE {
        bench.scratch.go_on()?;
        sleep(Duration::from_millis(200));
    }
    eprintln!("bench: {} s in which nothing happens", idle.as_secs());
    let idles = idle::measure(bench, &crowds, idle)?;
    let mut measured = Vec::new();
    for ((crowd, idle), (watched, table, metrics)) in crowds.into_iter().zip(idles).zip(asked) {
        #[expect(clippy::cast_precision_loss, reason = "no memory has 2^52 bytes")]
        let memory = Resident::of(crowd.agent.pid())?.now as f64 / MEBIBYTE;
        measured.push(Measured {
            ports: crowd.ports,
            ready: crowd.ready,
            memory,
            idle: 100.0 * idle,
            watched,
            table,
            metrics,
        });
    }
    let about = vec![
        format!(
            "{BINDINGS} bindings: an address of its own for each sandbox, the others claimed once by ARP and answered for"
        ),
        format!(
            "{starts} starts, {new_ports} new ports (20, plugged in turn), {} s idle, medians of {ANSWERS} answers",
            idle.as_secs()
        ),
    ];
    Ok(vec![Section { name: "scale", about, columns: &COLUMNS, lines: lines(&measured), notes: NOTES }])
}

type Answers = (Samples, usize);

fn ask(bench: &Bench, crowd: &mut Crowd, new_ports: usize) -> Result<(Samples, Answers, Answers)> {
    let (table, metrics) = (crowd.table(ANSWERS)?, crowd.metrics(ANSWERS)?);
    Ok((newcomers::measure(bench, crowd, new_ports)?, table, metrics))
}

fn lines(measured: &[Measured]) -> Vec<Line> {
    let line = |this: &Measured| Line {
        what: format!("{} ports", this.ports),
        cells: cells(this),
        ratios: measured
            .first()
            .filter(|first| first.ports < this.ports)
            .map(|first| ratios(this, first))
            .unwrap_or_default(),
        targets: targets(this),
    };
    measured.iter().map(line).collect()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of an answer are far fewer than 2^52")]
fn cells(this: &Measured) -> Vec<Option<f64>> {
    vec![
        this.ready.median(),
        this.ready.max(),
        Some(this.memory),
        Some(this.idle),
        this.watched.median(),
        this.watched.p99(),
        this.table.0.median(),
        Some(this.table.1 as f64 / MEBIBYTE),
        this.metrics.0.median(),
        Some(this.metrics.1 as f64),
        Some(BINDINGS as f64),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a bridge has a thousand ports at most")]
fn ratios(this: &Measured, first: &Measured) -> Vec<Ratio> {
    let per_port = |figure: &dyn Fn(&Measured) -> Option<f64>, of| {
        let (this, first) = (figure(this)? / this.ports as f64, figure(first)? / first.ports as f64);
        (first > 0.0).then_some(Ratio { times: this / first, of })
    };
    let ratios = [
        per_port(&|at| at.ready.median(), "ready"),
        per_port(&|at| Some(at.memory), "memory"),
        per_port(&|at| Some(at.idle), "idle"),
    ];
    ratios.into_iter().flatten().collect()
}

fn targets(this: &Measured) -> Vec<Target> {
    let target = |name, measured: Option<f64>, unit, wanted| {
        Some(Target { name, measured: measured?, unit: Some(unit), wanted })
    };
    let ready = match this.ports {
        100 => Some(READY_AT_100),
        1000 => Some(READY_AT_1000),
        _ => None,
    };
    let ready = ready.and_then(|bound| target("ready", this.ready.max(), Unit::Micros, Wanted::Below(bound)));
    let idle = target("idle", Some(this.idle), Unit::Percent, Wanted::Below(IDLE_AT_1000));
    let memory = target("memory", Some(this.memory), Unit::Mebibytes, Wanted::Below(MEMORY));
    let watched = target("new port p99", this.watched.p99(), Unit::Micros, Wanted::AtMost(WATCHED));
    ready.into_iter().chain(idle.filter(|_| this.ports == 1000)).chain(memory).chain(watched).collect()
}
