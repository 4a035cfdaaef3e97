//! RocketMQ's `NamesrvConfig`, and its `NettyServerConfig` with the name server's defaults.

use crate::config::{machine::Machine, setting::Kind::*, table::*};

table! {
    /// `NamesrvConfig` and `NettyServerConfig` of RocketMQ 5.5.0, in their order.
    NAME_SERVER:
    - rocketmqHome, Text, (Machine::rocketmq_home), no_effect, HOME;
    - kvConfigPath, Text, (Machine::kv_config_file), used, "file of the key-value settings";
    - configStorePath, Text, (Machine::namesrv_config_file), used, "file the settings came from (-c); run-time changes are written there";
    - productEnvName, Text, "center", no_effect, CLUSTER_TEST;
    - clusterTest, Bool, "false", no_effect, CLUSTER_TEST;
    - orderMessageEnable, Bool, "false", used, "put the order configuration of a topic into its route";
    - returnOrderTopicConfigToBroker, Bool, "true", used, "answer a registration with the order configuration";
    - clientRequestThreadPoolNums, INT, "8", no_effect, THREADS;
    - defaultThreadPoolNums, INT, "16", no_effect, THREADS;
    - clientRequestThreadPoolQueueCapacity, INT, "50000", no_effect, THREADS;
    - defaultThreadPoolQueueCapacity, INT, "10000", no_effect, THREADS;
    - scanNotActiveBrokerInterval, Int(1, 3_600_000), "5000", used, "time between searches for silent brokers, ms";
    - unRegisterBrokerQueueCapacity, INT, "3000", no_effect, THREADS;
    - supportActingMaster, Bool, "false", used, "let a slave stand in for a lost master in routes";
    - enableAllTopicList, Bool, "true", used, "answer the list of all topics";
    - enableTopicList, Bool, "true", used, "answer the list of the topics of a cluster";
    - notifyMinBrokerIdChanged, Bool, "false", used, "tell brokers when the smallest broker id of their group changes";
    - enableControllerInNamesrv, Only("false"), "false", not_yet, CONTROLLER;
    - needWaitForService, Bool, "false", used, "hold route answers back after start until brokers had time to register";
    - waitSecondsForService, Int(0, 86_400), "45", used, "how long needWaitForService holds them back, s";
    - deleteTopicWithBrokerRegistration, Bool, "false", used, "a topic missing from a registration is deleted";
    - configBlackList, Text, "configBlackList;configStorePath;kvConfigPath", used, "settings an administrator may not change at run time, separated by `;`";
    - bindAddress, Ip, "0.0.0.0", used, "address the listener binds to";
    - listenPort, Int(1, 65_535), "9876", used, "port of the name server";
    - serverWorkerThreads, INT, "8", no_effect, THREADS;
    - serverCallbackExecutorThreads, INT, "0", no_effect, THREADS;
    - serverSelectorThreads, INT, "3", no_effect, THREADS;
    - serverOnewaySemaphoreValue, INT, "256", no_effect, NO_LOCKS;
    - serverAsyncSemaphoreValue, INT, "64", no_effect, NO_LOCKS;
    - serverChannelMaxIdleTimeSeconds, Int(0, 2_000_000), "120", used, "a connection silent for so long is closed, s; 0 never";
    - serverSocketSndBufSize, INT, "0", no_effect, NETTY;
    - serverSocketRcvBufSize, INT, "0", no_effect, NETTY;
    - writeBufferHighWaterMark, INT, "0", no_effect, NETTY;
    - writeBufferLowWaterMark, INT, "0", no_effect, NETTY;
    - serverSocketBacklog, Int(1, 65_535), "1024", used, "connections the kernel may hold before they are accepted";
    - serverNettyWorkerGroupEnable, Bool, "true", no_effect, NETTY;
    - serverPooledByteBufAllocatorEnable, Bool, "true", no_effect, NETTY;
    - enableShutdownGracefully, Bool, "false", no_effect, NETTY;
    - shutdownWaitTimeSeconds, INT, "30", no_effect, NETTY;
    - useEpollNativeSelector, Bool, "false", no_effect, NETTY;
}
