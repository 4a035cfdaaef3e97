//! All settings RocketMQ 5.5's broker knows, one row each, and the reasons that many rows share.
//!
//! A row reads: `*` if RocketMQ prints it with `-m` or else `-`, name, kind, default (`null`, a text, or a function
//! of the machine in parentheses), status, effect or reason.

macro_rules! table {
    ($(#[$doc:meta])* $table:ident: $($mark:tt $name:ident, $kind:expr, $default:tt, $status:ident, $text:expr;)*) => {
        $(#[$doc])*
        pub const $table: &[$crate::config::setting::Setting] = &[$(
            $crate::config::setting::Setting {
                name: stringify!($name),
                kind: $kind,
                default: $crate::config::table::table!(@default $default),
                status: $crate::config::table::table!(@status $status),
                text: $text,
                is_important: $crate::config::table::table!(@mark $mark),
            },
        )*];
    };
    (@default null) => { $crate::config::setting::DefaultValue::Null };
    (@default ($value:path)) => { $crate::config::setting::DefaultValue::Machine($value) };
    (@default $value:literal) => { $crate::config::setting::DefaultValue::Fixed($value) };
    (@status used) => { $crate::config::setting::Status::Used };
    (@status no_effect) => { $crate::config::setting::Status::NoEffect };
    (@status not_yet) => { $crate::config::setting::Status::NotYet };
    (@status obsolete) => { $crate::config::setting::Status::Obsolete };
    (@mark *) => { true };
    (@mark -) => { false };
}
pub(crate) use table;

mod broker;
mod former;
mod network;
mod security;
mod store;

pub(super) use former::FORMER;

use super::setting::{Kind, Setting};

/// The tables of the broker, in the order in which `mqbroker -p` prints them.
pub(super) const BROKER: &[&[Setting]] =
    &[broker::BROKER, network::SERVER, network::CLIENT, store::STORE, security::SECURITY];

const INT: Kind = Kind::Int(i32::MIN as i64, i32::MAX as i64);
const LONG: Kind = Kind::Int(i64::MIN, i64::MAX);

// Reasons for `no_effect`.
const THREADS: &str = "RingMQ runs one thread per core: there are no thread pools and no queues before them";
const NO_LOCKS: &str = "RingMQ takes no locks and refuses nothing for being busy, it stops reading the socket";
const NETTY: &str = "sockets are driven by io_uring, not by Netty; their buffers are bounded by RingMQ itself";
const OWN_CLIENT: &str = "RingMQ has its own connections to name servers";
const OWN_LOG: &str = "RingMQ writes its log with direct I/O in group commits: no mapped files, no page cache to flush";
const OWN_INDEX: &str =
    "RingMQ's key index is part of its log: it grows with the log, goes with it, and a crash takes none of it";
const OWN_RECOVERY: &str = "RingMQ verifies what its log holds behind the last snapshot at start";
const ONE_BY_ONE: &str =
    "segments are used again or removed one by one in the background; rows of their messages go with them";
const RECORDS: &str = "offsets and settings are records of the log, durable like messages";
const POP_RECORDS: &str = "what was popped is records of the queue's log, in memory as long as it is in flight; messages return into a queue of the same core";
const ROCKSDB: &str = "RingMQ has one kind of store and no RocksDB";
const PLUGIN: &str = "RingMQ loads no Java classes";
const HOME: &str = "RingMQ needs no installation folder";
const LOGS: &str = "RingMQ logs to stderr; RUST_LOG sets the levels";
const TOPIC_LENGTH: &str = "topic names have at most 127 characters, and the record's version follows their length";
const FIXED_NAMESRV: &str = "the name servers are those given at start";
const UNUSED: &str = "RocketMQ declares it without using it";
const NO_SETTER: &str = "RocketMQ does not read it from files either";
const OWED: &str = "delayed messages and timers are part of the log: no wheel, no files of their own, no threads";
const NO_OP_MESSAGES: &str =
    "that a half message is ended is one record of the log, with the committed message: no op messages, no files";

// Reasons for `not_yet`.
const REPLICATION: &str = "replication is not built yet";
const CONTROLLER: &str = "the controller is not built yet";
const AUTH: &str = "authentication and authorization are not built yet, so RingMQ must not start as if they were on";
const LITE: &str = "lite topics are not built yet";
const LMQ: &str = "light message queues are not built yet";
const COMPACTION: &str = "compacted topics are not built yet";
const COLD_DATA: &str = "flow control of cold reads is not built yet";
const FILTERS: &str = "filter bit maps are not built yet";

const BROADCAST: &str = "offsets of broadcast groups on the broker are not built yet";
const STATIC_SUBSCRIPTION: &str = "static subscriptions are not built yet";
const ADDRESS_SERVER: &str = "address servers and DNS lists of name servers are not built yet";
const REGISTRATION: &str = "this form of registration is not built yet; the plain one is used";
const PROPERTY_CRC: &str = "checksums of properties are not built yet; RingMQ's batches carry their own";
const OFFSET_CLEANING: &str = "removal of offsets nobody needs is not built yet";
const SLOW_GROUPS: &str = "groups that fall behind are served like others; refusing them is not built yet";
const ONE_LIMIT: &str = "a pull from disk has the limits of one from memory, maxTransfer..OnMessageInMemory";
const STATISTICS: &str = "these statistics are not built yet";
const METRICS: &str = "metrics exporters are not built yet";

// Reasons for `obsolete`.
const ACL_V1: &str = "RocketMQ dropped it in 5.3.3 for authenticationEnabled and authorizationEnabled";
const DLEDGER: &str = "RocketMQ's DLedger commit log gave way to the controller; RingMQ has neither yet";
const ONE_FOLDER: &str = "RingMQ keeps its whole store under storePathRootDir";
const NOTHING_READS_IT: &str = "nothing in RocketMQ 5.5 reads it";

/// A setting of `AuthConfig`.
pub(super) fn is_security(name: &str) -> bool {
    security::SECURITY.iter().any(|setting| setting.name == name)
}
