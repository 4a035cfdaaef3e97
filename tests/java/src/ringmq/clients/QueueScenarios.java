package ringmq.clients;

import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class QueueScenarios {
    /** What the client says by itself when no broker has found anything. */
    private static final int NO_MESSAGE = 208;

    private QueueScenarios() {}

    static void bounds(Cluster cluster) throws Exception {
        String topic = cluster.topic("bounds", 2);
        MessageQueue queue = cluster.queues(topic).get(1);
        DefaultMQPullConsumer reader = cluster.reader();
        Check.equal(0L, reader.minOffset(queue), "min offset of an empty queue");
        Check.equal(0L, reader.maxOffset(queue), "max offset of an empty queue");
        for (int i = 0; i < 7; i++) {
            cluster.producer().send(new Message(topic, ("body " + i).getBytes()), queue);
        }
        Check.equal(0L, reader.minOffset(queue), "min offset");
        Check.equal(7L, reader.maxOffset(queue), "max offset");
        MessageExt first = cluster.read(queue).get(0);
        Check.equal(first.getStoreTimestamp(), reader.earliestMsgStoreTime(queue), "earliest store time");
    }

    static void searchTime(Cluster cluster) throws Exception {
        String topic = cluster.topic("search_time", 1);
        MessageQueue queue = cluster.queues(topic).get(0);
        DefaultMQPullConsumer reader = cluster.reader();
        for (int i = 0; i < 6; i++) {
            long sentAt_ms = System.currentTimeMillis();
            cluster.producer().send(new Message(topic, ("body " + i).getBytes()), queue);
            // The next message gets a later store time.
            Cluster.await("the clock", () -> sentAt_ms + 20 < System.currentTimeMillis());
        }
        List<MessageExt> stored = cluster.read(queue);
        for (MessageExt message : stored) {
            long at_ms = message.getStoreTimestamp();
            Check.equal(message.getQueueOffset(), reader.searchOffset(queue, at_ms), "offset at a message's store time");
            Check.equal(message.getQueueOffset(), reader.searchOffset(queue, at_ms - 1), "offset just before a message");
        }
        Check.equal(0L, reader.searchOffset(queue, stored.get(0).getStoreTimestamp() - 3_600_000), "offset an hour before");
        Check.equal(6L, reader.searchOffset(queue, stored.get(5).getStoreTimestamp() + 1), "offset after the last message");
    }

    /** Messages are found by the words of their keys and by their unique keys, the newest first. */
    static void queryMessage(Cluster cluster) throws Exception {
        String topic = cluster.topic("query", 4);
        long begin_ms = System.currentTimeMillis() - 1000;
        SendResult last = null;
        for (int i = 0; i < 8; i++) {
            last = cluster.producer().send(new Message(topic, "TagQ", "all own" + i, ("body " + i).getBytes()));
        }
        List<MessageExt> all = query(cluster, topic, "all", 64, begin_ms);
        Check.equal(8, all.size(), "messages with the key all");
        Check.equal(3, query(cluster, topic, "all", 3, begin_ms).size(), "messages of at most three");
        List<MessageExt> one = query(cluster, topic, "own5", 64, begin_ms);
        Check.equal(1, one.size(), "messages with the key own5");
        Check.equal("body 5", new String(one.get(0).getBody()), "body of own5");
        MessageExt byId = cluster.producer().viewMessage(topic, last.getMsgId());
        Check.equal("body 7", new String(byId.getBody()), "body by unique key");
        Check.equal(0, query(cluster, topic, "nobody", 64, begin_ms).size(), "messages with a key nobody has");
        Check.equal(0, query(cluster, topic, "TagQ", 64, begin_ms).size(), "messages whose tag is asked for as a key");
    }

    /** What a tracing producer and a tracing consumer say of a message is found by its id. */
    static void traceMessage(Cluster cluster) throws Exception {
        String traces = cluster.topic("traces", 1);
        String topic = cluster.topic("traced", 1);
        DefaultMQProducer producer = cluster.tracingProducer(traces);
        producer.start();
        SendResult sent = producer.send(new Message(topic, "TagT", "key", "traced".getBytes()));
        DefaultMQPushConsumer consumer = cluster.tracingConsumer(cluster.name("traced"), traces);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
            ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        consumer.start();
        Cluster.await("traces of " + sent.getMsgId(), () -> {
            StringBuilder told = new StringBuilder();
            for (MessageExt trace : query(cluster, traces, sent.getMsgId(), 64, 0)) {
                told.append(new String(trace.getBody()));
            }
            String text = told.toString();
            return text.contains("Pub\u0001") && text.contains("SubBefore\u0001") && text.contains("SubAfter\u0001");
        });
    }

    private static List<MessageExt> query(Cluster cluster, String topic, String key, int max, long begin_ms)
            throws Exception {
        try {
            return cluster.producer().queryMessage(topic, key, max, begin_ms, Long.MAX_VALUE).getMessageList();
        } catch (MQClientException none) {
            Check.equal(NO_MESSAGE, none.getResponseCode(), "code of a query that finds nothing");
            return List.of();
        }
    }

    /** The offset message id of a send answer leads back to the message. */
    static void viewMessage(Cluster cluster) throws Exception {
        String topic = cluster.topic("view", 2);
        for (int i = 0; i < 5; i++) {
            Message message = new Message(topic, "TagV", "key" + i, ("body " + i).getBytes());
            SendResult result = cluster.producer().send(message);
            MessageExt seen = cluster.producer().viewMessage(topic, result.getOffsetMsgId());
            Check.equal("body " + i, new String(seen.getBody()), "body");
            Check.equal(topic, seen.getTopic(), "topic");
            Check.equal("key" + i, seen.getKeys(), "keys");
            Check.equal("TagV", seen.getTags(), "tags");
            Check.equal(result.getMessageQueue().getQueueId(), seen.getQueueId(), "queue id");
            Check.equal(result.getQueueOffset(), seen.getQueueOffset(), "queue offset");
        }
    }
}
