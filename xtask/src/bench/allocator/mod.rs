//! `cargo xtask bench allocator`.

mod book;
mod cni;

use anyhow::Result;

use super::{
    Bench,
    report::{Column, Line, Ratio, Section, Target, Unit},
    samples::Samples,
};

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u8,
    /// Operations of each row in a round.
    operations: usize,
    /// Calls of a plugin in a round.
    calls: usize,
    quick: bool,
}

const COLUMNS: [Column; 5] = [
    Column { title: "HELD", key: "held", unit: Unit::Count },
    Column { title: "PROCESSES", key: "processes", unit: Unit::Count },
    Column { title: "MEDIAN", key: "median_us", unit: Unit::Micros },
    Column { title: "P99", key: "p99_us", unit: Unit::Micros },
    Column { title: "RATE", key: "per_second", unit: Unit::PerSecond },
];

/// What one has to know to read the table.
const NOTES: &str = "\
bare       one row of 100 bytes in one commit of SQLite with the same settings (WAL, synchronous FULL): the limit
allocate   one lease, one commit; reserve+bind is the same in two, with time in between to look at the wire
RATE       of all processes together, by the median round; RATIO is one of speeds, the median of the rounds' ratios
CNI ADD    from the start of the process to its end, without agent; dupip's is on disk by then, host-local's is not
";

/// Measures books and plugins.
///
/// # Errors
/// When a worker or a plugin fails.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let effort = Effort::new(bench.quick);
    let mut lines = book::lines(&bench.scratch, &bench.programs.allocator, effort)?;
    lines.extend(cni::lines(&bench.scratch, &bench.programs, effort)?);
    let about = vec![format!("{} rounds", effort.rounds)];
    Ok(vec![Section { name: "allocator", about, columns: &COLUMNS, lines, notes: NOTES }])
}

/// One line: what was done, with how many leases held, by how many processes at the same time.
fn line(what: String, held: Option<usize>, processes: usize, samples: &Samples) -> Line {
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer")]
    let count = |count: usize| count as f64;
    let cells = vec![held.map(count), Some(count(processes)), samples.median(), samples.p99(), samples.rate()];
    Line { what, cells, ..Line::default() }
}

impl Line {
    /// The line beside another, with what is to be reached.
    fn beside(self, ratio: Option<Ratio>, targets: impl IntoIterator<Item = Target>) -> Self {
        Self { ratios: ratio.into_iter().collect(), targets: targets.into_iter().collect(), ..self }
    }
}

impl Effort {
    const fn new(quick: bool) -> Self {
        let (rounds, operations, calls) = if quick { (3, 80, 12) } else { (7, 200, 25) };
        Self { rounds, operations, calls, quick }
    }
}
