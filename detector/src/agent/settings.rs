//! What an operator has decided, checked.

use std::path::PathBuf;

use crate::{capture::TapSettings, engine::Config, hooks::HookSettings, net::BridgeName, time::Span};

/// What the agent is to watch, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bridges to watch.
    pub bridges: Vec<BridgeName>,
    /// How to judge what is seen, and whether to act on it.
    pub engine: Config,
    /// The lease database.
    pub database: PathBuf,
    /// How long a released address of the bridges' networks rests before it is given again; `None` leaves a pool that is
    /// there as it is.
    pub cooldown: Option<Span>,
    /// Whether to wait for a bridge that is not there.
    pub wait: bool,
    /// How to listen.
    pub tap: TapSettings,
    /// Whom to tell what happened.
    pub hooks: HookSettings,
}
