//! Every packet at every wrong moment: types in an order that no client has, flags that are not
//! theirs, bodies that are too short, and this before and after CONNECT, in both versions.

use super::*;

/// What the client has done before.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Nothing,
    Connected(u8),
    /// With a QoS 2 publish open in each direction.
    Publishing(u8),
    Left(u8),
}

fn greet(version: u8, client_id: &str) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([version, 2, 0, 60]);
    if version == 5 {
        body.push(0);
    }
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// MQTT 5 has a length of properties where 3.1.1 has nothing.
fn properties(version: u8) -> &'static [u8] {
    if version == 5 { &[0] } else { &[] }
}

fn prelude(moment: Moment, client_id: &str) -> Vec<u8> {
    match moment {
        Moment::Nothing => Vec::new(),
        Moment::Connected(version) => greet(version, client_id),
        Moment::Publishing(version) => {
            let mut bytes = greet(version, client_id);
            let mut subscribe = vec![0, 1];
            subscribe.extend(properties(version));
            subscribe.extend(text("moments/#"));
            subscribe.push(2);
            bytes.extend(packet(0x82, &subscribe));
            let mut publish = text("moments/own");
            publish.extend([0, 7]);
            publish.extend(properties(version));
            publish.extend(b"x");
            bytes.extend(packet(0x34, &publish));
            bytes
        }
        Moment::Left(version) => {
            let mut bytes = greet(version, client_id);
            bytes.extend([0xe0, 0]);
            bytes
        }
    }
}

/// Bodies that some packet could have: nothing, an id, an id with a reason, a topic, a CONNECT.
fn bodies(client_id: &str) -> Vec<Vec<u8>> {
    let mut publish = text("moments/x");
    publish.extend([0, 7, 0]);
    let mut subscribe = vec![0, 7, 0];
    subscribe.extend(text("moments/#"));
    subscribe.push(1);
    let mut hello = greet(4, client_id);
    hello.drain(..2);
    vec![
        Vec::new(),
        vec![0],
        vec![0, 7],
        vec![0, 0],
        vec![0, 7, 0],
        vec![0, 7, 0x92, 0],
        vec![0xff; 5],
        publish,
        subscribe,
        hello,
    ]
}

#[test]
fn every_packet_at_every_wrong_moment_is_answered_or_ends_the_connection() {
    let moments = [
        Moment::Nothing,
        Moment::Connected(4),
        Moment::Connected(5),
        Moment::Publishing(4),
        Moment::Publishing(5),
        Moment::Left(4),
        Moment::Left(5),
    ];
    let scene = Scene::new(&[]);
    scene.endures("every packet at every moment", 96 * 1024 * 1024, |served| {
        let step = size(1, 3);
        let mut tried = 0;
        for moment in moments {
            for first in (0..=255_u8).step_by(step) {
                for body in bodies("moment") {
                    tried += 1;
                    let mut stream = connect_from(source(tried), served.plain).unwrap();
                    let mut bytes = prelude(moment, "moment");
                    bytes.extend(packet(first, &body));
                    // What must come back, or the end.
                    bytes.extend([0xc0, 0, 0xe0, 0]);
                    stream.write_all(&bytes).ok();
                    let mut answer = Vec::new();
                    if let Err(error) = stream.read_to_end(&mut answer) {
                        assert_eq!(
                            error.kind(),
                            std::io::ErrorKind::ConnectionReset,
                            "after {moment:?}: {first:#04x} {body:02x?}"
                        );
                    }
                }
            }
        }
        println!("{tried} packets");
    });
}
