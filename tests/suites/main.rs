//! Every test that needs a kernel. Each makes a lab of its own, so they run side by side.
//!
//! One module per topic: first the lab itself (what the others stand on), then dupip in it.

mod agent;
mod api;
mod cni;
mod config;
mod doctor;
mod drill;
mod healing;
mod import;
mod incident;
mod kit;
mod kubernetes;
mod leftovers;
mod life;
mod logs;
mod neighbours;
mod operators;
mod package;
mod page;
mod prometheus;
mod reconcile;
mod replay;
mod runner;
mod sandbox;
mod scan;
mod scenarios;
mod shells;
mod support_bundle;
mod watch;
