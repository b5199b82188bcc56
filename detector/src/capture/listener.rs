//! Whatever listens: the tap, or the ear where there can be no tap.

use super::{CaptureError, Claims, Ear, Hook, Known, Loaded, Post, Quarantine, Tap, TapCounters, TapSettings};
use crate::net::IfIndex;

/// The [`Tap`], or the [`Ear`] in its place.
pub enum Listener {
    /// By eBPF.
    Tap(Box<Tap>),
    /// By packet sockets.
    Ear(Ear),
}

/// A listener, and what comes with it.
pub struct Started {
    /// Says where it listens.
    pub listener: Listener,
    /// What it hears.
    pub claims: Claims,
    /// What it need not report again.
    pub known: Known,
    /// What it does not let on; nothing, if it is not the tap.
    pub quarantine: Quarantine,
    /// Why it is not the tap, if it is not.
    pub refused: Option<CaptureError>,
}

impl Listener {
    /// Loads the tap; where that cannot be, because of the kernel or for want of capabilities, opens an ear. It listens
    /// nowhere yet. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The tap was asked for by its hook and cannot be, or there can be neither: then why there is no tap. Or a quarantine
    /// was to be kept and cannot be.
    pub fn start(settings: &TapSettings) -> Result<Started, CaptureError> {
        match Tap::load(settings) {
            Ok(Loaded { tap, claims, known, quarantine }) => {
                Ok(Started { listener: Self::Tap(Box::new(tap)), claims, known, quarantine, refused: None })
            }
            Err(refused) if settings.hook == Hook::Auto && !refused.is_of_keeping() => match open(settings) {
                Ok((ear, claims)) => Ok(Started {
                    listener: Self::Ear(ear),
                    claims,
                    known: Known::nothing(),
                    quarantine: Quarantine::impossible(),
                    refused: Some(refused),
                }),
                Err(error) => {
                    tracing::debug!(event = "no_ear", %error, "there is no ear in place of the tap either");
                    Err(refused)
                }
            },
            Err(refused) => Err(refused),
        }
    }

    /// How the tap hooks into interfaces; `None` if it is an ear.
    #[must_use]
    pub const fn hook(&self) -> Option<Hook> {
        match self {
            Self::Tap(tap) => Some(tap.hook()),
            Self::Ear(_) => None,
        }
    }

    /// Listens at `port` too, as [`Tap::attach`] and [`Ear::attach`] do.
    ///
    /// # Errors
    /// As theirs.
    pub fn attach(&mut self, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        match self {
            Self::Tap(tap) => tap.attach(port, post),
            Self::Ear(ear) => ear.attach(port, post),
        }
    }

    /// Listens at `port` too, which is one of very many, as [`Tap::attach_at_once`] does. [`settle`](Self::settle) is due
    /// afterwards.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_at_once(&mut self, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        match self {
            Self::Tap(tap) => tap.attach_at_once(port, post),
            Self::Ear(ear) => ear.attach(port, post),
        }
    }

    /// Puts what belongs there in place of what listens at `port` for the time being, as [`Tap::settle`] does.
    ///
    /// # Errors
    /// As [`Tap::settle`].
    pub fn settle(&mut self, port: IfIndex) -> Result<(), CaptureError> {
        match self {
            Self::Tap(tap) => tap.settle(port),
            Self::Ear(_) => Ok(()),
        }
    }

    /// Listens for what `post` says from now on where it listens already, as [`Tap::switch`] does; an [`Ear`] has to be
    /// attached anew.
    ///
    /// # Errors
    /// As [`Tap::switch`].
    pub fn switch(&mut self, port: IfIndex, post: Post) -> Result<bool, CaptureError> {
        match self {
            Self::Tap(tap) => tap.switch(port, post),
            Self::Ear(_) => Ok(false),
        }
    }

    /// Guards `port` from now on, or no longer, as [`Tap::guard`] does.
    ///
    /// # Errors
    /// As [`Tap::guard`], and [`CaptureError::CannotContain`] of an [`Ear`] that is to guard something.
    pub fn guard(&mut self, port: IfIndex, is_guarded: bool) -> Result<(), CaptureError> {
        match self {
            Self::Tap(tap) => tap.guard(port, is_guarded),
            Self::Ear(_) if is_guarded => Err(CaptureError::CannotContain),
            Self::Ear(_) => Ok(()),
        }
    }

    /// Listens at `port` no longer, as [`Tap::detach`] and [`Ear::detach`] do.
    ///
    /// # Errors
    /// As [`Tap::detach`].
    pub fn detach(&mut self, port: IfIndex) -> Result<Option<TapCounters>, CaptureError> {
        match self {
            Self::Tap(tap) => tap.detach(port),
            Self::Ear(ear) => Ok(ear.detach(port)),
        }
    }

    /// What was counted at `port` since it was attached; `None` if nobody listens there.
    #[must_use]
    pub fn counters(&self, port: IfIndex) -> Option<TapCounters> {
        match self {
            Self::Tap(tap) => tap.counters(port),
            Self::Ear(ear) => ear.counters(port),
        }
    }
}

fn open(settings: &TapSettings) -> Result<(Ear, Claims), CaptureError> {
    let ear = Ear::open(settings)?;
    let claims = ear.claims()?;
    Ok((ear, claims))
}
