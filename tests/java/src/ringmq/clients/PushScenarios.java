package ringmq.clients;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.consumer.store.ReadOffsetType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class PushScenarios {
    /** One member of a group, and the bodies it was given. */
    private static final class Member {
        final DefaultMQPushConsumer consumer;
        final Queue<String> bodies = new ConcurrentLinkedQueue<>();

        Member(DefaultMQPushConsumer consumer) {
            this.consumer = consumer;
        }

        static Member start(Cluster cluster, String group, String topic, String tags) throws Exception {
            Member member = new Member(cluster.pushConsumer(group));
            member.consumer.subscribe(topic, tags);
            member.consumeAndStart();
            return member;
        }

        void consumeAndStart() throws Exception {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(message -> bodies.add(new String(message.getBody())));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
        }

        Set<Integer> queueIds(String topic) {
            return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
                .filter(queue -> queue.getTopic().equals(topic))
                .map(MessageQueue::getQueueId)
                .collect(Collectors.toCollection(TreeSet::new));
        }
    }

    private PushScenarios() {}

    /** Two members share the queues; every message reaches exactly one of them. */
    static void clustering(Cluster cluster) throws Exception {
        rebalanceOnlyWhenNotified();
        String topic = cluster.topic("clustering", 4);
        String group = cluster.name("clustering_group");
        Member one = Member.start(cluster, group, topic, "*");
        Member two = Member.start(cluster, group, topic, "*");
        awaitSharing(topic, 4, List.of(one, two));
        Set<String> sent = send(cluster, topic, 0, 100);
        Cluster.await("100 messages", () -> 100 <= one.bodies.size() + two.bodies.size());
        Check.equal(100, one.bodies.size() + two.bodies.size(), "deliveries");
        Check.that(!one.bodies.isEmpty() && !two.bodies.isEmpty(), "one member got everything");
        Set<String> received = new HashSet<>(one.bodies);
        received.addAll(two.bodies);
        Check.equal(sent, received, "bodies");
    }

    /** Both members get every message. */
    static void broadcasting(Cluster cluster) throws Exception {
        String topic = cluster.topic("broadcasting", 4);
        String group = cluster.name("broadcasting_group");
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Member member = new Member(cluster.pushConsumer(group));
            // The type of the message model moved between 4.x and 5.x.
            var clustering = member.consumer.getMessageModel();
            member.consumer.setMessageModel(Enum.valueOf(clustering.getDeclaringClass(), "BROADCASTING"));
            member.consumer.subscribe(topic, "*");
            member.consumeAndStart();
            members.add(member);
        }
        for (Member member : members) {
            Cluster.await("4 queues", () -> member.queueIds(topic).size() == 4);
        }
        Set<String> sent = send(cluster, topic, 0, 50);
        for (Member member : members) {
            Cluster.await("50 messages", () -> 50 <= member.bodies.size());
            Check.equal(50, member.bodies.size(), "deliveries");
            Check.equal(sent, new HashSet<>(member.bodies), "bodies");
        }
    }

    static void tags(Cluster cluster) throws Exception {
        String topic = cluster.topic("tags", 2);
        for (String tag : new String[] {"A", "B", "C", "AB", "", "A", "C", "B"}) {
            cluster.producer().send(new Message(topic, tag, ("before " + tag).getBytes()));
        }
        Member some = Member.start(cluster, cluster.name("tags_some"), topic, "A || B");
        Member all = Member.start(cluster, cluster.name("tags_all"), topic, "*");
        Cluster.await("the waiting messages", () -> some.bodies.size() == 4 && all.bodies.size() == 8);
        for (String tag : new String[] {"C", "A", "AB", "B", "C"}) {
            cluster.producer().send(new Message(topic, tag, ("after " + tag).getBytes()));
        }
        Cluster.await("the later messages", () -> 6 <= some.bodies.size() && 13 <= all.bodies.size());
        Check.equal(
            List.of("after A", "after B", "before A", "before A", "before B", "before B"),
            some.bodies.stream().sorted().collect(Collectors.toList()), "bodies of A || B");
        Check.equal(13, all.bodies.size(), "bodies of *");
    }

    /** Within a queue, messages arrive in order and one at a time, also while the members change. */
    static void orderly(Cluster cluster) throws Exception {
        // A queue whose lock another member still had is asked for again after a second, not after twenty.
        System.setProperty("rocketmq.client.rebalance.lockInterval", "1000");
        String topic = cluster.topic("orderly", 4);
        String group = cluster.name("orderly_group");
        Map<Integer, Queue<String>> byQueue = new ConcurrentHashMap<>();
        Set<Integer> busy = ConcurrentHashMap.newKeySet();
        Queue<String> violations = new ConcurrentLinkedQueue<>();
        MessageListenerOrderly listener = (messages, context) -> {
            int queueId = context.getMessageQueue().getQueueId();
            if (!busy.add(queueId)) {
                violations.add("queue " + queueId + " consumed twice at a time");
            }
            for (MessageExt message : messages) {
                byQueue.computeIfAbsent(queueId, id -> new ConcurrentLinkedQueue<>()).add(new String(message.getBody()));
            }
            busy.remove(queueId);
            return ConsumeOrderlyStatus.SUCCESS;
        };
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Member member = new Member(cluster.pushConsumer(group));
            member.consumer.subscribe(topic, "*");
            member.consumer.registerMessageListener(listener);
            member.consumer.start();
            members.add(member);
        }
        awaitSharing(topic, 4, members);
        sendInOrder(cluster, topic, 0, 25);
        Cluster.await("the first 100 messages", () -> progress(cluster, topic, members) == 100);
        members.get(0).consumer.shutdown();
        // The client gives its locks back, but it may be about to renew them just then, and the broker sees that last.
        awaitSharing(topic, 4, members.subList(1, 2), Cluster.LOCK_LIFE.plus(Cluster.PATIENCE));
        sendInOrder(cluster, topic, 25, 50);
        Cluster.await("the second 100 messages", () -> 200 <= count(byQueue));
        Check.that(violations.isEmpty(), violations.toString());
        for (int queueId = 0; queueId < 4; queueId++) {
            List<String> expected = new ArrayList<>();
            for (int i = 0; i < 50; i++) {
                expected.add("queue " + queueId + " number " + i);
            }
            Check.equal(expected, new ArrayList<>(byQueue.get(queueId)), "order in queue " + queueId);
        }
    }

    /**
     * A message the listener refuses comes back through the retry topic, counted, under its own topic and id, and
     * not before the delay asked for.
     */
    static void retry(Cluster cluster) throws Exception {
        // The retry topic exists only after the consumer's first heartbeat; by default it looks again after 30 s.
        System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        String topic = cluster.topic("retry", 1);
        Queue<MessageExt> deliveries = new ConcurrentLinkedQueue<>();
        Queue<Long> deliveredAt_ms = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("retry_group"));
        consumer.setPollNameServerInterval(1_000);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            deliveredAt_ms.add(System.currentTimeMillis());
            deliveries.add(message);
            context.setDelayLevelWhenNextConsume(1);
            return message.getReconsumeTimes() < 2 ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        String msgId = cluster.producer().send(new Message(topic, "TagR", "keyR", "again".getBytes())).getMsgId();
        Cluster.await("three deliveries", () -> 3 <= deliveries.size());
        int expectedTimes = 0;
        for (MessageExt message : deliveries) {
            Check.equal(expectedTimes, message.getReconsumeTimes(), "reconsume times");
            Check.equal("again", new String(message.getBody()), "body");
            Check.equal(topic, message.getTopic(), "topic");
            Check.equal("TagR", message.getTags(), "tags");
            Check.equal("keyR", message.getKeys(), "keys");
            Check.equal(msgId, message.getMsgId(), "message id");
            expectedTimes++;
        }
        List<Long> at_ms = new ArrayList<>(deliveredAt_ms);
        for (int i = 1; i < 3; i++) {
            Check.that(800 <= at_ms.get(i) - at_ms.get(i - 1), "delay level 1 is one second, but delivered at " + at_ms);
        }
    }

    /** Progress is kept by the broker: who comes after a member that left continues where it stopped. */
    static void resume(Cluster cluster) throws Exception {
        String topic = cluster.topic("resume", 3);
        String group = cluster.name("resume_group");
        send(cluster, topic, 0, 30);
        Member first = Member.start(cluster, group, topic, "*");
        Cluster.await("progress over 30 messages", () -> progress(cluster, topic, List.of(first)) == 30);
        Check.equal(30, first.bodies.size(), "deliveries before the restart");
        first.consumer.shutdown();
        Set<String> later = send(cluster, topic, 30, 50);
        Member second = Member.start(cluster, group, topic, "*");
        Cluster.await("20 messages", () -> 20 <= second.bodies.size());
        Check.equal(later, new HashSet<>(second.bodies), "bodies after the restart");
        Check.equal(20, second.bodies.size(), "deliveries after the restart");
    }

    /** However members come and go, every queue has exactly one, and messages keep arriving. */
    static void rebalance(Cluster cluster) throws Exception {
        rebalanceOnlyWhenNotified();
        String topic = cluster.topic("rebalance", 9);
        String group = cluster.name("rebalance_group");
        List<Member> members = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            members.add(Member.start(cluster, group, topic, "*"));
        }
        List<Member> everyone = List.copyOf(members);
        awaitSharing(topic, 9, members);
        AtomicInteger sent = new AtomicInteger();
        while (!members.isEmpty()) {
            Set<String> bodies = send(cluster, topic, sent.get(), sent.addAndGet(18));
            Cluster.await("messages from all queues", () -> received(everyone).containsAll(bodies));
            members.remove(0).consumer.shutdown();
            if (!members.isEmpty()) {
                awaitSharing(topic, 9, members);
            }
        }
        Check.equal(54, received(everyone).size(), "distinct bodies");
    }

    /** Switches the clients' own 20 s rebalance off: what happens then is due to the broker's notifications. */
    private static void rebalanceOnlyWhenNotified() {
        System.setProperty("rocketmq.client.rebalance.waitInterval", "600000");
    }

    /** Waits until the members own all queues, each queue once, and none owns more than its share. */
    private static void awaitSharing(String topic, int queueCount, List<Member> members) throws Exception {
        awaitSharing(topic, queueCount, members, Cluster.PATIENCE);
    }

    private static void awaitSharing(String topic, int queueCount, List<Member> members, Duration patience) throws Exception {
        int share = (queueCount + members.size() - 1) / members.size();
        Cluster.await(queueCount + " queues shared by " + members.size(), patience, () -> {
            int owned = 0;
            Set<Integer> distinct = new HashSet<>();
            for (Member member : members) {
                Set<Integer> queueIds = member.queueIds(topic);
                if (share < queueIds.size()) {
                    return false;
                }
                owned += queueIds.size();
                distinct.addAll(queueIds);
            }
            return owned == queueCount && distinct.size() == queueCount;
        });
    }

    /**
     * How far the members have come, all queues added up. A message counts only after its listener returned, and a
     * member that stops before that rightly leaves it to its successor.
     */
    private static long progress(Cluster cluster, String topic, List<Member> members) throws Exception {
        long sum = 0;
        for (Member member : members) {
            for (MessageQueue queue : cluster.queues(topic)) {
                if (member.queueIds(topic).contains(queue.getQueueId())) {
                    sum += Math.max(0, member.consumer.getDefaultMQPushConsumerImpl().getOffsetStore()
                        .readOffset(queue, ReadOffsetType.READ_FROM_MEMORY));
                }
            }
        }
        return sum;
    }

    private static Set<String> send(Cluster cluster, String topic, int from, int to) throws Exception {
        Set<String> bodies = new HashSet<>();
        for (int i = from; i < to; i++) {
            cluster.producer().send(new Message(topic, ("body " + i).getBytes()));
            bodies.add("body " + i);
        }
        return bodies;
    }

    private static void sendInOrder(Cluster cluster, String topic, int from, int to) throws Exception {
        for (int i = from; i < to; i++) {
            for (MessageQueue queue : cluster.queues(topic)) {
                cluster.producer().send(new Message(topic, ("queue " + queue.getQueueId() + " number " + i).getBytes()), queue);
            }
        }
    }

    private static int count(Map<Integer, Queue<String>> byQueue) {
        return byQueue.values().stream().mapToInt(Queue::size).sum();
    }

    private static Set<String> received(List<Member> members) {
        return members.stream().flatMap(member -> member.bodies.stream()).collect(Collectors.toSet());
    }
}
