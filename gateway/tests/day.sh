#!/bin/sh
# An outage of a day at 200 events a second, 17.3 million events, as fast as the gateway takes them, into
# a bound of 2 GB; then all drains. Release build, through MQTT. Prints how many events found room (what
# comes at the bound is refused), times, memory and disk; fails if one acknowledged event is missing or out
# of order, or the disk does not come back. PORTCULLIS_DAY_EVENTS and PORTCULLIS_DAY_BYTES change the size.
set -eu
cd "$(dirname "$0")/../.."

export PORTCULLIS_DAY_EVENTS="${PORTCULLIS_DAY_EVENTS:-17280000}"
export PORTCULLIS_DAY_BYTES="${PORTCULLIS_DAY_BYTES:-2147483648}"
exec cargo test --release -p portcullis --test it day:: -- --nocapture
