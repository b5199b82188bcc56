//! The Kubernetes manifests and the image: as their schemas want them, with the rights that are needed and no other.

mod image;
mod manifests;
mod metrics;
mod pod;
mod rights;
mod schemas;
mod seccomp;
