//! The proxy, fake brokers and clients in one deterministic simulation: crashes, partitions, slow
//! peers and stores, brokers that come and go. One number, the seed, decides everything.
//!
//! A run: [`scenario`] starts hosts of the simulated network ([`brokers`], [`proxy`], the clients)
//! and makes trouble ([`trouble`]); then all is repaired, everybody finishes, the logs are read
//! ([`ledger`]), and the proxy drains. What must not be is written down in [`world`] as it is seen.
//!
//! `FIREBREAK_SIM_SEEDS=N` runs so many seeds, `FIREBREAK_SIM_SEED=S` only this one (with
//! `FIREBREAK_SIM_TRACE=1` event by event, with `RUST_LOG=debug` as the proxy tells it);
//! `compose/sim.sh` does both.
#![cfg(test)]

mod admin;
mod brokers;
mod connection;
mod consumer;
mod crowd;
mod ledger;
mod memory;
mod mutants;
mod outage;
mod producer;
mod proxy;
mod records;
mod scenario;
mod seeds;
mod topology;
mod trouble;
mod world;
