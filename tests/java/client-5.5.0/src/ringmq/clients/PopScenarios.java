package ringmq.clients;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.AckCallback;
import org.apache.rocketmq.client.consumer.AckResult;
import org.apache.rocketmq.client.consumer.AckStatus;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PopCallback;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.consumer.PopStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ExtraInfoUtil;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** The broker deals the queues out, and consumers pop. */
final class PopScenarios {
    private static final long TIMEOUT_MS = 10_000;

    private PopScenarios() {}

    /** Creates a topic with an attribute and waits until its route is known. */
    static void createTopic(Cluster cluster, String topic, int queueCount, String attribute, String value) throws Exception {
        TopicConfig config = new TopicConfig(topic, queueCount, queueCount);
        config.setAttributes(Map.of(attribute, value));
        api(cluster).createTopic(broker(cluster, "TBW102"), "TBW102", config, TIMEOUT_MS);
        Cluster.await("route of " + topic, () -> cluster.queues(topic).size() == queueCount);
    }

    private static MQClientAPIImpl api(Cluster cluster) throws Exception {
        return cluster.producer().getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
    }

    private static List<String> brokers(Cluster cluster, String topic) throws Exception {
        return api(cluster).getTopicRouteInfoFromNameServer(topic, TIMEOUT_MS).getBrokerDatas().stream()
            .map(BrokerData::selectBrokerAddr)
            .collect(Collectors.toList());
    }

    private static String broker(Cluster cluster, String topic) throws Exception {
        return brokers(cluster, topic).get(0);
    }

    /** A group that the brokers let pop the topic; as many other clients' queues are shared as {@code share} says. */
    private static String group(Cluster cluster, String stem, String topic, int share) throws Exception {
        String group = cluster.name(stem);
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        for (String broker : brokers(cluster, topic)) {
            api(cluster).createSubscriptionGroup(broker, config, TIMEOUT_MS);
            api(cluster).setMessageRequestMode(broker, topic, group, MessageRequestMode.POP, share, TIMEOUT_MS);
        }
        return group;
    }

    private static DefaultMQPushConsumer popper(Cluster cluster, String group, String topic, String tags) throws Exception {
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        consumer.setClientRebalance(false);
        consumer.subscribe(topic, tags);
        return consumer;
    }

    private static MessageListenerConcurrently into(Queue<MessageExt> deliveries) {
        return (messages, context) -> {
            deliveries.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    private static Set<String> bodies(Queue<MessageExt> deliveries) {
        return deliveries.stream().map(message -> new String(message.getBody())).collect(Collectors.toSet());
    }

    /** Two members pop everything of every queue once, what waits for them and what comes while they wait. */
    static void push(Cluster cluster) throws Exception {
        String topic = cluster.topic("pop_push", 4);
        String group = group(cluster, "pop_push_group", topic, -1);
        Set<String> sent = new HashSet<>();
        Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
        for (int i = 0; i < 100; i++) {
            sent.add("before " + i);
            cluster.producer().send(new Message(topic, ("before " + i).getBytes()));
        }
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = popper(cluster, group, topic, "*");
            consumer.registerMessageListener(into(deliveries));
            consumer.start();
        }
        Cluster.await("what waited", () -> 100 <= deliveries.size());
        for (int i = 0; i < 100; i++) {
            sent.add("after " + i);
            cluster.producer().send(new Message(topic, ("after " + i).getBytes()));
        }
        Cluster.await("what came later", () -> 200 <= deliveries.size());
        Check.equal(200, deliveries.size(), "deliveries");
        Check.equal(sent, bodies(deliveries), "bodies");
        for (MessageExt message : deliveries) {
            Check.that(message.getProperty(MessageConst.PROPERTY_POP_CK) != null, "not popped: " + message);
        }
    }

    /** Whichever broker is asked deals out the queues of all. */
    static void allBrokers(Cluster cluster) throws Exception {
        String topic = cluster.name("pop_of_all_brokers");
        TopicCreation.create(cluster.producer(), topic, 2);
        int queues = 2 * brokers(cluster, "TBW102").size();
        Cluster.await("all routes of " + topic, () -> cluster.queues(topic).size() == queues);
        for (int share : new int[] {-1, 1}) {
            String group = group(cluster, "pop_of_all_brokers_group" + share, topic, share);
            Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
            for (int i = 0; i < 3; i++) {
                DefaultMQPushConsumer consumer = popper(cluster, group, topic, "*");
                // A client drops what it has popped of a queue it loses in a rebalance, and the broker keeps it hidden.
                consumer.setPopInvisibleTime(5_000);
                consumer.registerMessageListener(into(deliveries));
                consumer.start();
            }
            Set<String> sent = new HashSet<>();
            for (MessageQueue queue : cluster.queues(topic)) {
                for (int i = 0; i < 8; i++) {
                    String body = share + " " + queue.getBrokerName() + " " + queue.getQueueId() + " " + i;
                    cluster.producer().send(new Message(topic, body.getBytes()), queue);
                    sent.add(body);
                }
            }
            Cluster.await("what every broker has", () -> bodies(deliveries).containsAll(sent));
        }
    }

    /** With shared queues, each member pops queues by their ids. */
    static void share(Cluster cluster) throws Exception {
        String topic = cluster.topic("pop_share", 6);
        String group = group(cluster, "pop_share_group", topic, 1);
        Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
        for (int i = 0; i < 3; i++) {
            DefaultMQPushConsumer consumer = popper(cluster, group, topic, "A || B");
            consumer.registerMessageListener(into(deliveries));
            consumer.start();
        }
        for (int i = 0; i < 60; i++) {
            cluster.producer().send(new Message(topic, i % 3 == 0 ? "C" : i % 3 == 1 ? "A" : "B", ("" + i).getBytes()));
        }
        Cluster.await("40 messages", () -> 40 <= deliveries.size());
        Check.equal(40, deliveries.size(), "deliveries");
        Check.equal(40, bodies(deliveries).size(), "distinct bodies");
    }

    /** What the listener refuses comes back after ten seconds, counted, under its own topic and id. */
    static void retry(Cluster cluster) throws Exception {
        String topic = cluster.topic("pop_retry", 2);
        DefaultMQPushConsumer consumer = popper(cluster, group(cluster, "pop_retry_group", topic, -1), topic, "TagR");
        Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
        Queue<Long> deliveredAt_ms = new ConcurrentLinkedQueue<>();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            deliveredAt_ms.add(System.currentTimeMillis());
            deliveries.addAll(messages);
            return messages.get(0).getReconsumeTimes() < 1
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        String msgId = cluster.producer().send(new Message(topic, "TagR", "keyR", "again".getBytes())).getMsgId();
        Cluster.await("two deliveries", () -> 2 <= deliveries.size());
        List<MessageExt> messages = new ArrayList<>(deliveries);
        for (int times = 0; times < 2; times++) {
            MessageExt message = messages.get(times);
            Check.equal(times, message.getReconsumeTimes(), "reconsume times");
            Check.equal("again", new String(message.getBody()), "body");
            Check.equal(topic, message.getTopic(), "topic");
            Check.equal("TagR", message.getTags(), "tags");
            Check.equal("keyR", message.getKeys(), "keys");
            Check.equal(msgId, message.getMsgId(), "message id");
        }
        List<Long> at_ms = new ArrayList<>(deliveredAt_ms);
        Check.that(9_000 <= at_ms.get(1) - at_ms.get(0), "the first retry is after ten seconds, not at " + at_ms);
    }

    /** A member that takes a message and dies loses it to the others when its time is over. */
    static void takeover(Cluster cluster) throws Exception {
        String topic = cluster.topic("pop_takeover", 1);
        String group = group(cluster, "pop_takeover_group", topic, -1);
        CountDownLatch never = new CountDownLatch(1);
        Queue<MessageExt> stuck = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer first = popper(cluster, group, topic, "*");
        first.setPopInvisibleTime(5_000);
        first.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            stuck.addAll(messages);
            try {
                never.await();
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        first.start();
        cluster.producer().send(new Message(topic, "left".getBytes()));
        Cluster.await("the first member to take the message", () -> stuck.size() == 1);
        // With what it has been asking for: nobody answers it any more.
        first.shutdown();
        Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer second = popper(cluster, group, topic, "*");
        second.registerMessageListener(into(deliveries));
        second.start();
        Cluster.await("the message to come back", () -> !deliveries.isEmpty());
        Check.equal(Set.of("left"), bodies(deliveries), "bodies");
        Check.equal(1, deliveries.peek().getReconsumeTimes(), "reconsume times");
        never.countDown();
    }

    /** In order: a queue gives nothing more until what it gave is acknowledged or its time is over. */
    static void order(Cluster cluster) throws Exception {
        String topic = cluster.topic("pop_order", 1);
        String group = group(cluster, "pop_order_group", topic, -1);
        MessageQueue queue = cluster.queues(topic).get(0);
        for (int i = 0; i < 4; i++) {
            cluster.producer().send(new Message(topic, ("" + i).getBytes()));
        }
        List<MessageExt> first = pop(cluster, queue, group, 3, 3_000, 100);
        Check.equal(List.of("0", "1", "2"), texts(first), "first pop");
        Check.equal(List.of(), texts(pop(cluster, queue, group, 3, 3_000, 100)), "pop of a blocked queue");
        Check.equal(AckStatus.OK, ack(cluster, first.get(0), group), "acknowledgement");
        Check.equal(List.of(), texts(pop(cluster, queue, group, 3, 3_000, 100)), "pop of a queue still blocked");
        // Held until the time of the first pop is over.
        List<MessageExt> again = pop(cluster, queue, group, 3, 60_000, 8_000);
        Check.equal(List.of("1", "2", "3"), texts(again), "pop after the time was over");
        Check.equal(List.of(1, 1, 0), again.stream().map(MessageExt::getReconsumeTimes).collect(Collectors.toList()), "times");
        for (MessageExt message : again) {
            Check.equal(AckStatus.OK, ack(cluster, message, group), "acknowledgement");
        }
        cluster.producer().send(new Message(topic, "4".getBytes()));
        Check.equal(List.of("4"), texts(pop(cluster, queue, group, 3, 60_000, 8_000)), "pop after all was acknowledged");
    }

    /** A priority is a queue; pops of any queue get the highest first, whichever was sent first. */
    static void priority(Cluster cluster) throws Exception {
        String topic = cluster.name("pop_priority");
        createTopic(cluster, topic, 4, "+message.type", "PRIORITY");
        String group = group(cluster, "pop_priority_group", topic, -1);
        for (int priority : new int[] {1, 0, 9, 2, 3, 0}) {
            Message message = new Message(topic, ("priority " + priority).getBytes());
            message.setPriority(priority);
            SendResult sent = cluster.producer().send(message);
            Check.equal(Math.min(priority, 3), sent.getMessageQueue().getQueueId(), "queue of priority " + priority);
        }
        MessageQueue any = new MessageQueue(topic, cluster.queues(topic).get(0).getBrokerName(), -1);
        List<String> popped = new ArrayList<>();
        Cluster.await("all six", () -> {
            popped.addAll(texts(pop(cluster, any, group, 1, 60_000, 0, false)));
            return popped.size() == 6;
        });
        Check.equal(
            List.of("priority 9", "priority 3", "priority 2", "priority 1", "priority 0", "priority 0"), popped, "order");
    }

    private static List<String> texts(List<MessageExt> messages) {
        return messages.stream().map(message -> new String(message.getBody())).collect(Collectors.toList());
    }

    private static List<MessageExt> pop(
        Cluster cluster, MessageQueue queue, String group, int count, long invisible_ms, long poll_ms) throws Exception {
        return pop(cluster, queue, group, count, invisible_ms, poll_ms, true);
    }

    private static List<MessageExt> pop(
        Cluster cluster, MessageQueue queue, String group, int count, long invisible_ms, long poll_ms, boolean isInOrder)
        throws Exception {
        PopMessageRequestHeader header = new PopMessageRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(queue.getTopic());
        header.setQueueId(queue.getQueueId());
        header.setMaxMsgNums(count);
        header.setInvisibleTime(invisible_ms);
        header.setPollTime(poll_ms);
        header.setBornTime(System.currentTimeMillis());
        header.setInitMode(0);
        header.setOrder(isInOrder);
        CompletableFuture<PopResult> answer = new CompletableFuture<>();
        PopCallback callback = new PopCallback() {
            @Override
            public void onSuccess(PopResult result) {
                answer.complete(result);
            }

            @Override
            public void onException(Throwable failure) {
                answer.completeExceptionally(failure);
            }
        };
        api(cluster).popMessageAsync(
            queue.getBrokerName(), broker(cluster, queue.getTopic()), header, poll_ms + TIMEOUT_MS, callback);
        PopResult result = answer.get();
        return result.getPopStatus() == PopStatus.FOUND ? result.getMsgFoundList() : List.of();
    }

    private static AckStatus ack(Cluster cluster, MessageExt message, String group) throws Exception {
        String receipt = message.getProperty(MessageConst.PROPERTY_POP_CK);
        String[] parts = ExtraInfoUtil.split(receipt);
        AckMessageRequestHeader header = new AckMessageRequestHeader();
        header.setTopic(ExtraInfoUtil.getRealTopic(parts, message.getTopic(), group));
        header.setQueueId(ExtraInfoUtil.getQueueId(parts));
        header.setOffset(ExtraInfoUtil.getQueueOffset(parts));
        header.setConsumerGroup(group);
        header.setExtraInfo(receipt);
        CompletableFuture<AckResult> answer = new CompletableFuture<>();
        AckCallback callback = new AckCallback() {
            @Override
            public void onSuccess(AckResult result) {
                answer.complete(result);
            }

            @Override
            public void onException(Throwable failure) {
                answer.completeExceptionally(failure);
            }
        };
        api(cluster).ackMessageAsync(broker(cluster, message.getTopic()), TIMEOUT_MS, callback, header);
        return answer.get().getStatus();
    }
}
