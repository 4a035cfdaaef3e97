//! JSON as RocketMQ speaks it: a strict scanner for the hot path, a lenient parser for what
//! fastjson forgives, and the escapes of both directions.

pub(crate) mod coerce;
pub(crate) mod escape;
pub(crate) mod lenient;
pub(crate) mod scan;
