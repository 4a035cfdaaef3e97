package ringmq.clients;

import java.util.Map;

/** Scenarios only this release of the client can play. */
final class OwnScenarios {
    static final Map<String, Scenarios.Scenario> BY_NAME = Map.of(
        "delay_recall", ProducerScenarios::recall,
        "pop_order", PopScenarios::order,
        "pop_of_all_brokers", PopScenarios::allBrokers,
        "pop_priority", PopScenarios::priority,
        "pop_push", PopScenarios::push,
        "pop_retry", PopScenarios::retry,
        "pop_share", PopScenarios::share,
        "pop_takeover", PopScenarios::takeover,
        "send_auto_batch", ProducerScenarios::autoBatch,
        "send_batch_queue", ProducerScenarios::batchQueue);

    private OwnScenarios() {}
}
