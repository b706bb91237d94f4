//! `/readyz` and `/metrics`, read as any scraper would.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The counters that the demo shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Counters {
    pub(super) connections: f64,
    pub(super) published: f64,
    pub(super) acknowledged: f64,
    pub(super) denied: f64,
    pub(super) records_delivered: f64,
    pub(super) records_waiting: f64,
}

/// Whether the gateway says that it is ready.
pub(super) async fn is_ready(http: SocketAddr) -> bool {
    get(http, "/readyz").await.is_ok()
}

/// What the counters say now.
pub(super) async fn counters(http: SocketAddr) -> Result<Counters> {
    Ok(read(&get(http, "/metrics").await?))
}

fn read(page: &str) -> Counters {
    let sum = |name: &str| -> f64 {
        page.lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                rest.starts_with([' ', '{']).then_some(rest)
            })
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            // Not `sum`: that of nothing is -0.
            .fold(0.0, |sum, value| sum + value)
    };
    Counters {
        connections: sum("portcullis_broker_connections"),
        published: sum("portcullis_broker_publishes_total"),
        acknowledged: sum("portcullis_broker_acknowledged_total"),
        denied: sum("portcullis_broker_denied_total"),
        records_delivered: sum("portcullis_uplink_sent_records_total"),
        records_waiting: sum("portcullis_buffer_depth_records"),
    }
}

async fn get(http: SocketAddr, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(TIMEOUT, exchange)
        .await
        .context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "{}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_are_summed_and_no_others() {
        let counters = read(
            "# HELP portcullis_broker_connections Connected clients.\n\
             portcullis_broker_connections 20\n\
             portcullis_broker_publishes_total{qos=\"0\"} 3\n\
             portcullis_broker_publishes_total{qos=\"1\"} 40\n\
             portcullis_broker_publishes_total_other 1000\n",
        );
        assert_eq!((counters.connections, counters.published), (20.0, 43.0));
    }
}
