//! RocketMQ's `NettyServerConfig` and `NettyClientConfig`: sockets. `listenPort` stands with the broker.

use crate::config::{setting::Kind::*, table::*};

table! {
    /// `NettyServerConfig` of RocketMQ 5.5.0, in its order.
    SERVER:
    - bindAddress, Ip, "0.0.0.0", used, "address the listeners bind to";
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
    - serverSocketBacklog, Int(1, 65_535), "1024", used, "connections the kernel holds until they are accepted; its own limit, net.core.somaxconn, holds too";
    - serverNettyWorkerGroupEnable, Bool, "true", no_effect, NETTY;
    - serverPooledByteBufAllocatorEnable, Bool, "true", no_effect, NETTY;
    - enableShutdownGracefully, Bool, "false", no_effect, NETTY;
    - shutdownWaitTimeSeconds, Int(0, 3_600), "30", not_yet, "a stop waits up to 3 s for requests under way, whatever is written here";
    - useEpollNativeSelector, Bool, "false", no_effect, NETTY;
}

table! {
    /// `NettyClientConfig` of RocketMQ 5.5.0, in its order. What both classes have stands with the server.
    CLIENT:
    - clientWorkerThreads, INT, "4", no_effect, THREADS;
    - clientCallbackExecutorThreads, INT, "2", no_effect, THREADS;
    - clientOnewaySemaphoreValue, INT, "65535", no_effect, NO_LOCKS;
    - clientAsyncSemaphoreValue, INT, "65535", no_effect, NO_LOCKS;
    - connectTimeoutMillis, INT, "3000", no_effect, OWN_CLIENT;
    - channelNotActiveInterval, LONG, "60000", no_effect, OWN_CLIENT;
    - isScanAvailableNameSrv, Bool, "true", no_effect, NO_SETTER;
    - clientChannelMaxIdleTimeSeconds, INT, "120", no_effect, OWN_CLIENT;
    - clientSocketSndBufSize, INT, "0", no_effect, NETTY;
    - clientSocketRcvBufSize, INT, "0", no_effect, NETTY;
    - clientPooledByteBufAllocatorEnable, Bool, "false", no_effect, NETTY;
    - clientCloseSocketIfTimeout, Bool, "true", no_effect, OWN_CLIENT;
    - useTLS, Bool, "false", no_effect, OWN_CLIENT;
    - socksProxyConfig, Text, "{}", no_effect, OWN_CLIENT;
    - disableCallbackExecutor, Bool, "false", no_effect, THREADS;
    - disableNettyWorkerGroup, Bool, "false", no_effect, NETTY;
    - maxReconnectIntervalTimeSeconds, LONG, "60", no_effect, OWN_CLIENT;
    - enableReconnectForGoAway, Bool, "true", no_effect, OWN_CLIENT;
}
