//! What the broker remembers besides messages: topics, groups, connected clients, queue locks,
//! statistics. Plain tables behind `&mut self` with the time passed in; no socket, clock or disk.
//!
//! Core 0 owns the tables that decide ([`TopicTable`], [`GroupTable`], [`ClientRegistry`],
//! [`QueueLocks`]); the other cores hold replicas of topics, groups and group views, fed by
//! letters that carry the change values the owners return.

pub mod assignment;
pub mod attributes;
pub mod checks;
pub mod clients;
pub mod groups;
pub mod heartbeat;
pub mod locks;
pub mod paging;
pub mod reserved;
pub mod resets;
pub mod runtime_info;
pub mod settings;
pub mod stats;
pub mod subscription;
pub mod topics;

pub use clients::{ClientChanges, ClientRegistry, GroupView, GroupViews, ViewChange};
pub use groups::{GroupChange, GroupLookup, GroupTable};
pub use locks::QueueLocks;
pub use settings::{CheckSettings, GroupSettings, SettingKind, TopicSettings};
pub use stats::{BrokerStats, Counters};
pub use subscription::Subscription;
pub use topics::{TopicChange, TopicTable};
