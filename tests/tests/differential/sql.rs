//! SQL92 filters.

use rmq_tests::remoting::Request;
use serde_json::json;

use crate::script::{Script, property, request};

const TOPIC: &str = "Sql";

/// Those that compile, then those that do not.
const EXPRESSIONS: [&str; 20] = [
    "a > 5",
    "a BETWEEN 3 AND 6",
    "name = 'two'",
    "name IN ('one', 'three')",
    "name IS NULL",
    "TAGS = 'A' AND a <= 4",
    "NOT (a > 5)",
    "NOT a > 5",
    "name CONTAINS 't' OR a = 1",
    "name NOT STARTSWITH 't'",
    "flag = TRUE",
    "TRUE",
    "a = 1.5",
    "a >",
    "a LIKE 'x'",
    "(a > 1",
    "a + 1 > 2",
    "name = NULL",
    "5",
    "",
];

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 1, 6);
    let names = ["one", "two", "three", ""];
    let message = |index: usize| {
        let mut properties = property("a", &index.to_string()) + &property("TAGS", ["A", "B"][index % 2]);
        if index % 4 != 3 {
            properties += &property("name", names[index % 4]);
        }
        properties + &property("flag", if index < 5 { "true" } else { "false" }) + &property("UNIQ_KEY", "key")
    };
    let messages: Vec<_> = (0..10).map(message).collect();
    script.fill(TOPIC, &messages.iter().map(String::as_str).collect::<Vec<_>>());
    let pull =
        |expression: &str| Request::pull(TOPIC, 0, 0).ext("subscription", expression).ext("expressionType", "SQL92");
    for expression in EXPRESSIONS {
        // `|` separates the columns of the list of differences, and no expression here has one.
        script.step(&format!("pull {expression:?}"), &pull(expression));
        let config = json!({
            "clientId": "sql-client", "group": "sql_group", "namespace": "",
            "subscriptionData": {"topic": TOPIC, "subString": expression, "expressionType": "SQL92", "subVersion": 1},
        });
        let check = Request::new(request::CHECK_CLIENT_CONFIG).body(config.to_string().as_bytes());
        script.step(&format!("check {expression:?}"), &check);
    }
    script.step("at the end", &pull("a > 100").ext("queueOffset", "10"));
}
