//! The agent's clock, and what it shows to people.

use std::time::{Duration, SystemTime};

pub use crate::allocator::since_boot as now;
use crate::time::{Span, Timestamp};

/// What a wall clock showed at a moment, or will show, as far as nobody has set the clock since or does: for people, never
/// to reckon with.
#[must_use]
pub fn wall(at: Timestamp) -> SystemTime {
    beside(now(), SystemTime::now(), at)
}

/// What the wall clock that shows `wall` at the moment `now` shows at another one.
#[must_use]
pub fn beside(now: Timestamp, wall: SystemTime, at: Timestamp) -> SystemTime {
    let (ago, ahead) = (now.since(at).into(), at.since(now).into());
    let then = if at > now { wall.checked_add(ahead) } else { wall.checked_sub(ago) };
    then.unwrap_or(wall)
}

/// What the wall clock showed when the boot's clock was at zero, as it is set now, in nanoseconds since 1970.
#[must_use]
pub fn wall_offset() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(now().as_nanos())
}

/// The moment that comes so long after now.
#[must_use]
pub fn after(span: Duration) -> Timestamp {
    now() + Span::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
