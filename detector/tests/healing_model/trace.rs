//! What happened, line by line, for whoever has to find out why a life went wrong.

use std::{env, ffi::OsString, fmt::Write as _, fs, thread};

use detector::time::Timestamp;

/// How much of a line is written down.
const WIDTH: usize = 300;

/// Written to the file that `DUPIP_HEALING_TRACE` names when the life ends badly: of a failure that is being shrunk, the
/// last one is the shortest.
#[derive(Debug)]
pub(crate) struct Trace {
    file: Option<OsString>,
    lines: String,
}

impl Default for Trace {
    fn default() -> Self {
        Self { file: env::var_os("DUPIP_HEALING_TRACE"), lines: String::new() }
    }
}

impl Trace {
    pub(crate) fn note(&mut self, now: Timestamp, line: impl FnOnce() -> String) {
        if self.file.is_some() {
            let line: String = line().chars().take(WIDTH).collect();
            let _fits = writeln!(self.lines, "{:12.6} {line}", now.since(Timestamp::default()).as_secs_f64());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| thread::panicking()) {
            let _written = fs::write(file, &self.lines);
        }
    }
}
