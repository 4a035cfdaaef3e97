package ringmq.clients;

import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

final class TransactionScenarios {
    private TransactionScenarios() {}

    /** Its transactions end as the first word of the body says; one that is asked for ends as the second says. */
    private static final class ByBody implements TransactionListener {
        final Set<String> asked = new ConcurrentSkipListSet<>();

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return state(new String(message.getBody()).split(" ")[0]);
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String body = new String(message.getBody());
            asked.add(message.getTopic() + " " + body);
            return state(body.split(" ")[1]);
        }

        private static LocalTransactionState state(String word) {
            switch (word) {
                case "commit":
                    return LocalTransactionState.COMMIT_MESSAGE;
                case "rollback":
                    return LocalTransactionState.ROLLBACK_MESSAGE;
                default:
                    return LocalTransactionState.UNKNOW;
            }
        }
    }

    private static TransactionMQProducer producer(Cluster cluster, String group, ByBody listener) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setNamesrvAddr(cluster.namesrv);
        producer.setInstanceName(cluster.instance());
        producer.setSendMsgTimeout(30_000);
        producer.setTransactionListener(listener);
        producer.start();
        return producer;
    }

    private static boolean greet(TransactionMQProducer producer, String topic) {
        try {
            send(producer, topic, "commit commit hello");
            return true;
        } catch (Exception brokerIsDown) {
            return false;
        }
    }

    /** What a producer was asked about messages of the topic. */
    private static Set<String> about(String topic, ByBody producer) {
        return producer.asked.stream().filter(text -> text.startsWith(topic + " ")).collect(Collectors.toSet());
    }

    private static TransactionSendResult send(TransactionMQProducer producer, String topic, String body) throws Exception {
        Message message = new Message(topic, "A", body, body.getBytes());
        TransactionSendResult result = producer.sendMessageInTransaction(message, null);
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), body);
        Check.equal(result.getMsgId(), result.getTransactionId(), "transaction id of " + body);
        return result;
    }

    /** Committed transactions are read, each once, and rolled back ones are not. */
    static void end(Cluster cluster) throws Exception {
        String topic = cluster.topic("transactions", 4);
        TransactionMQProducer producer = producer(cluster, cluster.name("transactors"), new ByBody());
        try {
            Set<String> committed = new TreeSet<>();
            for (int i = 0; i < 40; i++) {
                String body = (i % 2 == 0 ? "commit - " : "rollback - ") + i;
                send(producer, topic, body);
                if (i % 2 == 0) {
                    committed.add(body);
                }
            }
            Cluster.await("committed messages", () -> cluster.messageCount(topic) >= committed.size());
            Map<String, MessageExt> read = cluster.readByBody(topic);
            Check.equal(committed, read.keySet(), "messages read");
            for (MessageExt message : read.values()) {
                Check.equal(message.getProperty("UNIQ_KEY"), message.getTransactionId(), "transaction id");
                Check.equal(8, message.getSysFlag() & 12, "transaction type");
                Check.that(message.getPreparedTransactionOffset() > 0 || message.getQueueOffset() == 0, "half message");
                Check.equal(null, message.getProperty("__DUE_MS"), "a property of the broker's own");
            }
        } finally {
            producer.shutdown();
        }
    }

    /** What a producer leaves open, another one of its group is asked about, also if the broker died meanwhile. */
    static void check(Cluster cluster) throws Exception {
        String topic = cluster.topic("checked", 4);
        String greetings = cluster.topic("greetings", 4);
        String group = cluster.name("checked");
        ByBody first = new ByBody();
        TransactionMQProducer gone = producer(cluster, group, first);
        for (int i = 0; i < 8; i++) {
            send(gone, topic, (i % 2 == 0 ? "unknown commit " : "unknown rollback ") + i);
        }
        gone.shutdown();
        Check.equal(0L, cluster.messageCount(topic), "messages while nobody has decided");
        System.out.println("left open");
        ByBody second = new ByBody();
        TransactionMQProducer other = producer(cluster, group, second);
        try {
            // A first message makes the broker know the producer before its next heartbeat.
            Cluster.await("the broker", () -> greet(other, greetings));
            Cluster.await("all transactions to be asked for", () -> about(topic, second).size() == 8);
            Cluster.await("committed messages", () -> cluster.messageCount(topic) == 4);
            Check.equal(Set.of(), about(topic, first), "asked of the producer that is gone");
            Set<String> bodies = cluster.readByBody(topic).keySet();
            Check.that(bodies.size() == 4 && bodies.stream().allMatch(body -> body.startsWith("unknown commit")), "" + bodies);
        } finally {
            other.shutdown();
        }
    }
}
