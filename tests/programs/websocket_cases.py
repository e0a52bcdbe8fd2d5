"""Cases of RFC 6455 by its sections, frame by frame: what an application on a WebSocket package answers to them, at each
of the addresses given. Prints one JSON list for each address: of [section, case, answer], the answer in words."""

import json
import os
import socket
import struct
import sys

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong", CONTINUATION: "continuation"}
HANDSHAKE = (
    "GET /cases HTTP/1.1\r\nHost: chat.default.mesh\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
LARGE = bytes(range(256)) * 4096
CHOPPED = "\u00e4\u20ac\U0001f600".encode()


def frame(opcode, payload=b"", fin=True, masked=True, reserved=0):
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask_bit, size = masked << 7, len(payload)
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    padded = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + padded.to_bytes(size, "big")


def parts(opcode, pieces, between=()):
    """A message in fragments, control frames after the first of them."""
    frames = [frame(CONTINUATION if n else opcode, piece, fin=n == len(pieces) - 1) for n, piece in enumerate(pieces)]
    return frames[:1] + list(between) + frames[1:]


def close(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def whole(*frames):
    return [b"".join(frames)]


def bytewise(*frames):
    return [bytes([byte]) for byte in b"".join(frames)]


# Section, case, what is written (an item a write), and how many frames come before we say goodbye: none where the other
# side closes. In the first case the frame stands in the packet of the handshake.
CASES = [
    ("4.1", "a frame in the packet of the handshake", whole(frame(TEXT, b"early")), 1),
    ("5.1", "a frame without a mask", [frame(TEXT, b"bare", masked=False)], None),
    ("5.2", "a reserved bit", [frame(TEXT, b"x", reserved=4)], None),
    ("5.2", "a reserved opcode for data", [frame(3, b"x")], None),
    ("5.2", "a reserved opcode for control", [frame(11, b"x")], None),
    ("5.2", "lengths at the borders", [frame(BINARY, b"l" * n) for n in (0, 125, 126, 127, 65535, 65536)], 6),
    ("5.2", "a megabyte", [frame(BINARY, LARGE)], 1),
    ("5.2", "frames a byte at a time", bytewise(frame(TEXT, CHOPPED), frame(BINARY, b"b" * 200)), 2),
    ("5.2", "many frames in one write", whole(*[frame(TEXT, b"%d" % n) for n in range(50)]), 50),
    ("5.4", "three fragments", parts(TEXT, [b"Hel", b"lo", b"!"]), 1),
    ("5.4", "a fragment for each byte", parts(BINARY, [b"%c" % n for n in range(200)]), 1),
    ("5.4", "empty fragments", parts(TEXT, [b"", b"", b""]), 1),
    ("5.4", "large fragments", parts(BINARY, [LARGE[:300000], LARGE[300000:]]), 1),
    ("5.4", "a ping between fragments", parts(TEXT, [b"a", b"b"], [frame(PING, b"p")]), 2),
    ("5.4", "pings and a pong between fragments in one write",
     whole(*parts(TEXT, [b"a", b"b", b"c"], [frame(PING, b"1"), frame(PONG, b"2"), frame(PING, b"3")])), 3),
    ("5.4", "a close between fragments", [frame(TEXT, b"a", fin=False), close(1001)], None),
    ("5.4", "a continuation of nothing", [frame(CONTINUATION, b"x")], None),
    ("5.4", "a message within a message", [frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], None),
    ("5.5", "a ping in fragments", [frame(PING, b"p", fin=False)], None),
    ("5.5", "a ping of 126 bytes", [frame(PING, b"p" * 126)], None),
    ("5.5.1", "a close with nothing in it", [frame(CLOSE)], None),
    ("5.5.1", "a close with one byte", [frame(CLOSE, b"x")], None),
    ("5.5.1", "a close with a reason", [close(1000, "\u00e4 b\u00fce".encode())], None),
    ("5.5.1", "a close with the longest reason", [close(4999, b"r" * 123)], None),
    ("5.5.1", "what comes after a close", whole(close(1000), frame(TEXT, b"late")), None),
    ("5.5.2", "a ping of 125 bytes", [frame(PING, b"p" * 125)], 1),
    ("5.5.2", "pings one after the other", whole(*[frame(PING, b"%d" % n) for n in range(10)]), 10),
    ("5.5.3", "a pong that nobody asked for", whole(frame(PONG, b"?"), frame(TEXT, b"x")), 1),
    ("5.6", "text beyond ASCII", [frame(TEXT, CHOPPED)], 1),
    ("5.6", "bytes that are no text", [frame(BINARY, b"\xff\xfe\x00\xc0")], 1),
    *[("7.4.1", f"code {code}", [close(code)], None) for code in (1001, 1003, 1007, 1011)],
    *[("7.4.1", f"code {code}, which is for nobody", [close(code)], None) for code in (999, 1005, 1006, 1015)],
    *[("7.4.2", f"code {code}", [close(code)], None) for code in (3000, 4000)],
    ("8.1", "text cut within a character", parts(TEXT, [CHOPPED[:1], CHOPPED[1:4], CHOPPED[4:]]), 1),
    ("8.1", "text that is no UTF-8", [frame(TEXT, b"a\xffb")], None),
    ("8.1", "text that is none by its second fragment", parts(TEXT, [b"a", b"\xed\xa0\x80"]), None),
    ("8.1", "text that ends within a character", [frame(TEXT, CHOPPED[:-1])], None),
    ("8.1", "a reason that is no UTF-8", [close(1000, b"\xff")], None),
]


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")

    def frame(self):
        """The next frame in words; None at the end."""
        head = self.reader.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 127
        if size > 125:
            size = struct.unpack("!H" if size == 126 else "!Q", self.reader.read(2 if size == 126 else 8))[0]
        payload = self.reader.read(size)
        if len(payload) < size:
            return "cut off"
        name = NAMES.get(opcode_of(head), "odd") + ("" if head[0] & 128 else " unfinished")
        if opcode_of(head) == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if payload else "none"
            return f"{name} {code}"
        if opcode_of(head) == BINARY or size > 60:
            known = payload in LARGE or len(set(payload)) < 2 or payload == bytes(range(200))
            return f"{name} of {size}" + ("" if known else " " + payload[:8].hex())
        return f"{name} {payload.decode()}"


def opcode_of(head):
    return head[0] & 15


def run(address, section, writes, answers):
    connection = Connection(address)
    early = writes[0] if section == "4.1" else b""
    connection.socket.sendall(HANDSHAKE + early)
    status = connection.reader.readline().decode().strip()
    while connection.reader.readline() not in (b"\r\n", b""):
        pass
    if "101" not in status:
        return status
    heard = []
    try:
        for write in writes[1:] if early else writes:
            connection.socket.sendall(write)
        if answers:
            heard = [connection.frame() for _ in range(answers)]
            connection.socket.sendall(close(1000))
    except OSError:
        # It was closed meanwhile; what it said is what counts.
        pass
    try:
        while (said := connection.frame()) is not None:
            heard.append(said)
    except ConnectionResetError:
        heard.append("reset")
    connection.socket.close()
    return ", ".join(grouped(heard))


def grouped(heard):
    """`3 pongs` where frames of a kind follow each other in order, so that an answer stays a line."""
    if len(heard) > 8 and len(set(word.split()[0] for word in heard[:-1])) == 1:
        numbers = [word.split()[1] for word in heard[:-1]]
        in_order = numbers == [str(n) for n in range(len(numbers))]
        return [f"{len(numbers)} {heard[0].split()[0]}s{' in order' if in_order else ''}", heard[-1]]
    return heard


for address in sys.argv[1:]:
    answered = [[section, case, run(address, section, writes, answers)] for section, case, writes, answers in CASES]
    print(json.dumps(answered))
