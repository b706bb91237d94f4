//! How fast the cloud takes records: `PutRecords` of 500 x 512 B over loopback, from a client that
//! sends the same bytes again and again. `cargo bench -p portcullis-cloud`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench panics and prints"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis_cloud::{Cloud, Keep, Settings, seq_of};
use serde_json::json;

const FOR: Duration = Duration::from_secs(3);

fn main() {
    // `cargo test --benches` is no time to measure.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let lasting = if is_bench {
        FOR
    } else {
        Duration::from_millis(50)
    };
    let settings = || Settings::default().stream("s", 4);
    measure(
        "nothing kept, data not read",
        settings().keep(Keep::None),
        lasting,
    );
    measure(
        "numbers checked",
        settings().keep(Keep::None).numbered(seq_of),
        lasting,
    );
    measure(
        "64 MB kept",
        settings().keep(Keep::UpTo { bytes: 64 << 20 }),
        lasting,
    );
}

fn measure(what: &str, mut settings: Settings, lasting: Duration) {
    settings.signatures.required = false;
    let cloud = Cloud::start(settings).unwrap();
    let request = request();
    let mut stream = TcpStream::connect(cloud.address()).unwrap();
    let mut answer = vec![0; 1 << 20];
    let (started, cpu) = (Instant::now(), cpu_seconds("cloud"));
    while started.elapsed() < lasting {
        stream.write_all(&request).unwrap();
        // An answer ends with what is said last.
        let mut got = 0;
        while !answer[..got].ends_with(b"\"FailedRecordCount\":0}") {
            got += stream.read(&mut answer[got..]).unwrap();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds("cloud") - cpu;
    let records = f64::from(u32::try_from(cloud.counters().records).unwrap());
    println!(
        "{what}: {:.0} records/s, {:.0} records per CPU second of the cloud",
        records / seconds,
        records / cpu
    );
}

fn request() -> Vec<u8> {
    let records: Vec<_> = (0..500)
        .map(|n| {
            let data = format!("{{\"schema\":\"portcullis.event/1\",\"seq\":{n},\"x\":\"{}\"}}", "x".repeat(460));
            json!({ "Data": BASE64_STANDARD.encode(data), "PartitionKey": format!("thing-{}", n % 50) })
        })
        .collect();
    let body = json!({ "StreamName": "s", "Records": records }).to_string();
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// User and system time of the threads whose names begin so, in hundredths as Linux counts.
fn cpu_seconds(name: &str) -> f64 {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else {
            continue;
        };
        let (head, tail) = stat.rsplit_once(") ").unwrap();
        if head.contains(&format!("({name}")) {
            let fields: Vec<_> = tail.split(' ').collect();
            ticks += fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
        }
    }
    f64::from(ticks) / 100.0
}
