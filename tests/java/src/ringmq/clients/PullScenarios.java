package ringmq.clients;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullCallback;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class PullScenarios {
    private PullScenarios() {}

    /** Subscribe mode: the group's progress is committed and continued by the next member. */
    static void liteSubscribe(Cluster cluster) throws Exception {
        String topic = cluster.topic("lite_subscribe", 3);
        String group = cluster.name("lite_group");
        Set<String> sent = send(cluster, topic, 0, 30);
        DefaultLitePullConsumer first = cluster.litePullConsumer(group);
        first.setAutoCommit(false);
        first.subscribe(topic, "*");
        first.start();
        Check.equal(sent, new HashSet<>(poll(first, 30)), "bodies");
        first.commitSync();
        Cluster.await("committed offsets", () -> {
            long committed = 0;
            for (MessageQueue queue : first.fetchMessageQueues(topic)) {
                committed += first.committed(queue);
            }
            return committed == 30;
        });
        first.shutdown();

        Set<String> later = send(cluster, topic, 30, 40);
        DefaultLitePullConsumer second = cluster.litePullConsumer(group);
        second.subscribe(topic, "*");
        second.start();
        Check.equal(later, new HashSet<>(poll(second, 10)), "bodies after the restart");
    }

    /**
     * Beside an administrator's reset to a point of time: what was sent since then comes again, though the consumer, which
     * believes to be at the end, commits that once more. Then the group goes on from the end.
     */
    static void liteReset(Cluster cluster) throws Exception {
        String topic = cluster.topic("lite_reset", 2);
        String group = cluster.name("lite_reset_group");
        Set<String> all = send(cluster, topic, 0, 10);
        long between_ms = ModeScenarios.nextSecond();
        Set<String> since = send(cluster, topic, 10, 20);
        all.addAll(since);
        DefaultLitePullConsumer first = cluster.litePullConsumer(group);
        first.setAutoCommit(false);
        first.subscribe(topic, "*");
        first.start();
        Check.equal(all, new HashSet<>(poll(first, 20)), "bodies");
        commit(cluster, first, group, topic, 20);
        Map<MessageQueue, Long> targets = ModeScenarios.reset(cluster, group, topic, between_ms);
        Check.equal(10L, targets.values().stream().mapToLong(Long::longValue).sum(), "targets, added up");
        commit(first, Set.copyOf(cluster.queues(topic)));
        Check.equal(since, new HashSet<>(poll(first, 10)), "bodies after the reset");
        commit(cluster, first, group, topic, 20);
        first.shutdown();

        Set<String> later = send(cluster, topic, 20, 30);
        DefaultLitePullConsumer second = cluster.litePullConsumer(group);
        second.subscribe(topic, "*");
        second.start();
        Check.equal(later, new HashSet<>(poll(second, 10)), "bodies of the next member");
    }

    /** Commits now what was polled; the client would do so every five seconds. */
    private static void commit(DefaultLitePullConsumer consumer, Set<MessageQueue> queues) {
        consumer.commitSync();
        consumer.getOffsetStore().persistAll(queues);
    }

    private static void commit(Cluster cluster, DefaultLitePullConsumer consumer, String group, String topic, long sum) throws Exception {
        commit(consumer, Set.copyOf(cluster.queues(topic)));
        ModeScenarios.awaitCommitted(cluster, group, topic, sum);
    }

    /** Assign mode: no group membership; the position is moved by hand. */
    static void liteAssignSeek(Cluster cluster) throws Exception {
        String topic = cluster.topic("lite_assign", 1);
        List<MessageQueue> queues = cluster.queues(topic);
        MessageQueue queue = queues.get(0);
        List<String> sent = new ArrayList<>(send(cluster, topic, 0, 10));
        sent.sort(null);
        DefaultLitePullConsumer consumer = cluster.litePullConsumer(cluster.name("lite_group"));
        consumer.setAutoCommit(false);
        consumer.start();
        consumer.assign(queues);
        Check.equal(sent, poll(consumer, 10), "bodies after the assignment");
        consumer.seek(queue, 6);
        Check.equal(sent.subList(6, 10), poll(consumer, 4), "bodies from offset 6");
        consumer.seekToBegin(queue);
        Check.equal(sent, poll(consumer, 10), "bodies from the begin");
        consumer.seek(queue, 2);
        Check.equal(sent.subList(2, 10), poll(consumer, 8), "bodies from offset 2");
        consumer.seekToEnd(queue);
        send(cluster, topic, 10, 11);
        Check.equal(List.of(body(10)), poll(consumer, 1), "the body sent after seeking to the end");
    }

    /** The old pull consumer: position and progress are the application's affair. */
    static void old(Cluster cluster) throws Exception {
        String topic = cluster.topic("pull", 1);
        MessageQueue queue = cluster.queues(topic).get(0);
        DefaultMQPullConsumer consumer = cluster.pullConsumer(cluster.name("pull_group"));
        consumer.start();

        PullResult empty = consumer.pull(queue, "*", 0, 32);
        Check.equal(PullStatus.NO_NEW_MSG, empty.getPullStatus(), "pull of an empty queue");
        for (int i = 0; i < 40; i++) {
            cluster.producer().send(new Message(topic, i % 4 == 0 ? "Four" : "Other", body(i).getBytes()), queue);
        }
        PullResult page = consumer.pull(queue, "*", 5, 7);
        Check.equal(PullStatus.FOUND, page.getPullStatus(), "pull of a page");
        Check.equal(7, page.getMsgFoundList().size(), "page size");
        Check.equal(body(5), new String(page.getMsgFoundList().get(0).getBody()), "first body of the page");
        Check.equal(12L, page.getNextBeginOffset(), "next offset of the page");
        Check.equal(0L, page.getMinOffset(), "min offset");
        Check.equal(40L, page.getMaxOffset(), "max offset");

        List<String> fours = new ArrayList<>();
        for (long offset = 0; offset < 40;) {
            PullResult filtered = consumer.pull(queue, "Four", offset, 32);
            Check.equal(PullStatus.FOUND, filtered.getPullStatus(), "filtered pull at " + offset);
            filtered.getMsgFoundList().forEach(message -> fours.add(new String(message.getBody())));
            Check.that(offset < filtered.getNextBeginOffset(), "no progress at " + offset);
            offset = filtered.getNextBeginOffset();
            if (fours.size() == 10) {
                break;
            }
        }
        Check.equal(10, fours.size(), "messages tagged Four");
        Check.equal(body(36), fours.get(9), "last body tagged Four");
        PullResult unmatched = consumer.pull(queue, "Nobody", 0, 32);
        Check.equal(PullStatus.NO_MATCHED_MSG, unmatched.getPullStatus(), "pull with a tag nobody uses");
        Check.that(0 < unmatched.getNextBeginOffset(), "a pull without a match makes progress");

        Check.equal(PullStatus.NO_NEW_MSG, consumer.pull(queue, "*", 40, 32).getPullStatus(), "pull at the end");
        PullResult beyond = consumer.pull(queue, "*", 41, 32);
        Check.equal(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "pull beyond the end");
        Check.equal(40L, beyond.getNextBeginOffset(), "offset proposed beyond the end");

        // The queue still holds its first message, so a group without a commit begins there.
        Check.equal(0L, consumer.fetchConsumeOffset(queue, true), "offset nobody committed");
        consumer.updateConsumeOffset(queue, 12);
        consumer.getOffsetStore().persist(queue);
        consumer.getOffsetStore().persistAll(Set.of(queue));
        Cluster.await("the committed offset", () -> consumer.fetchConsumeOffset(queue, true) == 12);
    }

    /** A pull at the end of a queue is held, and answered as soon as a message arrives. */
    static void longPolling(Cluster cluster) throws Exception {
        String topic = cluster.topic("long_polling", 1);
        MessageQueue queue = cluster.queues(topic).get(0);
        DefaultMQPullConsumer consumer = cluster.pullConsumer(cluster.name("pull_group"));
        consumer.start();
        for (int round = 0; round < 5; round++) {
            CompletableFuture<PullResult> held = new CompletableFuture<>();
            consumer.pullBlockIfNotFound(queue, "*", round, 32, new PullCallback() {
                @Override
                public void onSuccess(PullResult result) {
                    held.complete(result);
                }

                @Override
                public void onException(Throwable failure) {
                    held.completeExceptionally(failure);
                }
            });
            try {
                throw new AssertionError("a pull at the end was answered at once: " + held.get(300, TimeUnit.MILLISECONDS));
            } catch (TimeoutException stillHeld) {
                // As it should be.
            }
            long sentAt_ns = System.nanoTime();
            cluster.producer().send(new Message(topic, body(round).getBytes()), queue);
            PullResult result = held.get(Cluster.PATIENCE.toSeconds(), TimeUnit.SECONDS);
            long waited_ms = (System.nanoTime() - sentAt_ns) / 1_000_000;
            Check.equal(PullStatus.FOUND, result.getPullStatus(), "held pull");
            Check.equal(body(round), new String(result.getMsgFoundList().get(0).getBody()), "body");
            // Without a wake-up the broker would look again only after five seconds.
            Check.that(waited_ms < 4_000, "the held pull was answered after " + waited_ms + " ms");
        }
    }

    private static String body(int number) {
        return String.format("body %03d", number);
    }

    private static Set<String> send(Cluster cluster, String topic, int from, int to) throws Exception {
        Set<String> bodies = new TreeSet<>();
        for (int i = from; i < to; i++) {
            cluster.producer().send(new Message(topic, body(i).getBytes()));
            bodies.add(body(i));
        }
        return bodies;
    }

    /** Polls until {@code count} messages came; more than that is a failure. */
    private static List<String> poll(DefaultLitePullConsumer consumer, int count) throws Exception {
        List<String> bodies = new ArrayList<>();
        Cluster.await(count + " messages", () -> {
            for (MessageExt message : consumer.poll(200)) {
                bodies.add(new String(message.getBody()));
            }
            return count <= bodies.size();
        });
        Check.equal(count, bodies.size(), "messages polled");
        return bodies;
    }
}
