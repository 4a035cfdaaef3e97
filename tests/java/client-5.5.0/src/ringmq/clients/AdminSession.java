package ringmq.clients;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs {@code mqadmin} commands, one per line of the command-line arguments, in one process: each gets
 * {@code -n <namesrv>} added and its output preceded by a line {@code $ <command>}. Three more commands make data:
 * {@code send TOPIC COUNT}, one message to each queue in turn; {@code consume GROUP TOPIC COUNT}, which commits; and
 * {@code route TOPIC QUEUES}, which waits until the name server shows so many queues (0: no route).
 */
public final class AdminSession {
    private AdminSession() {}

    public static void main(String[] args) throws Exception {
        System.setProperty("rocketmq.namesrv.addr", System.getProperty("namesrv"));
        try (Cluster cluster = new Cluster(System.getProperty("namesrv"))) {
            for (String line : args) {
                System.out.println("$ " + line);
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "send":
                        send(cluster, words[1], Integer.parseInt(words[2]));
                        break;
                    case "consume":
                        consume(cluster, words[1], words[2], Integer.parseInt(words[3]));
                        break;
                    case "route":
                        Cluster.await(line, () -> routeQueues(cluster, words[1]) == Integer.parseInt(words[2]));
                        break;
                    default:
                        MQAdminStartup.main0(words, null);
                }
                System.out.flush();
            }
        }
        System.exit(0);
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
        Cluster.await("committed offsets", () -> {
            long committed = 0;
            for (MessageQueue queue : cluster.queues(topic)) {
                committed += consumer.committed(queue);
            }
            return committed == count;
        });
        consumer.shutdown();
    }

    private static int routeQueues(Cluster cluster, String topic) throws Exception {
        // A reader of its own, whose route is not one that was cached earlier.
        try (Cluster fresh = new Cluster(cluster.namesrv)) {
            return fresh.queues(topic).size();
        }
    }
}
