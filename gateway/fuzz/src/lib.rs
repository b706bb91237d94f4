//! The packets of the broker under the fuzzer.

mod broker;

/// See [`broker::packets`]; here what is allocated is counted.
pub fn packets(data: &[u8]) {
    broker::packets::run(data, |work| allocation_counter::measure(work).bytes_max);
}
