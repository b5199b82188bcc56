//! Why a call failed, as a runtime is told: a number from the specification and a text for people.

use std::{fmt, io};

use crate::{
    allocator::{AllocateError, InvalidPool, OpenError, PoolError, StoreError},
    net::InvalidRange,
};

/// What kind of failure it is: the specification's numbers ("Error", CNI 1.1) up to 99, own ones from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    /// The configuration is of a version that is not spoken here.
    IncompatibleVersion = 1,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment = 4,
    /// A file could not be read or written.
    Io = 5,
    /// The configuration is not the JSON that it should be.
    Undecodable = 6,
    /// The configuration asks for what cannot be.
    InvalidConfig = 7,
    /// It may work later.
    TryAgain = 11,
    /// STATUS: an ADD would not work.
    Unavailable = 50,
    /// The address, or the container, has another lease.
    Taken = 100,
    /// CHECK: the lease is not held, or is another.
    NotHeld = 101,
    /// The plugin is wrong itself.
    Bug = 102,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl Failure {
    pub(super) fn new(code: Code, what: impl fmt::Display) -> Self {
        Self { code, what: what.to_string(), hint: None }
    }

    /// With what a person could do next.
    pub(super) fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// In the configuration.
    pub(super) fn config(what: impl fmt::Display) -> Self {
        Self::new(Code::InvalidConfig, what)
    }

    /// The same in front of what it is about.
    pub(super) fn about(self, subject: impl fmt::Display) -> Self {
        Self { what: format!("{subject}: {}", self.what), ..self }
    }
}

impl From<AllocateError> for Failure {
    fn from(error: AllocateError) -> Self {
        let code = match &error {
            AllocateError::Store(error) => of_store(error),
            AllocateError::NotInPool { .. } => Code::InvalidConfig,
            AllocateError::Leased(_) | AllocateError::HoldsAnother(_) | AllocateError::HoldsUseless(_) => Code::Taken,
            AllocateError::NoPool(_) | AllocateError::Exhausted { .. } | AllocateError::Unwitnessed(..) => {
                Code::TryAgain
            }
        };
        Self::new(code, error)
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Store(error) => error.into(),
            error => Self::config(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(of_store(&error), error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(Code::Io, error)
    }
}

impl From<InvalidPool> for Failure {
    fn from(error: InvalidPool) -> Self {
        Self::config(error)
    }
}

impl From<InvalidRange> for Failure {
    fn from(error: InvalidRange) -> Self {
        Self::config(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Io, error)
    }
}

fn of_store(error: &StoreError) -> Code {
    match error {
        StoreError::Busy => Code::TryAgain,
        _ => Code::Io,
    }
}
