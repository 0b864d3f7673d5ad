"""A client of several HTTP/2 streams on one connection, with streams it can reset at will."""

import socket

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings


class Http2:
    def __init__(self, port, timeout=20, tls=None, window=None):
        """`tls`: an SSLContext; without one the connection is in clear text, by prior knowledge. `window`: bytes that each stream may send at first."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        if window is not None:
            self._connection.local_settings = h2.settings.Settings(client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._connection.initiate_connection()
        self.status = {}   # {stream: status}
        self.bodies = {}   # {stream: what has arrived}
        self.reset_codes = {}  # {stream: why the gateway broke it off}
        self.unread = set()    # streams whose windows stay as they are: a client that does not read on
        self.goaway = False    # whether the gateway wants no further streams
        self._ended = set()
        self._flush()

    def _flush(self):
        self.socket.sendall(self._connection.data_to_send())

    def begin(self, token, *headers):
        """Sends the head of a chat request; returns its stream."""
        stream = self._connection.get_next_available_stream_id()
        self._connection.send_headers(stream, [
            (":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/v1/chat/completions"),
            ("authorization", f"Bearer {token}"), ("content-type", "application/json"), *headers])
        self._flush()
        return stream

    def data(self, stream, data, end=False):
        self._connection.send_data(stream, data, end_stream=end)
        self._flush()

    def send(self, body, token):
        """Starts a chat request; returns its stream."""
        stream = self.begin(token, ("content-length", str(len(body))))
        self.data(stream, body, end=True)
        return stream

    def reset(self, stream):
        self._connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def open_window(self, stream, size):
        self._connection.increment_flow_control_window(size, stream)
        self._flush()

    def wait(self, *streams):
        """Reads until these streams have ended; returns their statuses."""
        self.read_until(lambda: self._ended.issuperset(streams))
        return [self.status.get(stream) for stream in streams]

    def read_until(self, condition):
        while not condition():
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the connection ended")
            for event in self._connection.receive_data(data):
                self._take(event)
            self._flush()

    def _take(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            if event.stream_id not in self.unread:
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif event.flow_controlled_length:
                self._connection.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamReset):
            self.reset_codes[event.stream_id] = event.error_code
            self._ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._ended.add(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = True
            # open streams go on (RFC 9113, 6.8), which the library does not allow for
            self._connection.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    def close(self):
        self.socket.close()
