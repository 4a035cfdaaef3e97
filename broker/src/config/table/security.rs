//! RocketMQ's `AuthConfig`: who may do what.

use crate::config::{setting::Kind::*, table::*};

table! {
    /// `AuthConfig` of RocketMQ 5.5.0, in its order.
    SECURITY:
    - configName, Text, null, not_yet, AUTH;
    - clusterName, Text, null, not_yet, AUTH;
    - authConfigPath, Text, null, not_yet, AUTH;
    - authenticationEnabled, Only("false"), "false", not_yet, AUTH;
    - authenticationProvider, Text, null, not_yet, AUTH;
    - authenticationMetadataProvider, Text, null, not_yet, AUTH;
    - authenticationStrategy, Text, null, not_yet, AUTH;
    - authenticationWhitelist, Text, null, not_yet, AUTH;
    - initAuthenticationUser, Text, null, not_yet, AUTH;
    - innerClientAuthenticationCredentials, Text, null, not_yet, AUTH;
    - authorizationEnabled, Only("false"), "false", not_yet, AUTH;
    - authorizationProvider, Text, null, not_yet, AUTH;
    - authorizationMetadataProvider, Text, null, not_yet, AUTH;
    - authorizationStrategy, Text, null, not_yet, AUTH;
    - authorizationWhitelist, Text, null, not_yet, AUTH;
    - migrateAuthFromV1Enabled, Bool, "false", not_yet, AUTH;
    - userCacheMaxNum, INT, "1000", not_yet, AUTH;
    - userCacheExpiredSecond, INT, "600", not_yet, AUTH;
    - userCacheRefreshSecond, INT, "60", not_yet, AUTH;
    - aclCacheMaxNum, INT, "1000", not_yet, AUTH;
    - aclCacheExpiredSecond, INT, "600", not_yet, AUTH;
    - aclCacheRefreshSecond, INT, "60", not_yet, AUTH;
    - statefulAuthenticationCacheMaxNum, INT, "10000", not_yet, AUTH;
    - statefulAuthenticationCacheExpiredSecond, INT, "60", not_yet, AUTH;
    - statefulAuthorizationCacheMaxNum, INT, "10000", not_yet, AUTH;
    - statefulAuthorizationCacheExpiredSecond, INT, "60", not_yet, AUTH;
}
