//! What differs, and what may.

use std::fmt;

use crate::script::Observations;

/// A field of a step that Apache's broker and ours answer differently; `-` is a field that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    step: String,
    field: String,
    apache: String,
    ringmq: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} | {} | {}", self.step, self.field, self.apache, self.ringmq)
    }
}

pub fn differences(apache: &Observations, ringmq: &Observations) -> Vec<Difference> {
    let mut keys: Vec<_> = apache.keys().chain(ringmq.keys()).collect();
    keys.sort();
    keys.dedup();
    let text = |all: &Observations, key| all.get(key).cloned().unwrap_or_else(|| "-".to_owned());
    let pairs = keys.into_iter().map(|key| (key, text(apache, key), text(ringmq, key)));
    pairs
        .filter(|(_, apache, ringmq)| apache != ringmq)
        .map(|((step, field), apache, ringmq)| Difference { step: step.clone(), field: field.clone(), apache, ringmq })
        .collect()
}

/// The differences that are on purpose. A line is `step | field | Apache's | RingMQ's | reason`, where `*` stands for any
/// text; `#` begins a comment.
pub struct Listed(Vec<Vec<String>>);

impl Listed {
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let rows = lines.map(|line| line.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        let rows: Vec<_> = rows.collect();
        for row in &rows {
            assert!(row.len() == 5 && !row[4].is_empty(), "not `step | field | Apache | RingMQ | reason`: {row:?}");
        }
        Self(rows)
    }

    /// What is not as listed: differences without a line, lines without a difference.
    pub fn check(&self, found: &[Difference]) -> Vec<String> {
        let unexplained = found.iter().filter(|difference| !self.0.iter().any(|row| is_about(row, difference)));
        let gone = self.0.iter().filter(|row| !found.iter().any(|difference| is_about(row, difference)));
        let unexplained = unexplained.map(|difference| format!("not listed: {difference}"));
        unexplained.chain(gone.map(|row| format!("does not occur: {}", row.join(" | ")))).collect()
    }
}

fn is_about(row: &[String], difference: &Difference) -> bool {
    let Difference { step, field, apache, ringmq } = difference;
    row.iter().zip([step, field, apache, ringmq]).all(|(pattern, text)| matches(pattern, text))
}

/// `*` in the pattern stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[test]
fn a_list_must_match_exactly() {
    let observed = |code: &str| [(("sends/empty".to_owned(), "code".to_owned()), code.to_owned())].into();
    let found = differences(&observed("13"), &observed("1"));
    assert!(Listed::read("# why\nsends/* | code | 13 | 1 | a reason").check(&found).is_empty());
    assert_eq!(Listed::read("").check(&found), ["not listed: sends/empty | code | 13 | 1"]);
    assert_eq!(Listed::read("sends/empty | code | 13 | 2 | a reason").check(&found).len(), 2);
    assert_eq!(differences(&observed("13"), &observed("13")), []);
}
