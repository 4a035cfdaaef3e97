//! JSON headers with duplicate, missing, mistyped and huge fields, and answers to oneway requests.

use rmq_tests::remoting::{Reply, Request, frame};

use crate::{assert_refused, connect};

const SYSTEM_ERROR: i32 = 1;
const HUGE_BYTES: usize = 1 << 20;

/// Sends a header as it is, with a body.
fn call_raw(header: &str, body: &[u8]) -> Reply {
    let mut connection = connect();
    connection.write(&frame(header, body)).expect("the request is written");
    connection.reply().expect("an answer, not the end of the connection")
}

#[test]
fn of_duplicate_fields_the_last_one_wins() {
    let header = Request::send("duplicates", 0, "", b"").header(7);
    // Another queue, written after the first one.
    let twice = header.replacen(r#""e":"0""#, r#""e":"0","e":"2""#, 1);
    assert_ne!(header, twice);
    let reply = call_raw(&twice, b"body");
    assert_eq!((reply.code, reply.opaque, reply.number("queueId")), (0, 7, Some(2)), "{reply:?}");
    // And another opaque, at the end of the header.
    let twice = format!("{},\"opaque\":8}}", header.strip_suffix('}').expect("an object"));
    let reply = call_raw(&twice, b"body");
    assert_eq!((reply.code, reply.opaque, reply.number("queueId")), (0, 8, Some(0)), "{reply:?}");
}

#[test]
fn missing_fields_are_named() {
    let mut connection = connect();
    // One-letter names of a send: a group, b topic, e queueId, g bornTimestamp.
    for (key, name) in [("b", "topic"), ("e", "queueId")] {
        let reply = connection.call(&Request::send("missing", 0, "", b"body").without(key));
        let is_named = reply.remark.contains(name) || reply.remark.contains(&format!("`{key}`"));
        assert!(reply.code != 0 && (is_named || !crate::is_ringmq()), "without {key}: {reply:?}");
    }
    for key in ["consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag"] {
        let reply = connection.call(&Request::pull("missing", 0, 0).without(key));
        assert_ne!(reply.code, 0, "without {key}: {reply:?}");
        assert!(!crate::is_ringmq() || reply.remark.contains(key), "{key} is not named: {reply:?}");
    }
    let reply = connection.call(&Request::new(310).body(b"body"));
    assert_refused(&reply, SYSTEM_ERROR, &[]);
}

#[test]
fn mistyped_fields_are_named() {
    let mut connection = connect();
    for value in ["abc", "", "1.5", "99999999999", "0x10"] {
        let reply = connection.call(&Request::send("mistyped", 0, "", b"body").ext("e", value));
        assert_refused(&reply, SYSTEM_ERROR, &[]);
        assert!(!crate::is_ringmq() || !reply.remark.is_empty(), "{reply:?}");
        for key in ["queueId", "queueOffset", "maxMsgNums"] {
            let value = if value == "99999999999" { "99999999999999999999" } else { value };
            let reply = connection.call(&Request::pull("mistyped", 0, 0).ext(key, value));
            assert_refused(&reply, SYSTEM_ERROR, &[key]);
        }
    }
    let reply = connection.call(&Request::pull("mistyped", 0, 0));
    assert_refused(&reply, 17, &["mistyped"]);
}

#[test]
fn numbers_and_booleans_may_stand_without_quotes() {
    let header = Request::send("unquoted", 1, "", b"").header(3);
    let header = header.replacen(r#""e":"1""#, r#""e":1"#, 1).replacen(r#""m":"false""#, r#""m":false"#, 1);
    let reply = call_raw(&header, b"body");
    assert_eq!((reply.code, reply.number("queueId")), (0, Some(1)), "{reply:?}");
}

#[test]
fn huge_fields_are_read_or_refused_by_name() {
    let huge = "x".repeat(HUGE_BYTES);
    let mut connection = connect();
    let reply = connection.call(&Request::send("huge", 0, "", b"body").ext("nobodyKnowsThis", &huge));
    assert_eq!(reply.code, 0, "an unknown field is ignored, whatever its size: {reply:?}");
    let reply = connection.call(&Request::send(&huge, 0, "", b"body"));
    assert_refused(&reply, 29, &["127"]);
    assert!(reply.remark.len() < HUGE_BYTES + 4096, "the remark has {} bytes", reply.remark.len());
    let reply = connection.call(&Request::send("huge", 0, &format!("k\u{1}{huge}\u{2}"), b"body"));
    assert_refused(&reply, 13, &["32767"]);
    let reply = connection.call(&Request::pull("huge", 0, 0).ext("consumerGroup", &huge));
    assert_ne!(reply.code, 0, "no group has such a name");
    let reply = connection.call(&Request::pull("huge", 0, 0));
    assert_eq!(reply.code, 0, "the connection is as good as before: {:?}", reply.remark);
}

#[test]
fn oneway_requests_are_never_answered() {
    let mut connection = connect();
    let long = "x".repeat(200);
    connection.start(&Request::new(9999).oneway());
    connection.start(&Request::new(200_050).oneway());
    connection.start(&Request::send("bad name", 0, "", b"body").oneway());
    connection.start(&Request::send(&long, 0, "", b"body").oneway());
    connection.start(&Request::send("oneway", 999, "", b"body").oneway());
    connection.start(&Request::send("oneway", 0, "", b"").oneway());
    connection.start(&Request::pull("no_such_topic", 0, 0).oneway());
    connection.start(&Request::new(34).body(b"junk").oneway());
    // `call` fails if anything else is answered first; a second one if something is answered between.
    assert_eq!(connection.call(&Request::send("oneway", 0, "", b"body")).code, 0);
    assert_refused(&connection.call(&Request::new(9999)), 3, &["9999"]);
}

#[test]
fn heartbeats_of_junk_are_refused() {
    let mut connection = connect();
    for body in ["junk", "{", "[]", "{\"clientID\":\"c\",\"consumerDataSet\":7}", "\u{0}\u{1}"] {
        let reply = connection.call(&Request::new(34).body(body.as_bytes()));
        assert_eq!(reply.code, SYSTEM_ERROR, "{body:?}: {reply:?}");
        assert!(!crate::is_ringmq() || !reply.remark.is_empty(), "no remark on {body:?}");
    }
    assert_refused(&connection.call(&Request::new(34)), SYSTEM_ERROR, &[]);
    let good = connection.call(&Request::new(34).body(br#"{"clientID":"c","producerDataSet":[{"groupName":"pg"}]}"#));
    assert_eq!(good.code, 0, "{good:?}");
}
