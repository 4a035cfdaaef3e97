package ringmq.clients;

import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs {@code mqadmin} commands, one per line of the command-line arguments, in one process: each gets
 * {@code -n <namesrv>} added and its output preceded by a line {@code $ <command>}. More commands make data:
 * <ul>
 * <li>{@code send TOPIC COUNT}: one message to each queue in turn;
 * <li>{@code message NAME TOPIC QUEUE TAG KEY,KEY}: one message, whose body is its name. In later lines
 *     {@code {NAME.id}} and {@code {NAME.offsetId}} stand for its ids, {@code {broker}} for the broker's address;
 * <li>{@code indexed TOPIC KEY COUNT}: waits until so many messages are found by the key;
 * <li>{@code consume GROUP TOPIC COUNT}: reads and commits; {@code join GROUP TOPIC COUNT} consumes and commits as many and stays;
 * <li>{@code trace NAME TOPIC TRACES GROUP}: a message that is sent and consumed with traces, once they can be found;
 * <li>{@code route TOPIC QUEUES}: waits until the name server shows so many queues (0: no route).
 * </ul>
 */
public final class AdminSession {
    /** What stands for what in the lines. */
    private static final Map<String, String> names = new HashMap<>();

    private AdminSession() {}

    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.namesrv.addr", System.getProperty("namesrv"));
        try (Cluster cluster = new Cluster(System.getProperty("namesrv"))) {
            for (String line : args) {
                System.out.println("$ " + line);
                String[] words = meant(line).split(" ");
                switch (words[0]) {
                    case "send":
                        send(cluster, words[1], Integer.parseInt(words[2]));
                        break;
                    case "message":
                        message(cluster, words);
                        break;
                    case "indexed":
                        Cluster.await(line, () -> found(cluster, words[1], words[2]).size() == Integer.parseInt(words[3]));
                        break;
                    case "consume":
                        consume(cluster, words[1], words[2], Integer.parseInt(words[3]));
                        break;
                    case "join":
                        join(cluster, words[1], words[2], Integer.parseInt(words[3]));
                        break;
                    case "trace":
                        trace(cluster, words[1], words[2], words[3], words[4]);
                        break;
                    case "route":
                        Cluster.await(line, () -> routeQueues(cluster, words[1]) == Integer.parseInt(words[2]));
                        break;
                    default:
                        mqadmin(words);
                }
                System.out.flush();
            }
        } finally {
            removeBodies();
        }
        System.exit(0);
    }

    private static void mqadmin(String[] words) throws Exception {
        // Commands keep their clients, which are shut down after the first run: each gets fresh ones, as in a process of its own.
        Field commands = MQAdminStartup.class.getDeclaredField("SUB_COMMANDS");
        commands.setAccessible(true);
        ((List<?>) commands.get(null)).clear();
        MQAdminStartup.main0(words, null);
    }

    private static String meant(String line) {
        String meant = line;
        for (Map.Entry<String, String> name : names.entrySet()) {
            meant = meant.replace("{" + name.getKey() + "}", name.getValue());
        }
        return meant;
    }

    /** Where mqadmin writes the body of each message it shows. */
    private static void removeBodies() throws IOException {
        for (String id : names.values()) {
            Files.deleteIfExists(Path.of("/tmp/rocketmq/msgbodys", id));
        }
    }

    private static void remember(String name, SendResult sent) {
        names.put(name + ".id", sent.getMsgId());
        names.put(name + ".offsetId", sent.getOffsetMsgId());
    }

    private static void message(Cluster cluster, String[] words) throws Exception {
        String topic = words[2];
        Message message = new Message(topic, words[4], words[5].replace(',', ' '), words[1].getBytes());
        MessageQueue queue = cluster.queues(topic).get(Integer.parseInt(words[3]));
        remember(words[1], cluster.producer().send(message, queue));
        names.put("broker", client(cluster).findBrokerAddressInPublish(queue.getBrokerName()));
    }

    private static MQClientInstance client(Cluster cluster) throws Exception {
        return cluster.producer().getDefaultMQProducerImpl().getMqClientFactory();
    }

    private static List<MessageExt> found(Cluster cluster, String topic, String key) throws Exception {
        try {
            return cluster.producer().queryMessage(topic, key, 64, 0, Long.MAX_VALUE).getMessageList();
        } catch (MQClientException none) {
            return List.of();
        }
    }

    private static void send(Cluster cluster, String topic, int count) throws Exception {
        List<MessageQueue> queues = cluster.queues(topic);
        for (int i = 0; i < count; i++) {
            cluster.producer().send(new Message(topic, ("body " + i).getBytes()), queues.get(i % queues.size()));
        }
    }

    private static void consume(Cluster cluster, String group, String topic, int count) throws Exception {
        DefaultLitePullConsumer consumer = cluster.litePullConsumer(group);
        consumer.setAutoCommit(false);
        consumer.subscribe(topic, "*");
        consumer.start();
        Set<String> bodies = new HashSet<>();
        Cluster.await(count + " messages", () -> {
            for (MessageExt message : consumer.poll(200)) {
                bodies.add(new String(message.getBody()));
            }
            return bodies.size() == count;
        });
        consumer.commitSync();
        // What is committed goes to the broker every five seconds, without an answer.
        Set<MessageQueue> queues = Set.copyOf(cluster.queues(topic));
        Cluster.await("commits of " + count, () -> {
            consumer.getOffsetStore().persistAll(queues);
            return committed(cluster, group, topic) == count;
        });
        consumer.shutdown();
    }

    private static void join(Cluster cluster, String group, String topic, int count) throws Exception {
        DefaultMQPushConsumer consumer = cluster.pushConsumer(group);
        consume(consumer, topic);
        Cluster.await("commits of " + count, () -> {
            consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
            return committed(cluster, group, topic) == count;
        });
    }

    /** The broker's offsets of a group, added up. A consumer that is asked for them takes them over, and may go back so. */
    private static long committed(Cluster cluster, String group, String topic) throws Exception {
        long sum = 0;
        for (MessageQueue queue : cluster.queues(topic)) {
            String broker = client(cluster).findBrokerAddressInPublish(queue.getBrokerName());
            try {
                sum += Admin.committed(client(cluster).getMQClientAPIImpl(), broker, group, queue);
            } catch (MQBrokerException none) {
                Check.equal(ResponseCode.QUERY_NOT_FOUND, none.getResponseCode(), none.getErrorMessage());
            }
        }
        return sum;
    }

    private static void consume(DefaultMQPushConsumer consumer, String topic) throws Exception {
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
            ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        consumer.start();
    }

    private static void trace(Cluster cluster, String name, String topic, String traces, String group) throws Exception {
        DefaultMQProducer producer = cluster.tracingProducer(traces);
        producer.setProducerGroup("tracing");
        producer.start();
        SendResult sent = producer.send(new Message(topic, name.getBytes()));
        remember(name, sent);
        consume(cluster.tracingConsumer(group, traces), topic);
        Cluster.await("traces of " + name, () -> {
            StringBuilder told = new StringBuilder();
            found(cluster, traces, sent.getMsgId()).forEach(trace -> told.append(new String(trace.getBody())));
            String text = told.toString();
            return text.contains("Pub\u0001") && text.contains("SubAfter\u0001");
        });
    }

    private static int routeQueues(Cluster cluster, String topic) throws Exception {
        // A reader of its own, whose route is not one that was cached earlier.
        try (Cluster fresh = new Cluster(cluster.namesrv)) {
            return fresh.queues(topic).size();
        }
    }
}
