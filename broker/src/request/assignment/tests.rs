use std::time::{Duration, Instant};

use rmq_net::body::{self, AssignmentReply};
use rmq_net::codes::{request as code, response};

use crate::name_server_client::stub::{Manner, name_server};
use crate::routes::Routes;
use crate::testing::{Cores, Sent};

const PATIENCE: Duration = Duration::from_secs(20);
const ROUTE: &str = r#"{"brokerDatas":[],"filterServerTable":{},"queueDatas":[
    {"brokerName":"broker-a","perm":6,"readQueueNums":1,"topicSysFlag":0,"writeQueueNums":1},
    {"brokerName":"broker-b","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2}]}"#;
const HEARTBEAT: &[u8] = br#"{"clientID":"1","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
    "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}],
    "producerDataSet":[]}"#;

/// T has two queues here; `name_server` is asked about the others.
fn cores(name_server: &str) -> Cores {
    let mut cores = Cores::new(2);
    cores.create_topic("T", "2", "6", "");
    cores.create_group(r#"{"groupName":"g"}"#);
    assert_eq!(cores.call(0, code::HEART_BEAT, &[], HEARTBEAT).code, 0);
    let routes = Routes::start("broker-a", &[name_server.to_owned()], Duration::from_secs(30)).expect("a thread");
    cores.broker(0).system.as_mut().expect("the system core").routes = Some(routes);
    cores
}

fn query(cores: &mut Cores, topic: &str) -> Sent {
    let body = format!(
        r#"{{"clientId":"1","consumerGroup":"g","messageModel":"CLUSTERING","strategyName":"AVG","topic":"{topic}"}}"#
    );
    let asked = cores.post(1, code::QUERY_ASSIGNMENT, &[], body.as_bytes());
    let began = Instant::now();
    loop {
        cores.run();
        if let Some(answer) = cores.answers_to(asked).pop() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "no answer");
        std::thread::yield_now();
    }
}

fn queues(answer: &Sent) -> Option<Vec<(String, i32)>> {
    assert_eq!(answer.code, response::SUCCESS);
    let reply: AssignmentReply = body::decode(&answer.body).expect("a reply");
    let queues = reply.message_queue_assignments?.into_iter().map(|assignment| assignment.message_queue);
    Some(queues.map(|queue| (queue.broker_name, queue.queue_id)).collect())
}

fn named(queues: &[(&str, i32)]) -> Option<Vec<(String, i32)>> {
    Some(queues.iter().map(|(broker, queue_id)| ((*broker).to_owned(), *queue_id)).collect())
}

#[test]
fn queues_of_all_brokers_are_dealt_out_this_broker_s_as_its_own_settings_say() {
    let (address, asked) = name_server(Manner::Answers(ROUTE));
    let mut cores = cores(&address);
    let all = named(&[("broker-a", 0), ("broker-a", 1), ("broker-b", 0), ("broker-b", 1)]);
    for _ in 0..2 {
        assert_eq!(queues(&query(&mut cores, "T")), all);
    }
    assert_eq!(asked.try_iter().count(), 1, "the second answer is from memory");
    assert_eq!(queues(&query(&mut cores, "elsewhere")), named(&[("broker-b", 0), ("broker-b", 1)]));
}

#[test]
fn a_topic_the_name_servers_have_not_heard_of_yet_is_this_broker_s_alone() {
    let (address, _asked) = name_server(Manner::Refuses(response::TOPIC_NOT_EXIST));
    let mut cores = cores(&address);
    assert_eq!(queues(&query(&mut cores, "T")), named(&[("broker-a", 0), ("broker-a", 1)]));
    assert_eq!(queues(&query(&mut cores, "nowhere")), None);
}

#[test]
fn a_client_keeps_what_it_has_when_no_name_server_answers() {
    let (address, _asked) = name_server(Manner::Refuses(response::SYSTEM_ERROR));
    let mut cores = cores(&address);
    assert_eq!(queues(&query(&mut cores, "T")), None, "half of the queues would be no answer");
}

#[test]
fn requests_that_wait_for_a_name_server_are_bounded() {
    let (address, _asked) = name_server(Manner::Silent);
    let mut cores = cores(&address);
    let long = "x".repeat(super::WAITING_BYTES_MAX / 2);
    let body = format!(r#"{{"clientId":"{long}","consumerGroup":"g","strategyName":"AVG","topic":"T"}}"#);
    let asked = [(); 2].map(|()| cores.post(1, code::QUERY_ASSIGNMENT, &[], body.as_bytes()));
    assert!(cores.answers_to(asked[0]).is_empty());
    let answers = cores.answers_to(asked[1]);
    assert_eq!(answers.first().map(queues), Some(None));
}
