//! Against the answers of RocketMQ's own classes, and against junk.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::eval::Failed;
use super::*;

/// A line of the table `tests/filter-answers` writes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Line {
    message: Option<BTreeMap<String, String>>,
    expression: String,
    /// `X`: refused. Else a letter for every message: true, false, null, exception.
    answers: String,
}

fn encoded(message: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    message.iter().for_each(|(key, value)| properties::push(&mut out, key, value.as_bytes()));
    out
}

fn answers(expression: &str, messages: &[Vec<u8>]) -> String {
    let Ok(sql) = Sql::compile(expression) else {
        return "X".to_owned();
    };
    let letter = |properties: &Vec<u8>| match sql.evaluate(properties) {
        Ok(Value::Boolean(true)) => 'T',
        Ok(Value::Boolean(false)) => 'F',
        Ok(Value::Null) => 'N',
        Err(Failed) => 'E',
        other => panic!("{expression:?} is no truth value: {other:?}"),
    };
    messages.iter().map(letter).collect()
}

#[test]
fn expressions_mean_what_they_mean_to_rocketmq() {
    let lines = include_str!("sql92.jsonl").lines();
    let lines: Vec<Line> = lines.map(|line| rmq_net::body::decode(line.as_bytes()).expect("a line")).collect();
    let messages: Vec<_> = lines.iter().filter_map(|line| line.message.as_ref()).map(encoded).collect();
    let mut differences = Vec::new();
    let mut compared = 0;
    for Line { expression, answers: expected, .. } in lines.iter().filter(|line| line.message.is_none()) {
        compared += 1;
        let ours = answers(expression, &messages);
        if ours != *expected {
            differences.push(format!("{expression:?}\n  theirs {expected}\n  ours   {ours}"));
        }
    }
    assert!(compared > 1000 && messages.len() > 30, "{compared} expressions, {} messages", messages.len());
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn unknown_values_follow_the_three_valued_tables() {
    let names = ["TRUE", "FALSE", "NULL"];
    let and = ["TFN", "FFF", "NFN"];
    let or = ["TTT", "TFN", "TNN"];
    let nothing = [Vec::new()];
    for (row, left) in names.iter().enumerate() {
        for (column, right) in names.iter().enumerate() {
            let expected = |table: [&str; 3]| table[row][column..=column].to_owned();
            assert_eq!(answers(&format!("{left} AND {right}"), &nothing), expected(and), "{left} AND {right}");
            assert_eq!(answers(&format!("{left} OR {right}"), &nothing), expected(or), "{left} OR {right}");
        }
        assert_eq!(answers(&format!("NOT {left}"), &nothing), ["F", "T", "N"][row]);
    }
}

/// What Java reads and this broker does not. RocketMQ selects the message in each case.
#[test]
fn these_differences_to_java_are_meant() {
    let digits = "\u{0665}"; // ARABIC-INDIC DIGIT FIVE, which Java's Integer.valueOf takes for a 5
    assert_eq!(answers("a = 5", &[encoded(&[("a".to_owned(), digits.to_owned())].into())]), "E");
    let zeros = "0".repeat(2000);
    assert_eq!(answers("a = 5", &[encoded(&[("a".to_owned(), format!("{zeros}5"))].into())]), "E");
}

#[test]
fn an_error_says_where_and_what() {
    for (expression, expected) in [
        ("a >", "character 4: a property, a literal, (, NOT, + or - is expected, not the end"),
        ("a BETWEEN 1 OR 5", "character 13: AND is expected, not OR"),
        ("a IN (5)", "character 7: a text in quotes is expected, not 5"),
        ("\u{e4} = 1", "character 1: [\u{e4}] begins nothing of the language"),
        ("b = 1 AND a = NULL", "character 15: NULL cannot be compared, use IS NULL or IS NOT NULL"),
        ("a > 'x'", "character 5: a text cannot be compared with this operator"),
        ("a BETWEEN 5 AND 1", "character 11: BETWEEN needs its smaller bound first"),
        ("a = 1e400", "character 5: the number 1e400 is out of range"),
        ("TRUE AND 5", "character 10: a number is neither true nor false"),
    ] {
        let error = Sql::compile(expression).expect_err(expression).to_string();
        assert_eq!(error, format!("invalid SQL92 expression, {expected}"), "{expression}");
    }
    let long =
        Sql::compile(&format!("a IS '{}'", "\u{4e2d}".repeat(5000))).expect_err("a text is not NULL").to_string();
    assert!(long.ends_with("...") && long.chars().count() < 150, "{long}");
}

#[test]
fn expressions_larger_than_the_bounds_are_refused() {
    let fault = |expression: String| Sql::compile(&expression).map(drop).map_err(|error| error.fault);
    let depth = NESTING_MAX as usize;
    for (open, close) in [("(", ")"), ("NOT (", ")"), ("-", ""), ("NOT ", ""), ("+", ""), ("(a = 1) = (", ")")] {
        let nested = |count: usize| format!("{}a{}", open.repeat(count), close.repeat(count));
        assert!(!matches!(fault(nested(depth / 2)), Err(Fault::TooDeep)), "{open}");
        assert_eq!(fault(nested(20 * depth)), Err(Fault::TooDeep), "{open}");
    }
    assert_eq!(fault(format!("a{}", " = a".repeat(depth))), Ok(()));
    assert_eq!(fault(format!("a{}", " = a".repeat(depth + 2))), Err(Fault::TooDeep));
    assert_eq!(fault(format!("a = 1{}", " OR a = 1".repeat(3000))), Ok(()));
    let long = "a = 1 OR ".repeat(4000);
    assert_eq!(fault(long.clone()), Err(Fault::TooLong { size_bytes: long.len() }));
    let names = |count: usize| (0..count).map(|name| format!("a{name} = 1")).collect::<Vec<_>>().join(" AND ");
    assert_eq!(fault(names(PROPERTIES_MAX)), Ok(()));
    assert_eq!(fault(names(PROPERTIES_MAX + 1)), Err(Fault::TooManyProperties));
}

#[test]
fn what_is_compiled_stays_within_its_bound() {
    for term in ["a OR ", "NOT a OR ", "a=a OR ", "a IN('a','b','c','d')OR ", "a IS NULL OR ", "a CONTAINS 'b' OR "] {
        let text = format!("{}a", term.repeat((EXPRESSION_BYTES_MAX - 1) / term.len()));
        let allocated = allocation_counter::measure(|| drop(Sql::compile(&text).expect("valid")));
        let bytes = allocated.bytes_max as usize;
        assert!(bytes <= COMPILED_BYTES_PER_BYTE * text.len(), "{term}: {bytes} bytes for {}", text.len());
    }
}

#[test]
fn a_message_is_looked_at_without_allocation() {
    let text = "(region = 'east' OR region IN ('west', 'north')) AND price BETWEEN 1.5 AND 20 AND name CONTAINS 'an' \
                AND NOT (count > 5) AND missing IS NULL";
    let sql = Sql::compile(text).expect("valid");
    let properties = b"region\x01west\x02price\x0110\x02name\x01orange\x02count\x013\x02TAGS\x01A\x02";
    let allocated = allocation_counter::measure(|| assert!(sql.selects(properties)));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_last_of_two_properties_with_a_name_counts() {
    let sql = Sql::compile("a = 2").expect("valid");
    assert!(sql.selects(b"a\x011\x02a\x012\x02") && !sql.selects(b"a\x012\x02a\x011"));
}

proptest! {
    #[test]
    fn junk_never_panics(expression in any::<String>(), properties in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(sql) = Sql::compile(&expression) {
            sql.selects(&properties);
        }
    }

    #[test]
    fn tokens_in_any_order_never_panic(
        tokens in proptest::collection::vec(prop::sample::select(vec![
            "a", "b", "1", "0", "1.5", "9223372036854775807", "'x'", "''", "=", "<>", "<", ">=", "(", ")", ",", "+", "-",
            " AND ", " OR ", " NOT ", " IS ", " NULL ", " IN ", " BETWEEN ", " CONTAINS ", " ENDSWITH ", " TRUE ", "--", "/*",
        ]), 0..24),
        values in proptest::collection::vec("[0-9a-z. \\-]{1,6}", 2),
    ) {
        let expression = tokens.concat();
        let properties = format!("a\u{1}{}\u{2}b\u{1}{}", values[0], values[1]);
        match Sql::compile(&expression) {
            Ok(sql) => drop(sql.evaluate(properties.as_bytes())),
            Err(error) => prop_assert!((1..=expression.chars().count() + 1).contains(&error.at), "{}", error),
        }
    }
}
