//! Dealing the queues of a topic out to the clients of a group, as RocketMQ's broker and clients do it.
//!
//! Queues and clients are sorted, so that everybody who asks gets a part of the same plan.

use rmq_net::body::MessageQueue;

/// How queues are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dealing {
    /// Each client gets neighbours; the first ones get one more if it does not come out even.
    Averagely,
    /// In turn.
    ByCircle,
}

impl Dealing {
    /// By the name clients send. RocketMQ's brokers know these two; its clients have more, which need what only they know.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Averagely),
            "AVG_BY_CIRCLE" => Some(Self::ByCircle),
            _ => None,
        }
    }
}

/// The client's queues; none for a client that is not among them.
pub fn allocate(strategy: Dealing, client: &str, queues: &[MessageQueue], clients: &[&str]) -> Vec<MessageQueue> {
    let Some(index) = clients.iter().position(|id| *id == client) else { return Vec::new() };
    match strategy {
        Dealing::ByCircle => queues.iter().skip(index).step_by(clients.len()).cloned().collect(),
        Dealing::Averagely => {
            let (each, more) = (queues.len() / clients.len(), queues.len() % clients.len());
            let start = index * each + index.min(more);
            let count = each + usize::from(index < more);
            queues[start..start + count].to_vec()
        }
    }
}

/// With pop, clients share queues: each gets its own part and those of the `share` clients behind it, or with none or as many
/// as there are, any queue (-1) of every broker. Where there are more clients than queues, each gets one.
pub fn allocate_for_pop(
    strategy: Dealing,
    client: &str,
    queues: &[MessageQueue],
    clients: &[&str],
    share: i32,
) -> Vec<MessageQueue> {
    let share = usize::try_from(share).unwrap_or(0);
    if share == 0 || share + 1 >= clients.len() {
        return queues.iter().map(|queue| MessageQueue { queue_id: -1, ..queue.clone() }).collect();
    }
    let Some(index) = clients.iter().position(|id| *id == client) else { return Vec::new() };
    if queues.len() < clients.len() {
        return queues.get(index % queues.len().max(1)).cloned().into_iter().collect();
    }
    let parts = (0..=share).map(|behind| clients[(index + behind) % clients.len()]);
    parts.flat_map(|client| allocate(strategy, client, queues, clients)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count)
            .map(|queue_id| MessageQueue { broker_name: "b".to_owned(), queue_id, topic: "T".to_owned() })
            .collect()
    }

    fn ids(queues: Vec<MessageQueue>) -> Vec<i32> {
        queues.into_iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn queues_are_dealt_out_as_in_the_reference() {
        let clients = ["a", "b", "c"];
        let dealt = |strategy, count| clients.map(|client| ids(allocate(strategy, client, &queues(count), &clients)));
        assert_eq!(dealt(Dealing::Averagely, 8), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
        assert_eq!(dealt(Dealing::Averagely, 2), [vec![0], vec![1], vec![]]);
        assert_eq!(dealt(Dealing::ByCircle, 8), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
        assert!(allocate(Dealing::Averagely, "absent", &queues(8), &clients).is_empty());
    }

    #[test]
    fn poppers_share_queues_with_the_clients_behind_them() {
        let clients = ["a", "b", "c", "d"];
        let popped =
            |client, count, share| ids(allocate_for_pop(Dealing::Averagely, client, &queues(count), &clients, share));
        for share in [-1, 0, 3, 9] {
            assert_eq!(popped("a", 2, share), [-1, -1], "{share}");
        }
        assert_eq!(popped("a", 8, 1), [0, 1, 2, 3]);
        assert_eq!(popped("d", 8, 2), [6, 7, 0, 1, 2, 3]);
        assert_eq!((popped("b", 3, 1), popped("d", 3, 1)), (vec![1], vec![0]));
        assert!(popped("absent", 8, 1).is_empty());
    }

    proptest! {
        #[test]
        fn every_queue_goes_to_exactly_one_client(count in 0..40, clients in 1..9_usize, is_by_circle: bool) {
            let names: Vec<String> = (0..clients).map(|n| n.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let strategy = if is_by_circle { Dealing::ByCircle } else { Dealing::Averagely };
            let parts: Vec<_> = names.iter().map(|client| allocate(strategy, client, &queues(count), &names)).collect();
            let mut all: Vec<_> = parts.iter().flatten().map(|queue| queue.queue_id).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            let (least, most) = (parts.iter().map(Vec::len).min(), parts.iter().map(Vec::len).max());
            prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1);
        }
    }
}
