#!/bin/sh
# Ten minutes of each ordering into a cloud that fails a tenth of the records and of the calls, loses
# one answer in twenty, resets connections and stalls for two seconds, while shards are split and
# merged. Prints seed and counts; fails if a message is missing, out of order where order is asked for, or there
# twice though its request was answered. PORTCULLIS_SOAK_SECS and PORTCULLIS_SOAK_SEED change the run.
set -eu
cd "$(dirname "$0")/../.."

export PORTCULLIS_SOAK_SECS="${PORTCULLIS_SOAK_SECS:-600}"
exec cargo test -p portcullis --test it soak:: -- --nocapture --test-threads 1
