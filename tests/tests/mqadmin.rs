//! What stock `mqadmin` 5.5.0 prints about our servers, line by line beside what it prints about Apache's on the same
//! data. Addresses, times, rates and counters since the start are masked.

use rmq_tests::{Broker, Folder, JavaClient, Kind, Namesrv, Process, Suite, attached, java_command, skip};

/// One session of `AdminSession`: commands of mqadmin, and `send`, `consume` and `route`, which make data.
const SESSION: [&str; 28] = [
    "updateTopic -c DefaultCluster -t AdminTopic -r 4 -w 4",
    "route AdminTopic 4",
    "topicStatus -t AdminTopic",
    "send AdminTopic 10",
    "topicStatus -t AdminTopic",
    "topicRoute -t AdminTopic",
    "queryMsgByKey -t AdminTopic -k nobody",
    "queryMsgByUniqueKey -t AdminTopic -i 7F000001000000000000000000000000",
    "queryMsgById -t AdminTopic -i 7F000001000000000000000000000000",
    "queryMsgTraceById -t AdminTopic -i nobody",
    "consume admin_group AdminTopic 10",
    "send AdminTopic 6",
    "consumerProgress -g admin_group",
    "consumerProgress -g nobody",
    "consumerProgress",
    "topicList",
    "topicList -c",
    "updateSubGroup -c DefaultCluster -g admin_group -r 5",
    "updateSubGroup -c DefaultCluster -g new_group -s false",
    "updateTopic -c DefaultCluster -t AdminTopic -r 8 -w 6 -p 4",
    "route AdminTopic 0",
    "topicRoute -t AdminTopic",
    "topicStatus -t AdminTopic",
    "clusterList",
    "clusterList -m",
    "deleteTopic -c DefaultCluster -t AdminTopic",
    "topicRoute -t AdminTopic",
    "topicStatus -t AdminTopic",
];

#[test]
fn mqadmin_prints_the_same_as_with_apache() {
    if attached().is_some() {
        return skip("the comparison needs fresh servers of its own");
    }
    if !Suite::Java(JavaClient::V5_5_0).is_available() {
        return;
    }
    let ours = std::thread::spawn(|| normalized(&session(Kind::under_test())));
    let apache = normalized(&session(Kind::Apache));
    let ours = ours.join().expect("our session ends");
    for (apache, ours) in apache.iter().zip(&ours) {
        assert_eq!(apache, ours, "left: Apache, right: RingMQ");
    }
    assert_eq!(apache.len(), SESSION.len());
    assert_eq!(ours.len(), SESSION.len());
}

/// Runs the session against fresh servers; returns all it printed.
fn session(kind: Kind) -> String {
    let namesrv = Namesrv::start(kind);
    let _broker = Broker::start(kind, namesrv.address());
    let home = Folder::new();
    let mut command = java_command(JavaClient::V5_5_0, home.path());
    command.arg(format!("-Dnamesrv={}", namesrv.address())).arg("ringmq.clients.AdminSession").args(SESSION);
    let mut process = Process::start("mqadmin", home.path(), &command);
    let code = process.exit_code();
    let output = process.log_text();
    assert_eq!(code, 0, "{output}");
    output
}

/// The comparable lines of each command, the command itself first.
fn normalized(output: &str) -> Vec<Vec<String>> {
    let mut sections: Vec<Vec<String>> = Vec::new();
    // A command's last line may come without its end.
    for line in output.replace("$ ", "\n$ ").lines().filter(|line| !line.trim().is_empty()) {
        if let Some(command) = line.strip_prefix("$ ") {
            sections.push(vec![command.to_owned()]);
        } else if let Some(section) = sections.last_mut() {
            section.extend(comparable(&section[0], line));
        }
    }
    for section in &mut sections {
        // mqadmin prints these in the order of a hash table.
        if section[0].starts_with("topicList") || section[0] == "consumerProgress" {
            section[1..].sort();
        }
    }
    sections
}

/// What of a line must be equal; None if nothing.
fn comparable(command: &str, line: &str) -> Option<String> {
    // Of an error, the code: the remark need only be as clear, and a stack is the client's.
    if let Some((_, rest)) = line.split_once("CODE: ") {
        return Some(format!("CODE: {}", rest.split_whitespace().next().unwrap_or_default()));
    }
    let is_noise = ["\tat ", "\t... ", "Caused by", "For more information", "SLF4J", "org.apache.rocketmq.tools"];
    if is_noise.iter().any(|start| line.starts_with(start)) || line.contains("TPS: ") || line.contains("Inflight Total")
    {
        return None;
    }
    let words: Vec<String> = line.split_whitespace().map(masked).collect();
    let is_heading = words[0].starts_with('#');
    let kept: Vec<&str> = words.iter().map(String::as_str).collect();
    let kept = match (command.split_once(' ').map_or(command, |(name, _)| name), is_heading) {
        // Topics of features that are not part of this comparison.
        ("topicList", false) if kept.iter().any(|word| word.to_lowercase().starts_with("rmq_sys_")) => return None,
        // Name, name, id, address, version, rates and ages .., activated.
        ("clusterList", false) if command == "clusterList" => [&kept[..5], &kept[kept.len() - 1..]].concat(),
        // Name, name, counters.
        ("clusterList", false) => kept[..2].to_vec(),
        // Topic, broker, queue, broker offset, consumer offset, difference, in flight, time.
        ("consumerProgress", false) if command.contains("-g") && kept.len() >= 6 && kept[1] == "broker-a" => {
            kept[..6].to_vec()
        }
        // Group, count, version, (type, model,) rate, difference: the rate is measured, not kept.
        ("consumerProgress", false) if !command.contains("-g") && kept.len() >= 5 => {
            [&kept[..kept.len() - 2], &kept[kept.len() - 1..]].concat()
        }
        _ => kept,
    };
    Some(kept.join(" "))
}

/// An address or a date becomes a word that says so.
fn masked(word: &str) -> String {
    let is_date = |text: &str| text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let is_time = |text: &str| text.len() >= 8 && text.as_bytes()[2] == b':' && text.as_bytes()[5] == b':';
    if let Some((before, after)) = word.split_once("127.0.0.1:") {
        format!("{before}ADDRESS{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    } else if is_date(word) {
        "DATE".to_owned()
    } else if is_time(word) {
        "TIME".to_owned()
    } else {
        word.to_owned()
    }
}

#[test]
fn masks_hide_addresses_and_times_only() {
    assert_eq!(masked("0:\"127.0.0.1:10911\","), "0:\"ADDRESS\",");
    assert_eq!(masked("2026-11-21"), "DATE");
    assert_eq!(masked("03:45:41,855"), "TIME");
    assert_eq!(masked("AdminTopic"), "AdminTopic");
    let error = "org.apache.rocketmq.client.exception.MQClientException: CODE: 17  DESC: No topic route info";
    assert_eq!(comparable("topicRoute -t X", error), Some("CODE: 17".to_owned()));
    assert_eq!(comparable("consumerProgress", "admin_group 0 OFFLINE 1 6"), Some("admin_group 0 OFFLINE 6".to_owned()));
}
