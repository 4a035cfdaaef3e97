package ringmq.clients;

import java.util.Map;
import java.util.TreeMap;

/**
 * Runs one scenario by name against the name server given as {@code -Dnamesrv=host:port}. Exit code 0: passed;
 * 1: failed, with the reason on stderr; 2: no such scenario. Without a name, prints all names.
 */
public final class Scenarios {
    interface Scenario {
        void run(Cluster cluster) throws Exception;
    }

    private static final Map<String, Scenario> BY_NAME = new TreeMap<>(Map.ofEntries(
        Map.entry("send_sync", SendScenarios::sync),
        Map.entry("send_async", SendScenarios::async),
        Map.entry("send_oneway", SendScenarios::oneway),
        Map.entry("send_batch", SendScenarios::batch),
        Map.entry("send_big_body", SendScenarios::bigBody),
        Map.entry("send_auto_create", SendScenarios::autoCreate),
        Map.entry("push_clustering", PushScenarios::clustering),
        Map.entry("push_broadcasting", PushScenarios::broadcasting),
        Map.entry("push_tags", PushScenarios::tags),
        Map.entry("push_orderly", PushScenarios::orderly),
        Map.entry("push_retry", PushScenarios::retry),
        Map.entry("push_resume", PushScenarios::resume),
        Map.entry("push_rebalance", PushScenarios::rebalance),
        Map.entry("delay_levels", DelayScenarios::levels),
        Map.entry("delay_timers", DelayScenarios::timers),
        Map.entry("transaction_check", TransactionScenarios::check),
        Map.entry("transaction_end", TransactionScenarios::end),
        Map.entry("filter_sql", FilterScenarios::sql),
        Map.entry("mode_consume_from_where", ModeScenarios::consumeFromWhere),
        Map.entry("mode_suspend_resume", ModeScenarios::suspendResume),
        Map.entry("mode_reset_by_time", ModeScenarios::resetByTime),
        Map.entry("mode_reset_offline", ModeScenarios::resetOffline),
        Map.entry("mode_consume_disabled", ModeScenarios::consumeDisabled),
        Map.entry("mode_broadcast_disabled", ModeScenarios::broadcastDisabled),
        Map.entry("mode_retry_queues", ModeScenarios::retryQueues),
        Map.entry("mode_subscription_conflict", ModeScenarios::subscriptionConflict),
        Map.entry("mode_ask_consumer", ModeScenarios::askConsumer),
        Map.entry("order_selector", OrderScenarios::selector),
        Map.entry("order_over_restarts", OrderScenarios::overRestarts),
        Map.entry("order_dead_letter", OrderScenarios::deadLetter),
        Map.entry("request_reply", RequestScenarios::requestReply),
        Map.entry("lite_pull_subscribe", PullScenarios::liteSubscribe),
        Map.entry("lite_pull_reset", PullScenarios::liteReset),
        Map.entry("lite_pull_assign_seek", PullScenarios::liteAssignSeek),
        Map.entry("pull_old", PullScenarios::old),
        Map.entry("pull_long_polling", PullScenarios::longPolling),
        Map.entry("query_message", QueueScenarios::queryMessage),
        Map.entry("queue_bounds", QueueScenarios::bounds),
        Map.entry("queue_search_time", QueueScenarios::searchTime),
        Map.entry("trace_message", QueueScenarios::traceMessage),
        Map.entry("view_message", QueueScenarios::viewMessage)));

    static {
        BY_NAME.putAll(OwnScenarios.BY_NAME);
    }

    private Scenarios() {}

    public static void main(String[] args) {
        if (args.length == 0) {
            BY_NAME.keySet().forEach(System.out::println);
            return;
        }
        Scenario scenario = BY_NAME.get(args[0]);
        if (scenario == null) {
            System.err.println("no scenario is named " + args[0]);
            System.exit(2);
        }
        int exitCode = 0;
        try (Cluster cluster = new Cluster(System.getProperty("namesrv", "127.0.0.1:9876"))) {
            scenario.run(cluster);
            System.out.println(args[0] + ": passed");
        } catch (Throwable failure) {
            failure.printStackTrace();
            exitCode = 1;
        }
        // Not every client ends all its threads on shutdown.
        System.exit(exitCode);
    }
}
