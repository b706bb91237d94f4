#!/bin/sh
# Local publishers and subscribers at QoS 0, 1 and 2, with retained messages, while the gateway is killed
# with SIGKILL at 50 random moments. Prints the counts; fails if an acknowledged message is missing or
# out of order, or one of QoS 2 came twice. PORTCULLIS_KILL_LOCAL_KILLS changes the size.
set -eu
cd "$(dirname "$0")/../.."

export PORTCULLIS_KILL_LOCAL_KILLS="${PORTCULLIS_KILL_LOCAL_KILLS:-50}"
exec cargo test -p portcullis --test it kill_local:: -- --nocapture
