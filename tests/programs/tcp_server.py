"""A TCP application on Python's socketserver that speaks first, and answers when its caller has no more to say."""

import hashlib
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        digest, length = hashlib.sha256(), 0
        while piece := self.request.recv(65536):
            digest.update(piece)
            length += len(piece)
        self.wfile.write(b"%d %s\r\n" % (length, digest.hexdigest().encode()))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
