//! The broker: turns requests into shard calls and their outcome into answers.
//!
//! [`start`] is a node's life; [`node`] is one core's app: sockets on one side, services on the other. [`broker`]
//! is a core's broker state and the paths between cores. `request` holds one file per request or small family.
//! [`state`] holds the tables of topics, groups, clients and locks. [`config`] knows every RocketMQ property.

#![forbid(unsafe_code)]

mod ask;
pub mod broker;
pub mod config;
#[cfg(test)]
mod cost;
mod filter;
mod gather;
mod letter;
pub mod memory;
mod name_server_client;
pub mod node;
pub mod owed;
mod poll;
mod registrar;
mod request;
mod retention;
mod routes;
mod scrubber;
pub mod start;
pub mod state;
mod system;
#[cfg(test)]
mod testing;
mod unique_key;
