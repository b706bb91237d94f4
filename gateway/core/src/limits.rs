//! Every bound of the system, each with its reason.
//!
//! Operators may set many of them lower or higher within a range; what stands here is the default
//! or the hard limit. What happens at a bound is said where it is enforced.

use std::{num::NonZeroU64, time::Duration};

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
/// Subscriptions of one session, unless `subscriptions-per-client-max` says otherwise.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 50;
/// What that setting may say at most.
pub const SUBSCRIPTIONS_HARD_MAX: usize = 10_000;
/// Unacknowledged QoS 1 and 2 publishes that a session takes from its client before it stops reading.
pub const RECEIVE_MAXIMUM: u16 = 100;
/// Unacknowledged QoS 1 deliveries in flight to one client.
pub const DELIVERY_WINDOW_MAX: u16 = 100;
/// User properties and other texts of one PUBLISH or will.
pub const PROPERTY_BYTES_MAX: usize = 8 * 1024;
/// Topic aliases of one connection, in each direction; the client may allow fewer of ours. Each keeps
/// one topic in memory.
pub const TOPIC_ALIASES_MAX: u16 = 64;
/// What a connection's buffers begin with, and come back to: most say little.
pub const BUFFER_BYTES_MIN: usize = 512;
/// What is read, and written, at once from and to a connection that says much.
pub const BUFFER_BYTES: usize = 8 * 1024;
/// What is read from a connection ahead of what the session takes: a packet that is only announced
/// gets no more room than this until its bytes come.
pub const READ_AHEAD_BYTES: usize = 16 * 1024;
/// The buffer in which a WebSocket collects frames, in each direction.
pub const WEBSOCKET_BUFFER_BYTES: usize = 8 * 1024;
/// The largest WebSocket frame that the gateway sends; larger packets span several.
pub const WEBSOCKET_FRAME_BYTES: usize = 32 * 1024;
/// Origins that may open WebSockets of one listener from a browser.
pub const ORIGINS_MAX: usize = 64;
/// Payloads, topics and properties of all retained messages.
pub const RETAINED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Retained messages in all.
pub const RETAINED_MESSAGES_MAX: usize = 10_000;
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections from one address (one /64 in IPv6) that have not said CONNECT yet. A site behind one
/// address may come back all at once; one idler must not take everybody's place.
pub const CONNECTING_PER_ADDRESS_MAX: usize = 256;
/// The same, whatever the settings and however few connections there may be.
pub const CONNECTING_PER_ADDRESS_MIN: usize = 8;
/// File descriptors that are not for devices: the buffer's files, listeners, the uplink, whoever asks
/// for metrics.
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// TLS handshakes under way at once.
pub const HANDSHAKES_MAX: usize = 64;
/// Those of one address (one /64 in IPv6), whose peers may be slow on purpose.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 16;
/// Handshakes that one address may begin a second. One costs some 0.5 ms of a processor, so that an
/// address gets a small part of one.
pub const HANDSHAKES_PER_SECOND: u64 = 100;
/// The same at once: a site behind one address comes back after a power cut.
pub const HANDSHAKES_BURST: u64 = 1000;
/// So many times as much of both for each address of this machine, which all local applications share.
pub const HANDSHAKES_OF_LOOPBACK: NonZeroU64 = NonZeroU64::new(10).unwrap();
/// How long a handshake keeps its turn at most; then it goes on without one.
pub const HANDSHAKE_TURN: Duration = Duration::from_millis(50);
/// The largest ClientHello; one with post-quantum keys has some 2 KiB.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Addresses whose handshakes have a pace of their own; further ones share one.
pub const HANDSHAKE_ADDRESSES_MAX: usize = 16_384;
/// Time for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the accepted connection to a complete CONNECT.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that one write to a client may take before the client is called stuck.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Decisions that a session remembers; then one that was not asked for lately is forgotten.
pub const DECISIONS_PER_SESSION_MAX: usize = 512;
/// How often something may happen: at once, and then a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second from then on.
    pub per_second: f64,
}

/// Lines in the log about what one client was refused.
pub const DENIAL_LINES_PER_CLIENT: Rate = Rate {
    burst: 20,
    per_second: 0.2,
};
/// The same of all things together, and of all strangers together: a log that keeps up with an attack is a second attack.
pub const DENIAL_LINES: Rate = Rate {
    burst: 200,
    per_second: 20.0,
};
/// Clients whose pace is kept apart; further ones share one.
pub const DENIAL_CLIENTS_MAX: usize = 4096;
/// Denials that `status` shows.
pub const DENIALS_KEPT_MAX: usize = 100;
/// Client ids that are away and whose connections are still numbered on (`versionNumber` of the
/// lifecycle events); beyond it those that are away start anew, as at AWS after an hour.
pub const NUMBERED_CLIENTS_AWAY_MAX: usize = 50_000;
/// What a lifecycle event may wait for the pipeline; then it is dropped, and counted.
pub const LIFECYCLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a session looks at the time whether its certificate is past it: a clock that is set
/// must not stretch a long sleep.
pub const VALIDITY_CHECK: Duration = Duration::from_secs(60);

/// How long a publish may have to wait for its turn under the rate of its group: who would wait longer
/// is answered that there is no room, so that one client's debt does not silence the others.
pub const GROUP_RATE_DEBT_MAX: Duration = Duration::from_secs(10);
/// Clients that are away and whose use of their publish rate is remembered; beyond it that of all who
/// are away is forgotten.
pub const PACED_CLIENTS_AWAY_MAX: usize = 50_000;
/// How often `$SYS/broker/…` is told.
pub const SYS_INTERVAL: Duration = Duration::from_secs(10);
/// Connected clients in one answer of the admin listener; the next ones are asked for.
pub const CLIENTS_PER_PAGE: usize = 1000;

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
/// Attributes of a thing that has a type. With the longest names and values they stay below the 47 KB
/// that AWS takes in all.
pub const ATTRIBUTES_PER_THING_MAX: usize = 50;
/// Attributes of a thing that has none.
pub const ATTRIBUTES_WITHOUT_TYPE_MAX: usize = 3;
/// Attributes of a group.
pub const ATTRIBUTES_PER_GROUP_MAX: usize = 50;
/// Groups directly below one group.
pub const CHILDREN_PER_GROUP_MAX: usize = 100;
/// Dynamic groups in all.
pub const DYNAMIC_GROUPS_MAX: usize = 100;
/// The query of a dynamic group.
pub const QUERY_BYTES_MAX: usize = 1000;
/// Parentheses and `NOT`s around a term of a query: its parser and its evaluation recurse.
pub const QUERY_DEPTH_MAX: usize = 32;
/// Things that one certificate may be attached to.
pub const THINGS_PER_CERTIFICATE_MAX: usize = 100;
/// The description of a thing type, in characters.
pub const TYPE_DESCRIPTION_MAX: usize = 2028;
/// Things that are connected or in alarm, for dynamic groups; of further ones it is not known that
/// they are. Above the connections and the devices in alarm that there can be.
pub const FLEET_THINGS_MAX: usize = CONNECTIONS_MAX + DETECT_THINGS_MAX + DETECT_UNREGISTERED_MAX;
/// The journal of the run-time state, after compaction; beyond it, devices register no longer.
pub const JOURNAL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The same for commands: devices cannot fill it so that approving or releasing is not possible.
pub const JOURNAL_COMMAND_BYTES_MAX: u64 = 2 * JOURNAL_BYTES_MAX;
/// The same for what takes access away; no journal is longer, and a longer one is not read.
pub const JOURNAL_HARD_BYTES_MAX: u64 = 3 * JOURNAL_BYTES_MAX;
/// Lines of the journal that are not needed any more, beyond as many as are: then it is compacted.
pub const JOURNAL_IDLE_LINES_MAX: usize = 1000;
/// A line of the journal; a longer one is not read.
pub const JOURNAL_LINE_BYTES_MAX: usize = 128 * 1024;
/// The serial number of a certificate, in bytes; RFC 5280 has 20. What is longer has no value in
/// policies.
pub const SERIAL_BYTES_MAX: usize = 64;
/// Values of one kind that are kept of a distinguished name (specification A.3).
pub const NAME_VALUES_MAX: usize = 5;
/// The modulus of an RSA key that may be registered (specification A.11).
pub const RSA_BITS_MIN: usize = 2048;
/// What TLS here verifies at most.
pub const RSA_BITS_MAX: usize = 8192;
/// A provisioning template, in characters.
pub const TEMPLATE_BYTES_MAX: usize = 10 * 1024;
/// Provisioning templates in all.
pub const TEMPLATES_MAX: usize = 256;
/// Policies that one template attaches, as many as a certificate may have.
pub const TEMPLATE_POLICIES_MAX: usize = POLICIES_PER_CERTIFICATE_MAX;
/// Nesting of `Fn::Join` in a template.
pub const TEMPLATE_JOIN_DEPTH_MAX: usize = 8;
/// What a value may grow to when a template is filled in; the largest that anything takes is a
/// thing's attribute with 800.
pub const TEMPLATE_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Parameters that a device may give with one provisioning call.
pub const PROVISION_PARAMETERS_MAX: usize = 64;
/// CA certificates with the same subject, as at AWS (specification A.11).
pub const CAS_PER_SUBJECT_MAX: usize = 10;
/// A certificate, signing request or ownership token in a provisioning call.
pub const PROVISION_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long a device has from the certificate that it was given to the provisioning call.
pub const OWNERSHIP_TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Certificates that were given out and not provisioned yet; then no more are made until some are
/// used or forgotten.
pub const OWNERSHIP_TOKENS_MAX: usize = 1024;
/// The same of one claim certificate, so that a stolen claim cannot stop the others.
pub const OWNERSHIP_TOKENS_PER_CLAIM_MAX: usize = 256;
/// Certificates registered just in time in one minute; further ones are refused.
pub const REGISTRATIONS_PER_MINUTE_MAX: u32 = 60;
/// Requests under all claim certificates in one minute; further ones are refused.
pub const CLAIM_REQUESTS_PER_MINUTE_MAX: u32 = 240;
/// The same of one claim certificate, so that a stolen claim cannot stop the others.
pub const CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX: u32 = 60;
/// Claim certificates whose requests are counted at once; others are refused for a minute.
pub const CLAIMS_COUNTED_MAX: usize = 1024;
/// How long a certificate that was looked at for just-in-time registration is not looked at again;
/// twice as long after each further look, until it is in force.
pub const REGISTRATION_RETRY_MIN: Duration = Duration::from_secs(1);
/// The most of it.
pub const REGISTRATION_RETRY_MAX: Duration = Duration::from_secs(300);
/// Certificates of which it is known when to look at them again; beyond it, the one that is to
/// be looked at first is forgotten.
pub const REGISTRATION_RETRIES_MAX: usize = 4096;
/// Certificates that devices may have got by themselves, unless `devices-max` says otherwise.
pub const DEVICES_MAX: usize = 10_000;
/// The same under one claim certificate, unless `devices-per-claim-max` says otherwise.
pub const DEVICES_PER_CLAIM_MAX: usize = 1000;
/// What those settings may say at most.
pub const DEVICES_HARD_MAX: usize = 100_000;
/// Certificates that wait for `cert approve`; further unknown ones are refused.
pub const PENDING_CERTIFICATES_MAX: usize = 10_000;
/// How often at most one pending certificate is announced again when it connects.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Files with revocation lists.
pub const REVOCATION_LISTS_MAX: usize = 256;
/// How often the files of registry, policies and certificates are looked at.
pub const RELOAD_POLL: Duration = Duration::from_millis(100);
/// How long they must be unchanged before they are read: an editor may be half way through.
pub const RELOAD_SETTLE: Duration = Duration::from_millis(50);
/// How long a registry that lacks things, certificates or groups must be unchanged before they are
/// taken away: it may be one that is still being copied. With the look that finds it, less than the
/// second within which a change holds.
pub const RELOAD_SETTLE_LOSS: Duration = Duration::from_millis(500);
/// Characters of a policy document, white space aside (specification A.1).
pub const POLICY_CHARACTERS_MAX: usize = 2048;
/// The value of a policy variable, in characters; a longer one counts as no value (specification A.3).
pub const VARIABLE_CHARACTERS_MAX: usize = 1024;
/// Any configuration file; larger ones are refused before they are read.
pub const CONFIG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

// Pipeline.

/// Events waiting for one shard of a chain; then the publisher's session waits.
pub const SHARD_QUEUE_EVENTS_MAX: usize = 1024;
/// Combinations of chains that things may be in, through their groups: each has threads.
pub const COMBINATIONS_MAX: usize = 128;
/// Threads of one chain; a device always has the same one.
pub const SHARDS_PER_CHAIN: u32 = 2;
/// Events handed to a plugin in one call.
pub const PLUGIN_BATCH_EVENTS_MAX: usize = 256;
/// Linear memory of one plugin instance.
pub const PLUGIN_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time that one call into a plugin may take.
pub const PLUGIN_DEADLINE: Duration = Duration::from_millis(100);
/// Bytes that one call may give back: payloads, messages, labels.
pub const PLUGIN_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A component file; larger ones are refused before they are read.
pub const PLUGIN_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time in which a fresh instance must be ready: start of the guest's runtime and `configure`.
pub const PLUGIN_START_DEADLINE: Duration = Duration::from_secs(2);
/// Table elements of one plugin instance, all tables together (function pointers, mostly).
pub const PLUGIN_TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances, tables and memories that one component may consist of.
pub const PLUGIN_CORE_INSTANCES_MAX: usize = 64;
/// Host resources (streams, pollables) that one plugin instance may hold.
pub const PLUGIN_RESOURCES_MAX: usize = 256;
/// JSON pointers that one plugin may declare.
pub const PLUGIN_FIELDS_MAX: usize = 32;
/// A JSON pointer, in bytes.
pub const PLUGIN_POINTER_BYTES_MAX: usize = 256;
/// Log lines of one call, standard output and error included; more are counted and dropped.
pub const PLUGIN_LOG_LINES_MAX: usize = 20;
/// A log line; longer ones are cut.
pub const PLUGIN_LOG_LINE_BYTES_MAX: usize = 1024;
/// A drop reason.
pub const PLUGIN_REASON_BYTES_MAX: usize = 32;
/// The key of a tag or label, and a metric's name.
pub const PLUGIN_KEY_BYTES_MAX: usize = 64;
/// The value of a tag or label.
pub const PLUGIN_VALUE_BYTES_MAX: usize = 256;
/// The message of a violation or of an error.
pub const PLUGIN_MESSAGE_BYTES_MAX: usize = 1024;
/// Tags that an event may carry, of all rules of its chains.
pub const TAGS_PER_EVENT_MAX: usize = 32;
/// Labels of one violation.
pub const PLUGIN_LABELS_MAX: usize = 16;
/// Different metric names of one plugin; more are ignored.
pub const PLUGIN_METRICS_MAX: usize = 32;
/// Calls in a row that may fail before the instance is paused.
pub const PLUGIN_FAILURES_MAX: u32 = 5;
/// The first pause; each further failure doubles it up to [`PLUGIN_PAUSE_MAX`].
pub const PLUGIN_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`PLUGIN_PAUSE_MIN`].
pub const PLUGIN_PAUSE_MAX: Duration = Duration::from_secs(60);

// Detection (specification B.3).

/// Activities waiting for detection; further ones are dropped and counted.
pub const ACTIVITY_QUEUE_MAX: usize = 8192;
/// Resolution of windows: 30 counters for the usual 300 seconds, 360 for the longest.
pub const DETECT_BUCKET: Duration = Duration::from_secs(10);

/// A tick, of which there is one a second, that is this much after the one before means that the
/// clock stepped forward (or the machine slept): windows start over.
pub const DETECT_STEP_MIN: Duration = Duration::from_secs(30);
/// Things with windows; beyond it, those that were quiet longest are forgotten. Above the
/// connections that can be open at once, so that nobody who is connected is forgotten.
pub const DETECT_THINGS_MAX: usize = 16_384;
/// Devices outside the registry with windows. A table of their own, because anybody can make up
/// client ids: they displace each other, never a thing.
pub const DETECT_UNREGISTERED_MAX: usize = 1024;
/// A device that was silent for so long is forgotten; an alarm of it is invalidated (specification
/// B.4).
pub const DETECT_SILENCE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// What a plugin may say about a violation; the rest is cut off.
pub const VIOLATION_MESSAGE_BYTES_MAX: usize = 4096;
/// Addresses that one window remembers; the one that was quiet longest is forgotten.
pub const ADDRESSES_PER_WINDOW_MAX: usize = 32;
/// Behaviours of one profile.
pub const BEHAVIORS_PER_PROFILE_MAX: usize = 100;
/// Profiles that may name the same target.
pub const PROFILES_PER_TARGET_MAX: usize = 5;
/// A profile's description, in characters.
pub const PROFILE_DESCRIPTION_MAX: usize = 1000;
/// `consecutiveDatapointsToAlarm` and `…ToClear`.
pub const CONSECUTIVE_DATAPOINTS_MAX: u8 = 10;
/// The values that AWS takes as `durationSeconds`.
pub const DETECT_DURATIONS_SECS: [u32; 5] = [300, 600, 900, 1800, 3600];

// Buffer (evidence.md, "sled as a store-and-forward queue").

/// Sinks of one gateway: the bits of a set of them.
pub const SINKS_MAX: usize = 32;
/// A value in sled; larger ones go to blob files that nobody syncs.
pub const CHUNK_BYTES_MAX: usize = 7_400;
/// The records that one value holds compressed, before they are: what a read takes in memory at once.
pub const CHUNK_RAW_BYTES_MAX: usize = 64 * 1024;
/// A record that spans several values, before it is compressed; a larger one is not.
pub const LARGE_RECORD_RAW_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The share of the buffer's disk bound that is kept for what is on its way to it: one part of these.
pub const BUFFER_RESERVE_SHARE: u64 = 8;
/// What is kept at most: all queues before the buffer fit into it.
pub const BUFFER_RESERVE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long an MQTT 5 publish waits for room in a full buffer before it is answered 0x97.
pub const BUFFER_PATIENCE: Duration = Duration::from_secs(1);
/// Records waiting for the group commit; then the appender waits.
pub const APPEND_QUEUE_RECORDS_MAX: usize = 8192;
/// Bytes waiting for the group commit; then the appender waits.
pub const APPEND_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A connection's publishes at QoS 0 between two marks that resolve with their commit.
pub const SHARE_STEP_RECORDS: usize = 128;
/// The same in bytes of payload.
pub const SHARE_STEP_BYTES: usize = 128 * 1024;
/// Marks that one connection may have open before it waits: with those after the last one, its share
/// of the way to the buffer.
pub const SHARE_MARKS_MAX: usize = 8;
/// The same for the lanes other than that of the events.
pub const LANE_QUEUE_RECORDS_MAX: usize = 2048;
/// The same for the lanes other than that of the events.
pub const LANE_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Disk set aside for the critical lane when the disk is full, whoever filled it.
pub const RESERVE_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// The database of a lane that nobody has used for so long is closed.
pub const LANE_IDLE: Duration = Duration::from_secs(30);
/// Bytes of one commit: what waits beyond it goes into the next.
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sequence numbers set aside by one durable write: how far they jump if the newest generation is lost.
pub const SEQUENCE_RESERVE: u64 = 65_536;
/// The cursor of a sink is written to disk at most this often while it moves.
pub const CURSOR_INTERVAL: Duration = Duration::from_millis(250);
/// What a generation may keep in memory of its tree.
pub const GENERATION_CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// How often a command that reads a damaged generation goes on behind a place where the engine fails.
pub const SALVAGE_TRIES_MAX: usize = 40;
/// How long a command waits for the engine's next record before it gives a generation up.
pub const SCAN_PATIENCE: Duration = Duration::from_secs(30);
/// Key and body of a record that is looked for by its checksum are each below this.
pub const RECORD_CARVE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Damaged generations kept for salvage; then the oldest is removed.
pub const DAMAGED_GENERATIONS_MAX: usize = 4;
/// Nesting of a payload that is embedded as JSON; deeper ones travel as text.
pub const PAYLOAD_JSON_DEPTH_MAX: usize = 64;
/// A record's body and partition key, as the stream takes them.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 - 512;
/// Group commit: how long the first record waits for company at most.
pub const COMMIT_LINGER: Duration = Duration::from_millis(5);
/// A generation is closed at this size, and dropped whole once drained. One that is written or read is in
/// memory whole: sled forgets a page only when another of its 256 shards is looked at 64 times.
pub const GENERATION_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// All generations together; then `append` waits (back-pressure).
pub const BUFFER_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

// Sessions.

/// Sessions in all, those of clients that are away included; beyond it a client without one is refused.
pub const SESSIONS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Longest keep-alive of an MQTT 5 client, unless the settings say otherwise: a device that is gone is
/// found out after one and a half of it.
pub const KEEP_ALIVE_MAX_SECS: u16 = 60;
/// How long a session lives without a connection at most, as at AWS: seven days.
pub const SESSION_EXPIRY_MAX_SECS: u32 = 7 * 24 * 3600;
/// Messages of QoS 1 and 2 that wait for one client or are in flight to it; beyond it the newest is
/// lost, and counted.
pub const SESSION_QUEUE_MESSAGES_MAX: usize = 10_000;
/// Their payloads, topics and properties.
pub const SESSION_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same of all sessions together.
pub const SESSIONS_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What waits for all connections at QoS 0; of one it is bounded like its session's queue.
pub const SESSIONS_LOOSE_BYTES_MAX: usize = 64 * 1024 * 1024;

// Local bus.

/// Distinct topics that the router of the local bus keeps a trace of; then it is built anew.
pub const BUS_TOPICS_MAX: usize = 65_536;
/// Filters that it keeps though nobody is subscribed to them any more, or as many as are subscribed to;
/// then it is built anew.
pub const BUS_IDLE_FILTERS_MAX: usize = 1024;
/// Entries of the logs of all its filters, some 300 bytes each; then it is built anew.
pub const BUS_ENTRIES_MAX: usize = 131_072;
/// Messages of one filter that a subscriber may lag behind.
pub const BUS_LOG_ENTRIES_MAX: usize = 16_384;
/// What this shrinks to when many filters are busy.
pub const BUS_LOG_ENTRIES_MIN: usize = 1024;
/// Messages of all filters that the bus keeps, and that a subscriber may lag behind.
pub const BUS_MESSAGES_MAX: usize = 65_536;
/// What they take.
pub const BUS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often the router is built anew because it has grown.
pub const BUS_REBUILDS: Rate = Rate {
    burst: 3,
    per_second: 0.05,
};
/// How often it is built anew because it panicked; more often is a fault of the gateway.
pub const BUS_PANICS: Rate = Rate {
    burst: 5,
    per_second: 0.02,
};
/// Time that the router has to answer a session that wants to subscribe.
pub const BUS_LINK_TIMEOUT: Duration = Duration::from_secs(10);

// Session log.

/// A record of the session log: a message with what its subscribers are to get.
pub const WAL_RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that wait for the disk; then whoever would append more waits.
pub const WAL_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one write: what waits beyond it goes into the next.
pub const WAL_COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What nobody waits for is durable after this time at the latest.
pub const WAL_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The session log is written anew when it has doubled since the last time, and is larger than this.
pub const WAL_CHECKPOINT_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Files of the session log, of which each start begins one; with more it is written anew.
pub const WAL_FILES_MAX: usize = 8;
/// Damaged ends of files kept to be looked at; then the oldest is removed.
pub const WAL_DAMAGED_FILES_MAX: usize = 4;

// Uplink (specification D.1, D.5).

/// Records in one PutRecords call.
pub const PUT_RECORDS_MAX: usize = 500;
/// Data and partition keys in one PutRecords call.
pub const PUT_RECORDS_BYTES_MAX: usize = 5 * 1024 * 1024;
/// What `batch-bytes-max` may say at most: what the service takes.
pub const PUT_RECORDS_BYTES_HARD_MAX: usize = 10 * 1024 * 1024;
/// Requests under way to one stream at once, unless `requests-in-flight` says otherwise.
pub const REQUESTS_IN_FLIGHT: usize = 4;
/// What that setting may say at most.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 16;
/// Streams beside the default one.
pub const ROUTES_MAX: usize = 16;
/// Records that a sink has read and not settled, of each lane; what is critical gets an eighth.
pub const UPLINK_WINDOW_RECORDS_MAX: usize = 4096;
/// How long a queue pauses whose records are over the pace: little by little would be many requests.
pub const UPLINK_PACE_PAUSE: Duration = Duration::from_millis(100);
/// Several records as one: what the Kinesis Producer Library fills by default.
pub const AGGREGATE_BYTES_MAX: usize = 51_200;
/// How often the shards of a stream are asked for; a shard that nobody knows asks at once.
pub const SHARDS_INTERVAL: Duration = Duration::from_secs(600);
/// How soon after they were asked for last, whatever happens.
pub const SHARDS_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Shards of one stream that are known; a larger stream is not paced by shard.
pub const SHARDS_MAX: usize = 10_000;
/// From this backlog on live records go before it, where the settings say so.
pub const SPLIT_BACKLOG_MIN: u64 = 1000;
/// A clock that is further off is told: the service refuses signatures that are five minutes off.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(120);
/// One PutRecords call, connection included.
pub const PUT_RECORDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Connecting to the stream's endpoint, as a part of [`PUT_RECORDS_TIMEOUT`].
pub const UPLINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a request may shrink to when larger ones get no answer in time. Every link that is of use
/// carries it in [`PUT_RECORDS_TIMEOUT`]; from here to the full size is some fifty requests.
pub const PUT_RECORDS_BYTES_MIN: usize = 16 * 1024;
/// Back-off after throttling: full jitter from this base, up to `THROTTLE_BACKOFF_MAX`.
pub const THROTTLE_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// See [`THROTTLE_BACKOFF_BASE`].
pub const THROTTLE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Back-off without connectivity: full jitter from this base, up to `CONNECT_BACKOFF_MAX`.
pub const CONNECT_BACKOFF_BASE: Duration = Duration::from_secs(1);
/// See [`CONNECT_BACKOFF_BASE`]; unless `retry-max-secs` says otherwise.
pub const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a batch waits for company while the link is up.
pub const UPLINK_LINGER: Duration = Duration::from_millis(200);
/// Back-off when the stream is missing, refused to us, or takes nothing: full jitter from this base.
pub const REFUSED_BACKOFF_BASE: Duration = Duration::from_secs(5);
/// See [`REFUSED_BACKOFF_BASE`].
pub const REFUSED_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a sink at least waits for a stream that is not there.
pub const MISSING_WAIT_MIN: Duration = Duration::from_secs(30);
/// Attempts of a record that fails alone, for a reason that is not the stream's load.
pub const RECORD_ATTEMPTS_MAX: u32 = 10;
/// Records set aside in a row before the stream is taken to refuse everything.
pub const DEAD_LETTER_STREAK_MAX: u32 = 5;
/// A file of set-aside records is closed at this size.
pub const DEAD_LETTER_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// All set-aside records together; then the oldest file is removed.
pub const DEAD_LETTER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What the last attempt at stop may take of [`SHUTDOWN_GRACE`].
pub const UPLINK_DRAIN_MAX: Duration = Duration::from_secs(10);

// CloudWatch (specification E.1, E.3).

/// A metric record is made so often; CloudWatch keeps nothing finer for a datum of this resolution.
pub const METRIC_PERIOD: Duration = Duration::from_secs(60);
/// Gauges are looked at so often between two metric records.
pub const METRIC_SAMPLE: Duration = Duration::from_secs(10);
/// Metrics (names with their dimensions) of one minute; further ones are left out, and counted. AWS
/// charges for each.
pub const METRIC_SERIES_MAX: usize = 500;
/// Metric records waiting for the buffer; then the sampler waits.
pub const METRIC_QUEUE_MAX: usize = 4;
/// Data points in one PutMetricData call.
pub const PUT_METRIC_DATA_MAX: usize = 1000;
/// One PutMetricData call before compression: "1 MB", read in the careful way.
pub const PUT_METRIC_DATA_BYTES_MAX: usize = 1_000_000;
/// Different values of one data point.
pub const METRIC_VALUES_MAX: usize = 150;
/// Dimensions of one metric.
pub const METRIC_DIMENSIONS_MAX: usize = 30;
/// Those that the settings may add: the gateway's own need the rest.
pub const CONFIGURED_DIMENSIONS_MAX: usize = 10;
/// A namespace, a metric's name, a dimension's name.
pub const METRIC_NAME_BYTES_MAX: usize = 255;
/// A dimension's value.
pub const DIMENSION_VALUE_BYTES_MAX: usize = 1024;
/// What is older is of no use to CloudWatch, which takes two weeks: an hour is left for the way.
pub const CLOUDWATCH_AGE_MAX: Duration = Duration::from_secs((14 * 24 - 1) * 3600);
/// How far ahead of the clock CloudWatch takes something.
pub const CLOUDWATCH_AHEAD_MAX: Duration = Duration::from_secs(2 * 3600);
/// One call, connection included.
pub const CLOUDWATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Records that a CloudWatch sink reads at once, and their bytes.
pub const CLOUDWATCH_READ_RECORDS_MAX: usize = 1000;
/// See [`CLOUDWATCH_READ_RECORDS_MAX`].
pub const CLOUDWATCH_READ_BYTES_MAX: usize = 1024 * 1024;
/// Events in one PutLogEvents call.
pub const PUT_LOG_EVENTS_MAX: usize = 10_000;
/// Messages in one PutLogEvents call, each with [`LOG_EVENT_OVERHEAD_BYTES`].
pub const PUT_LOG_EVENTS_BYTES_MAX: usize = 1_048_576;
/// What an event counts beside its message.
pub const LOG_EVENT_OVERHEAD_BYTES: usize = 26;
/// The time between the first and the last event of one call.
pub const PUT_LOG_EVENTS_SPAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long log events wait for company while the link is up.
pub const LOG_LINGER: Duration = Duration::from_secs(1);
/// Log events waiting for the buffer; further ones are dropped, and counted: nobody who logs waits.
pub const LOG_QUEUE_MAX: usize = 1024;
/// Texts of one log event; the rest is cut off.
pub const LOG_EVENT_BYTES_MAX: usize = 8 * 1024;
/// Fields of one log event; further ones are left out.
pub const LOG_EVENT_FIELDS_MAX: usize = 32;
/// An answer of CloudWatch Logs; a longer one is not read further.
pub const LOG_ANSWER_BYTES_MAX: usize = 64 * 1024;

// Traffic, from which policies are learned.

/// Different things done in the two seconds between two looks, of all things.
pub const TRAFFIC_RECENT_MAX: usize = 32 * 1024;
/// Combinations of groups whose facts are kept.
pub const TRAFFIC_TABLES_MAX: usize = 64;
/// Facts of one combination of groups in one hour. Two policies take some fifty.
pub const TRAFFIC_FACTS_MAX: usize = 256;
/// Things of one combination of groups that are remembered to have done something.
pub const TRAFFIC_ACTIVE_MAX: usize = 10_000;
/// Things that are remembered by name to have done one fact.
pub const TRAFFIC_DOERS_MAX: usize = 64;
/// Resources that are remembered as they were, for a fact with an unbounded level.
pub const TRAFFIC_EXAMPLES_MAX: usize = 16;
/// Statements that are remembered to have allowed one fact.
pub const TRAFFIC_GROUNDS_MAX: usize = 8;
/// How long the files of hours are kept.
pub const TRAFFIC_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// All files of hours together; then the oldest is removed.
pub const TRAFFIC_BYTES_MAX: u64 = 64 * 1024 * 1024;

// Process.

/// After the ordered shutdown, for threads that still run.
pub const THREADS_GRACE: Duration = Duration::from_secs(1);
/// How long a full buffer is given at the stop before what waits for it is turned away.
pub const FULL_BUFFER_GRACE: Duration = Duration::from_secs(5);
/// Time for the whole ordered shutdown.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

// How the bounds depend on each other.
const _: () = assert!(PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX < PACKET_BYTES_MAX);
// A payload in base64 (4/3) and its envelope must fit a record.
const _: () = assert!(PAYLOAD_BYTES_MAX / 3 * 4 + 8 * 1024 < RECORD_BYTES_MAX);
// A plugin may replace sixteen payloads of the largest size in one call.
const _: () = assert!(PLUGIN_OUTPUT_BYTES_MAX >= 16 * PAYLOAD_BYTES_MAX);
const _: () = assert!(CONNECTIONS_MAX <= DETECT_THINGS_MAX);
const _: () = assert!(RECORD_BYTES_MAX < PUT_RECORDS_BYTES_MAX);
const _: () = assert!(UPLINK_CONNECT_TIMEOUT.as_millis() < PUT_RECORDS_TIMEOUT.as_millis());
const _: () = assert!(UPLINK_CONNECT_TIMEOUT.as_millis() < CLOUDWATCH_TIMEOUT.as_millis());
const _: () = assert!(METRIC_SERIES_MAX <= PUT_METRIC_DATA_MAX);
const _: () = assert!(GENERATION_BYTES_MAX * 4 <= BUFFER_BYTES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX <= APPEND_QUEUE_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX < CHUNK_RAW_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < LARGE_RECORD_RAW_BYTES_MAX);
const _: () = assert!(UPLINK_DRAIN_MAX.as_millis() < SHUTDOWN_GRACE.as_millis());
