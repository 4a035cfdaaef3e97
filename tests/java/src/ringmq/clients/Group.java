package ringmq.clients;

/** Settings of a group, at RocketMQ's defaults. */
final class Group {
    boolean consumeEnable = true;
    boolean consumeBroadcastEnable = true;
    int retryQueueNums = 1;
}
