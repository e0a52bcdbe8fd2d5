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
model | traffic | registry | httparse | http | serde_json | rmp | rmp_serde | toml | toml_parser | serde_saphyr | granit_parser | jiff | hickory_proto | \
    manifest | watch_frame | wal_record | snapshot | token | settings_toml | mesh1 | http2 | path | http1 | dns | dns_reply | detection | \
    headers | route | access_log | planted)
    # shellcheck disable=SC2086 # the flags are words
    exec "$@" $MESH_COVERAGE
    ;;
esac
exec "$@"
