package ringmq.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class FilterScenarios {
    /** Selects some of the messages of {@link #send}. */
    private static final String EXPRESSION = "price BETWEEN 3 AND 3.5 AND (region = 'east' OR TAGS IN ('north'))";
    private static final String[] REGIONS = {"east", "west"};

    private FilterScenarios() {}

    /** Push, lite pull and old pull consumers get what their SQL92 expression selects: stored before, and sent later. */
    static void sql(Cluster cluster) throws Exception {
        String topic = cluster.topic("filter_sql", 2);
        Set<String> expected = send(cluster, topic, 0, 2000);

        Set<String> failedOnce = ConcurrentHashMap.newKeySet();
        Queue<String> pushed = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer push = cluster.pushConsumer(cluster.name("filter_push"));
        push.subscribe(topic, MessageSelector.bySql(EXPRESSION));
        push.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            String body = new String(messages.get(0).getBody());
            // Comes back through the group's retry topic, which no expression filters.
            if (body.endsWith("3") && failedOnce.add(body)) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            pushed.add(body);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        push.start();
        Cluster.await("the stored messages", () -> expected.size() <= pushed.size());
        expected.addAll(send(cluster, topic, 2000, 2100));
        Cluster.await("the later messages", () -> expected.size() <= pushed.size());
        Check.equal(new ArrayList<>(expected), sorted(pushed), "bodies pushed");
        Check.that(!failedOnce.isEmpty(), "no message failed once");

        DefaultLitePullConsumer lite = cluster.litePullConsumer(cluster.name("filter_lite"));
        lite.subscribe(topic, MessageSelector.bySql(EXPRESSION));
        lite.start();
        List<String> polled = new ArrayList<>();
        Cluster.await("all selected messages", () -> {
            lite.poll(1000).forEach(message -> polled.add(new String(message.getBody())));
            return expected.size() <= polled.size();
        });
        Check.equal(new ArrayList<>(expected), sorted(polled), "bodies polled");

        Check.equal(new ArrayList<>(expected), sorted(pull(cluster, topic)), "bodies pulled");
        badExpression(cluster, topic);
    }

    /** A consumer whose expression cannot be read does not start. */
    private static void badExpression(Cluster cluster, String topic) throws Exception {
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("filter_bad"));
        consumer.subscribe(topic, MessageSelector.bySql("price > "));
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
            ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        try {
            consumer.start();
        } catch (MQClientException refused) {
            Check.equal(23, refused.getResponseCode(), "code for an expression that ends too early");
            return;
        }
        Check.that(false, "a consumer with a bad expression started");
    }

    private static List<String> pull(Cluster cluster, String topic) throws Exception {
        DefaultMQPullConsumer consumer = cluster.pullConsumer(cluster.name("filter_pull"));
        consumer.setHeartbeatBrokerInterval(500);
        consumer.start();
        Set<MessageQueue> queues = consumer.fetchSubscribeMessageQueues(topic);
        Cluster.await("a heartbeat's answer, from which the client knows what the broker can do", () -> {
            try {
                consumer.pull(queues.iterator().next(), MessageSelector.bySql(EXPRESSION), 0, 1);
                return true;
            } catch (MQClientException notYet) {
                return false;
            }
        });
        List<String> bodies = new ArrayList<>();
        for (MessageQueue queue : queues) {
            long end = consumer.maxOffset(queue);
            for (long offset = 0; offset < end;) {
                PullResult result = consumer.pull(queue, MessageSelector.bySql(EXPRESSION), offset, 32);
                boolean isFound = result.getPullStatus() == PullStatus.FOUND;
                Check.that(isFound || result.getPullStatus() == PullStatus.NO_MATCHED_MSG, "status " + result);
                Check.that(offset < result.getNextBeginOffset(), "no progress at " + offset);
                offset = result.getNextBeginOffset();
                if (isFound) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        bodies.add(new String(message.getBody()));
                    }
                }
            }
        }
        return bodies;
    }

    private static List<String> sorted(Iterable<String> bodies) {
        List<String> sorted = new ArrayList<>();
        bodies.forEach(sorted::add);
        sorted.sort(null);
        return sorted;
    }

    /** Sends numbered messages and returns the bodies of those that {@link #EXPRESSION} selects. */
    private static Set<String> send(Cluster cluster, String topic, int from, int to) throws Exception {
        Set<String> selected = new TreeSet<>();
        List<MessageQueue> queues = cluster.queues(topic);
        for (int i = from; i < to; i++) {
            String body = String.format("message %04d", i);
            String region = REGIONS[i / 8 % 2];
            Message message = new Message(topic, i % 5 == 0 ? "north" : "south", body.getBytes());
            // Not every message has a price, and not every price is a number.
            if (i % 8 != 0) {
                message.putUserProperty("price", i % 8 == 7 ? "unknown" : String.valueOf(i % 8));
            }
            message.putUserProperty("region", region);
            cluster.producer().send(message, queues.get(i % queues.size()));
            if (i % 8 == 3 && (region.equals("east") || i % 5 == 0)) {
                selected.add(body);
            }
        }
        return selected;
    }
}
