//! RocketMQ remoting: command frames, their headers and bodies.
//!
//! Everything but [`connection`] is a pure function of bytes: no socket, clock or thread. The modules
//! read from the outside in: [`frame`] cuts and decodes one command, [`header`] types its ext
//! fields, [`body`] types its JSON body, [`message`] knows what travels inside bodies, [`reply`]
//! writes the frames we send, [`codes`] names the numbers, [`properties`] reads and writes the
//! configuration that some bodies and files hold.

pub mod body;
pub mod codes;
pub mod connection;
pub mod ext;
pub mod frame;
pub mod header;
mod json;
pub mod language;
pub mod message;
pub mod properties;
pub mod reply;
pub mod text;
mod word;
