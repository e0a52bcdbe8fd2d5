"""A gRPC application on grpcio, without generated code: messages are bytes. PORT, and for TLS alone CERTIFICATE KEY."""

import concurrent.futures
import sys
import threading

import grpc

cancelled = 0
changed = threading.Condition()


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", "one"),))
    context.set_trailing_metadata((("x-last", "two"), ("x-caller", metadata.get("x-forwarded-client-cert", "none"))))
    return request


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    return b"%d" % sum(int(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why-bin", b"\x00\xff"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order: Müller")


def late(request, context):
    """Never answers; counts when the caller gives up."""
    global cancelled
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    with changed:
        cancelled += 1
        changed.notify_all()
    return b""


def given_up(request, context):
    """How many callers gave up, as soon as it is as many as asked for."""
    with changed:
        changed.wait_for(lambda: cancelled >= int(request), 20)
        return b"%d" % cancelled


handlers = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Late": grpc.unary_unary_rpc_method_handler(late),
    "GivenUp": grpc.unary_unary_rpc_method_handler(given_up),
}
server = grpc.server(
    concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 16 << 20)]
)


def check(request, context):
    """grpc.health.v1: a service has field 1, SERVING is 1 in field 1."""
    if request not in (b"", b"\x0a\x0bshop.Orders"):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return b"\x08\x01"


health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", handlers),))
address, papers = "127.0.0.1:" + sys.argv[1], [open(path, "rb").read() for path in sys.argv[2:]]
if papers:
    certificate, key = papers
    assert server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
else:
    assert server.add_insecure_port(address)
server.start()
server.wait_for_termination()
