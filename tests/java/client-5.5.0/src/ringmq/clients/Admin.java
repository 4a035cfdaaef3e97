package ringmq.clients;

import java.util.function.Consumer;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.body.ConsumerRunningInfo;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** Requests of an administrator, whose types moved between the client versions. */
final class Admin {
    private static final long TIMEOUT_MS = 15_000;

    private Admin() {}

    /** Stores a group: RocketMQ's defaults, changed as asked for. */
    static void group(MQClientAPIImpl api, String broker, String group, Consumer<Group> change) throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        Group wanted = new Group();
        change.accept(wanted);
        config.setConsumeEnable(wanted.consumeEnable);
        config.setConsumeBroadcastEnable(wanted.consumeBroadcastEnable);
        config.setRetryQueueNums(wanted.retryQueueNums);
        api.createSubscriptionGroup(broker, config, TIMEOUT_MS);
    }

    /** The offset the broker has of a group. */
    static long committed(MQClientAPIImpl api, String broker, String group, MessageQueue queue) throws Exception {
        QueryConsumerOffsetRequestHeader header = new QueryConsumerOffsetRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(queue.getTopic());
        header.setQueueId(queue.getQueueId());
        return api.queryConsumerOffset(broker, header, TIMEOUT_MS);
    }

    /** How many queues the client says it consumes. */
    static int queuesConsumed(MQClientAPIImpl api, String broker, String group, String clientId, String topic) throws Exception {
        ConsumerRunningInfo info = api.getConsumerRunningInfo(broker, group, clientId, false, TIMEOUT_MS);
        return (int) info.getMqTable().keySet().stream().filter(queue -> queue.getTopic().equals(topic)).count();
    }

    /** What the client makes of the stored message: CR_SUCCESS and so on. */
    static String consumeDirectly(
        MQClientAPIImpl api, String broker, String group, String clientId, String topic, String msgId) throws Exception {
        return api.consumeMessageDirectly(broker, group, clientId, topic, msgId, TIMEOUT_MS).getConsumeResult().name();
    }
}
