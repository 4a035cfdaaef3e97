//! A core's turn loop: one io_uring ring inside a glommio executor, receive buffers the kernel picks
//! from, letters between cores, sleep and wake-up.
//!
//! This crate knows neither messages nor frames. A program is an [`App`] per core; [`run`] starts one
//! thread per core, pins it, and drives the app in *turns*: reap completions, read letters, let the app
//! submit what the turn produced, and enter the kernel once. A core sleeps only inside that one call.
//!
//! Absent on purpose: tasks per connection or request, locks between cores, and readings of the clock per
//! message: a turn reads it at its start and where one kind of work ends and the next begins.

mod mesh;
mod pulse;
mod receive_buffers;
mod ring;
mod turn_loop;
mod watch;

pub use io_uring::{opcode, squeue, types};
pub use mesh::{Mesh, Post, Wake};
pub use receive_buffers::ReceiveBuffers;
pub use ring::{Completion, Ring, RingError, Token};
pub use turn_loop::{App, Clock, Core, CoreCount, RunError, Waiting, run, run_blocking};
