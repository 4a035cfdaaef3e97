//! Requests as frames in, replies as frames out: what brokers, clients and tools see.

mod bad_input;
mod cluster;
mod configuration;
mod model;
mod registration;
mod route;
mod topics;
mod world;
