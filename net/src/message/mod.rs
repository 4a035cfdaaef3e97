//! What travels inside bodies and headers of messages: properties, batches, records, ids, names.
#![forbid(unsafe_code)]

pub mod batch;
pub mod id;
pub mod names;
pub mod properties;
pub mod receipt;
pub mod record;
pub mod sys_flag;
pub mod tags;
