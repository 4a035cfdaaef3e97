use rmq_tests::remoting::{Connection, Request, records};

use crate::pull_acknowledged;

/// A good client beside the bad ones: what happens to them must not reach it.
pub struct Bystander {
    connection: Connection,
    topic: String,
    sent_count: i64,
}

impl Bystander {
    /// Connects to the broker at `address`, with a topic of its own named after `test`.
    pub fn connect(address: &str, test: &str) -> Self {
        let mut bystander =
            Self { connection: Connection::open(address), topic: format!("bystander_{test}"), sent_count: 0 };
        bystander.check();
        bystander
    }

    /// Sends a message over the same connection as ever, and pulls it.
    #[track_caller]
    pub fn check(&mut self) {
        let body = format!("message {}", self.sent_count);
        let sent = self.connection.call(&Request::send(&self.topic, 0, "", body.as_bytes()));
        assert_eq!((sent.code, sent.number("queueOffset")), (0, Some(self.sent_count)), "{sent:?}");
        let pulled = pull_acknowledged(&mut self.connection, &self.topic, 0, self.sent_count);
        assert_eq!(pulled.code, 0, "{pulled:?}");
        let records = records(&pulled.body);
        assert_eq!(records.iter().map(|record| record.body.as_slice()).collect::<Vec<_>>(), [body.as_bytes()]);
        self.sent_count += 1;
    }
}
