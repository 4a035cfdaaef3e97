//! `rmq store`: offline tools for the store of a stopped broker.

pub mod check;
pub mod dump;
pub mod repair;

use rmq_engine::store_dir::StoreError;

use crate::exit::Exit;

/// Says why a store is refused.
fn refuse(error: &StoreError) -> Exit {
    eprintln!("rmq: {error}");
    Exit::Store
}
