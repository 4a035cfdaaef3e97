package ringmq.clients;

import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** The one call of the scenarios whose signature differs between the client versions. */
final class TopicCreation {
    private TopicCreation() {}

    /** Asks every broker that serves the template topic TBW102 to create {@code topic}. */
    static void create(DefaultMQProducer producer, String topic, int queueCount) throws MQClientException {
        producer.createTopic("TBW102", topic, queueCount, java.util.Map.of());
    }
}
