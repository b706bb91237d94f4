#!/bin/sh
# Installs the Kinesis emulators that the integration tests use, pinned, next to the build output.
# Needs npm and python3 with venv. Safe to run again: what is there in the right version stays.
#
# kinesalite cannot be told to bind loopback only: use it on development machines, never on one
# that strangers can reach.
set -eu

kinesalite=3.3.3
moto=5.2.5
here=$(cd "$(dirname "$0")" && pwd)
target="${CARGO_TARGET_DIR:-$here/../../../target}/emulators"
mkdir -p "$target"

# A stamp is written last, so that an interrupted installation is repeated.
installed() { [ -f "$target/$1.version" ] && [ "$(cat "$target/$1.version")" = "$2" ]; }

if ! installed kinesalite "$kinesalite"; then
    rm -rf "$target/kinesalite"
    mkdir -p "$target/kinesalite"
    # leveldown is an optional native module that nothing here needs.
    npm install --prefix "$target/kinesalite" --omit=optional --no-audit --no-fund --loglevel=error \
        "kinesalite@$kinesalite"
    echo "$kinesalite" >"$target/kinesalite.version"
fi

if ! installed moto "$moto"; then
    rm -rf "$target/moto"
    python3 -m venv "$target/moto"
    "$target/moto/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto"
    echo "$moto" >"$target/moto.version"
fi

echo "emulators are in $target"
