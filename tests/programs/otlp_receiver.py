"""A collector that we did not write (rotel): `otlp_receiver.py HTTP_PORT GRPC_PORT`; says every span on its stdout."""

import os
import pathlib
import sys

import rotel

agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
http, grpc = (f"127.0.0.1:{port}" for port in sys.argv[1:])
options = ["--otlp-http-endpoint", http, "--otlp-grpc-endpoint", grpc, "--exporter", "blackhole"]
os.execv(agent, [agent, "start", *options, "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
