//! Those who want more kept than there is room for.

use super::*;

const MIB: u64 = 1024 * 1024;
/// Payload of a flood.
const FLOOD_BYTES: usize = 1000;

fn subscribe(stream: &mut TcpStream, filter: &str, qos: u8) {
    let mut body = vec![0, 1];
    body.extend(text(filter));
    body.push(qos);
    stream.write_all(&packet(0x82, &body)).unwrap();
}

/// QoS 0.
fn publish(topic: &str, payload: &[u8], retain: bool) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(payload);
    packet(0x30 | u8::from(retain), &body)
}

/// Waits until the gateway has handled what was sent.
fn ping(stream: &mut TcpStream) {
    stream.write_all(&[0xc0, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0xd0, 0]);
}

#[test]
fn distinct_topics_without_end_stay_inside_the_bound() {
    let count = size(1_000_000, 100_000);
    let scene = Scene::new(&[]);
    scene.endures("distinct topics", 256 * MIB, |served| {
        // Somebody has to want them, or they go nowhere.
        let config = std::sync::Arc::new(crate::device::client_config(&scene.hostile));
        let mut wants = crate::wire::Wire::open(served.mqtt, &config, "localhost");
        let hello = crate::wire::Hello::v4("hostile");
        assert_eq!(wants.connect(&hello), Some(0));
        let mut body = vec![0, 1];
        body.extend(text("made-up/#"));
        body.push(0);
        wants.send(&packet(0x82, &body)).unwrap();
        wants.receive().unwrap();
        let reading = thread::spawn(move || {
            let mut stream = wants;
            stream.reads_until(b"made-up/last")
        });
        let mut stream = plain(served, "inventor");
        let mut batch = Vec::new();
        for number in 0..count {
            batch.extend(publish(&format!("made-up/{number}/x"), b"1", false));
            if batch.len() > 60_000 {
                stream.write_all(&batch).unwrap();
                batch.clear();
            }
        }
        stream.write_all(&batch).unwrap();
        ping(&mut stream);
        stream
            .write_all(&publish("made-up/last", b"", false))
            .unwrap();
        assert!(reading.join().unwrap(), "the subscription is gone");
    });
}

#[test]
fn retained_messages_without_end_are_refused_at_the_bound() {
    let count = size(100_000, 20_000);
    let scene = Scene::new(&[]);
    scene.endures("retained messages", 256 * MIB, |served| {
        let mut stream = plain(served, "hoarder");
        for number in 0..count {
            let topic = format!("hoard/{number}");
            stream
                .write_all(&publish(&topic, &[b'x'; 100], true))
                .unwrap();
        }
        ping(&mut stream);
        let refused = served.metric("portcullis_broker_retained_refused_total", &[]);
        assert!(refused > 0.0);
        // A gauge that is taken each second.
        eventually("each is kept or counted as refused", || {
            let kept = served.metric("portcullis_broker_retained ", &[]);
            kept + refused == count as f64
        });
    });
}

#[test]
fn a_subscriber_that_never_reads_keeps_nobody_waiting() {
    let count = size(200_000, 60_000);
    let scene = Scene::new(&[]);
    scene.endures("a subscriber that does not read", 256 * MIB, |served| {
        let mut deaf = plain(served, "deaf");
        subscribe(&mut deaf, "flood/+", 1);
        deaf.read_exact(&mut [0; 5]).unwrap();
        let mut source = plain(served, "flood");
        let flood = publish("flood/0", &[b'x'; FLOOD_BYTES], false);
        let mut body = text("flood/1");
        body.extend([0, 9]);
        body.extend([b'x'; FLOOD_BYTES]);
        let acknowledged = packet(0x32, &body);
        for _ in 0..count / 100 {
            for _ in 0..10 {
                source.write_all(&acknowledged).unwrap();
            }
            for _ in 0..90 {
                source.write_all(&flood).unwrap();
            }
            source.read_exact(&mut [0; 40]).unwrap();
        }
        ping(&mut source);
        let lost = served.metric("portcullis_bus_lost_total", &["slow"])
            + served.metric("portcullis_broker_delivery_dropped_total", &["queue-full"]);
        let ended = served.metric("portcullis_broker_disconnected_total", &["not-reading"]);
        assert!(lost + ended > 0.0, "nothing of it was counted");
        drop(deaf);
    });
}
