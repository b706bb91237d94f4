//! The matrix: which loads are run, and which of them were asked for.

use anyhow::{Result, ensure};

/// One load, as both brokers get it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// At [`FIXED_RATE`](crate::load::FIXED_RATE), for latency; else as fast as it goes.
    pub(crate) is_fixed_rate: bool,
    pub(crate) tls: bool,
    pub(crate) qos: u8,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Of a payload.
    pub(crate) bytes: usize,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    /// Idle TLS connections; 0: that is not asked.
    pub(crate) idle_connections: usize,
    /// Runs of each row at each broker.
    pub(crate) rounds: usize,
}

/// Publishers of the rows with a fixed rate.
const FIXED_RATE_PUBLISHERS: usize = 10;

impl Row {
    /// What a filter asks for: `rate/plain/qos1/p10/s0/256`.
    pub(crate) fn name(&self) -> String {
        let kind = if self.is_fixed_rate {
            "latency"
        } else {
            "rate"
        };
        let transport = if self.tls { "tls" } else { "plain" };
        let Self {
            qos,
            publishers,
            subscribers,
            bytes,
            ..
        } = self;
        format!("{kind}/{transport}/qos{qos}/p{publishers}/s{subscribers}/{bytes}")
    }

    fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for tls in [false, true] {
            for qos in [0, 1] {
                for publishers in [1, 10, 100] {
                    for subscribers in [0, 1, 10] {
                        for bytes in [256, 1024] {
                            let row = Self {
                                is_fixed_rate: false,
                                tls,
                                qos,
                                publishers,
                                subscribers,
                                bytes,
                            };
                            let has_latency = publishers == FIXED_RATE_PUBLISHERS
                                && bytes == 256
                                && (qos > 0 || subscribers > 0);
                            if has_latency {
                                let is_fixed_rate = true;
                                rows.push(Self {
                                    is_fixed_rate,
                                    ..row
                                });
                            }
                            rows.push(row);
                        }
                    }
                }
            }
        }
        rows
    }

    /// Whether the name has all parts of one of the filters: `qos1,p10` or `latency`.
    fn is_asked_for(&self, filters: &[String]) -> bool {
        let name = self.name();
        let has = |part: &str| name.split('/').any(|own| own == part);
        filters.is_empty() || filters.iter().any(|filter| filter.split(',').all(has))
    }

    fn is_quick(&self) -> bool {
        let extreme = !self.is_fixed_rate || self.subscribers == 1;
        self.publishers == 10 && self.bytes == 256 && extreme
    }
}

impl Plan {
    pub(crate) fn new(filters: &[String], is_quick: bool) -> Result<Self> {
        let rows = Row::all().into_iter();
        let rows: Vec<_> = rows
            .filter(|row| row.is_asked_for(filters) && (!is_quick || row.is_quick()))
            .collect();
        let idle = filters.is_empty() || filters.iter().any(|filter| filter == "idle");
        let idle_connections = match (idle, is_quick) {
            (false, _) => 0,
            (true, true) => 200,
            (true, false) => 1000,
        };
        ensure!(!rows.is_empty() || idle, "no row has such a name");
        Ok(Self {
            rows,
            idle_connections,
            rounds: if is_quick { 1 } else { 2 },
        })
    }
}
