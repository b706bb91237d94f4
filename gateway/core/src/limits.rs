//! Every bound of the system, each with its reason.
//!
//! Operators may set many of them lower or higher within a range; what stands here is the default
//! or the hard limit. What happens at a bound is said where it is enforced.

use std::time::Duration;

// MQTT, see the AWS IoT Core limits (specification A.8).

/// A topic name or filter, in bytes of UTF-8.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Levels of a topic name or filter: seven slashes at AWS, sixteen here for local applications.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// A client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;
/// A whole MQTT packet: AWS takes 128 KiB of payload and 146 KiB in all.
pub const PACKET_BYTES_MAX: usize = 146 * 1024;
/// A PUBLISH payload.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Filters in one SUBSCRIBE.
pub const FILTERS_PER_SUBSCRIBE_MAX: usize = 8;
/// Subscriptions of one session.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 50;
/// Unacknowledged QoS 1 and 2 publishes that a session takes from its client before it stops reading.
pub const RECEIVE_MAXIMUM: u16 = 100;
/// Unacknowledged QoS 1 deliveries in flight to one client.
pub const DELIVERY_WINDOW_MAX: u16 = 100;
/// Retained messages in all.
pub const RETAINED_MESSAGES_MAX: usize = 10_000;
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 10_000;
/// TLS handshakes under way at once.
pub const HANDSHAKES_MAX: usize = 64;
/// Time for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the accepted connection to a complete CONNECT.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that one write to a client may take before the client is called stuck.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

// Registry (specification A.10).

/// A thing, group, type, policy or profile name.
pub const NAME_BYTES_MAX: usize = 128;
/// Static groups that a thing may be in.
pub const GROUPS_PER_THING_MAX: usize = 10;
/// Levels of a group hierarchy.
pub const GROUP_DEPTH_MAX: usize = 7;
/// Policies attached to one certificate.
pub const POLICIES_PER_CERTIFICATE_MAX: usize = 10;
/// Policies attached to one group.
pub const POLICIES_PER_GROUP_MAX: usize = 2;
/// Attributes of a thing that has a type.
pub const ATTRIBUTES_PER_THING_MAX: usize = 50;
/// Attributes of a thing that has none.
pub const ATTRIBUTES_WITHOUT_TYPE_MAX: usize = 3;
/// How often the files of registry, policies and certificates are looked at.
pub const RELOAD_POLL: Duration = Duration::from_millis(250);
/// How long they must be unchanged before they are read: an editor may be half way through.
pub const RELOAD_SETTLE: Duration = Duration::from_millis(50);
/// Characters of a policy document, white space aside (specification A.1).
pub const POLICY_CHARACTERS_MAX: usize = 2048;
/// Any configuration file; larger ones are refused before they are read.
pub const CONFIG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

// Pipeline.

/// Events waiting for one shard of a chain; then the publisher's session waits.
pub const SHARD_QUEUE_EVENTS_MAX: usize = 1024;
/// Events handed to a plugin in one call.
pub const PLUGIN_BATCH_EVENTS_MAX: usize = 256;
/// Linear memory of one plugin instance.
pub const PLUGIN_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time that one call into a plugin may take.
pub const PLUGIN_DEADLINE: Duration = Duration::from_millis(100);
/// Bytes that one call may give back: payloads, messages, labels.
pub const PLUGIN_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

// Buffer (evidence.md, "sled as a store-and-forward queue").

/// A value in sled; larger ones go to blob files that nobody syncs.
pub const CHUNK_BYTES_MAX: usize = 7_400;
/// Records waiting for the group commit; then the appender waits.
pub const APPEND_QUEUE_RECORDS_MAX: usize = 8192;
/// A record's body.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 - 512;
/// Group commit: how long the first record waits for company.
pub const COMMIT_LINGER: Duration = Duration::from_millis(5);
/// A generation is closed at this size, and dropped whole once drained.
pub const GENERATION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// All generations together; then `append` waits (back-pressure).
pub const BUFFER_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

// Uplink (specification D.1, D.5).

/// Records in one PutRecords call.
pub const PUT_RECORDS_MAX: usize = 500;
/// Data and partition keys in one PutRecords call.
pub const PUT_RECORDS_BYTES_MAX: usize = 5 * 1024 * 1024;
/// One PutRecords call, connection included.
pub const PUT_RECORDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Back-off after throttling: full jitter from this base, up to `THROTTLE_BACKOFF_MAX`.
pub const THROTTLE_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// See [`THROTTLE_BACKOFF_BASE`].
pub const THROTTLE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Back-off without connectivity: full jitter from this base, up to `CONNECT_BACKOFF_MAX`.
pub const CONNECT_BACKOFF_BASE: Duration = Duration::from_secs(1);
/// See [`CONNECT_BACKOFF_BASE`]. Five minutes at most in the field; a minute until the circuit breaker comes.
pub const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(60);

// Process.

/// Time for the whole ordered shutdown.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

// How the bounds depend on each other.
const _: () = assert!(PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX < PACKET_BYTES_MAX);
// A payload in base64 (4/3) and its envelope must fit a record.
const _: () = assert!(PAYLOAD_BYTES_MAX / 3 * 4 + 8 * 1024 < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < PUT_RECORDS_BYTES_MAX);
const _: () = assert!(GENERATION_BYTES_MAX * 4 <= BUFFER_BYTES_MAX);
