#!/bin/sh
# Hostile clients at full size, one kind after the other, each beside neighbours that only work: 5 000
# half-open TLS handshakes, slow CONNECTs and PUBLISHes, 10 000 CONNECTs of one client id, a subscriber
# that never reads, a million topics, 100 000 retained messages, every packet at every wrong moment, ten
# minutes of mutated sessions. Prints how much slower the neighbours' messages got, and the memory;
# fails if they lost one, or if the gateway grew past its bound. Needs 12 000 open files (`ulimit -n`).
# PORTCULLIS_HOSTILE_ONLY names one of the tests.
set -eu
cd "$(dirname "$0")/../.."

[ "$(ulimit -n)" -ge 12000 ] || ulimit -n 12000
export PORTCULLIS_HOSTILE=1
kinds="hostile::connections hostile::volume hostile::moments hostile::mutations"
# Unquoted: a name each.
exec cargo test --release -p portcullis --test it -- --nocapture --test-threads 1 ${PORTCULLIS_HOSTILE_ONLY:-$kinds}
