#!/bin/sh
# cargo's RUSTC_WRAPPER for the fuzz targets: coverage for our code and for the parsers below it, and for nothing else.
# A runtime or a TLS library with coverage takes minutes to compile and only leads the fuzzer astray.
name=
previous=
for argument in "$@"; do
    [ "$previous" = --crate-name ] && name=$argument
    previous=$argument
done
case $name in
model | traffic | registry | httparse | http | serde_json | rmp | rmp_serde | toml | toml_parser | serde_saphyr | granit_parser | jiff | \
    manifest | watch_frame | wal_record | snapshot | token | settings_toml | mesh1 | path | http1 | planted)
    # shellcheck disable=SC2086 # the flags are words
    exec "$@" $MESH_COVERAGE
    ;;
esac
exec "$@"
