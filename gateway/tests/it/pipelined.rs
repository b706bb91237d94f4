//! Acknowledgements wait for the disk together, not one after the other.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{
    served::{PATIENCE, Served},
    wire::{framed, text},
};

const COMMITS: &str = "portcullis_buffer_commits_total";
const WINDOW: u8 = 100;

#[test]
fn a_window_of_publishes_waits_for_a_few_commits_and_not_for_one_each() {
    let mut served = Served::new();
    served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut stream = TcpStream::connect(served.plain).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = text("MQTT");
    hello.extend([4, 2, 0, 0]);
    hello.extend(text("sensor-1"));
    stream.write_all(&framed(0x10, &hello)).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    let before = served.metric(COMMITS, &[]);
    let mut window = Vec::new();
    for pkid in 1..=WINDOW {
        let mut body = text("dt/sensor-1/t");
        body.extend([0, pkid]);
        body.extend(b"20.5");
        window.extend(framed(0x32, &body));
    }
    stream.write_all(&window).unwrap();
    let mut answers = vec![0; 4 * usize::from(WINDOW)];
    stream.read_exact(&mut answers).unwrap();
    for (answer, pkid) in answers.chunks(4).zip(1..) {
        assert_eq!(answer, [0x40, 2, 0, pkid]);
    }
    let commits = served.metric(COMMITS, &[]) - before;
    assert!((1.0..=20.0).contains(&commits), "{commits} commits");
}
