package ringmq.clients;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;

/**
 * Sends numbered messages from several threads until stdin ends, through any number of broker crashes, and writes
 * down what was acknowledged: arguments {@code topic queueCount threadCount bodySize ackFile}. The file gets a line
 * {@code ack queueId queueOffset commitLogOffset number} after each SEND_OK and ends with {@code sent count}. The
 * progress, {@code acked N}, goes to stdout.
 */
public final class DurabilityProducer {
    private static final int PROGRESS_INTERVAL_MS = 20;

    private final String topic;
    private final int bodySize_bytes;
    private final PrintWriter acks;
    private final AtomicLong nextNumber = new AtomicLong();
    private final AtomicLong ackedCount = new AtomicLong();
    private final AtomicLong failureCount = new AtomicLong();
    private volatile boolean stopping = false;

    private DurabilityProducer(String topic, int bodySize_bytes, PrintWriter acks) {
        this.topic = topic;
        this.bodySize_bytes = bodySize_bytes;
        this.acks = acks;
    }

    public static void main(String[] args) throws Exception {
        String topic = args[0];
        int queueCount = Integer.parseInt(args[1]);
        int threadCount = Integer.parseInt(args[2]);
        int bodySize_bytes = Integer.parseInt(args[3]);
        try (Cluster cluster = new Cluster(System.getProperty("namesrv"));
            PrintWriter acks = new PrintWriter(Files.newBufferedWriter(Path.of(args[4])))) {
            TopicCreation.create(cluster.producer(), topic, queueCount);
            Cluster.await("route of " + topic, () -> cluster.queues(topic).size() == queueCount);
            DefaultMQProducer producer = cluster.newProducer();
            producer.setSendMsgTimeout(2_000);
            producer.start();
            new DurabilityProducer(topic, bodySize_bytes, acks).run(producer, threadCount);
        }
        System.exit(0);
    }

    private void run(DefaultMQProducer producer, int threadCount) throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < threadCount; i++) {
            Thread thread = new Thread(() -> sendUntilStopped(producer));
            thread.start();
            threads.add(thread);
        }
        Thread progress = new Thread(this::reportProgress);
        progress.setDaemon(true);
        progress.start();
        awaitEndOfStdin();
        stopping = true;
        for (Thread thread : threads) {
            thread.join();
        }
        acks.println("sent " + nextNumber.get());
        acks.flush();
        Check.that(!acks.checkError(), "the acknowledgement file could not be written");
        System.out.println("done acked " + ackedCount + " failed " + failureCount);
    }

    private void sendUntilStopped(DefaultMQProducer producer) {
        while (!stopping) {
            long number = nextNumber.getAndIncrement();
            try {
                SendResult result = producer.send(new Message(topic, DurabilityBody.encode(topic, number, bodySize_bytes)));
                if (result.getSendStatus() == SendStatus.SEND_OK) {
                    acknowledge(result, number);
                }
            } catch (Exception brokerIsDown) {
                failureCount.incrementAndGet();
                pause();
            }
        }
    }

    private synchronized void acknowledge(SendResult result, long number) throws Exception {
        long commitLogOffset = MessageDecoder.decodeMessageId(result.getOffsetMsgId()).getOffset();
        acks.println("ack " + result.getMessageQueue().getQueueId() + " " + result.getQueueOffset() + " " + commitLogOffset + " " + number);
        ackedCount.incrementAndGet();
    }

    private void reportProgress() {
        while (true) {
            System.out.println("acked " + ackedCount);
            pause();
        }
    }

    private static void awaitEndOfStdin() throws IOException {
        while (System.in.read() >= 0) {
            // Nothing is said there; only its end counts.
        }
    }

    private static void pause() {
        try {
            Thread.sleep(PROGRESS_INTERVAL_MS);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
