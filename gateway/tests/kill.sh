#!/bin/sh
# 10 000 QoS 1 messages from 20 clients with certificates while the gateway is killed with SIGKILL at
# 10 random moments, once into kinesalite and once into moto; then 200 kills while a scripted stream
# refuses, fails in part and cuts connections. Prints the counts; fails if one acknowledged message is
# missing or out of order. PORTCULLIS_KILL_* and PORTCULLIS_FLAP_KILLS change the size.
set -eu
cd "$(dirname "$0")/../.."

gateway/tests/emulators/install.sh
export PORTCULLIS_TEST_REQUIRE_ALL=1
export PORTCULLIS_KILL_MESSAGES="${PORTCULLIS_KILL_MESSAGES:-10000}"
export PORTCULLIS_KILL_CLIENTS="${PORTCULLIS_KILL_CLIENTS:-20}"
export PORTCULLIS_KILL_KILLS="${PORTCULLIS_KILL_KILLS:-10}"
export PORTCULLIS_FLAP_KILLS="${PORTCULLIS_FLAP_KILLS:-200}"
exec cargo test -p portcullis --test it -- kill:: flapping:: --nocapture --test-threads 1
