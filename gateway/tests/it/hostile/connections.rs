//! Those who come and do not get on with it, and those who come again and again.

use super::*;

const REFUSED: &str = "portcullis_broker_refused_total";
const MIB: u64 = 1024 * 1024;

/// The beginning of a ClientHello that never ends.
const HALF_A_HELLO: [u8; 9] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

#[test]
fn half_open_handshakes_keep_nobody_out() {
    let count = size(5000, 300);
    let scene = Scene::new(&[]);
    scene.endures("half-open TLS handshakes", 128 * MIB, |served| {
        let mut crowd = Vec::new();
        for number in 0..count {
            let mut stream = connect_from(source(number), served.mqtt).unwrap();
            // One that was sent away already does not take it.
            stream.write_all(&HALF_A_HELLO).ok();
            crowd.push(stream);
            if number % (count / 10) == 0 {
                Device::tls(served.mqtt, "calm:late", &scene.calm).publish("calm/late", "");
            }
        }
        Device::tls(served.mqtt, "calm:last", &scene.calm).publish("calm/last", "");
        eventually("they are sent away", || held(&crowd) == 0);
        let refused = served.metric(REFUSED, &["tls-timeout"])
            + served.metric(REFUSED, &["displaced"])
            + served.metric(REFUSED, &["per-address"]);
        assert!(refused >= count as f64, "{refused}");
    });
}

#[test]
fn a_connect_that_comes_byte_by_byte_ends_in_time() {
    let count = size(1000, 50);
    let scene = Scene::new(&[("connect-timeout-ms = 10000", "connect-timeout-ms = 2000")]);
    scene.endures("slow CONNECTs", 96 * MIB, |served| {
        let mut crowd: Vec<_> = (0..count)
            .map(|number| connect_from(source(number), served.plain).unwrap())
            .collect();
        let hello = hello(&"slow".repeat(1000), 60);
        let mut bytes = hello.iter();
        eventually("they are sent away", || {
            let byte = bytes.next().expect("4000 looks are enough");
            for stream in &mut crowd {
                stream.write_all(&[*byte]).ok();
            }
            held(&crowd) == 0
        });
        assert!(served.metric(REFUSED, &["connect-timeout"]) > 0.0);
    });
}

#[test]
fn a_publish_that_comes_byte_by_byte_does_not_keep_a_connection_alive() {
    let count = size(500, 20);
    let scene = Scene::new(&[]);
    scene.endures("slow PUBLISHes", 96 * MIB, |served| {
        let mut crowd: Vec<_> = (0..count)
            .map(|number| {
                let mut stream = connect_from(source(number), served.plain).unwrap();
                stream
                    .write_all(&hello(&format!("slow-{number}"), 2))
                    .unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
                // Of 100 000 bytes.
                stream.write_all(&[0x30, 0xa0, 0x8d, 0x06, 0, 1]).unwrap();
                stream
            })
            .collect();
        eventually("their keep-alive is over", || {
            for stream in &mut crowd {
                stream.write_all(b"x").ok();
            }
            held(&crowd) == 0
        });
        let ended = served.metric("portcullis_broker_disconnected_total", &["\"keep-alive\""]);
        assert_eq!(ended, count as f64);
    });
}

#[test]
fn one_client_id_again_and_again_costs_one_session() {
    let count = size(10_000, 300);
    let scene = Scene::new(&[]);
    scene.endures("CONNECTs with one client id", 96 * MIB, |served| {
        let began = Instant::now();
        let mut crowd = Vec::new();
        for number in 0..count {
            let mut stream = connect_from(source(0), served.plain).unwrap();
            stream.write_all(&hello("again", 60)).unwrap();
            crowd.push(stream);
            if number % 100 == 99 {
                crowd.clear();
            }
        }
        println!(
            "{:.0} CONNECTs a second",
            count as f64 / began.elapsed().as_secs_f64()
        );
        eventually("one of them is left", || {
            served.metric("portcullis_broker_connections ", &[]) <= 3.0
        });
        // Whoever it is, the next one has its place.
        let mut last = plain(served, "again");
        last.write_all(&[0xc0, 0]).unwrap();
        let mut answer = [0; 2];
        last.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0xd0, 0]);
    });
}
