//! Every bound of the name server, with its reason and what happens when it is reached.

/// Broker addresses registered at one time. RocketMQ's largest clusters have hundreds of brokers; beyond
/// this a registration is refused (code 1).
pub const BROKERS_MAX: usize = 10_000;

/// (topic, broker) pairs. At about 200 bytes each this bounds the table to a few hundred megabytes; beyond
/// it a registration is refused (code 1).
pub const TOPIC_ROWS_MAX: usize = 2_000_000;

/// Characters of a broker, cluster, topic or zone name and of an address, in bytes. RocketMQ's own limits
/// on names are 127 and 255.
pub const NAME_BYTES_MAX: usize = 1024;

/// Namespaces, keys and values of the KV table together; every change rewrites the file. Beyond it a new
/// entry is refused (code 1). A value must also fit a reply's header, whose size has 24 bits, when every
/// byte of it is escaped as six.
pub const KV_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(KV_BYTES_MAX * 6 + 4096 < 1 << 24);

/// Changes of files that wait for the disk, by what they ask for. Beyond it a change is refused (code 1): a disk that
/// takes seconds must not become memory, least of all by oneway requests, which no connection counts.
pub const CHANGES_BYTES_MAX: usize = 4 * KV_BYTES_MAX;

/// A KV file larger than this is not read. JSON may spend six bytes on one byte of content.
pub const KV_FILE_BYTES_MAX: u64 = 8 * KV_BYTES_MAX as u64;
