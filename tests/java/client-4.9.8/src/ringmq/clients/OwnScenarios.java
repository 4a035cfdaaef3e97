package ringmq.clients;

import java.util.Map;

/** Scenarios only this release of the client can play: none. */
final class OwnScenarios {
    static final Map<String, Scenarios.Scenario> BY_NAME = Map.of();

    private OwnScenarios() {}
}
