//! Real programs, real servers, real files.

mod fixture;
mod programs;
mod schema;
mod servers;
mod spools;

pub(super) use fixture::message;
