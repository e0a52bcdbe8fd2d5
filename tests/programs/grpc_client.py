"""Calls the application of grpc_server.py at the address given, and says how many callers gave up by then; prints what
it saw as one JSON object."""

import json
import sys
import time

import grpc

options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_retries", 0)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
seen = {}


def method(kind, name):
    return getattr(channel, kind)("/shop.Orders/" + name)


def unary():
    answer, call = method("unary_unary", "Echo").with_call(
        b"hello", metadata=(("x-forwarded-client-cert", "URI=spiffe://mesh.internal/ns/default/svc/admin"),), timeout=10
    )
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    seen["unary"] = [answer.decode(), first.get("x-first"), last.get("x-last"), call.code().name]
    seen["caller"] = last.get("x-caller")
    large = b"x" * (3 << 20)
    seen["large"] = method("unary_unary", "Echo")(large, timeout=20) == large


def streams():
    seen["down"] = [int(message) for message in method("unary_stream", "Down")(b"200", timeout=20)] == list(range(200))
    seen["up"] = int(method("stream_unary", "Up")((b"%d" % number for number in range(200)), timeout=20))


def both():
    """Each message is only sent when the one before was answered: nothing on the way may wait for more."""
    answers = []

    def messages():
        for number in range(50):
            while len(answers) < number:
                time.sleep(0.001)
            yield b"ping-%d" % number

    for answer in method("stream_stream", "Both")(messages(), timeout=20):
        answers.append(answer.decode())
    seen["both"] = answers == ["PING-%d" % number for number in range(50)]


def failures():
    try:
        method("unary_unary", "Fail")(b"", timeout=10)
    except grpc.RpcError as error:
        seen["fail"] = [error.code().name, error.details(), list(dict(error.trailing_metadata()).get("x-why-bin", b""))]
    try:
        method("unary_unary", "Absent")(b"", timeout=10)
    except grpc.RpcError as error:
        seen["absent"] = error.code().name
    started = time.monotonic()
    try:
        method("unary_unary", "Late")(b"", timeout=0.5)
    except grpc.RpcError as error:
        seen["late"] = [error.code().name, time.monotonic() - started < 5]
    seen["givenUp"] = int(method("unary_unary", "GivenUp")(sys.argv[2].encode(), timeout=20))
    pending = method("unary_stream", "Down").__call__(b"1000000", timeout=20)
    next(pending)
    pending.cancel()
    seen["cancelled"] = method("unary_unary", "Echo")(b"still here", timeout=10).decode()


unary()
streams()
both()
failures()
print(json.dumps(seen))
