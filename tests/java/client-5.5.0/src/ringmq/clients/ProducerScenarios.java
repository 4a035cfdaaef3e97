package ringmq.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What producers of this release have beside those of 4.9.8. */
final class ProducerScenarios {
    private ProducerScenarios() {}

    /** A timer that is taken back in time is never delivered; those sent with it are. */
    static void recall(Cluster cluster) throws Exception {
        String topic = cluster.topic("recall", 2);
        Queue<String> received = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("recall_group"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                received.add(new String(message.getBody()));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        long due_ms = System.currentTimeMillis() + 6_000;
        SendResult kept = send(cluster, topic, "kept", due_ms);
        SendResult taken = send(cluster, topic, "taken back", due_ms);
        send(cluster, topic, "after it", due_ms + 3_000);
        Check.that(kept.getRecallHandle() != null, "a timer has a recall handle");
        Check.equal(taken.getMsgId(), cluster.producer().recallMessage(topic, taken.getRecallHandle()), "what is taken back");
        // It would have come before the last one.
        Cluster.await("the last one", () -> received.contains("after it"));
        Check.equal(List.of("kept", "after it"), List.copyOf(received), "deliveries");
        try {
            cluster.producer().recallMessage(topic, kept.getRecallHandle());
            throw new AssertionError("what was delivered was taken back");
        } catch (MQBrokerException tooLate) {
            Check.that(!tooLate.getErrorMessage().isEmpty(), "the refusal says why");
        }
    }

    /** Messages sent one by one by a producer that batches them arrive once each, where their answers say. */
    static void autoBatch(Cluster cluster) throws Exception {
        String topic = cluster.topic("auto_batch", 2);
        DefaultMQProducer producer = cluster.newProducer();
        producer.setAutoBatch(true);
        producer.start();
        Map<String, SendResult> results = new ConcurrentHashMap<>();
        for (int i = 0; i < 200; i++) {
            String body = "batched " + i;
            producer.send(new Message(topic, "A", "key" + i, body.getBytes()), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    results.put(body, result);
                }

                @Override
                public void onException(Throwable failure) {
                    failure.printStackTrace();
                }
            });
        }
        Cluster.await("200 answers", () -> results.size() == 200);
        Map<String, MessageExt> stored = cluster.readByBody(topic);
        Check.equal(results.keySet(), stored.keySet(), "bodies");
        for (Map.Entry<String, MessageExt> entry : stored.entrySet()) {
            SendResult result = results.get(entry.getKey());
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status of " + entry.getKey());
            Check.equal(entry.getValue().getQueueId(), result.getMessageQueue().getQueueId(), "queue of " + entry.getKey());
            Check.equal(entry.getValue().getQueueOffset(), result.getQueueOffset(), "offset of " + entry.getKey());
            Check.equal("A", entry.getValue().getTags(), "tags");
        }
    }

    /** Batches to a topic of queue.type BatchCQ are read message by message, with their own tags and keys, each once. */
    static void batchQueue(Cluster cluster) throws Exception {
        String topic = cluster.name("batch_queue");
        PopScenarios.createTopic(cluster, topic, 1, "+queue.type", "BatchCQ");
        MessageQueue queue = cluster.queues(topic).get(0);
        List<String> sent = new ArrayList<>();
        for (int round = 0; round < 3; round++) {
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < 10; i++) {
                String body = "body " + (round * 10 + i);
                batch.add(new Message(topic, "Tag" + i, "key" + i, body.getBytes()));
                sent.add(body);
            }
            SendResult result = cluster.producer().send(batch, queue);
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            Check.equal(round * 10L, result.getQueueOffset(), "offset of the batch's first message");
        }
        Queue<MessageExt> received = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("batch_queue_group"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            received.addAll(messages);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        Cluster.await("30 messages", () -> 30 <= received.size());
        List<MessageExt> stored = cluster.read(queue);
        for (List<MessageExt> messages : List.of(List.copyOf(received), stored)) {
            Check.equal(sent, messages.stream().map(message -> new String(message.getBody())).collect(Collectors.toList()), "bodies");
            for (MessageExt message : messages) {
                Check.equal("Tag" + message.getQueueOffset() % 10, message.getTags(), "tags");
                Check.equal("key" + message.getQueueOffset() % 10, message.getKeys(), "keys");
            }
        }
    }

    private static SendResult send(Cluster cluster, String topic, String body, long due_ms) throws Exception {
        Message message = new Message(topic, body.getBytes());
        message.setDeliverTimeMs(due_ms);
        return cluster.producer().send(message);
    }
}
