#!/bin/sh
# Flipped bits, zeroed blocks and cut files at 200 random places of the data directory: the gateway starts,
# serves, says what it lost, and passes on nothing but what was sent; `portcullis buffer` says the same.
# PORTCULLIS_DAMAGE_PLACES changes the number, PORTCULLIS_DAMAGE_SEED repeats a run's choices.
set -eu
cd "$(dirname "$0")/../.."

export PORTCULLIS_DAMAGE_PLACES="${PORTCULLIS_DAMAGE_PLACES:-200}"
exec cargo test -p portcullis --test it damage:: -- --nocapture --test-threads 1
