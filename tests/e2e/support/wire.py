"""HTTP/1.1 on a bare socket, for both ends: nothing is added, removed or repaired on the way."""

import select
import socket
import struct
import time


class Incomplete(Exception):
    """The connection ended before the framing said that the message was complete."""


class Reader:
    """Reads lines and exact amounts from a socket, and remembers every byte."""

    def __init__(self, sock):
        self.socket = sock
        self.raw = bytearray()  # everything received since the last reset_raw()
        self._buffer = bytearray()

    def _fill(self):
        data = self.socket.recv(65536)
        if not data:
            raise Incomplete
        self._buffer += data

    def _take(self, count):
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self.raw += data
        return data

    def line(self):
        while (end := self._buffer.find(b"\n")) < 0:
            self._fill()
        return self._take(end + 1)

    def exactly(self, count):
        while len(self._buffer) < count:
            self._fill()
        return self._take(count)

    def some(self):
        """At least one byte, or b"" at the end of the connection."""
        if not self._buffer:
            try:
                self._fill()
            except Incomplete:
                return b""
        return self._take(len(self._buffer))

    def head(self):
        """(start line, [(name, value)]); names in lower case."""
        start = self.line().rstrip(b"\r\n").decode("latin-1")
        headers = []
        while (text := self.line().rstrip(b"\r\n")) != b"":
            name, _, value = text.decode("latin-1").partition(":")
            headers.append((name.strip().lower(), value.strip()))
        return start, headers

    def chunk(self):
        """The next chunk of a chunked body; b"" is the last one."""
        size = int(self.line().split(b";")[0], 16)
        data = self.exactly(size)
        while self.line().rstrip(b"\r\n") != b"" and size == 0:
            pass  # trailers
        return data

    def reset_raw(self):
        raw, self.raw = bytes(self.raw), bytearray()
        return raw


def value_of(headers, name):
    """The value of a header that may occur once; None when absent."""
    values = [value for key, value in headers if key == name]
    assert len(values) <= 1, f"{name} occurs {len(values)} times: {values}"
    return values[0] if values else None


def reset(sock):
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def peer_closed(sock):
    """Whether the other side has closed or reset, without taking data from the socket."""
    try:
        return readable(sock) and sock.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def readable(sock):
    """Whether data or the end is there now. MSG_DONTWAIT would not do: a Python socket with a timeout waits all the same."""
    poll = select.poll()  # select() knows no descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def wait_peer_closed(sock, seconds):
    """Seconds until the other side closed."""
    start = time.monotonic()
    while not peer_closed(sock):
        assert time.monotonic() - start < seconds, f"the other side did not close within {seconds} s"
        time.sleep(0.002)
    return time.monotonic() - start
