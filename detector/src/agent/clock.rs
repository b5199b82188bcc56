//! The agent's clock, and what it shows to people.

use std::time::{Duration, SystemTime};

pub use crate::allocator::since_boot as now;
use crate::time::Timestamp;

/// What a wall clock showed at a moment not after now, as far as nobody has set the clock since: for people, never to
/// reckon with.
#[must_use]
pub fn wall(at: Timestamp) -> SystemTime {
    let ago = Duration::from(now().since(at));
    let wall = SystemTime::now();
    wall.checked_sub(ago).unwrap_or(wall)
}
