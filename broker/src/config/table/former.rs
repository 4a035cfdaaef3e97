//! Names that RocketMQ 5.5 no longer knows but that many property files in use still carry.

use crate::config::setting::Kind::*;

const DERIVED_PATH: &str = "RingMQ keeps its whole store under storePathRootDir";

table! {
    /// Names of RocketMQ 3 and 4, without a value in RocketMQ 5.5.
    FORMER:
    - storePathConsumeQueue, Text, null, obsolete, DERIVED_PATH;
    - storePathIndex, Text, null, obsolete, DERIVED_PATH;
    - storeCheckpoint, Text, null, obsolete, DERIVED_PATH;
    - abortFile, Text, null, obsolete, DERIVED_PATH;
    - mapedFileSizeCommitLog, Text, null, obsolete, "RocketMQ 4 renamed it to mappedFileSizeCommitLog";
    - mapedFileSizeConsumeQueue, Text, null, obsolete, "RocketMQ 4 renamed it to mappedFileSizeConsumeQueue";
    - checkTransactionMessageEnable, Text, null, obsolete, "RocketMQ 4.3 always checks transactions";
    - filterServerNums, Text, null, obsolete, "RocketMQ dropped filter servers for SQL92 filters";
    - brokerIP, Text, null, obsolete, "the name is brokerIP1";
}
