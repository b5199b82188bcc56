//! `dupip pause`: for maintenance, nothing new is done for a while, and everything is told.

use std::{path::Path, time::Duration};

use super::{
    ask,
    exit::{Exit, Failure, note},
    render::{Format, Output, json, print},
    run::span,
    small_runtime,
};
use crate::{
    http::{
        Client, LONGEST_PAUSE,
        api::{Pause, Paused},
    },
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip pause 10m       for ten minutes: duplicates are told of, nobody is contained or moved
  dupip pause           is it paused, and until when
  dupip pause --end     go on at once

What is under way is finished, and what is in quarantine stays there. A pause ends by itself, lasts at
most 24h, and goes on if the agent is restarted meanwhile. What was found meanwhile is dealt with at its
end. To pause or to go on needs root, or group dupip.";

/// Have the agent do nothing new for a while, or go on; without a time, say whether it is paused
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How long, such as 10m, at most 24h; in place of what is left of a pause that is on
    #[arg(value_name = "TIME", value_parser = pause, conflicts_with = "end")]
    time: Option<Span>,
    /// Go on at once
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    format: Format,
}

fn pause(text: &str) -> Result<Span, String> {
    match span(text)? {
        Span::ZERO => Err("that is no time at all; to go on: dupip pause --end".to_owned()),
        longer if longer > LONGEST_PAUSE => Err("a pause lasts at most 24h, so that nobody forgets it".to_owned()),
        time => Ok(time),
    }
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let client = Client::new(socket);
        let paused: Paused = match self.change() {
            Some(change) => small_runtime()?.block_on(client.change("/api/v1/pause", &change))?,
            None => ask(&client, "/api/v1/pause")?,
        };
        if let Some(why) = &paused.lost_with_agent {
            note(format_args!("an agent that is started anew will not know of this: {why}"));
        }
        print(show(&paused, self.format.output)?)?;
        Ok(Exit::Fine)
    }

    fn change(&self) -> Option<Pause> {
        match self.time {
            Some(time) => Some(Pause { for_ms: Some(time.as_nanos() / 1_000_000), end: false }),
            None => self.end.then(|| Pause { for_ms: None, end: true }),
        }
    }
}

fn show(paused: &Paused, output: Output) -> Result<String, Failure> {
    match (output, &paused.until, paused.left_ms) {
        (Output::Json, ..) => json(paused),
        (_, Some(until), left) => {
            // To the second, as nobody has measured anything.
            let left = Duration::from_secs(left.unwrap_or_default().div_ceil(1000));
            let left = humantime::format_duration(left);
            Ok(format!("paused until {until} ({left} from now): duplicates are told of, and nothing new is done\n"))
        }
        (_, None, _) => Ok("not paused\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        pause: Args,
    }

    fn change(flags: &[&str]) -> Result<Option<Pause>, String> {
        let flags = Flags::try_parse_from([&["pause"], flags].concat()).map_err(|error| error.to_string())?;
        Ok(flags.pause.change())
    }

    #[test]
    fn it_is_asked_for_a_pause_its_end_or_nothing_but_how_it_stands() {
        assert_eq!(change(&["10m"]), Ok(Some(Pause { for_ms: Some(600_000), end: false })));
        assert_eq!(change(&["24h"]).unwrap().unwrap().for_ms, Some(86_400_000));
        assert_eq!(change(&["--end"]), Ok(Some(Pause { for_ms: None, end: true })));
        assert_eq!(change(&[]), Ok(None));
        for (flags, reason) in [
            (&["25h"][..], "a pause lasts at most 24h"),
            (&["0s"], "to go on: dupip pause --end"),
            (&["soon"], "invalid value 'soon' for '[TIME]'"),
            (&["10m", "--end"], "cannot be used with"),
        ] {
            let error = change(flags).unwrap_err();
            assert!(error.contains(reason), "{flags:?}: {error}");
        }
    }

    #[test]
    fn a_person_sees_until_when() {
        let until = Some("2026-06-12T09:10:00.000Z".to_owned());
        let paused = Paused { paused: true, until, left_ms: Some(61_001), lost_with_agent: None };
        let want =
            "paused until 2026-06-12T09:10:00.000Z (1m 2s from now): duplicates are told of, and nothing new is done\n";
        assert_eq!(show(&paused, Output::Table).unwrap(), want);
        let on = Paused { paused: false, until: None, left_ms: None, lost_with_agent: None };
        assert_eq!(show(&on, Output::Wide).unwrap(), "not paused\n");
        let json: serde_json::Value = serde_json::from_str(&show(&on, Output::Json).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"paused": false, "until": null, "left_ms": null}));
    }
}
