//! A mutation fuzzer on the wire: sessions as real clients have them, with bytes changed, cut out,
//! doubled and moved. The gateway goes on serving, and its memory is where it was.

use super::*;

/// How long it goes on; ten minutes at full size.
const FULL: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(5);

/// A session with all that a client says, in this version.
fn conversation(version: u8, random: &mut fastrand::Rng) -> Vec<u8> {
    let none: &[u8] = if version == 5 { &[0] } else { &[] };
    let mut hello = text("MQTT");
    hello.extend([version, 0b0010_0110, 0, 60]);
    if version == 5 {
        // Session expiry, receive maximum, alias maximum.
        hello.extend([11, 0x11, 0, 0, 0, 9, 0x21, 0, 5, 0x22, 0, 3]);
    }
    hello.extend(text(&format!("mutant-{}", random.u8(..))));
    hello.extend(none);
    hello.extend(text("wills/mutant"));
    hello.extend(text("gone"));
    let mut bytes = packet(0x10, &hello);
    let mut subscribe = vec![0, 1];
    subscribe.extend(none);
    for filter in ["mutants/#", "+/mutants", "$share/g/mutants/1"] {
        subscribe.extend(text(filter));
        subscribe.push(random.u8(..3));
    }
    bytes.extend(packet(0x82, &subscribe));
    for pkid in 1..6 {
        let qos = random.u8(..3);
        let mut publish = text(&format!("mutants/{}", random.u8(..4)));
        if qos > 0 {
            publish.extend([0, pkid]);
        }
        if version == 5 {
            // Alias, user property.
            publish.extend([10, 0x23, 0, 1, 0x26, 0, 1, b'a', 0, 1, b'b']);
        }
        publish.extend(std::iter::repeat_n(b'x', random.usize(..200)));
        bytes.extend(packet(0x30 | qos << 1 | random.u8(..2), &publish));
    }
    for (first, pkid) in [(0x40, 1), (0x50, 2), (0x62, 2), (0x62, 3), (0x70, 2)] {
        bytes.extend(packet(first, &[0, pkid]));
    }
    bytes.extend([0xc0, 0]);
    if random.bool() {
        bytes.extend([0xe0, 0]);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(..6) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(..bytes.len());
        let until = (at + random.usize(1..40)).min(bytes.len());
        match random.u8(..6) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => drop(bytes.drain(at..until)),
            3 => bytes.extend_from_within(at..until),
            4 => bytes.insert(at, *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0)),
            _ => bytes.truncate(at),
        }
    }
}

#[test]
fn mutated_sessions_leave_the_gateway_serving() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(&[]);
    let time = if size(1, 0) == 1 { FULL } else { SHORT };
    scene.endures("mutated sessions", 128 * 1024 * 1024, |served| {
        let end = Instant::now() + time;
        let mut sessions = 0;
        while Instant::now() < end {
            sessions += 1;
            let mut stream = connect_from(source(sessions), served.plain).unwrap();
            let mut bytes = conversation(if random.bool() { 4 } else { 5 }, &mut random);
            mutate(&mut bytes, &mut random);
            stream.write_all(&bytes).ok();
            // It is not waited for: some conversations have no end.
            stream.shutdown(std::net::Shutdown::Write).ok();
            stream.read_to_end(&mut Vec::new()).ok();
        }
        println!("{sessions} sessions");
    });
}
