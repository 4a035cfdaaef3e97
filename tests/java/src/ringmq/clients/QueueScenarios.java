package ringmq.clients;

import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class QueueScenarios {
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
