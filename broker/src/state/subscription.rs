//! What a consumer wants of a topic: the filter expression and the tag hashes it comes down to.

use rmq_engine::TagFilter;
use rmq_net::body::SubscriptionData;
use rmq_net::message::tags::tags_code;
use thiserror::Error;

/// The expression that selects everything.
const ALL: &str = "*";

/// The language of a filter expression. RocketMQ takes an absent or empty type for `TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionType {
    Tag,
    /// `SQL92`, or any other name a client sent.
    Other(String),
}

impl ExpressionType {
    pub fn of(name: Option<&str>) -> Self {
        match name {
            None | Some("" | "TAG") => Self::Tag,
            Some(other) => Self::Other(other.to_owned()),
        }
    }

    pub fn is_tag(&self) -> bool {
        *self == Self::Tag
    }

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Tag => "TAG",
            Self::Other(name) => name,
        }
    }
}

/// An expression that selects nothing a consumer could mean. Answered with 23.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ExpressionError {
    #[error("parse the consumer's subscription failed: the tag expression [{0}] names no tag")]
    NoTag(String),
    #[error("parse the consumer's subscription failed: the expression is empty")]
    Empty,
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
    /// What the broker filters by; [`TagFilter::All`] for anything but tags.
    pub filter: TagFilter,
}

impl Subscription {
    /// From a pull request's own fields.
    pub fn from_request(
        expression: Option<&str>,
        expression_type: Option<&str>,
        version: i64,
    ) -> Result<Self, ExpressionError> {
        let expression_type = ExpressionType::of(expression_type);
        let expression = expression.unwrap_or_default();
        let (tags, filter) = if expression_type.is_tag() {
            parse_tags(expression)?
        } else if expression.is_empty() {
            return Err(ExpressionError::Empty);
        } else {
            (Vec::new(), TagFilter::All)
        };
        Ok(Self {
            expression_type,
            expression: if expression.is_empty() { ALL } else { expression }.to_owned(),
            version,
            class_filter_mode: false,
            tags,
            filter,
        })
    }

    /// From a heartbeat. The hashes are computed here from the tags, because Go clients send
    /// hashes over UTF-8 bytes, which match no message outside ASCII. A heartbeat is never
    /// refused for its expression: what cannot be understood selects by the hashes it came with.
    pub fn from_heartbeat(data: &SubscriptionData) -> Self {
        let expression_type = ExpressionType::of(Some(&data.expression_type));
        let expression = data.sub_string.clone();
        let filter = if !expression_type.is_tag() || data.class_filter_mode || selects_all(&expression) {
            TagFilter::All
        } else if !data.tags_set.is_empty() {
            codes(data.tags_set.iter().map(|tag| tag_hash(tag)))
        } else {
            parse_tags(&expression)
                .map_or_else(|_no_tag| codes(data.code_set.iter().copied()), |(_tags, filter)| filter)
        };
        Self {
            expression_type,
            expression,
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
            TagFilter::All | TagFilter::Properties(_) => &[],
            TagFilter::Codes(codes) => codes,
        }
    }
}

fn selects_all(expression: &str) -> bool {
    expression.is_empty() || expression == ALL
}

/// Rows hold the hash sign-extended to 64 bits; the low half says it all.
fn tag_hash(tag: &str) -> i32 {
    tags_code(tag) as i32
}

/// Splits `A || B` into its tags and their hashes. Empty or `*` selects everything.
pub fn parse_tags(expression: &str) -> Result<(Vec<String>, TagFilter), ExpressionError> {
    if selects_all(expression) {
        return Ok((Vec::new(), TagFilter::All));
    }
    let tags: Vec<String> =
        expression.split("||").map(trim_as_java).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    if tags.is_empty() {
        return Err(ExpressionError::NoTag(expression.to_owned()));
    }
    let filter = codes(tags.iter().map(|tag| tag_hash(tag)));
    Ok((tags, filter))
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

    fn filter_of(expression: &str) -> Result<TagFilter, ExpressionError> {
        parse_tags(expression).map(|(_tags, filter)| filter)
    }

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
            assert_eq!(filter_of(expression), expected, "{expression:?}");
        }
    }

    #[test]
    fn a_request_without_type_means_tags() {
        for name in [None, Some(""), Some("TAG")] {
            let subscription = Subscription::from_request(Some("A"), name, 7).expect("valid");
            assert_eq!((subscription.codes(), subscription.version), (&[65][..], 7));
        }
        let sql = Subscription::from_request(Some("a > 1"), Some("SQL92"), 7).expect("valid");
        assert_eq!((sql.expression_type.name(), sql.filter), ("SQL92", TagFilter::All));
        assert_eq!(Subscription::from_request(None, Some("SQL92"), 7), Err(ExpressionError::Empty));
        let all = Subscription::from_request(None, None, 7).expect("valid");
        assert_eq!((all.expression.as_str(), all.filter), ("*", TagFilter::All));
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
            assert_eq!(Subscription::from_heartbeat(&data).filter, expected, "{data:?}");
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
            let (parsed, filter) = parse_tags(&text).expect("has a tag");
            prop_assert_eq!(&parsed, &tags);
            let TagFilter::Codes(codes) = filter else { panic!("tags select by hash") };
            prop_assert!(codes.is_sorted_by(|left, right| left < right));
            for tag in &tags {
                prop_assert!(codes.contains(&tag_hash(tag)));
            }
        }

        #[test]
        fn junk_never_panics_and_never_selects_nothing(text in any::<String>()) {
            if let Ok((_tags, TagFilter::Codes(codes))) = parse_tags(&text) {
                prop_assert!(!codes.is_empty());
            }
        }
    }
}
