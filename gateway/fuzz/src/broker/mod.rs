//! The broker as far as the codec knows it: the module stands where it stands in the gateway.

#[expect(dead_code, unused_imports, reason = "the gateway uses all of it")]
#[path = "../../../src/broker/codec/mod.rs"]
mod codec;
pub(super) mod packets;
#[path = "../../../src/broker/text.rs"]
mod text;

use self::text::cut;
