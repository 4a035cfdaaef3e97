package ringmq.clients;

import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

final class RequestScenarios {
    private RequestScenarios() {}

    /** Each request gets the answer its consumer sends to it; one that nobody answers ends with a timeout. */
    static void requestReply(Cluster cluster) throws Exception {
        String topic = cluster.topic("request", 4);
        Queue<String> failures = new ConcurrentLinkedQueue<>();
        DefaultMQProducer responder = cluster.newProducer();
        responder.start();
        DefaultMQPushConsumer consumer = cluster.pushConsumer(cluster.name("responders"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> answer(responder, message, failures));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        long patienceMs = Cluster.PATIENCE.toMillis();
        for (int i = 0; i < 20; i++) {
            Message answer = cluster.producer().request(new Message(topic, ("question " + i).getBytes()), patienceMs);
            Check.equal("re: question " + i, new String(answer.getBody()), "answer");
        }
        Check.that(failures.isEmpty(), "sending the answers: " + failures);

        String silent = cluster.topic("silent", 1);
        try {
            cluster.producer().request(new Message(silent, "anybody?".getBytes()), 500);
            Check.that(false, "an answer from nobody");
        } catch (RequestTimeoutException expected) {
            Check.equal(1, cluster.readByBody(silent).size(), "stored requests");
        }
    }

    private static void answer(DefaultMQProducer responder, MessageExt request, Queue<String> failures) {
        try {
            byte[] body = ("re: " + new String(request.getBody())).getBytes();
            SendResult result = responder.send(MessageUtil.createReplyMessage(request, body));
            if (result.getSendStatus() != SendStatus.SEND_OK) {
                failures.add(result.toString());
            }
        } catch (Exception failure) {
            failures.add(failure.toString());
        }
    }
}
