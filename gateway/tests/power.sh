#!/bin/sh
# 100 simulated power cuts in a row, once on the way to a stream and once on the way to the outbox: what
# the gateway writes and syncs is recorded, a disk that loses, keeps or tears what was not synced is built
# for random moments, and the gateway starts on it. Prints the cuts; fails if one acknowledged message,
# session or retained message is missing, out of order or damaged. Needs `cc`.
# PORTCULLIS_POWER_CUTS changes the number, PORTCULLIS_POWER_SEED repeats a run's choices.
set -eu
cd "$(dirname "$0")/../.."

export PORTCULLIS_POWER_CUTS="${PORTCULLIS_POWER_CUTS:-100}"
exec cargo test -p portcullis --test it power:: -- --nocapture --test-threads 1
