package ringmq.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;

final class DelayScenarios {
    private DelayScenarios() {}

    /** Messages with a delay level arrive once, not before their time, and as they were sent. */
    static void levels(Cluster cluster) throws Exception {
        List<Message> messages = new ArrayList<>();
        String topic = cluster.topic("delay", 4);
        for (int i = 0; i < 40; i++) {
            Message message = new Message(topic, "TagD", "keyD", ("delayed " + i).getBytes());
            message.setDelayTimeLevel(1 + i % 2);
            message.putUserProperty("mine", "kept");
            messages.add(message);
        }
        check(cluster, topic, messages, i -> i % 2 == 0 ? 1_000 : 5_000);
    }

    /** The same with timers, which name the delay or the moment. RocketMQ may be up to two seconds late, never early. */
    static void timers(Cluster cluster) throws Exception {
        List<Message> messages = new ArrayList<>();
        String topic = cluster.topic("timer", 4);
        long now_ms = System.currentTimeMillis();
        for (int i = 0; i < 40; i++) {
            Message message = new Message(topic, "TagD", "keyD", ("delayed " + i).getBytes());
            message.putUserProperty("mine", "kept");
            if (i % 2 == 0) {
                MessageAccessor.putProperty(message, "TIMER_DELAY_MS", "2500");
            } else {
                MessageAccessor.putProperty(message, "TIMER_DELIVER_MS", String.valueOf(now_ms + 4_321));
            }
            messages.add(message);
        }
        // Apache floors the moment to whole seconds and waits for the end of that second.
        check(cluster, topic, messages, i -> i % 2 == 0 ? 1_500 : 3_000);
    }

    private interface Delay {
        long leastMs(int number);
    }

    private static void check(Cluster cluster, String topic, List<Message> messages, Delay delay) throws Exception {
        Map<String, Queue<MessageExt>> received = new ConcurrentHashMap<>();
        Map<String, Long> arrivedAtMs = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("delayed"));
        consumer.subscribe(topic, "TagD");
        consumer.registerMessageListener((MessageListenerConcurrently) (batch, context) -> {
            for (MessageExt message : batch) {
                String body = new String(message.getBody());
                arrivedAtMs.putIfAbsent(body, System.currentTimeMillis());
                received.computeIfAbsent(body, key -> new ConcurrentLinkedQueue<>()).add(message);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        long sentAtMs = System.currentTimeMillis();
        for (Message message : messages) {
            cluster.producer().send(message);
        }
        Cluster.await("all delayed messages", () -> received.size() == messages.size());
        for (int i = 0; i < messages.size(); i++) {
            String body = "delayed " + i;
            Check.equal(1, received.get(body).size(), "deliveries of " + body);
            MessageExt message = received.get(body).peek();
            long waitedMs = arrivedAtMs.get(body) - sentAtMs;
            Check.that(delay.leastMs(i) <= waitedMs, body + " came after " + waitedMs + " ms");
            Check.equal("TagD", message.getTags(), "tags");
            Check.equal("keyD", message.getKeys(), "keys");
            Check.equal("kept", message.getUserProperty("mine"), "user property");
            Check.equal(topic, message.getTopic(), "topic");
        }
    }
}
