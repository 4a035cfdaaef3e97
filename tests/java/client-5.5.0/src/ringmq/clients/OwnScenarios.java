package ringmq.clients;

import java.util.Map;

/** Scenarios only this release of the client can play. */
final class OwnScenarios {
    static final Map<String, Scenarios.Scenario> BY_NAME = Map.of(
        "pop_order", PopScenarios::order,
        "pop_push", PopScenarios::push,
        "pop_retry", PopScenarios::retry,
        "pop_share", PopScenarios::share,
        "pop_takeover", PopScenarios::takeover);

    private OwnScenarios() {}
}
