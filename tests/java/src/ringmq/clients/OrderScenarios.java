package ringmq.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class OrderScenarios {
    private static final int QUEUES = 4;

    private OrderScenarios() {}

    /** What a selector sends to one queue stays in order, each message once, while a member joins and another leaves. */
    static void selector(Cluster cluster) throws Exception {
        relockSoon();
        String topic = cluster.topic("selector", QUEUES);
        String group = cluster.name("selector_group");
        Sequences sequences = new Sequences();
        DefaultMQPushConsumer first = start(cluster, group, topic, sequences);
        sendBySelector(cluster.producer(), topic, 0, 20);
        Cluster.await("the first messages", () -> sequences.reached(10, 20));
        start(cluster, group, topic, sequences);
        sendBySelector(cluster.producer(), topic, 20, 40);
        Cluster.await("messages with two members", () -> sequences.reached(10, 40));
        first.shutdown();
        sendBySelector(cluster.producer(), topic, 40, 60);
        Cluster.await("messages with the other member", () -> sequences.reached(10, 60));
        sequences.check();
    }

    /** A broker may end and come back under this: the order of a queue holds, though some of it may come again. */
    static void overRestarts(Cluster cluster) throws Exception {
        relockSoon();
        String topic = cluster.topic("order_restart", QUEUES);
        String group = cluster.name("order_restart_group");
        Sequences sequences = new Sequences();
        start(cluster, group, topic, sequences);
        start(cluster, group, topic, sequences);
        DefaultMQProducer producer = cluster.producer();
        List<MessageQueue> queues = cluster.queues(topic);
        for (int number = 0; number < 400; number++) {
            for (MessageQueue queue : queues) {
                sendUntilStored(producer, new Message(topic, (queue.getQueueId() + " " + number).getBytes()), queue);
            }
            if (number % 50 == 49) {
                System.out.println("sent " + number);
            }
        }
        Cluster.await("the last messages, not " + sequences, () -> sequences.reached(QUEUES, 400));
        sequences.check();
    }

    private static void sendUntilStored(DefaultMQProducer producer, Message message, MessageQueue queue) throws Exception {
        Cluster.await("a send that succeeds", () -> {
            try {
                producer.send(message, queue, 3_000);
                return true;
            } catch (org.apache.rocketmq.remoting.exception.RemotingException
                | org.apache.rocketmq.client.exception.MQBrokerException
                | org.apache.rocketmq.client.exception.MQClientException brokerIsAway) {
                return false;
            }
        });
    }

    /** A message that is refused too often goes to the dead letters, and what is behind it goes on. */
    static void deadLetter(Cluster cluster) throws Exception {
        relockSoon();
        String topic = cluster.topic("order_dead", 1);
        String group = cluster.name("order_dead_group");
        AtomicInteger tries = new AtomicInteger();
        Queue<String> bodies = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        consumer.setMaxReconsumeTimes(2);
        consumer.setSuspendCurrentQueueTimeMillis(10);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            String body = new String(messages.get(0).getBody());
            if (body.equals("bad")) {
                tries.incrementAndGet();
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            bodies.add(body);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        for (String body : List.of("before", "bad", "behind", "last")) {
            cluster.producer().send(new Message(topic, body.getBytes()));
        }
        Cluster.await("the messages behind it", () -> bodies.size() == 3);
        Check.equal(List.of("before", "behind", "last"), new ArrayList<>(bodies), "bodies");
        Check.equal(3, tries.get(), "tries of the bad one");
        MessageQueue dead = new MessageQueue("%DLQ%" + group, cluster.queues(topic).get(0).getBrokerName(), 0);
        Cluster.await("the dead letter", () -> cluster.reader().maxOffset(dead) == 1);
    }

    private static void relockSoon() {
        // A queue whose lock another member still had is asked for again after a second, not after twenty.
        System.setProperty("rocketmq.client.rebalance.lockInterval", "1000");
    }

    private static DefaultMQPushConsumer start(Cluster cluster, String group, String topic, Sequences sequences) throws Exception {
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        // A rebalance makes a new version of the subscription. The client tells it at once, unless another heartbeat is under
        // way: then with the next one, and until then all its pulls are refused (25).
        consumer.setHeartbeatBrokerInterval(1_000);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (MessageExt message : messages) {
                sequences.take(new String(message.getBody()));
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        return consumer;
    }

    /** Ten orders; what belongs to one goes to one queue. */
    private static void sendBySelector(DefaultMQProducer producer, String topic, int from, int to) throws Exception {
        for (int number = from; number < to; number++) {
            for (int order = 0; order < 10; order++) {
                Message message = new Message(topic, (order + " " + number).getBytes());
                producer.send(message, (queues, of, argument) -> queues.get((int) argument % queues.size()), order);
            }
        }
    }

    /** The numbers that came, by sequence. Going back is allowed to whoever was not heard, leaving out is not. */
    private static final class Sequences {
        private final Map<String, Integer> highest = new ConcurrentHashMap<>();
        private final Queue<String> violations = new ConcurrentLinkedQueue<>();

        void take(String body) {
            String[] words = body.split(" ");
            int number = Integer.parseInt(words[1]);
            highest.compute(words[0], (sequence, before) -> {
                int reached = before == null ? -1 : before;
                if (reached + 1 < number) {
                    violations.add("sequence " + sequence + ": " + number + " after " + reached);
                }
                return Math.max(reached, number);
            });
        }

        boolean reached(int sequences, int count) {
            return highest.size() == sequences && highest.values().stream().allMatch(number -> number == count - 1);
        }

        void check() {
            Check.that(violations.isEmpty(), violations.toString());
        }

        @Override
        public String toString() {
            return highest.toString();
        }
    }
}
