//! The lines that dupip logs: every event by its name, which is a contract with whoever filters by it.
//!
//! A name that is not here is nowhere: a test reads every source for its log lines. `packaging/events.md` says the same to
//! operators, and a test holds the two together.

use tracing::Level;

use super::event::Kind;

/// One sort of log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The event's name, in the field `event`.
    pub name: &'static str,
    /// At which level.
    pub level: Level,
    /// What it may have besides time, level, event and message.
    pub fields: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// What a line has that stands for several.
pub const REPEATED: [&str; 2] = ["repeats", "within_s"];

/// The line of a kind of event.
const fn of(kind: Kind, fields: &'static [&'static str], meaning: &'static str, remedy: &'static str) -> Line {
    line(kind.as_str(), kind.level(), fields, meaning, remedy)
}

const fn line(
    name: &'static str,
    level: Level,
    fields: &'static [&'static str],
    meaning: &'static str,
    remedy: &'static str,
) -> Line {
    Line { name, level, fields, meaning, remedy }
}

/// Every line: first those of [`Kind`], which the event log has too, then the others by name.
#[rustfmt::skip]
pub const LINES: [Line; 84] = [
    of(Kind::Duplicate, &["incident", "domain", "address", "port", "ifindex", "mac", "reason", "after_us"], "An address has two live owners. The message names both; `reason` is what showed it first, `after_us` how long after the first contradiction it had a name.", "`dupip explain INCIDENT`; say whose the address is with `dupip lease adopt` if nobody has a right to it"),
    of(Kind::Reopened, &["incident", "domain", "address", "port", "ifindex", "mac", "count"], "A duplicate that had ended is back, for the time in `count`.", "`dupip explain INCIDENT`; find out who gives the address out again"),
    of(Kind::PartyJoined, &["incident", "domain", "address", "port", "ifindex", "mac"], "One more party claims a contested address.", "`dupip explain INCIDENT`"),
    of(Kind::AddressJoined, &["incident", "domain", "address", "port", "ifindex", "mac"], "The same parties contest one more address.", "`dupip explain INCIDENT`; somebody may claim what all others have"),
    of(Kind::Continues, &["incident", "domain", "address", "port", "ifindex", "mac", "count"], "A duplicate goes on, after `count` claims.", "`dupip conflicts --plan` says what stands in the way"),
    of(Kind::Judged, &["incident", "domain", "address", "port", "ifindex", "mac", "reason"], "It is decided who keeps the address and why, or that this cannot be decided.", "nothing; if it cannot be decided, `dupip lease adopt`"),
    of(Kind::Held, &["incident", "domain", "address", "reason"], "A duplicate is not being healed, for this reason.", "`dupip conflicts --plan` says what to do about it"),
    of(Kind::EvictionStep, &["incident", "domain", "address", "port", "ifindex", "mac", "step"], "A step of an eviction is done.", "nothing"),
    of(Kind::EvictionFailed, &["incident", "domain", "address", "port", "ifindex", "mac", "step", "reason"], "A step of an eviction failed and is tried again.", "nothing yet; if `given_up` follows, `dupip explain INCIDENT`"),
    of(Kind::Contained, &["incident", "domain", "address", "port", "ifindex", "mac"], "What a loser says of an address is dropped at its port from now on.", "nothing; `dupip quarantine lift PORT ADDRESS` lets it go"),
    of(Kind::Lifted, &["incident", "domain", "address", "port", "ifindex", "mac", "count"], "That is not dropped any more.", "nothing"),
    of(Kind::Evicted, &["incident", "domain", "address", "port", "ifindex", "mac", "owner"], "A loser is at its new address.", "nothing; what knew the old address may have to be told"),
    of(Kind::GivenUp, &["incident", "domain", "address", "port", "ifindex", "mac", "reason"], "A loser could not be moved. It stays contained, and is tried again later.", "`dupip explain INCIDENT`, then do what `reason` asks for"),
    of(Kind::TakenUp, &["incident", "domain", "address", "port", "ifindex", "mac"], "An incident goes on that an earlier agent had open.", "nothing"),
    of(Kind::Paused, &[], "Duplicates are told of and nothing new is done, as an operator wished.", "`dupip pause --end` goes on"),
    of(Kind::PauseEnded, &[], "The pause is over.", "nothing"),
    of(Kind::Healed, &["incident", "domain", "address", "after_us"], "Every loser is at its new address; each address has one owner. `after_us` is the time from the first contradiction.", "nothing; `dupip explain INCIDENT` for the report"),
    of(Kind::Gone, &["incident", "domain", "address", "after_us"], "A duplicate ended without dupip.", "nothing; find out who gave the address out twice"),
    of(Kind::Martian, &["incident", "domain", "address", "port", "ifindex", "mac", "reason", "source_mac"], "A claim that cannot be true; `reason` is which sort.", "look at what runs behind `port`; `--suppress martian:SORT` if it is known and harmless"),
    of(Kind::Moved, &["domain", "address", "port", "ifindex", "mac"], "An address went from one station to another, as it may.", "nothing"),
    of(Kind::Info, &["domain", "address", "port", "ifindex", "mac", "reason", "source_mac"], "Something that is no fault; `reason` is which sort.", "nothing"),
    of(Kind::Flood, &["domain", "port", "ifindex", "count"], "A port says more that is new than it may; the rest is only counted.", "look at what runs behind `port`; `--claims-per-second` if that is its work"),
    of(Kind::FloodEnded, &["domain", "port", "ifindex", "count"], "A flood is over; `count` claims were only counted.", "nothing"),
    of(Kind::ClaimsRefused, &["domain", "port", "ifindex"], "A port claims more addresses than are kept for one.", "look at what runs behind `port`; `--external` for an uplink, else `--claims-per-port`"),
    of(Kind::NotAdopted, &["domain", "address", "reason"], "Whoever has an address could not be written down as its holder.", "do what `reason` asks for; `dupip lease list` says who holds it"),
    of(Kind::StoreFailed, &["domain", "address", "reason"], "The lease database did not do its part for an address.", "`dupip doctor` looks at the database and its disk"),
    of(Kind::MoveWaits, &["domain", "address", "owner"], "A move that was under way when the agent stopped does not go on.", "`dupip conflicts`; it goes on in `--mode enforce`"),
    of(Kind::MoveResumed, &["incident", "domain", "address", "owner"], "A move that was under way when the agent stopped goes on.", "nothing"),
    of(Kind::EventsLost, &["domain", "count"], "Claims were seen and not reported; every known address is asked for.", "nothing, once; if it comes again, give the agent more of the processor"),
    of(Kind::Fenced, &["reason"], "A change was meant for a lease that is no more, and was refused.", "nothing; whoever releases late or twice has a fault"),
    of(Kind::HookFailed, &["incident", "reason"], "Somebody who should be told what happened was not; `reason` is the occasion.", "look at the hook's program or server"),
    of(Kind::Degraded, &["feature", "reason"], "The agent cannot do something fully.", "`dupip doctor` says what is missing"),
    of(Kind::Restored, &["feature"], "What the agent could not do works again.", "nothing"),
    line("asked", Level::DEBUG, &["took"], "A scan has asked everybody.", "nothing"),
    line("bridge_found", Level::INFO, &["bridge"], "A bridge is there and watched.", "nothing"),
    line("bridge_gone", Level::WARN, &["bridge"], "A watched bridge is gone; the agent waits for it to come back.", "make it again, or take it from `--bridge`"),
    line("deaf_for_a_moment", Level::DEBUG, &["port", "errno"], "A packet socket heard nothing for a moment.", "nothing"),
    line("directory_stays", Level::DEBUG, &["error"], "An empty directory on the BPF file system stays.", "nothing"),
    line("file_read_again", Level::INFO, &["files"], "The certificate, its key or the token have changed and are in use.", "nothing"),
    line("file_unusable", Level::WARN, &["files"], "The certificate, its key or the token have changed and are of no use; what was read before stays in use.", "mend the file that the message names"),
    line("files_limited", Level::DEBUG, &["errno"], "The limit of open files could not be raised.", "nothing, unless there are more ports than the limit"),
    line("hook_delivered", Level::INFO, &["incident", "occasion"], "A hook took its message.", "nothing"),
    line("hook_retried", Level::WARN, &["incident", "occasion"], "A hook did not take its message and is told again in a while.", "look at the hook's program or server"),
    line("hooks_left", Level::WARN, &[], "Messages to hooks wait for the next start.", "nothing; look at the hook if there are more each time"),
    line("http_broken", Level::DEBUG, &[], "A connection to the agent ended early.", "nothing"),
    line("http_no_tls", Level::DEBUG, &[], "Somebody beyond loopback did not agree on keys for HTTPS.", "nothing"),
    line("lifted_for", Level::INFO, &["peer"], "Somebody had a loser's claims let through again.", "nothing"),
    line("listening", Level::INFO, &["socket", "http"], "The agent answers questions there.", "nothing"),
    line("losses_unknown", Level::DEBUG, &["error"], "It is not known what a packet socket has lost.", "nothing"),
    line("memory_limited", Level::DEBUG, &["errno"], "The limit of locked memory could not be raised.", "nothing from Linux 5.11 on; before, LimitMEMLOCK=infinity"),
    line("no_authorities", Level::WARN, &[], "No https webhook can be trusted.", "install the system's certificates (ca-certificates)"),
    line("no_counters", Level::DEBUG, &["port", "error"], "An interface that is not watched any more had no counters.", "nothing"),
    line("no_ear", Level::DEBUG, &["error"], "There is no packet socket in place of the tap either.", "`dupip doctor`"),
    line("no_neighbours", Level::DEBUG, &[], "A sweep goes without the host's neighbours.", "nothing"),
    line("no_pool", Level::WARN, &["bridge", "network"], "No leases can be given from a bridge's network.", "do what the message asks for; `dupip pool list`"),
    line("not_absorbed", Level::DEBUG, &["port", "address"], "The tap reports a known claim each time.", "nothing"),
    line("not_forgotten", Level::WARN, &["port", "address"], "The tap does not report a claim that it should.", "nothing, once; `dupip doctor` if it comes again"),
    line("not_heard", Level::WARN, &[], "It is not known who was heard lately.", "`dupip doctor`"),
    line("not_lifted", Level::WARN, &["port"], "A loser's claims are still dropped.", "`dupip quarantine list`; restart the agent if it stays"),
    line("not_notified", Level::DEBUG, &[], "The service manager was not told how the agent is.", "nothing, unless systemd restarts the agent for it"),
    line("not_preferred", Level::DEBUG, &[], "The agent has to wait its turn among all others.", "CAP_SYS_NICE, or `--niceness 0`"),
    line("not_reloaded", Level::WARN, &["reason"], "The configuration was read again and is wrong; the agent goes by what it went by.", "do what `reason` says; `dupip config check` tells it without an agent"),
    line("not_settled", Level::DEBUG, &["interface"], "A tap that was put in place in haste stays a filter of the clsact discipline.", "nothing"),
    line("not_switched", Level::DEBUG, &["interface"], "A port keeps its program.", "nothing"),
    line("pause_ended_for", Level::INFO, &["peer"], "Somebody ended the pause.", "nothing"),
    line("paused_for", Level::INFO, &["peer", "until"], "Somebody paused the agent.", "`dupip pause --end` goes on"),
    line("probe_failed", Level::DEBUG, &["domain"], "A question could not be sent.", "nothing; it is asked again"),
    line("quarantine_not_kept", Level::WARN, &["port", "error"], "A quarantine ends with the agent, though it should be kept.", "`dupip doctor`; mount a BPF file system at /sys/fs/bpf"),
    line("quarantine_of_another", Level::DEBUG, &["error"], "A kept quarantine is another agent's, and left alone.", "nothing"),
    line("quarantine_stays", Level::WARN, &["error"], "A kept quarantine could not be removed and stays in force.", "remove the directory that the message names"),
    line("quarantine_unreadable", Level::WARN, &[], "It is not known what the tap drops.", "`dupip doctor`"),
    line("readdressed", Level::DEBUG, &["old", "new", "rewritten", "restored", "without_default"], "An address was changed in a sandbox.", "nothing"),
    line("ready", Level::INFO, &["mode", "hook", "bridges", "ports"], "Every port is watched.", "nothing"),
    line("record_unreadable", Level::WARN, &["incident"], "An incident of an earlier agent cannot be read and does not go on.", "run the version that wrote it, or let it be"),
    line("reload_wanted", Level::INFO, &["peer"], "Somebody had the configuration read again.", "nothing"),
    line("reloaded", Level::INFO, &["applied", "waiting"], "The configuration was read again: what is in `applied` counts now, what is in `waiting` after a restart.", "restart the agent if something waits"),
    line("sockets_destroyed", Level::DEBUG, &["address", "tcp", "udp", "listeners_left"], "The sockets on an address were destroyed.", "nothing"),
    line("still_deaf", Level::DEBUG, &["interface"], "A port still has no tap; it is tried again.", "nothing"),
    line("still_unguarded", Level::DEBUG, &["interface"], "A port's quarantine is still not in force; it is tried again.", "nothing"),
    line("stopping", Level::INFO, &[], "The agent was told to end.", "nothing"),
    line("store_unread", Level::DEBUG, &["bridge", "network"], "The lease database did not tell something that the agent can do without for now.", "nothing; `degraded` follows if it stays"),
    line("tap_log_lost", Level::WARN, &["error"], "The tap's own log is lost.", "nothing"),
    line("tap_stays", Level::WARN, &["error"], "The tap stays on an interface after the agent.", "nothing; the next agent replaces it"),
    line("waiting", Level::INFO, &["bridge"], "A bridge is not there yet; the agent waits for it.", "make it, or take it from `--bridge`"),
];

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
