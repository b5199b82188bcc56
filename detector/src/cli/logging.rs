//! How log lines look: for a terminal, for a file, and for the journal of systemd.

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
};

use clap::ValueEnum;
use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{JsonFields, Writer, format},
    },
    registry::LookupSpan,
};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people and journals
    Text,
    /// One object for each line
    Json,
}

/// What is logged, and how it looks.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// How much is logged: off, error, warn, info, debug or trace; or a level for each part, such as
    /// `info,detector::hooks=debug`
    #[arg(long = "log", value_name = "FILTER", env = "DUPIP_LOG", default_value = "info", value_parser = checked)]
    filter: String,
    /// How log lines look, on standard error
    #[arg(long, value_name = "FORMAT", env = "DUPIP_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// A filter, as `RUST_LOG` is one for other programs. A part without its level is refused: it would be a mistyped level,
/// and keep all of the log back.
fn checked(text: &str) -> Result<String, String> {
    let is_level = |word: &&str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
    let bare = text.split(',').filter(|part| !text.contains('[') && !part.contains('='));
    if let Some(word) = bare.into_iter().find(|word| !is_level(word)) {
        return Err(format!("`{word}` is no level; of a part of dupip, write it with one: {word}=debug"));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Log lines go to standard error.
pub(super) fn start(args: &LogArgs) {
    let LogArgs { filter, log_format } = args;
    let filter = EnvFilter::builder().with_default_directive(Level::INFO.into()).parse_lossy(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The journal keeps its own time and severity of each line.
    let plain = format().without_time().with_level(false).with_target(false).with_ansi(false);
    let objects = format().json().flatten_event(true).with_target(false);
    match (*log_format, is_journal()) {
        (LogFormat::Text, false) => log.with_ansi(has_colours()).with_target(false).init(),
        (LogFormat::Text, true) => log.with_ansi(false).event_format(ForJournal(plain)).init(),
        (LogFormat::Json, false) => log.event_format(objects).fmt_fields(JsonFields::new()).init(),
        (LogFormat::Json, true) => log.event_format(ForJournal(objects)).fmt_fields(JsonFields::new()).init(),
    }
}

/// What is told on standard error besides log lines, with a severity for the journal if that is who reads it.
pub(super) fn marked(level: Level, text: &str) -> String {
    if is_journal() { with_priorities(level, text) } else { text.to_owned() }
}

fn with_priorities(level: Level, text: &str) -> String {
    text.lines().map(|line| format!("<{}>{line}\n", priority(level))).collect()
}

fn has_colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard error leads to the journal: `JOURNAL_STREAM` is the device and inode of what does (systemd.exec(5)),
/// and is inherited by programs whose standard error leads elsewhere.
fn is_journal() -> bool {
    let named = env::var("JOURNAL_STREAM").ok().and_then(|stream| device_and_inode(&stream));
    named.is_some() && named == fstat(io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

fn device_and_inode(stream: &str) -> Option<(u64, u64)> {
    let (device, inode) = stream.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// The priority of syslog(3), as sd-daemon(3) has it at the beginning of a line.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Lines with their priority, one for each event: whoever is quoted in it cannot begin another.
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end().replace('\n', "\\n");
        writeln!(writer, "<{}>{line}", priority(*event.metadata().level()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, subscriber::with_default, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(events: impl FnOnce()) -> String {
        let page = Page::default();
        let plain = format().without_time().with_level(false).with_target(false).with_ansi(false);
        let to = page.clone();
        let log = tracing_subscriber::fmt().with_writer(move || to.clone()).event_format(ForJournal(plain)).finish();
        with_default(log, events);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_begins_with_its_priority_and_has_no_time() {
        let text = written(|| {
            warn!(event = "bridge_gone", "rt0 is gone");
            info!("all is well");
        });
        assert_eq!(text, "<4>rt0 is gone event=\"bridge_gone\"\n<6>all is well\n");
    }

    #[test]
    fn who_is_quoted_begins_no_line() {
        let text = written(|| info!("heard of {}", "a\n<0>the machine is on fire"));
        assert_eq!(text, "<6>heard of a\\n<0>the machine is on fire\n");
    }

    #[test]
    fn each_line_of_a_complaint_is_marked() {
        assert_eq!(with_priorities(Level::ERROR, "no bridge\ntry: another\n"), "<3>no bridge\n<3>try: another\n");
    }

    #[test]
    fn a_mistyped_level_is_no_filter() {
        for filter in
            ["", "info", "WARN", "off", "detector=debug", "info,detector::hooks=trace", "[probe{port=7}]=debug"]
        {
            assert_eq!(checked(filter), Ok(filter.to_owned()));
        }
        for (filter, want) in [
            ("wran", "`wran` is no level; of a part of dupip, write it with one: wran=debug"),
            ("info,detector", "`detector` is no level"),
            ("detector=loud", "error parsing level filter"),
        ] {
            let error = checked(filter).unwrap_err();
            assert!(error.contains(want), "{filter}: {error}");
        }
    }

    #[test]
    fn only_a_device_and_an_inode_name_a_stream() {
        assert_eq!(device_and_inode("8:12345"), Some((8, 12345)));
        assert!(["", "8", "8:", "8:x", ":1", "-8:1"].into_iter().all(|stream| device_and_inode(stream).is_none()));
    }
}
