package ringmq.clients;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * What a scenario works against: one name server address, topic and group names nobody else uses, and
 * clients that are shut down, last first, when the scenario ends.
 */
final class Cluster implements AutoCloseable {
    /** Longer than the slowest thing a client does on its own: its 20 s rebalance and 30 s route refresh. */
    static final Duration PATIENCE = Duration.ofSeconds(60);

    /** How long a broker keeps the lock of a queue for a consumer that does not renew it. */
    static final Duration LOCK_LIFE = Duration.ofSeconds(60);

    final String namesrv;
    private final String run = UUID.randomUUID().toString().substring(0, 8);
    private final Deque<Runnable> shutdowns = new ArrayDeque<>();
    private int clientCount = 0;
    private DefaultMQProducer producer;
    private DefaultMQPullConsumer reader;

    Cluster(String namesrv) {
        this.namesrv = namesrv;
    }

    String name(String stem) {
        return stem + "_" + run;
    }

    /** Names a client, so that several clients of one process are several members of their group. */
    String instance() {
        return run + "-" + clientCount++;
    }

    /** Creates a topic and waits until its route, with all queues, is known to the name server. */
    String topic(String stem, int queueCount) throws Exception {
        String topic = name(stem);
        TopicCreation.create(producer(), topic, queueCount);
        await("route of " + topic, () -> queues(topic).size() == queueCount);
        return topic;
    }

    /** The topic's queues in the order of their ids; empty while the topic has no route. */
    List<MessageQueue> queues(String topic) throws MQClientException {
        try {
            List<MessageQueue> queues = new ArrayList<>(producer().fetchPublishMessageQueues(topic));
            queues.sort(Comparator.naturalOrder());
            return queues;
        } catch (MQClientException noRouteYet) {
            return List.of();
        }
    }

    /** The producer of scenarios that need no particular settings. */
    DefaultMQProducer producer() throws MQClientException {
        if (producer == null) {
            producer = newProducer();
            producer.start();
        }
        return producer;
    }

    DefaultMQProducer newProducer() {
        return set(new DefaultMQProducer(name("producers")));
    }

    /** A producer that tells what it sends in a topic of traces. */
    DefaultMQProducer tracingProducer(String traces) {
        return set(new DefaultMQProducer(name("tracing"), true, traces));
    }

    private DefaultMQProducer set(DefaultMQProducer fresh) {
        fresh.setNamesrvAddr(namesrv);
        fresh.setInstanceName(instance());
        fresh.setSendMsgTimeout(30_000);
        shutdowns.push(fresh::shutdown);
        return fresh;
    }

    /** A push consumer that begins at the oldest message; subscribe it, give it a listener, start it. */
    DefaultMQPushConsumer pushConsumer(String group) {
        return set(new DefaultMQPushConsumer(group));
    }

    /** As {@link #pushConsumer}, and it tells what it consumes in a topic of traces. */
    DefaultMQPushConsumer tracingConsumer(String group, String traces) {
        return set(new DefaultMQPushConsumer(group, true, traces));
    }

    private DefaultMQPushConsumer set(DefaultMQPushConsumer consumer) {
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    DefaultLitePullConsumer litePullConsumer(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    DefaultMQPullConsumer pullConsumer(String group) {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance());
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    /** The pull consumer with which scenarios look at queues. */
    DefaultMQPullConsumer reader() throws MQClientException {
        if (reader == null) {
            reader = pullConsumer(name("readers"));
            reader.start();
        }
        return reader;
    }

    /** All messages of a queue, which must stand at the offsets 0, 1, 2, ... */
    List<MessageExt> read(MessageQueue queue) throws Exception {
        List<MessageExt> messages = new ArrayList<>();
        long end = reader().maxOffset(queue);
        while (messages.size() < end) {
            PullResult result = reader().pull(queue, "*", messages.size(), 32);
            Check.equal(PullStatus.FOUND, result.getPullStatus(), "pull of " + queue + " at " + messages.size());
            for (MessageExt message : result.getMsgFoundList()) {
                Check.equal((long) messages.size(), message.getQueueOffset(), "queue offset in " + queue);
                messages.add(message);
            }
            Check.equal((long) messages.size(), result.getNextBeginOffset(), "next offset of " + queue);
        }
        return messages;
    }

    /** All messages of a topic by the text of their body. */
    Map<String, MessageExt> readByBody(String topic) throws Exception {
        Map<String, MessageExt> messages = new TreeMap<>();
        for (MessageQueue queue : queues(topic)) {
            for (MessageExt message : read(queue)) {
                String body = new String(message.getBody());
                Check.that(messages.put(body, message) == null, "body stored twice: " + body);
            }
        }
        return messages;
    }

    long messageCount(String topic) throws Exception {
        long count = 0;
        for (MessageQueue queue : queues(topic)) {
            count += reader().maxOffset(queue);
        }
        return count;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void await(String what, Condition condition) throws Exception {
        await(what, PATIENCE, condition);
    }

    static void await(String what, Duration patience, Condition condition) throws Exception {
        long deadline_ns = System.nanoTime() + patience.toNanos();
        while (!condition.holds()) {
            Check.that(System.nanoTime() < deadline_ns, "waited " + patience.toSeconds() + " s for " + what);
            Thread.sleep(10);
        }
    }

    @Override
    public void close() {
        shutdowns.forEach(Runnable::run);
    }
}
