package ringmq.clients;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Compares what a topic holds with what {@link DurabilityProducer} wrote down: arguments {@code topic ackFile}.
 * Every queue is read from 0 to its end; offsets must be contiguous, every body one that was sent, and every
 * acknowledged message at its queue offset and commit log offset.
 */
public final class DurabilityVerifier {
    private DurabilityVerifier() {}

    public static void main(String[] args) {
        int exitCode = 0;
        try (Cluster cluster = new Cluster(System.getProperty("namesrv"))) {
            verify(cluster, args[0], Files.readAllLines(Path.of(args[1])));
        } catch (Throwable failure) {
            failure.printStackTrace();
            exitCode = 1;
        }
        System.exit(exitCode);
    }

    private static void verify(Cluster cluster, String topic, List<String> lines) throws Exception {
        Map<Integer, Map<Long, long[]>> ackedByQueue = new HashMap<>();
        long sentCount = -1;
        long ackedCount = 0;
        for (String line : lines) {
            String[] words = line.split(" ");
            if (words[0].equals("sent")) {
                sentCount = Long.parseLong(words[1]);
                continue;
            }
            long[] commitLogOffsetAndNumber = {Long.parseLong(words[3]), Long.parseLong(words[4])};
            long[] earlier = ackedByQueue.computeIfAbsent(Integer.parseInt(words[1]), id -> new HashMap<>())
                .put(Long.parseLong(words[2]), commitLogOffsetAndNumber);
            Check.that(earlier == null, "two messages were acknowledged with one offset: " + line);
            ackedCount++;
        }
        Check.that(0 <= sentCount, "the acknowledgement file is not complete");

        long storedCount = 0;
        Cluster.await("route of " + topic, () -> !cluster.queues(topic).isEmpty());
        for (MessageQueue queue : cluster.queues(topic)) {
            Map<Long, long[]> acked = ackedByQueue.getOrDefault(queue.getQueueId(), Map.of());
            for (MessageExt message : cluster.read(queue)) {
                storedCount++;
                String where = queue + " at " + message.getQueueOffset();
                long number = DurabilityBody.number(topic, message.getBody());
                Check.that(0 <= number && number < sentCount, "nobody sent the body of " + where);
                long[] expected = acked.remove(message.getQueueOffset());
                if (expected != null) {
                    Check.equal(expected[0], message.getCommitLogOffset(), "commit log offset of " + where);
                    Check.equal(expected[1], number, "number of the message of " + where);
                }
            }
            Check.that(acked.isEmpty(), "lost in " + queue + ": " + acked.size() + " acknowledged messages, at " + acked.keySet());
            ackedByQueue.remove(queue.getQueueId());
        }
        Check.that(ackedByQueue.isEmpty(), "lost queues: " + ackedByQueue.keySet());
        System.out.println("verified acked " + ackedCount + " stored " + storedCount);
    }
}
