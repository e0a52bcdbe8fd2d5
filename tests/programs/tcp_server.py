"""A TCP application on Python's socketserver that speaks first, and answers when its caller has no more to say. PORT, and
for TLS alone CERTIFICATE KEY."""

import hashlib
import socketserver
import ssl
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        digest, length = hashlib.sha256(), 0
        while piece := self.request.recv(65536):
            digest.update(piece)
            length += len(piece)
        self.wfile.write(b"%d %s\r\n" % (length, digest.hexdigest().encode()))
        if isinstance(self.request, ssl.SSLSocket):
            self.request.unwrap()  # Without TLS's own end a stream is taken for one that was cut.


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
if papers := sys.argv[2:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*papers)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
