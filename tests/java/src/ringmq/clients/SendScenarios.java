package ringmq.clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.common.message.MessageQueue;

final class SendScenarios {
    private SendScenarios() {}

    /** Every answer names where the message is, and there it is, with all it was sent with. */
    static void sync(Cluster cluster) throws Exception {
        String topic = cluster.topic("sync", 4);
        Map<MessageQueue, Long> nextOffsets = new HashMap<>();
        Map<String, SendResult> results = new HashMap<>();
        for (int i = 0; i < 40; i++) {
            Message message = new Message(topic, "Tag" + i % 3, "key" + i + " shared", ("body " + i).getBytes());
            message.setFlag(i);
            message.putUserProperty("colour", "blue=" + i);
            SendResult result = cluster.producer().send(message);
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            Check.equal(MessageClientIDSetter.getUniqID(message), result.getMsgId(), "unique id");
            long expected = nextOffsets.merge(result.getMessageQueue(), 1L, Long::sum) - 1;
            Check.equal(expected, result.getQueueOffset(), "queue offset in " + result.getMessageQueue());
            results.put("body " + i, result);
        }
        Check.equal(4, nextOffsets.size(), "queues used in turn");

        Map<String, MessageExt> stored = cluster.readByBody(topic);
        Check.equal(results.keySet(), stored.keySet(), "stored bodies");
        for (int i = 0; i < 40; i++) {
            MessageExt message = stored.get("body " + i);
            SendResult result = results.get("body " + i);
            Check.equal("Tag" + i % 3, message.getTags(), "tags");
            Check.equal("key" + i + " shared", message.getKeys(), "keys");
            Check.equal("blue=" + i, message.getUserProperty("colour"), "user property");
            Check.equal(i, message.getFlag(), "flag");
            Check.equal(topic, message.getTopic(), "topic");
            Check.equal(result.getMessageQueue().getQueueId(), message.getQueueId(), "queue id");
            Check.equal(result.getQueueOffset(), message.getQueueOffset(), "queue offset");
            Check.equal(result.getMsgId(), message.getMsgId(), "message id");
            MessageId id = MessageDecoder.decodeMessageId(result.getOffsetMsgId());
            Check.equal(id.getOffset(), message.getCommitLogOffset(), "commit log offset in the id");
            Check.that(message.getBornTimestamp() <= message.getStoreTimestamp(), "born before stored");
        }

        MessageQueue third = cluster.queues(topic).get(2);
        SendResult chosen = cluster.producer().send(
            new Message(topic, "chosen".getBytes()), (queues, message, id) -> queues.get((Integer) id), 2);
        Check.equal(third, chosen.getMessageQueue(), "queue chosen by the selector");
        Check.equal(third, cluster.producer().send(new Message(topic, "named".getBytes()), third).getMessageQueue(), "named queue");
    }

    static void async(Cluster cluster) throws Exception {
        String topic = cluster.topic("async", 4);
        int count = 300;
        Queue<String> failures = new ConcurrentLinkedQueue<>();
        Set<String> places = ConcurrentHashMap.newKeySet();
        CountDownLatch answered = new CountDownLatch(count);
        for (int i = 0; i < count; i++) {
            cluster.producer().send(new Message(topic, ("body " + i).getBytes()), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    places.add(result.getMessageQueue().getQueueId() + ":" + result.getQueueOffset());
                    answered.countDown();
                }

                @Override
                public void onException(Throwable failure) {
                    failures.add(failure.toString());
                    answered.countDown();
                }
            });
        }
        Check.that(answered.await(Cluster.PATIENCE.toSeconds(), TimeUnit.SECONDS), "unanswered: " + answered.getCount());
        Check.that(failures.isEmpty(), "failed: " + failures);
        Check.equal(count, places.size(), "distinct places");
        Check.equal(count, cluster.readByBody(topic).size(), "stored messages");
    }

    static void oneway(Cluster cluster) throws Exception {
        String topic = cluster.topic("oneway", 4);
        for (int i = 0; i < 50; i++) {
            cluster.producer().sendOneway(new Message(topic, ("body " + i).getBytes()));
        }
        Cluster.await("50 oneway messages", () -> cluster.messageCount(topic) == 50);
        Check.equal(50, cluster.readByBody(topic).size(), "distinct bodies");
    }

    /** The messages of a batch stand one behind the other in one queue, each with its own properties. */
    static void batch(Cluster cluster) throws Exception {
        String topic = cluster.topic("batch", 2);
        MessageQueue second = cluster.queues(topic).get(1);
        for (int round = 0; round < 3; round++) {
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < 10; i++) {
                batch.add(new Message(topic, "Tag" + i, "key" + i, ("body " + (round * 10 + i)).getBytes()));
            }
            SendResult result = cluster.producer().send(batch, second);
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            Check.equal(second, result.getMessageQueue(), "queue");
            Check.equal(round * 10L, result.getQueueOffset(), "offset of the batch's first message");
            Check.equal(10, result.getMsgId().split(",").length, "unique ids");
            Check.equal(10, result.getOffsetMsgId().split(",").length, "offset ids");
        }
        List<MessageExt> stored = cluster.read(second);
        Check.equal(30, stored.size(), "stored messages");
        for (int i = 0; i < 30; i++) {
            Check.equal("body " + i, new String(stored.get(i).getBody()), "body");
            Check.equal("Tag" + i % 10, stored.get(i).getTags(), "tags");
            Check.equal("key" + i % 10, stored.get(i).getKeys(), "keys");
        }
        SendResult unaddressed = cluster.producer().send(List.of(new Message(topic, "a".getBytes()), new Message(topic, "b".getBytes())));
        Check.equal(SendStatus.SEND_OK, unaddressed.getSendStatus(), "status of a batch without a queue");
    }

    /** Bodies that compress, bodies that grow a little when the client compresses them, and one above the broker's 4 MiB. */
    static void bigBody(Cluster cluster) throws Exception {
        String topic = cluster.topic("big", 1);
        byte[] text = new byte[300_000];
        Arrays.fill(text, (byte) 'x');
        byte[] noise = new byte[1024 * 1024];
        new Random(1).nextBytes(noise);
        byte[] largest = new byte[4 * 1024 * 1024 - 8192];
        new Random(2).nextBytes(largest);
        byte[] tooLarge = new byte[4 * 1024 * 1024 + 1];
        new Random(3).nextBytes(tooLarge);
        DefaultMQProducer producer = cluster.newProducer();
        producer.setMaxMessageSize(8 * 1024 * 1024);
        producer.start();
        List<byte[]> bodies = List.of(text, noise, largest);
        for (byte[] body : bodies) {
            Check.equal(SendStatus.SEND_OK, producer.send(new Message(topic, body)).getSendStatus(), "status");
        }
        try {
            producer.send(new Message(topic, tooLarge));
            throw new AssertionError("a body above maxMessageSize was accepted");
        } catch (MQBrokerException refused) {
            Check.equal(13, refused.getResponseCode(), "response code of a body above maxMessageSize");
        }
        List<MessageExt> stored = cluster.read(cluster.queues(topic).get(0));
        Check.equal(bodies.size(), stored.size(), "stored messages");
        for (int i = 0; i < bodies.size(); i++) {
            Check.that(Arrays.equals(bodies.get(i), stored.get(i).getBody()), "body " + i + " differs");
        }
        Check.that(stored.get(0).getStoreSize() < text.length / 10, "the first body is stored compressed");
    }

    static void autoCreate(Cluster cluster) throws Exception {
        String topic = cluster.name("auto");
        SendResult result = cluster.producer().send(new Message(topic, "first".getBytes()));
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Cluster.await("route of the new topic", () -> !cluster.queues(topic).isEmpty());
        Check.equal(4, cluster.queues(topic).size(), "queues (the client's default of 4 is below the broker's 8)");
        Check.equal(new HashSet<>(List.of("first")), cluster.readByBody(topic).keySet(), "stored bodies");
    }
}
