"""A client of the gateway that shows what arrived: status, headers, body, and whether the body came to its proper end."""

import dataclasses
import json
import socket
import time

from .wire import Incomplete, Reader, readable, reset, value_of


@dataclasses.dataclass
class Reply:
    status: int
    headers: list
    body: bytes
    complete: bool  # the framing's own end was seen; False: the connection ended before, or was the only sign of the end

    def header(self, name):
        return value_of(self.headers, name)

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of each server-sent event."""
        return [line[len("data: "):] for line in self.body.decode().split("\n") if line.startswith("data: ")]

    def text(self):
        """The text of a chat answer, streamed or not."""
        if (self.header("content-type") or "").startswith("text/event-stream"):
            deltas = [json.loads(event) for event in self.events() if event != "[DONE]"]
            return "".join(choice["delta"].get("content") or "" for delta in deltas for choice in delta.get("choices", []))
        return self.json()["choices"][0]["message"]["content"]


class Pending:
    """A request that was sent and whose answer is not read yet. The kernel holds what arrives, so no thread is needed."""

    def __init__(self, port, data, method="POST", timeout=30):
        self._method = method
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = time.monotonic()
        self.socket.sendall(data)
        self._reader = Reader(self.socket)
        self.status = None
        self.headers = None

    @property
    def port(self):
        """Our end's port: tells which worker has the connection (nginx.py)."""
        return self.socket.getsockname()[1]

    def send(self, data):
        self.socket.sendall(data)

    def head(self):
        """Reads the head, 1xx skipped."""
        while self.status is None or self.status < 200:
            start, self.headers = self._reader.head()
            self.status = int(start.split()[1])
        return self.status

    def parts(self):
        """Yields the body as it arrives; raises Incomplete if it ends early. Without framing the end is never proper."""
        self.head()
        if self._method == "HEAD" or self.status in (204, 304):
            return
        length = value_of(self.headers, "content-length")
        if value_of(self.headers, "transfer-encoding") == "chunked":
            while chunk := self._reader.chunk():
                yield chunk
        elif length is not None:
            left = int(length)
            while left:
                data = self._reader.some()
                if not data:
                    raise Incomplete
                left -= len(data)
                yield data
        else:
            while data := self._reader.some():
                yield data
            raise Incomplete

    def reply(self):
        """The whole answer. A connection that ends without an answer raises ConnectionError."""
        body = bytearray()
        complete = True
        try:
            for part in self.parts():
                body += part
        except (Incomplete, ConnectionError) as error:
            if self.status is None:
                raise ConnectionError("the connection ended without an answer") from error
            complete = False
        finally:
            self.socket.close()
        return Reply(self.status, self.headers, bytes(body), complete)

    def answered(self):
        """Whether anything has arrived, or the connection has ended."""
        return readable(self.socket)

    def close(self):
        self.socket.close()

    def reset(self):
        reset(self.socket)


def request_bytes(method, target, headers, body=None, chunks=None):
    """A request as bytes. `body` gets a Content-Length, `chunks` is sent chunked."""
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway.test", *(f"{name}: {value}" for name, value in headers)]
    payload = b""
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        payload = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
        payload = body
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def chat_body(model="m", content="hello", **more):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more}).encode()


class Client:
    """Requests to one gateway."""

    def __init__(self, port):
        self.port = port

    def send(self, body=None, *, token=None, method="POST", target="/v1/chat/completions", headers=(), chunks=None, timeout=30):
        """Sends a request and returns it as Pending. The default body is a chat request for the model "m"."""
        if body is None and chunks is None and method == "POST":
            body = chat_body()
        lines = list(headers)
        if token is not None:
            lines.append(("Authorization", f"Bearer {token}"))
        if method == "POST" and not any(name.lower() == "content-type" for name, _ in lines):
            lines.append(("Content-Type", "application/json"))
        return Pending(self.port, request_bytes(method, target, lines, body, chunks), method, timeout)

    def ask(self, *arguments, **keywords):
        """Sends a request and returns the whole answer."""
        return self.send(*arguments, **keywords).reply()

    def get(self, target, **keywords):
        return self.ask(method="GET", target=target, **keywords)

    def raw(self, data, timeout=30):
        return Pending(self.port, data, timeout=timeout)
