"""Asks for Consul's services with py-consul: HOST PORT TOKEN."""

import sys
import time

import consul

host, port, token = sys.argv[1:]
agent = consul.Consul(host=host, port=int(port), token=token, dc="dc1")
index, services = agent.catalog.services()
assert services == {"orders": ["mesh"]}, services
_, [entry] = agent.health.service("orders")
service = entry["Service"]
assert (service["Address"], service["Port"], service["Tags"]) == ("10.0.0.2", 8080, ["mesh"]), entry
assert {check["Status"] for check in entry["Checks"]} == {"passing"}, entry
began = time.monotonic()
same, _ = agent.catalog.services(index=index, wait="500ms")
assert same == index and time.monotonic() - began >= 0.5, "it did not wait"
try:
    consul.Consul(host=host, port=int(port), token="wrong", dc="dc1").catalog.services()
except consul.ACLPermissionDenied:
    print("as it should be")
