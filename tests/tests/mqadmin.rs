//! What stock `mqadmin` 5.5.0 prints about our servers, line by line beside what it prints about Apache's on the same
//! data. Addresses, times, ids, places in the log, rates and counters since the start are masked.

use rmq_tests::{Broker, Folder, JavaClient, Kind, Namesrv, Process, Suite, attached, java_command, skip};

/// Lines of a session of `AdminSession`: commands of mqadmin, and some that make data, which are described there. First
/// topics, routes and progress, and questions about messages that are not there.
const TOPICS: &[&str] = &[
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

/// Then messages that are found, by each way to look for them, and what an administrator can do to a group that runs.
const MESSAGES: &[&str] = &[
    "updateTopic -c DefaultCluster -t FoundTopic -r 2 -w 2",
    "route FoundTopic 2",
    "message one FoundTopic 0 TagA common,own-one",
    "message two FoundTopic 1 TagB common,own-two",
    "message three FoundTopic 1 TagA common",
    "indexed FoundTopic common 3",
    "topicStatus -t FoundTopic",
    "topicClusterList -t FoundTopic",
    "queryMsgByKey -t FoundTopic -k common",
    "queryMsgByKey -t FoundTopic -k common -m 2",
    "queryMsgByKey -t FoundTopic -k own-two",
    "queryMsgByUniqueKey -t FoundTopic -i {one.id}",
    "queryMsgByUniqueKey -t FoundTopic -i {three.id} -a",
    "queryMsgById -t FoundTopic -i {one.offsetId}",
    "queryMsgById -t FoundTopic -i {two.offsetId},{three.offsetId} -f UTF-8",
    "queryMsgById -t FoundTopic -i {two.id} -f UTF-8",
    "queryMsgByOffset -t FoundTopic -b broker-a -i 1 -o 1 -f UTF-8",
    BEYOND_THE_END,
    "printMsg -t FoundTopic",
    "printMsg -t FoundTopic -s TagB -d false",
    "printMsg -t FoundTopic -b 0 -e 9999999999999",
    "printMsgByQueue -t FoundTopic -a broker-a -i 1 -p true -d true -f true",
    "consumeMessage -t FoundTopic",
    "queryCq -t FoundTopic -q 1 -i 0 -c 10",
    "join found_group FoundTopic 3",
    "consumerProgress -g found_group",
    "consumerConnection -g found_group",
    "brokerConsumeStats -b {broker} -l 0",
    "queryMsgById -t FoundTopic -i {two.offsetId}",
    "queryMsgByUniqueKey -t FoundTopic -i {three.id}",
    "resetOffsetByTime -g found_group -t FoundTopic -s 0",
    "resetOffsetByTime -g found_group -t FoundTopic -s now",
    "cloneGroupOffset -s found_group -d nobody -t FoundTopic",
    "updateSubGroup -c DefaultCluster -g cloned_group",
    "cloneGroupOffset -s found_group -d cloned_group -t FoundTopic",
    "consumerProgress -g cloned_group",
    "resetOffsetByTime -g cloned_group -t FoundTopic -s 0",
    "consumerProgress -g cloned_group",
    "sendMessage -t FoundTopic -p body -k sent -c TagC -b broker-a -i 0",
    "indexed FoundTopic sent 1",
    "queryMsgByKey -t FoundTopic -k sent",
    "updateOrderConf -t FoundTopic -m put -v broker-a:2",
    "updateOrderConf -t FoundTopic -m get",
    "updateOrderConf -t FoundTopic -m delete",
    "updateOrderConf -t FoundTopic -m get",
    "updateTopic -c DefaultCluster -t Traces -r 1 -w 1",
    "updateTopic -c DefaultCluster -t Traced -r 1 -w 1",
    "route Traces 1",
    "route Traced 1",
    "trace traced Traced Traces traced_group",
    "queryMsgTraceById -t Traces -i {traced.id}",
];

const BEYOND_THE_END: &str = "queryMsgByOffset -t FoundTopic -b broker-a -i 1 -o 2 -f UTF-8";
/// Commands of `AdminSession`'s own: they print nothing.
const DATA: [&str; 7] = ["send", "message", "indexed", "consume", "join", "trace", "route"];

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
    let pairs = apache.iter().zip(&ours).filter(|(apache, ours)| apache != ours);
    let wrong: Vec<_> = pairs.map(|(apache, ours)| format!("Apache's: {apache:#?}\nRingMQ's: {ours:#?}")).collect();
    assert!(wrong.is_empty(), "{} commands print something else:\n{}", wrong.len(), wrong.join("\n"));
    // A command that finds nothing with either would be no comparison.
    let silent = apache[TOPICS.len()..].iter().filter(|section| section.len() == 1).map(|section| section[0].as_str());
    let makes_data = |line: &&str| DATA.iter().any(|word| line.split(' ').next() == Some(word));
    assert_eq!(silent.filter(|line| !makes_data(line)).collect::<Vec<_>>(), [BEYOND_THE_END]);
    let count = TOPICS.len() + MESSAGES.len();
    assert_eq!((apache.len(), ours.len()), (count, count));
}

/// Runs the session against fresh servers; returns all it printed.
fn session(kind: Kind) -> String {
    let namesrv = Namesrv::start(kind);
    let _broker = Broker::start(kind, namesrv.address());
    let home = Folder::new();
    let mut command = java_command(JavaClient::V5_5_0, home.path());
    command.arg(format!("-Dnamesrv={}", namesrv.address())).arg("ringmq.clients.AdminSession");
    command.args(TOPICS).args(MESSAGES);
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
    if is_noise.iter().any(|start| line.starts_with(start))
        || line.contains("TPS: ")
        || line.contains("Inflight Total")
        || line.starts_with("CommitLog Offset:")
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

/// What differs from run to run becomes a word that says what it was: addresses, dates, ids, places in the log.
fn masked(word: &str) -> String {
    let is_date = |text: &str| text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let is_time = |text: &str| text.len() >= 8 && text.as_bytes()[2] == b':' && text.as_bytes()[5] == b':';
    if let Some((before, after)) = word.split_once("127.0.0.1:") {
        format!("{before}ADDRESS{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    } else if is_date(word) {
        "DATE".to_owned()
    } else if is_time(word) {
        "TIME".to_owned()
    } else if let Some((place, of)) = PLACES.iter().find_map(|key| Some((word.find(key)? + key.len(), word))) {
        format!("{}PLACE{}", &of[..place], of[place..].trim_start_matches(|c: char| c.is_ascii_digit()))
    } else if word.strip_suffix("ms").is_some_and(|digits| digits.parse::<u64>().is_ok()) {
        "COST".to_owned()
    } else {
        let parts: Vec<_> = word.split('@').map(masked_numbers).collect();
        match parts.len() {
            // Address and name of a client.
            2 => "CLIENT".to_owned(),
            // Hour, topic, K, key, unique key, place: what an index finds.
            6 => format!("{}@PLACE", parts[..5].join("@")),
            _ => parts.join("@"),
        }
    }
}

const PLACES: [&str; 2] = ["commitLogOffset=", "physicOffset="];

/// Runs of digits that are an id (of an IPv4 or IPv6 address) or a time of the clock become a word.
fn masked_numbers(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let length = rest[start..].find(|c| !is_hex(c)).unwrap_or(rest.len() - start);
        let run = &rest[start..start + length];
        masked.push_str(&rest[..start]);
        masked.push_str(match length {
            32 | 56 => "ID",
            13 if run.bytes().all(|byte| byte.is_ascii_digit()) => "TIME",
            _ => run,
        });
        rest = &rest[start + length..];
    }
    masked + rest
}

#[test]
fn masks_hide_what_differs_from_run_to_run_only() {
    assert_eq!(masked("0:\"127.0.0.1:10911\","), "0:\"ADDRESS\",");
    assert_eq!(masked("2026-11-21"), "DATE");
    assert_eq!(masked("03:45:41,855"), "TIME");
    assert_eq!(masked("AdminTopic"), "AdminTopic");
    assert_eq!(masked("UNIQ_KEY=7F000001000070E90000000000000F50,"), "UNIQ_KEY=ID,");
    assert_eq!(masked("bornTimestamp=1795864060178,"), "bornTimestamp=TIME,");
    assert_eq!(masked("commitLogOffset=4192,"), "commitLogOffset=PLACE,");
    assert_eq!(masked("bodyCRC=2053932785,"), "bodyCRC=2053932785,");
    assert_eq!(masked("1795863600000@T@K@key@7F000001000070E90000000000000F50@39"), "TIME@T@K@key@ID@PLACE");
    assert_eq!(masked("192.0.2.2@1875047b-2"), "CLIENT");
    assert_eq!(masked("15ms"), "COST");
    assert_eq!(comparable("queryMsgById", "CommitLog Offset:    39"), None);
    let error = "org.apache.rocketmq.client.exception.MQClientException: CODE: 17  DESC: No topic route info";
    assert_eq!(comparable("topicRoute -t X", error), Some("CODE: 17".to_owned()));
    assert_eq!(comparable("consumerProgress", "admin_group 0 OFFLINE 1 6"), Some("admin_group 0 OFFLINE 6".to_owned()));
}
