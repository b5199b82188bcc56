//! The ARP tap on a real kernel: what is heard, what is counted, and what is left behind.

#[cfg(test)]
mod ear;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod ipv4;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod known;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod life;
#[cfg(test)]
mod martian_log;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod sender;
#[cfg(test)]
mod wire;
