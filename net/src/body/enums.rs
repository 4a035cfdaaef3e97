//! Enums of bodies: written by name, read by name in any letter case or by ordinal.
#![forbid(unsafe_code)]

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// An unknown name or number reads as the default, where fastjson gives null.
macro_rules! json_enums {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// RocketMQ's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Any letter case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameOrOrdinal;
                impl Visitor<'_> for NameOrOrdinal {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an enum name or ordinal")
                    }
                    fn visit_str<E>(self, name: &str) -> Result<$name, E> {
                        Ok($name::from_name(name).unwrap_or_default())
                    }
                    fn visit_i64<E>(self, ordinal: i64) -> Result<$name, E> {
                        let index = usize::try_from(ordinal).unwrap_or(usize::MAX);
                        Ok($name::ALL.get(index).copied().unwrap_or_default())
                    }
                    fn visit_u64<E>(self, ordinal: u64) -> Result<$name, E> {
                        let index = usize::try_from(ordinal).unwrap_or(usize::MAX);
                        Ok($name::ALL.get(index).copied().unwrap_or_default())
                    }
                }
                deserializer.deserialize_any(NameOrOrdinal)
            }
        }
    )*};
}

json_enums! {
    /// How a group gets the messages of a topic.
    RequestMode {
        #[default]
        Pull = "PULL",
        Pop = "POP",
    }

    /// How a consumer takes its messages.
    ConsumeType {
        /// Pull.
        ConsumeActively = "CONSUME_ACTIVELY",
        /// Push.
        #[default]
        ConsumePassively = "CONSUME_PASSIVELY",
        ConsumePop = "CONSUME_POP",
    }

    /// Whether the members of a group share the messages or each gets all.
    MessageModel {
        Broadcasting = "BROADCASTING",
        #[default]
        Clustering = "CLUSTERING",
    }

    /// Where a group without offset starts.
    ConsumeFromWhere {
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }

    /// Whether messages of a topic carry one tag or several.
    TopicFilterType {
        #[default]
        SingleTag = "SINGLE_TAG",
        MultiTag = "MULTI_TAG",
    }
}
