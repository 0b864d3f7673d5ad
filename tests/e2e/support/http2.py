"""A client of several HTTP/2 streams on one connection, with streams it can reset at will."""

import socket

import h2.config
import h2.connection
import h2.errors
import h2.events


class Http2:
    def __init__(self, port, timeout=20, tls=None):
        """`tls`: an SSLContext; without one the connection is in clear text, by prior knowledge."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._connection.initiate_connection()
        self.status = {}   # {stream: status}
        self.bodies = {}   # {stream: what has arrived}
        self._ended = set()
        self._flush()

    def _flush(self):
        self.socket.sendall(self._connection.data_to_send())

    def send(self, body, token):
        """Starts a chat request; returns its stream."""
        stream = self._connection.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/v1/chat/completions"),
                   ("authorization", f"Bearer {token}"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        self._connection.send_headers(stream, headers)
        self._connection.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def reset(self, stream):
        self._connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def wait(self, *streams):
        """Reads until these streams have ended; returns their statuses."""
        while not self._ended.issuperset(streams):
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the connection ended")
            for event in self._connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.status[event.stream_id] = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self._ended.add(event.stream_id)
            self._flush()
        return [self.status.get(stream) for stream in streams]

    def close(self):
        self.socket.close()
