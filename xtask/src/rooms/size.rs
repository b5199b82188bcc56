//! Rule "size": a file that can be read in one sitting.

use std::path::Path;

use super::{Violation, source::Source};

/// Lines without tests that a file may have.
const LONGEST: usize = 500;

/// Lines that the agent's `main.rs` may have: parse, run, exit code.
const LONGEST_MAIN: usize = 59;

/// A file that is all tests may be longer.
pub(super) fn check(source: &Source) -> Option<Violation> {
    source.code().next()?;
    let most = if source.file == Path::new("detector/src/main.rs") { LONGEST_MAIN } else { LONGEST };
    let lines = source.lines.saturating_sub(test_lines(source));
    let what = format!("{lines} lines without tests, where {most} are allowed");
    (lines > most).then(|| source.violation(1, "size", what, "split it along what it knows"))
}

/// Lines of items for tests only. Pieces inside a test module lie within its own lines, so the outermost are counted.
fn test_lines(source: &Source) -> usize {
    let mut counted = 0;
    let mut last = 0;
    for (start, end) in source.pieces.iter().filter(|piece| piece.is_test).map(|piece| piece.lines) {
        if start > last {
            counted += end - start + 1;
            last = end;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize, after: &str) -> String {
        format!("fn f() {{}}\n{}{after}", "// line\n".repeat(count - 1))
    }

    #[test]
    fn tests_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n    fn a() {}\n    fn b() {}\n}\n";
        assert_eq!(check(&Source::snippet("net/mod.rs", &lines(500, tests))), None);
        assert_eq!(test_lines(&Source::snippet("net/mod.rs", tests)), 5);
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(check(&Source::snippet("net/mod.rs", &lines(501, ""))).is_some());
        assert!(check(&Source::snippet("main.rs", &lines(60, ""))).is_some());
        assert_eq!(check(&Source::snippet("main.rs", &lines(59, ""))), None);
    }
}
