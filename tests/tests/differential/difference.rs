//! What differs, and what may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::script::Observations;

/// Something of a step that Apache's broker and ours answer differently; `-` is what is not there.
///
/// Usually that is a field. When the codes differ, all else follows: then it is the whole `answer`. When the messages are
/// not the same, it is their `offsets`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

type Fields<'a> = BTreeMap<&'a str, &'a str>;

pub fn differences(apache: &Observations, ringmq: &Observations) -> BTreeSet<Difference> {
    let steps: BTreeSet<&str> = apache.keys().chain(ringmq.keys()).map(|(step, _)| step.as_str()).collect();
    let of_step = |step| {
        let (apache, ringmq) = (fields(apache, step), fields(ringmq, step));
        let pairs = differences_of_step(&apache, &ringmq);
        pairs.into_iter().map(move |(field, apache, ringmq)| Difference {
            step: String::from(step),
            field,
            apache,
            ringmq,
        })
    };
    steps.into_iter().flat_map(of_step).collect()
}

fn fields<'a>(observations: &'a Observations, step: &str) -> Fields<'a> {
    let all = observations.iter().filter(|((of, _), _)| of == step);
    all.map(|((_, field), value)| (field.as_str(), value.as_str())).collect()
}

/// Field, Apache's value, ours.
fn differences_of_step(apache: &Fields<'_>, ringmq: &Fields<'_>) -> Vec<(String, String, String)> {
    if apache.get("code") != ringmq.get("code") {
        return vec![("answer".to_owned(), answer(apache), answer(ringmq))];
    }
    let (apache_offsets, ringmq_offsets) = (offsets(apache), offsets(ringmq));
    let has_same_messages = apache_offsets == ringmq_offsets;
    let mut found = Vec::new();
    if !has_same_messages {
        found.push(("offsets".to_owned(), apache_offsets, ringmq_offsets));
    }
    let names: BTreeSet<&str> = apache.keys().chain(ringmq.keys()).copied().collect();
    let compared = names.into_iter().filter(|name| has_same_messages || !is_of_messages(name));
    let value = |fields: &Fields<'_>, name| fields.get(name).map_or("-", |value| value.trim()).to_owned();
    let pairs = compared.map(|name| (name.trim().to_owned(), value(apache, name), value(ringmq, name)));
    found.extend(pairs.filter(|(_, apache, ringmq)| apache != ringmq));
    found
}

/// All of an answer, but of its messages only where they are.
fn answer(fields: &Fields<'_>) -> String {
    let rest = fields.iter().filter(|(name, _)| !is_of_messages(name)).map(|(name, value)| format!("{name} {value}"));
    let mut parts: Vec<_> = rest.map(|part| part.trim_end().to_owned()).collect();
    if fields.contains_key("count") {
        parts.push(format!("offsets {}", offsets(fields)));
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

/// The offsets of the messages, in their order.
fn offsets(fields: &Fields<'_>) -> String {
    let offset = |index: usize| fields.get(format!("{index} queueOffset").as_str()).copied();
    let offsets: Vec<_> = (0..).map_while(offset).collect();
    if offsets.is_empty() { "-".to_owned() } else { offsets.join(" ") }
}

/// Fields of messages begin with the index of the message.
fn is_of_messages(field: &str) -> bool {
    field == "count" || field.starts_with(|first: char| first.is_ascii_digit())
}

/// The differences that are on purpose. A line is `steps | fields | Apache's | RingMQ's | reason`. Of steps and fields there
/// may be several, separated by `; `, for which the rest is the same; a line that ends with `;` goes on in the next. `#`
/// begins a comment.
pub struct Listed(BTreeSet<Difference>);

impl Listed {
    pub fn read(text: &str) -> Self {
        let text = text.replace(";\n", "; ");
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let mut listed = BTreeSet::new();
        for line in lines {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [steps, fields, apache, ringmq, reason] = cells[..] else {
                panic!("not `steps | fields | Apache | RingMQ | reason`: {line}");
            };
            assert!(!reason.is_empty(), "without a reason: {line}");
            for step in steps.split("; ").map(str::trim) {
                for field in fields.split("; ") {
                    let (step, field) = (step.to_owned(), field.to_owned());
                    let difference = Difference { step, field, apache: apache.to_owned(), ringmq: ringmq.to_owned() };
                    assert!(listed.insert(difference), "twice: {line}");
                }
            }
        }
        Self(listed)
    }

    /// What is not as listed: differences without a line, lines without a difference.
    pub fn check(&self, found: &BTreeSet<Difference>) -> Vec<String> {
        let unexplained = found.difference(&self.0).map(|difference| format!("not listed: {difference}"));
        unexplained.chain(self.0.difference(found).map(|listed| format!("does not occur: {listed}"))).collect()
    }
}

fn observed(fields: &[(&str, &str)]) -> Observations {
    fields.iter().map(|(field, value)| (("sends/x".to_owned(), (*field).to_owned()), (*value).to_owned())).collect()
}

#[test]
fn a_list_must_match_exactly() {
    let found = differences(&observed(&[("ext a", "1"), ("ext b", "")]), &observed(&[("ext a", "2"), ("ext b", "2")]));
    let listed = "# why\nsends/x | ext a | 1 | 2 | a reason\nsends/x | ext b |  | 2 | a reason";
    assert!(Listed::read(listed).check(&found).is_empty());
    assert_eq!(
        Listed::read("").check(&found),
        ["not listed: sends/x | ext a | 1 | 2", "not listed: sends/x | ext b |  | 2"]
    );
    let listed = "sends/y;\nsends/x | ext a; ext b | 1 | 2 | a reason";
    let wrong = ["sends/x | ext b | 1 | 2", "sends/y | ext a | 1 | 2", "sends/y | ext b | 1 | 2"];
    let wrong = wrong.map(|listed| format!("does not occur: {listed}"));
    assert_eq!(
        Listed::read(listed).check(&found),
        [&["not listed: sends/x | ext b |  | 2".to_owned()], &wrong[..]].concat()
    );
    assert!(differences(&observed(&[("code", "13")]), &observed(&[("code", "13")])).is_empty());
}

#[test]
fn what_follows_from_another_difference_is_none_of_its_own() {
    let shown = |apache: &[(&str, &str)], ringmq: &[(&str, &str)]| {
        let found = differences(&observed(apache), &observed(ringmq));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let found = [("code", "0"), ("count", "2"), ("0 queueOffset", "3"), ("0 body", "a"), ("1 queueOffset", "4")];
    let answer = "sends/x | answer | code 0, offsets 3 4 | code 1, remark text";
    assert_eq!(shown(&found, &[("code", "1"), ("remark", "text")]), [answer]);
    let fewer = [("code", "0"), ("count", "1"), ("0 queueOffset", "4"), ("0 body", "b")];
    assert_eq!(shown(&found, &fewer), ["sends/x | offsets | 3 4 | 4"]);
    let other = [("code", "0"), ("count", "2"), ("0 queueOffset", "3"), ("0 body", "b"), ("1 queueOffset", "4")];
    assert_eq!(shown(&found, &other), ["sends/x | 0 body | a | b"]);
}
