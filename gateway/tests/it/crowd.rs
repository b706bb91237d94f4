//! Connections that say nothing take descriptors; the gateway keeps some for itself and for others.

use std::{io::Read, net::TcpStream};

use tokio::net::TcpSocket;

use crate::{
    device::Device,
    served::{Served, eventually},
    support::run,
};

const REFUSED: &str = "portcullis_broker_refused_total";
const DISPLACED: &str = "=\"displaced\"";

/// So many silent connections from a loopback address.
fn idle(served: &Served, source: &str, count: usize) -> Vec<TcpStream> {
    run(async {
        let mut crowd = Vec::new();
        for _ in 0..count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
            let stream = socket.connect(served.mqtt).await.unwrap();
            crowd.push(stream.into_std().unwrap());
        }
        crowd
    })
}

/// How many of them the gateway holds.
fn held(crowd: &[TcpStream]) -> usize {
    let is_held = |stream: &&TcpStream| {
        let mut stream: &TcpStream = stream;
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    crowd.iter().filter(is_held).count()
}

#[test]
fn a_crowd_that_says_nothing_takes_no_descriptor_that_the_gateway_needs() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "gateway.toml",
        "connect-timeout-ms = 10000",
        "connect-timeout-ms = 600000",
    );
    served.site.replace(
        "gateway.toml",
        "handshake-timeout-ms = 10000",
        "handshake-timeout-ms = 600000",
    );
    served.start_limited("-n 120");
    let log = served.log();
    assert!(
        log.contains("served=60") && log.contains("LimitNOFILE="),
        "{log}"
    );
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");

    // Half of all places for one address of this machine, and the oldest of it goes.
    let crowd = idle(&served, "127.0.0.2", 150);
    eventually("the older ones are displaced", || {
        served.metric(REFUSED, &[DISPLACED]) == 120.0
    });
    eventually("they see it", || held(&crowd) == 30);
    assert_eq!(held(&crowd[120..]), 30);
    assert!(served.log().lines().any(|line| {
        line.contains("WARN") && line.contains("displaced") && line.contains("127.0.0.2")
    }));
    // Others come in, and what they send is kept.
    let mut other = Device::tls(served.mqtt, "sensor-1:2", &own);
    other.publish("dt/sensor-1/t", "2");

    // From several addresses they take every place; who is there stays, who comes gets in, and
    // nothing stops.
    let more = idle(&served, "127.0.0.3", 150);
    eventually("every place is taken", || {
        // Of 302 connections 60 have one.
        served.metric(REFUSED, &[DISPLACED]) == 242.0
    });
    for n in 3..100 {
        device.publish("dt/sensor-1/t", &n.to_string());
    }
    let mut late = Device::tls(served.mqtt, "sensor-1:3", &own);
    late.publish("dt/sensor-1/t", "100");
    assert_eq!(served.metric(REFUSED, &[DISPLACED]), 243.0);
    eventually("everything is in the outbox", || {
        served.outbox().len() == 100
    });
    assert_eq!(served.metric(REFUSED, &["=\"connections-max\""]), 0.0);
    assert_eq!(served.metric(REFUSED, &["=\"accept-failed\""]), 0.0);

    drop((crowd, more));
    served.stop();
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let mut served = Served::new();
    served.start_limited("-S -n 100");
    let limits = served.proc("limits");
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let values: Vec<_> = line.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1], "{limits}");
    // So a crowd beyond the former limit fits.
    let crowd = idle(&served, "127.0.0.2", 200);
    assert_eq!(held(&crowd), 200);
    served.stop();
}
