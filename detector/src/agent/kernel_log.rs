//! The kernel's log: martians that it saw before we did, or where we cannot see.

use super::run::Agent;
use crate::{
    capture::{KernelMartian, MartianKind, MartianLog},
    engine::{self, Input},
    telemetry::Feature,
};

impl Agent {
    /// Follows the kernel's log, or says that it cannot.
    pub(super) fn open_kernel_log(&self) -> Option<MartianLog> {
        match MartianLog::open() {
            Ok(log) => Some(log),
            Err(error) => {
                let reason = format!(
                    "cannot read the kernel's log (/dev/kmsg), so martians that it logs are not told of: {error}; it takes \
                     CAP_SYSLOG and the host's /dev/kmsg"
                );
                self.telemetry.degraded(Feature::KernelLog, Some(&reason));
                None
            }
        }
    }

    /// A packet that was for nobody says nothing of who has an address.
    pub(super) fn martian(&mut self, martian: KernelMartian) {
        let KernelMartian { kind, source, target, device, frame_source, .. } = martian;
        if kind == MartianKind::Source {
            self.tell(Input::KernelMartian(engine::KernelMartian { source, target, device, mac: frame_source }));
        }
    }

    pub(super) fn count_lost_lines(&mut self, log: Option<&MartianLog>) {
        let lost = log.map_or(self.lost_lines, MartianLog::lost);
        let before = std::mem::replace(&mut self.lost_lines, lost);
        self.telemetry.kernel_log_lost(lost.saturating_sub(before));
    }
}
