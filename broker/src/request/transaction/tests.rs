//! Half messages, what ends them, and the checks of [`check_back`](crate::request::check_back).

use rmq_net::codes::{request as code, response};
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::record::{self, Record};
use rmq_net::message::{names, properties};

use crate::testing::{Cores, Disk, Sent};

const SECOND_MS: i64 = 1000;
/// `transactionTimeOut` and `transactionCheckInterval`.
const FIRST_CHECK_MS: i64 = 6 * SECOND_MS;
const INTERVAL_MS: i64 = 30 * SECOND_MS;
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";

/// By which a client names a half message.
#[derive(Clone, Debug)]
struct Half {
    queue_offset: String,
    physical_offset: String,
}

impl Half {
    fn of(sent: &Sent) -> Self {
        assert_eq!(sent.code, 0, "{}", sent.remark);
        let id = OffsetMessageId::parse(sent.ext("msgId")).expect("a message id");
        Self { queue_offset: sent.ext("queueOffset").to_owned(), physical_offset: id.physical_offset.to_string() }
    }

    fn of_check(check: &Sent) -> Self {
        let text = |key: &str| check.ext(key).to_owned();
        Self { queue_offset: text("tranStateTableOffset"), physical_offset: text("commitLogOffset") }
    }
}

fn send_half(cores: &mut Cores, queue_id: u32, more: &[(&str, &str)]) -> Sent {
    let mut text = vec![("TRAN_MSG", "true"), ("PGROUP", "p"), ("UNIQ_KEY", "KEY"), ("TAGS", "A"), ("WAIT", "true")];
    text.extend(more);
    cores.send_with(0, "T", queue_id, &text, &[("f", "4")], b"half")
}

fn half(cores: &mut Cores, queue_id: u32) -> Half {
    Half::of(&send_half(cores, queue_id, &[]))
}

fn end_as(cores: &mut Cores, half: &Half, what: &str, group: &str, is_from_check: &str) -> Sent {
    let ext = [
        ("commitLogOffset", half.physical_offset.as_str()),
        ("commitOrRollback", what),
        ("fromTransactionCheck", is_from_check),
        ("msgId", "KEY"),
        ("producerGroup", group),
        ("tranStateTableOffset", half.queue_offset.as_str()),
    ];
    cores.call(0, code::END_TRANSACTION, &ext, b"")
}

fn end(cores: &mut Cores, half: &Half, what: &str) -> i32 {
    end_as(cores, half, what, "p", "false").code
}

fn stored(cores: &mut Cores, topic: &str) -> i64 {
    let bounds = |cores: &mut Cores, core: usize| -> i64 {
        let queues: Vec<u32> = cores.broker(core).shard.queues(topic).map(|(queue_id, ..)| queue_id).collect();
        queues.into_iter().map(|queue_id| cores.broker(core).shard.bounds(topic, queue_id).max).sum()
    };
    (0..cores.count()).map(|core| bounds(cores, core)).sum()
}

fn pass(cores: &mut Cores, ms: i64) {
    cores.now_ms += ms;
    cores.run();
}

fn producer_on(cores: &mut Cores, core: usize) {
    let heartbeat = format!(r#"{{"clientID":"c{core}","consumerDataSet":[],"producerDataSet":[{{"groupName":"p"}}]}}"#);
    assert_eq!(cores.call(core, code::HEART_BEAT, &[], heartbeat.as_bytes()).code, 0);
}

fn text_of<'a>(record: &Record<'a>, key: &str) -> Option<&'a str> {
    properties::get_str(record.properties, key)
}

/// The one message at the start of a queue of the topic T, encoded.
fn first_message(cores: &mut Cores, queue_id: u32) -> Vec<u8> {
    let queue_id = queue_id.to_string();
    let pulled = cores.call(0, code::PULL_MESSAGE, &crate::testing::pull_fields(&queue_id, "0"), b"");
    assert_eq!(pulled.code, 0, "{}", pulled.remark);
    pulled.body
}

#[test]
fn a_half_message_is_read_by_nobody_until_it_is_committed_and_then_once() {
    for (queue_id, restarts) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut cores = Cores::new(2);
        let sent = send_half(&mut cores, queue_id, &[]);
        assert_eq!((sent.ext("transactionId"), sent.ext("queueId")), ("KEY", queue_id.to_string().as_str()));
        let half = Half::of(&sent);
        assert_eq!((stored(&mut cores, "T"), stored(&mut cores, names::TRANS_HALF_TOPIC)), (0, 1));
        if restarts {
            cores.restart();
        }
        for _ in 0..2 {
            assert_eq!(end(&mut cores, &half, COMMIT), 0);
        }
        assert_eq!(end(&mut cores, &half, ROLLBACK), 0, "as in RocketMQ, though it has no effect");
        if restarts {
            cores.restart();
            assert_eq!(end(&mut cores, &half, COMMIT), 0);
        }
        pass(&mut cores, FIRST_CHECK_MS + INTERVAL_MS);
        assert_eq!((stored(&mut cores, "T"), stored(&mut cores, names::TRANS_HALF_TOPIC)), (1, 1));
        let body = first_message(&mut cores, queue_id);
        let message = record::decode(&body).expect("a message");
        assert_eq!((message.body, message.sys_flag, message.queue_id), (&b"half"[..], 8, queue_id as i32));
        assert_eq!(message.prepared_transaction_offset.to_string(), half.physical_offset);
        let kept = ["TRAN_MSG", "PGROUP", "UNIQ_KEY", "__transactionId__", "TAGS"].map(|key| text_of(&message, key));
        assert_eq!(kept, [Some("true"), Some("p"), Some("KEY"), Some("KEY"), Some("A")]);
        let own = ["REAL_TOPIC", "REAL_QID", "__DUE_MS"].map(|key| text_of(&message, key));
        assert_eq!(own, [None; 3]);
    }
}

#[test]
fn a_rolled_back_message_is_never_read_or_asked_for() {
    let mut cores = Cores::new(2);
    producer_on(&mut cores, 1);
    let halves = [0, 1].map(|queue_id| half(&mut cores, queue_id));
    for half in &halves {
        assert_eq!(end(&mut cores, half, ROLLBACK), 0);
        assert_eq!(end(&mut cores, half, COMMIT), 0, "what is ended stays as it is");
    }
    pass(&mut cores, FIRST_CHECK_MS);
    cores.restart();
    producer_on(&mut cores, 1);
    pass(&mut cores, INTERVAL_MS);
    assert!(cores.requests_to_clients().is_empty());
    assert_eq!(stored(&mut cores, "T"), 0);
}

#[test]
fn an_open_half_message_is_asked_for_in_time_with_what_a_producer_needs_to_answer() {
    for queue_id in [0, 1] {
        let mut cores = Cores::new(2);
        producer_on(&mut cores, 1);
        half(&mut cores, queue_id);
        pass(&mut cores, FIRST_CHECK_MS - 1);
        assert!(cores.requests_to_clients().is_empty(), "there is still time");
        pass(&mut cores, 1);
        let mut asked = cores.requests_to_clients();
        assert_eq!(asked.len(), 1);
        let check = asked.remove(0);
        assert_eq!(check.code, code::CHECK_TRANSACTION_STATE);
        let ext = ["topic", "msgId", "transactionId", "bname"].map(|key| check.ext(key));
        assert_eq!(ext, [names::TRANS_HALF_TOPIC, "KEY", "KEY", "broker-a"]);
        let asked_for = record::decode(&check.body).expect("the half message");
        assert_eq!((asked_for.topic, asked_for.queue_id, asked_for.body), ("T", queue_id as i32, &b"half"[..]));
        assert!(asked_for.is_body_intact());
        assert_eq!(["PGROUP", "TRANSACTION_CHECK_TIMES"].map(|key| text_of(&asked_for, key)), [Some("p"), Some("1")]);
        let copy = Half::of_check(&check);
        let id = OffsetMessageId::parse(check.ext("offsetMsgId")).expect("a message id");
        assert_eq!(id.physical_offset.to_string(), copy.physical_offset);
        assert_eq!(end_as(&mut cores, &copy, COMMIT, "p", "true").code, 0);
        pass(&mut cores, INTERVAL_MS);
        assert!(cores.requests_to_clients().is_empty());
        assert_eq!(stored(&mut cores, "T"), 1);
    }
}

#[test]
fn a_late_answer_that_names_an_earlier_copy_ends_the_transaction_once() {
    for what in [COMMIT, ROLLBACK] {
        let mut cores = Cores::new(2);
        producer_on(&mut cores, 0);
        let first = half(&mut cores, 1);
        pass(&mut cores, FIRST_CHECK_MS);
        pass(&mut cores, INTERVAL_MS);
        let copies: Vec<Half> = cores.requests_to_clients().iter().map(Half::of_check).collect();
        assert_eq!(copies.len(), 2);
        assert_eq!(end(&mut cores, &first, what), 0);
        for half in copies.iter().chain([&first]) {
            assert_eq!(end(&mut cores, half, COMMIT), 0);
        }
        pass(&mut cores, INTERVAL_MS);
        assert!(cores.requests_to_clients().is_empty());
        assert_eq!(stored(&mut cores, "T"), i64::from(what == COMMIT));
    }
}

#[test]
fn after_a_restart_an_earlier_copy_ends_nothing_until_the_producer_was_asked_again() {
    let mut cores = Cores::new(2);
    producer_on(&mut cores, 0);
    let first = half(&mut cores, 0);
    pass(&mut cores, FIRST_CHECK_MS);
    assert_eq!(cores.requests_to_clients().len(), 1);
    cores.restart();
    producer_on(&mut cores, 0);
    assert_eq!(end(&mut cores, &first, COMMIT), response::SYSTEM_ERROR, "ended or not is not known yet");
    assert_eq!(stored(&mut cores, "T"), 0);
    pass(&mut cores, INTERVAL_MS);
    let copy = Half::of_check(&cores.requests_to_clients()[0]);
    for half in [&first, &copy, &first] {
        assert_eq!(end(&mut cores, half, COMMIT), 0);
    }
    assert_eq!(stored(&mut cores, "T"), 1);
}

#[test]
fn any_producer_of_the_group_that_is_online_is_asked() {
    let mut cores = Cores::new(2);
    for core in [0, 1] {
        producer_on(&mut cores, core);
    }
    cores.close_client(0);
    let sent: Vec<Half> = (0..4).map(|queue_id| half(&mut cores, queue_id)).collect();
    pass(&mut cores, FIRST_CHECK_MS);
    assert_eq!(cores.requests_to_clients().len(), sent.len());
    cores.close_client(1);
    pass(&mut cores, INTERVAL_MS);
    assert!(cores.requests_to_clients().is_empty(), "nobody is there to be asked");
    producer_on(&mut cores, 0);
    pass(&mut cores, INTERVAL_MS);
    let asked = cores.requests_to_clients();
    assert_eq!(asked.len(), sent.len());
    let times = record::decode(&asked[0].body)
        .ok()
        .and_then(|half| text_of(&half, "TRANSACTION_CHECK_TIMES").map(str::to_owned));
    assert_eq!(times.as_deref(), Some("3"), "as in RocketMQ a check counts even if nobody hears it");
}

#[test]
fn a_half_message_checked_too_often_is_given_up_and_can_be_resumed_once() {
    for queue_id in [0, 1] {
        let mut cores = Cores::with_config(2, &[("transactionCheckMax", "2"), ("transactionCheckInterval", "1000")]);
        producer_on(&mut cores, 1);
        let first = half(&mut cores, queue_id);
        pass(&mut cores, FIRST_CHECK_MS);
        for _ in 0..4 {
            pass(&mut cores, SECOND_MS);
        }
        assert_eq!(cores.requests_to_clients().len(), 2);
        assert_eq!((stored(&mut cores, names::TRANS_CHECK_MAX_TIME_TOPIC), stored(&mut cores, "T")), (1, 0));
        let queues = cores.broker(0).topics.get(names::TRANS_CHECK_MAX_TIME_TOPIC).map(|topic| topic.read_queue_nums);
        assert_eq!(queues, Some(2), "one for each core");
        assert_eq!((end(&mut cores, &first, COMMIT), stored(&mut cores, "T")), (0, 0));

        let given_up = discarded(&mut cores);
        cores.restart();
        producer_on(&mut cores, 1);
        let mut resume = || cores.call(0, code::RESUME_CHECK_HALF_MESSAGE, &[("msgId", &given_up)], b"");
        assert_eq!([resume().code, resume().code], [0, response::SYSTEM_ERROR]);
        pass(&mut cores, 1);
        let asked = cores.requests_to_clients();
        assert_eq!(asked.len(), 1, "it is asked for at once");
        let copy = Half::of_check(&asked[0]);
        assert_eq!(end_as(&mut cores, &copy, COMMIT, "p", "true").code, 0);
        assert_eq!(stored(&mut cores, "T"), 1);
    }
}

/// Offset message id of the one half message given up.
fn discarded(cores: &mut Cores) -> String {
    let mut found = Vec::new();
    for queue_id in ["0", "1"] {
        let mut fields = crate::testing::pull_fields(queue_id, "0");
        fields[10].1 = names::TRANS_CHECK_MAX_TIME_TOPIC;
        let pulled = cores.call(0, code::PULL_MESSAGE, &fields, b"");
        for message in record::iter(&pulled.body) {
            let message = message.expect("a message");
            let real = ["REAL_TOPIC", "TRANSACTION_CHECK_TIMES"].map(|key| text_of(&message, key));
            assert_eq!(real, [Some("T"), Some("2")]);
            let (store_host, physical_offset) = (message.store_host, message.physical_offset);
            found.push(OffsetMessageId { store_host, physical_offset }.to_string());
        }
    }
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_half_message_that_is_too_old_is_given_up_without_being_asked_for() {
    let mut cores = Cores::with_config(1, &[("fileReservedTime", "1")]);
    producer_on(&mut cores, 0);
    Half::of(&send_half(&mut cores, 0, &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "86400")]));
    pass(&mut cores, 3600 * SECOND_MS);
    pass(&mut cores, SECOND_MS);
    assert!(cores.requests_to_clients().is_empty());
    assert_eq!(stored(&mut cores, names::TRANS_CHECK_MAX_TIME_TOPIC), 1);
}

#[test]
fn the_immunity_time_of_a_message_decides_its_first_check_and_until_when_it_can_be_ended_unasked() {
    for (seconds, first_check_ms) in
        [("20", 20 * SECOND_MS), ("1", SECOND_MS), ("x", FIRST_CHECK_MS), ("-1", FIRST_CHECK_MS)]
    {
        let mut cores = Cores::new(1);
        producer_on(&mut cores, 0);
        let born = cores.now_ms.to_string();
        let text = [("TRAN_MSG", "true"), ("PGROUP", "p"), ("CHECK_IMMUNITY_TIME_IN_SECONDS", seconds)];
        let mut halves = Vec::new();
        for _ in 0..2 {
            halves.push(Half::of(&cores.send_with(0, "T", 0, &text, &[("f", "4"), ("g", &born)], b"half")));
        }
        pass(&mut cores, first_check_ms - 1);
        assert!(cores.requests_to_clients().is_empty(), "{seconds}");
        assert_eq!(end(&mut cores, &halves[0], COMMIT), 0);
        pass(&mut cores, 1);
        let asked = cores.requests_to_clients();
        assert_eq!(asked.len(), 1, "{seconds}");
        pass(&mut cores, FIRST_CHECK_MS);
        assert_eq!(end(&mut cores, &halves[1], COMMIT), response::ILLEGAL_OPERATION);
        assert_eq!(end_as(&mut cores, &Half::of_check(&asked[0]), COMMIT, "p", "true").code, 0);
        assert_eq!(stored(&mut cores, "T"), 2);
    }
}

#[test]
fn what_does_not_fit_the_half_message_ends_nothing() {
    let mut cores = Cores::new(2);
    let right = half(&mut cores, 1);
    let normal = cores.send_with(0, "T", 1, &[("PGROUP", "p")], &[], b"normal");
    let at = |half: &Half, physical: &str| Half { physical_offset: physical.to_owned(), ..half.clone() };
    let wrong_queue_offset = Half { queue_offset: "7".to_owned(), ..right.clone() };
    for (half, what, group, remark) in [
        (&right, COMMIT, "other", "producer group wrong"),
        (&wrong_queue_offset, COMMIT, "p", "state table offset wrong"),
        (&at(&right, "-1"), COMMIT, "p", "Find prepared transaction message failed"),
        (&at(&right, "9223372036854775807"), ROLLBACK, "p", "Find prepared transaction message failed"),
        (&at(&right, "12"), COMMIT, "p", "Find prepared transaction message failed"),
        (&Half::of(&normal), COMMIT, "p", "Find prepared transaction message failed"),
        (&right, "4", "p", "commitOrRollback"),
    ] {
        let refused = end_as(&mut cores, half, what, group, "false");
        assert_eq!(refused.code, response::SYSTEM_ERROR, "{remark}");
        assert!(refused.remark.contains(remark), "{} has no {remark}", refused.remark);
    }
    assert_eq!(end(&mut cores, &right, "0"), 0, "not known yet");
    assert_eq!(stored(&mut cores, "T"), 1);
    assert_eq!((end(&mut cores, &right, COMMIT), stored(&mut cores, "T")), (0, 2));
    for id in ["", "zz", "7F00000100002A9F000000000000000C"] {
        assert_eq!(cores.call(0, code::RESUME_CHECK_HALF_MESSAGE, &[("msgId", id)], b"").code, response::SYSTEM_ERROR);
    }
    let of_normal = normal.ext("msgId").to_owned();
    assert_eq!(
        cores.call(0, code::RESUME_CHECK_HALF_MESSAGE, &[("msgId", &of_normal)], b"").code,
        response::SYSTEM_ERROR
    );
}

#[test]
fn what_cannot_become_a_transaction_is_refused_and_nothing_stored() {
    let mut cores = Cores::new(2);
    for more in [("DELAY", "3"), ("TIMER_DELAY_SEC", "1"), ("TIMER_DELIVER_MS", "1"), ("TIMER_DELAY_MS", "x")] {
        let refused = send_half(&mut cores, 0, &[more]);
        assert_eq!(refused.code, response::MESSAGE_ILLEGAL, "{more:?}");
        assert!(refused.remark.contains(more.0), "{}", refused.remark);
    }
    for sys_flag in ["4", "12"] {
        let refused = cores.send_with(0, "T", 0, &[], &[("f", sys_flag)], b"body");
        assert_eq!(refused.code, response::MESSAGE_ILLEGAL);
        assert!(refused.remark.contains("TRAN_MSG"), "{}", refused.remark);
    }
    assert_eq!((stored(&mut cores, "T"), stored(&mut cores, names::TRANS_HALF_TOPIC)), (0, 0));
    let plain = cores.send_with(0, "T", 0, &[("DELAY", "0"), ("TRAN_MSG", "false")], &[("f", "8")], b"body");
    assert_eq!((plain.code, stored(&mut cores, "T")), (0, 1));
    // A consumer of 4.6 and before sends a committed message back itself.
    let retried = cores.send_with(0, "T", 0, &[("DELAY", "1"), ("TRAN_MSG", "true")], &[("j", "1")], b"body");
    assert_eq!((retried.code, stored(&mut cores, names::SCHEDULE_TOPIC)), (0, 1));

    let mut cores = Cores::with_config(1, &[("rejectTransactionMessage", "true")]);
    let refused = send_half(&mut cores, 0, &[]);
    assert_eq!(refused.code, response::NO_PERMISSION);
    assert!(refused.remark.contains("rejectTransactionMessage"), "{}", refused.remark);
    assert_eq!(cores.send(0, "T", 0, &[]).code, 0);
}

#[test]
fn a_producer_that_passes_on_a_consumed_transaction_starts_a_new_one() {
    let mut cores = Cores::with_config(1, &[("transactionCheckMax", "2")]);
    producer_on(&mut cores, 0);
    let other = half(&mut cores, 0);
    let consumed =
        [("TRANSACTION_CHECK_TIMES", "2"), ("TRAN_PREPARED_QUEUE_OFFSET", "0"), ("__transactionId__", "OLD")];
    let passed_on = Half::of(&send_half(&mut cores, 0, &consumed));
    assert_eq!(end(&mut cores, &passed_on, COMMIT), 0);
    let body = first_message(&mut cores, 0);
    let message = record::decode(&body).expect("a message");
    assert_eq!(text_of(&message, "__transactionId__"), Some("KEY"));
    pass(&mut cores, FIRST_CHECK_MS);
    assert_eq!(cores.requests_to_clients().len(), 1, "the other one is still open");
    assert_eq!((end(&mut cores, &other, COMMIT), stored(&mut cores, "T")), (0, 2));
}

#[test]
fn a_committed_message_sent_back_is_no_half_message() {
    let mut cores = Cores::new(2);
    cores.create_group(r#"{"groupName":"g"}"#);
    let half = half(&mut cores, 0);
    assert_eq!(end(&mut cores, &half, COMMIT), 0);
    let body = first_message(&mut cores, 0);
    let offset = record::decode(&body).expect("a message").physical_offset.to_string();
    let ext = [("delayLevel", "-1"), ("group", "g"), ("offset", offset.as_str())];
    assert_eq!(cores.call(0, code::CONSUMER_SEND_MSG_BACK, &ext, b"").code, 0);
    assert_eq!((stored(&mut cores, "%DLQ%g"), stored(&mut cores, names::TRANS_HALF_TOPIC)), (1, 1));
}

#[test]
fn a_commit_the_log_does_not_take_says_so() {
    let mut cores = Cores::new(1);
    let half = half(&mut cores, 0);
    cores.set_disk(0, Disk::Broken);
    for _ in 0..2 {
        assert_eq!(end(&mut cores, &half, COMMIT), response::SERVICE_NOT_AVAILABLE);
    }
}

#[test]
fn a_commit_that_the_log_has_no_room_for_waits() {
    let mut cores = Cores::new(1);
    let half = half(&mut cores, 0);
    cores.set_disk(0, Disk::Stuck);
    let ext = [
        ("commitLogOffset", half.physical_offset.as_str()),
        ("commitOrRollback", COMMIT),
        ("msgId", "KEY"),
        ("producerGroup", "p"),
        ("tranStateTableOffset", half.queue_offset.as_str()),
    ];
    let opaque = cores.post(0, code::END_TRANSACTION, &ext, b"");
    assert!(cores.answers_to(opaque).is_empty(), "not before the device has it");
    let again = cores.post(0, code::END_TRANSACTION, &ext, b"");
    assert!(cores.answers_to(again).is_empty(), "nor what only repeats it");
    cores.set_disk(0, Disk::Works);
    cores.run();
    assert_eq!([opaque, again].map(|opaque| cores.answers_to(opaque)[0].code), [0, 0]);
    assert_eq!(stored(&mut cores, "T"), 1);
}

#[test]
fn ended_transactions_are_forgotten_however_many_there_are() {
    let mut cores = Cores::new(1);
    for _ in 0..100 {
        let half = half(&mut cores, 0);
        assert_eq!(end(&mut cores, &half, COMMIT), 0);
    }
    let open: Vec<_> = (0..20).map(|_| half(&mut cores, 0)).collect();
    assert_eq!(cores.broker(0).owed.count(), 120);
    pass(&mut cores, FIRST_CHECK_MS);
    assert_eq!(cores.broker(0).owed.count(), open.len(), "what is done is passed over in one millisecond");
}
