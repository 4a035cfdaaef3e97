package ringmq.clients;

import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Where consumers begin, how they are stopped and sent elsewhere, and what an administrator can ask of them. */
final class ModeScenarios {
    private ModeScenarios() {}

    /**
     * Where a consumer without progress begins. Without an offset at the broker that is the consumer's own choice, which
     * broadcasting shows; in a clustering group on a topic that still has its first messages it is the first one always.
     */
    static void consumeFromWhere(Cluster cluster) throws Exception {
        String topic = cluster.topic("from_where", 1);
        send(cluster, topic, 0, 3);
        long between_ms = nextSecond();
        send(cluster, topic, 3, 6);
        Map<ConsumeFromWhere, Queue<String>> broadcast = Map.of(
            ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, start(cluster, topic, true, ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, between_ms),
            ConsumeFromWhere.CONSUME_FROM_TIMESTAMP, start(cluster, topic, true, ConsumeFromWhere.CONSUME_FROM_TIMESTAMP, between_ms),
            ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET, start(cluster, topic, true, ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET, between_ms));
        List<Queue<String>> clustering = new ArrayList<>();
        for (ConsumeFromWhere where : broadcast.keySet()) {
            clustering.add(start(cluster, topic, false, where, between_ms));
        }
        send(cluster, topic, 6, 9);
        awaitBodies(broadcast.get(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET), 0, 9);
        awaitBodies(broadcast.get(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP), 3, 9);
        awaitBodies(broadcast.get(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET), 6, 9);
        for (Queue<String> bodies : clustering) {
            awaitBodies(bodies, 0, 9);
        }
    }

    private static Queue<String> start(
        Cluster cluster, String topic, boolean isBroadcasting, ConsumeFromWhere where, long timestamp_ms) throws Exception {
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("from_" + isBroadcasting + where.ordinal()));
        if (isBroadcasting) {
            broadcast(consumer);
        }
        consumer.setConsumeFromWhere(where);
        consumer.setConsumeTimestamp(new SimpleDateFormat("yyyyMMddHHmmss").format(new Date(timestamp_ms)));
        Queue<String> bodies = startCollecting(consumer, topic);
        // Where it begins is decided with its first look; what is sent later must not move that.
        Cluster.await("the first pull", () -> consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable()
            .keySet().stream().anyMatch(queue -> queue.getTopic().equals(topic)));
        return bodies;
    }

    private static void broadcast(DefaultMQPushConsumer consumer) {
        // The type of the message model moved between 4.x and 5.x.
        consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
    }

    /** A suspended consumer gets nothing; resumed, it gets all it missed. */
    static void suspendResume(Cluster cluster) throws Exception {
        String topic = cluster.topic("suspend", 2);
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("suspend_group"));
        Queue<String> bodies = startCollecting(consumer, topic);
        send(cluster, topic, 0, 10);
        awaitBodies(bodies, 0, 10);
        consumer.suspend();
        send(cluster, topic, 10, 20);
        // A pull under way may still bring messages that were sent at once.
        int before = bodies.size();
        send(cluster, topic, 20, 30);
        Cluster.await("all sends", () -> cluster.messageCount(topic) == 30);
        Check.that(bodies.size() - before <= 10, "a suspended consumer went on");
        consumer.resume();
        awaitBodies(bodies, 0, 30);
    }

    /** Consumers that run go back to a point of time, and forward to the end, when an administrator says so. */
    static void resetByTime(Cluster cluster) throws Exception {
        String topic = cluster.topic("reset", 2);
        String group = cluster.name("reset_group");
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        // Offsets are committed every second, not every five.
        consumer.setPersistConsumerOffsetInterval(1_000);
        Queue<String> bodies = startCollecting(consumer, topic);
        send(cluster, topic, 0, 10);
        long between_ms = nextSecond();
        send(cluster, topic, 10, 20);
        awaitBodies(bodies, 0, 20);
        awaitCommitted(cluster, group, topic, 20);
        Map<MessageQueue, Long> targets = reset(cluster, group, topic, between_ms);
        Check.equal(10L, targets.values().stream().mapToLong(Long::longValue).sum(), "targets, added up");
        Cluster.await("the second half again", () -> 30 <= bodies.size());
        Check.equal(expected(10, 20), last(bodies, 20), "bodies after the reset");

        consumer.suspend();
        send(cluster, topic, 20, 24);
        targets = reset(cluster, group, topic, -1);
        Check.equal(24L, targets.values().stream().mapToLong(Long::longValue).sum(), "targets at the end, added up");
        consumer.resume();
        awaitCommitted(cluster, group, topic, 24);
        // Those two pulls were under way while it was suspended may have brought.
        Check.that(bodies.size() <= 34, "what was skipped was consumed: " + bodies.size());
    }

    /** A group that is retired, which no consumer runs in, starts again where an administrator put it. */
    static void resetOffline(Cluster cluster) throws Exception {
        String topic = cluster.topic("reset_offline", 2);
        String group = cluster.name("reset_offline_group");
        DefaultMQPushConsumer first = cluster.pushConsumer(group);
        Queue<String> bodies = startCollecting(first, topic);
        send(cluster, topic, 0, 10);
        long between_ms = nextSecond();
        send(cluster, topic, 10, 20);
        awaitBodies(bodies, 0, 20);
        first.shutdown();
        awaitCommitted(cluster, group, topic, 20);
        reset(cluster, group, topic, between_ms);
        DefaultMQPushConsumer second = cluster.pushConsumer(group);
        awaitBodies(startCollecting(second, topic), 10, 20);
    }

    /** A group that must not consume gets nothing, and all of it once it may. */
    static void consumeDisabled(Cluster cluster) throws Exception {
        String topic = cluster.topic("disabled", 2);
        String group = cluster.name("disabled_group");
        Admin.group(api(cluster), broker(cluster), group, wanted -> wanted.consumeEnable = false);
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        Queue<String> bodies = startCollecting(consumer, topic);
        send(cluster, topic, 0, 10);
        awaitBodies(startCollecting(cluster.pushConsumer(cluster.name("other_group")), topic), 0, 10);
        Check.that(bodies.isEmpty(), "a disabled group consumes");
        Admin.group(api(cluster), broker(cluster), group, wanted -> {});
        awaitBodies(bodies, 0, 10);
    }

    /** With consumeBroadcastEnable=false a group may cluster, but not broadcast. */
    static void broadcastDisabled(Cluster cluster) throws Exception {
        String topic = cluster.topic("no_broadcast", 2);
        String group = cluster.name("no_broadcast_group");
        Admin.group(api(cluster), broker(cluster), group, wanted -> wanted.consumeBroadcastEnable = false);
        DefaultMQPushConsumer refused = cluster.pushConsumer(group);
        broadcast(refused);
        Queue<String> nothing = startCollecting(refused, topic);
        send(cluster, topic, 0, 10);
        String other = cluster.name("other_group");
        awaitBodies(startCollecting(cluster.pushConsumer(other), topic), 0, 10);
        Check.that(nothing.isEmpty(), "a group that must not broadcast did");
        refused.shutdown();
        awaitBodies(startCollecting(cluster.pushConsumer(group), topic), 0, 10);
    }

    /** Retry topics get the number of queues their group asks for. */
    static void retryQueues(Cluster cluster) throws Exception {
        String topic = cluster.topic("retry_queues", 1);
        String group = cluster.name("retry_queues_group");
        Admin.group(api(cluster), broker(cluster), group, wanted -> wanted.retryQueueNums = 3);
        startCollecting(cluster.pushConsumer(group), topic);
        Cluster.await("a retry topic of 3 queues", () -> cluster.queues("%RETRY%" + group).size() == 3);
    }

    /**
     * Two members of a group that subscribe to different topics: a mistake that RocketMQ does not refuse. Each takes the
     * other's subscription away; when one leaves, nothing is lost to the other.
     */
    static void subscriptionConflict(Cluster cluster) throws Exception {
        String one = cluster.topic("conflict_one", 2);
        String two = cluster.topic("conflict_two", 2);
        String group = cluster.name("conflict_group");
        DefaultMQPushConsumer first = cluster.pushConsumer(group);
        first.setHeartbeatBrokerInterval(1_000);
        Queue<String> bodies = startCollecting(first, one);
        send(cluster, one, 0, 10);
        awaitBodies(bodies, 0, 10);
        DefaultMQPushConsumer second = cluster.pushConsumer(group);
        second.setHeartbeatBrokerInterval(1_000);
        startCollecting(second, two);
        send(cluster, one, 10, 20);
        send(cluster, two, 0, 10);
        second.shutdown();
        awaitDistinct(bodies, 20);
        Check.equal(expected(0, 20), bodies.stream().distinct().sorted().collect(Collectors.toList()), "bodies");
    }

    /** What an administrator gets to know of a consumer, and lets it consume. */
    static void askConsumer(Cluster cluster) throws Exception {
        String topic = cluster.topic("ask", 3);
        String group = cluster.name("ask_group");
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        Queue<String> bodies = startCollecting(consumer, topic);
        SendResult sent = cluster.producer().send(new Message(topic, "body 0".getBytes()));
        awaitBodies(bodies, 0, 1);
        String clientId = consumer.buildMQClientId();
        MQClientAPIImpl api = api(cluster);
        Check.equal(3, Admin.queuesConsumed(api, broker(cluster), group, clientId, topic), "queues in the running info");
        Map<String, Map<MessageQueue, Long>> status =
            api.invokeBrokerToGetConsumerStatus(broker(cluster), topic, group, "", 15_000);
        Check.equal(1L, status.get(clientId).values().stream().mapToLong(Long::longValue).sum(), "offsets in its status");
        String result = Admin.consumeDirectly(api, broker(cluster), group, clientId, topic, sent.getOffsetMsgId());
        Check.equal("CR_SUCCESS", result, "result");
        Check.equal(List.of("body 0", "body 0"), new ArrayList<>(bodies), "bodies");
        try {
            Admin.queuesConsumed(api, broker(cluster), group, "nobody", topic);
            throw new AssertionError("a client that is not there has told about itself");
        } catch (org.apache.rocketmq.client.exception.MQClientException refused) {
            Check.equal(1, refused.getResponseCode(), "code for a client that is not there");
        }
    }

    private static Queue<String> startCollecting(DefaultMQPushConsumer consumer, String topic) throws Exception {
        Queue<String> bodies = new ConcurrentLinkedQueue<>();
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                bodies.add(new String(message.getBody()));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return bodies;
    }

    private static MQClientAPIImpl api(Cluster cluster) throws Exception {
        return cluster.producer().getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
    }

    /** Where the one broker listens. */
    private static String broker(Cluster cluster) throws Exception {
        // Whoever has sent somewhere knows the address.
        MessageQueue any = cluster.producer().send(new Message(cluster.topic("where", 1), "where".getBytes())).getMessageQueue();
        return cluster.producer().getDefaultMQProducerImpl().getMqClientFactory().findBrokerAddressInPublish(any.getBrokerName());
    }

    static Map<MessageQueue, Long> reset(Cluster cluster, String group, String topic, long timestamp_ms) throws Exception {
        return api(cluster).invokeBrokerToResetOffset(broker(cluster), topic, group, timestamp_ms, true, 15_000);
    }

    static void awaitCommitted(Cluster cluster, String group, String topic, long sum) throws Exception {
        String broker = broker(cluster);
        List<MessageQueue> queues = cluster.queues(topic);
        Cluster.await("commits that add up to " + sum, () -> {
            long committed = 0;
            for (MessageQueue queue : queues) {
                committed += Admin.committed(api(cluster), broker, group, queue);
            }
            return committed == sum;
        });
    }

    /** The next whole second, once it has begun: messages sent from now on are stored later. */
    static long nextSecond() throws Exception {
        long at_ms = (System.currentTimeMillis() / 1000 + 1) * 1000;
        Cluster.await("the next second", () -> at_ms < System.currentTimeMillis());
        return at_ms;
    }

    private static void send(Cluster cluster, String topic, int from, int to) throws Exception {
        for (int i = from; i < to; i++) {
            cluster.producer().send(new Message(topic, body(i).getBytes()));
        }
    }

    private static String body(int number) {
        return String.format("body %d", number);
    }

    private static List<String> expected(int from, int to) {
        return IntStream.range(from, to).mapToObj(ModeScenarios::body).sorted().collect(Collectors.toList());
    }

    private static List<String> last(Queue<String> bodies, int skipped) {
        return bodies.stream().skip(skipped).sorted().collect(Collectors.toList());
    }

    private static void awaitBodies(Queue<String> bodies, int from, int to) throws Exception {
        Cluster.await((to - from) + " messages, not " + bodies, () -> to - from <= bodies.size());
        Check.equal(expected(from, to), bodies.stream().sorted().collect(Collectors.toList()), "bodies");
    }

    private static void awaitDistinct(Queue<String> bodies, long count) throws Exception {
        Cluster.await(count + " different messages", () -> count <= bodies.stream().distinct().count());
    }
}
