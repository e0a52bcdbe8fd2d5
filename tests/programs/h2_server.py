"""An HTTP/2 application without TLS (prior knowledge), on the package h2: GET /SIZE answers so many bytes."""

import asyncio
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions


class Connection(asyncio.Protocol):
    def __init__(self):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.left = {}

    def connection_made(self, transport):
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data):
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            print("protocol error:", error, flush=True)
            self.flush()
            return self.transport.close()
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.answer(event.stream_id, dict(event.headers))
            elif isinstance(event, h2.events.StreamReset):
                self.left.pop(event.stream_id, None)
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        for stream in list(self.left):
            self.send(stream)
        self.flush()

    def answer(self, stream, headers):
        headers = {str(k, "ascii") if isinstance(k, bytes) else k: v for k, v in headers.items()}
        path = headers[":path"]
        path = path.decode() if isinstance(path, bytes) else path
        self.h2.send_headers(stream, [(":status", "200"), ("server", "h2-in-python")])
        self.left[stream] = int(path.strip("/") or 0)

    def send(self, stream):
        while True:
            size = min(self.left[stream], self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size == 0 and self.left[stream] > 0:
                return
            self.left[stream] -= size
            last = self.left[stream] == 0
            self.h2.send_data(stream, b"x" * size, end_stream=last)
            if last:
                del self.left[stream]
                return

    def flush(self):
        self.transport.write(self.h2.data_to_send())


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
