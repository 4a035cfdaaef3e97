//! What a consumer wants of a topic: the filter expression and the tag hashes it comes down to.

use std::sync::Arc;

use rmq_engine::TagFilter;
use rmq_net::body::SubscriptionData;
use rmq_net::message::tags::tags_code;
use thiserror::Error;

use crate::filter::{Sql, SqlError};

/// The expression that selects everything.
const ALL: &str = "*";

/// The language of a filter expression. RocketMQ takes an absent or empty type for `TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionType {
    Tag,
    Sql92,
    /// Any other name a client sent: no language RocketMQ or this broker knows.
    Unknown(String),
}

impl ExpressionType {
    pub fn of(name: Option<&str>) -> Self {
        match name {
            None | Some("" | "TAG") => Self::Tag,
            Some("SQL92") => Self::Sql92,
            Some(other) => Self::Unknown(other.to_owned()),
        }
    }

    pub fn is_tag(&self) -> bool {
        *self == Self::Tag
    }

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Tag => "TAG",
            Self::Sql92 => "SQL92",
            Self::Unknown(name) => name,
        }
    }
}

/// An expression that says nothing a consumer could mean.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExpressionError {
    #[error("the tag expression [{0}] names no tag")]
    NoTag(String),
    #[error("the expression is empty")]
    Empty,
    #[error("there is no filter of type {0}, only TAG and SQL92")]
    UnknownType(String),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// One topic of a group's subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub expression_type: ExpressionType,
    pub expression: String,
    /// Grows when the consumer changes its expression: milliseconds from Java, nanoseconds from Go.
    pub version: i64,
    pub class_filter_mode: bool,
    /// The tags by name, as the consumer sent them.
    pub tags: Vec<String>,
    /// What the broker filters by, or why it cannot.
    pub filter: Result<TagFilter, ExpressionError>,
}

impl Subscription {
    /// From a heartbeat. The hashes are computed here from the tags, because Go clients send
    /// hashes over UTF-8 bytes, which match no message outside ASCII. A heartbeat is never
    /// refused for its expression: tags that cannot be understood select by the hashes they came with, and
    /// pulls that need another language are told what is wrong.
    pub fn from_heartbeat(data: &SubscriptionData) -> Self {
        let expression_type = ExpressionType::of(Some(&data.expression_type));
        let filter = if data.class_filter_mode {
            Ok(TagFilter::All)
        } else if expression_type.is_tag() {
            Ok(filter_of_tags(data))
        } else {
            compile(&expression_type, &data.sub_string, Sql::compile_shared)
        };
        Self {
            expression_type,
            expression: data.sub_string.clone(),
            version: data.sub_version,
            class_filter_mode: data.class_filter_mode,
            tags: data.tags_set.clone(),
            filter,
        }
    }

    /// As it stands in answers; the hashes are ours.
    pub fn to_data(&self, topic: &str) -> SubscriptionData {
        SubscriptionData {
            class_filter_mode: self.class_filter_mode,
            code_set: self.codes().to_vec(),
            expression_type: self.expression_type.name().to_owned(),
            sub_string: self.expression.clone(),
            sub_version: self.version,
            tags_set: self.tags.clone(),
            topic: topic.to_owned(),
        }
    }

    /// The hashes of the filter; empty for everything.
    pub fn codes(&self) -> &[i32] {
        match &self.filter {
            Ok(TagFilter::Codes(codes)) => codes,
            _ => &[],
        }
    }
}

/// The filter of an expression in a language that reads properties.
pub fn compile(
    expression_type: &ExpressionType,
    expression: &str,
    compile_sql: impl FnOnce(&str) -> Result<Arc<Sql>, SqlError>,
) -> Result<TagFilter, ExpressionError> {
    match expression_type {
        _ if expression.is_empty() => Err(ExpressionError::Empty),
        ExpressionType::Sql92 => Ok(TagFilter::Properties(compile_sql(expression)?)),
        other => Err(ExpressionError::UnknownType(other.name().to_owned())),
    }
}

fn filter_of_tags(data: &SubscriptionData) -> TagFilter {
    if selects_all(&data.sub_string) {
        return TagFilter::All;
    }
    if !data.tags_set.is_empty() {
        return codes(data.tags_set.iter().map(|tag| tag_hash(tag)));
    }
    parse_tags(&data.sub_string).unwrap_or_else(|_no_tag| codes(data.code_set.iter().copied()))
}

fn selects_all(expression: &str) -> bool {
    expression.is_empty() || expression == ALL
}

/// Rows hold the hash sign-extended to 64 bits; the low half says it all.
fn tag_hash(tag: &str) -> i32 {
    tags_code(tag) as i32
}

/// The hashes of the tags in `A || B`. Empty or `*` selects everything.
pub fn parse_tags(expression: &str) -> Result<TagFilter, ExpressionError> {
    if selects_all(expression) {
        return Ok(TagFilter::All);
    }
    let mut tags = expression.split("||").map(trim_as_java).filter(|tag| !tag.is_empty()).peekable();
    if tags.peek().is_none() {
        return Err(ExpressionError::NoTag(expression.to_owned()));
    }
    Ok(codes(tags.map(tag_hash)))
}

/// Java's `trim` takes away control characters and blanks, not other Unicode spaces.
fn trim_as_java(text: &str) -> &str {
    text.trim_matches(|character| character <= ' ')
}

fn codes(hashes: impl Iterator<Item = i32>) -> TagFilter {
    let mut hashes: Vec<i32> = hashes.collect();
    hashes.sort_unstable();
    hashes.dedup();
    TagFilter::Codes(hashes.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selected(codes: &[i32]) -> TagFilter {
        TagFilter::Codes(codes.into())
    }

    #[test]
    fn tag_expressions_become_hashes() {
        for (expression, expected) in [
            ("", Ok(TagFilter::All)),
            ("*", Ok(TagFilter::All)),
            ("A", Ok(selected(&[65]))),
            ("TagA", Ok(selected(&[2_598_919]))),
            ("中", Ok(selected(&[20_013]))),
            ("B||A", Ok(selected(&[65, 66]))),
            (" A || B ||", Ok(selected(&[65, 66]))),
            ("A || A", Ok(selected(&[65]))),
            ("A | B", Ok(selected(&[tag_hash("A | B")]))),
            ("||", Err(ExpressionError::NoTag("||".into()))),
            ("  ", Err(ExpressionError::NoTag("  ".into()))),
        ] {
            assert_eq!(parse_tags(expression), expected, "{expression:?}");
        }
    }

    #[test]
    fn a_heartbeat_without_type_means_tags_and_other_types_are_compiled() {
        let filter = |expression_type: &str, sub_string: &str| {
            let data = SubscriptionData {
                expression_type: expression_type.to_owned(),
                sub_string: sub_string.to_owned(),
                ..SubscriptionData::default()
            };
            Subscription::from_heartbeat(&data).filter
        };
        assert_eq!((filter("", "A"), filter("TAG", "A")), (Ok(selected(&[65])), Ok(selected(&[65]))));
        assert!(matches!(filter("SQL92", "a > 1"), Ok(TagFilter::Properties(_))));
        assert!(matches!(filter("SQL92", "a >"), Err(ExpressionError::Sql(SqlError { at: 4, .. }))));
        assert_eq!(filter("SQL92", ""), Err(ExpressionError::Empty));
        assert_eq!(filter("sql92", "a > 1"), Err(ExpressionError::UnknownType("sql92".to_owned())));
    }

    #[test]
    fn a_heartbeat_is_filtered_by_its_tags_not_by_the_hashes_it_brings() {
        let data = |expression: &str, tags: &[&str], codes: &[i32]| SubscriptionData {
            sub_string: expression.to_owned(),
            tags_set: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            code_set: codes.to_vec(),
            ..SubscriptionData::default()
        };
        for (data, expected) in [
            (data("中", &["中"], &[14_790_829]), selected(&[20_013])),
            (data("*", &[], &[]), TagFilter::All),
            (SubscriptionData::default(), TagFilter::All),
            (data("A", &[], &[1]), selected(&[65])),
            (data("||", &[], &[1, 2]), selected(&[1, 2])),
            (SubscriptionData { class_filter_mode: true, ..data("A", &["A"], &[65]) }, TagFilter::All),
        ] {
            assert_eq!(Subscription::from_heartbeat(&data).filter, Ok(expected), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn joining_tags_and_parsing_them_gives_their_hashes(
            tags in proptest::collection::vec("[^|\\x00-\\x20]{1,8}", 1..8),
            gap in "[ \\t]{0,2}",
        ) {
            prop_assume!(tags != ["*"]);
            let text = tags.join(&format!("{gap}||{gap}"));
            let TagFilter::Codes(codes) = parse_tags(&text).expect("has a tag") else { panic!("tags select by hash") };
            prop_assert!(codes.is_sorted_by(|left, right| left < right));
            for tag in &tags {
                prop_assert!(codes.contains(&tag_hash(tag)));
            }
        }

        #[test]
        fn junk_never_panics_and_never_selects_nothing(text in any::<String>()) {
            if let Ok(TagFilter::Codes(codes)) = parse_tags(&text) {
                prop_assert!(!codes.is_empty());
            }
        }
    }
}
