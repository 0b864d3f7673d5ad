"""An engine whose every answer a test decides, and which remembers every byte it was sent.

A script is a function of one Exchange. The scripts here cover the usual cases; a test may write its own.
"""

import collections
import dataclasses
import itertools
import json
import math
import socket
import ssl
import threading
import time

import redis

from .poll import until
from .ports import free_port
from .wire import Incomplete, Reader, peer_closed, reset, value_of


@dataclasses.dataclass
class Request:
    method: str
    target: str
    headers: list
    body: bytes
    raw: bytes         # head and body as received
    connection: int    # number of the connection, from 1
    arrived: float     # monotonic

    def header(self, name):
        return value_of(self.headers, name)

    def json(self):
        return json.loads(self.body)

    def content(self):
        """The text of the last chat message: tests mark their requests with it."""
        return self.json()["messages"][-1]["content"]


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, engine, request, sock):
        self.engine = engine
        self.request = request
        self.socket = sock
        self.closed = False

    def send(self, data):
        self.socket.sendall(data)

    def head(self, status=200, headers=(), reason="Reason"):
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def body(self, status, data, headers=()):
        """A whole answer with Content-Length, in one write."""
        lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(data)}"]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data)

    def json(self, value, status=200, headers=()):
        self.body(status, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])

    def stream_head(self, headers=()):
        self.head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"), *headers])

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        self.chunk(f"data: {data}\n\n".encode())

    def end(self):
        self.send(b"0\r\n\r\n")

    def reset(self):
        """Ends the connection with RST."""
        self.closed = True
        reset(self.socket)

    def fin(self):
        """Ends the connection with FIN."""
        self.closed = True
        self.socket.close()

    def gone(self):
        return self.closed or peer_closed(self.socket)

    def wait_gone(self, seconds=10):
        until(self.gone, "the gateway closes its connection to the engine", seconds)


def answer(exchange, text="hello from the engine", prompt_tokens=7):
    """A chat answer of one token per word, streamed if the request says so."""
    request = exchange.request.json() if exchange.request.body else {}
    words = text.split(" ")
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(words), "total_tokens": prompt_tokens + len(words)}
    base = {"id": "chatcmpl-1", "created": 1, "model": request.get("model", "m")}
    if not request.get("stream"):
        message = {"role": "assistant", "content": text}
        exchange.json({**base, "object": "chat.completion", "usage": usage,
                       "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        return
    exchange.stream_head()
    for position, word in enumerate(words):
        content = word if position == 0 else " " + word
        exchange.event({**base, "object": "chat.completion.chunk",
                        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]})
    exchange.event({**base, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        exchange.event({**base, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    exchange.event("[DONE]")
    exchange.end()


def error(status, headers=()):
    """A script that answers with an engine's own error."""
    def script(exchange):
        exchange.json({"error": {"message": f"engine says {status}", "type": "engine", "code": None}}, status, headers)
    return script


class FakeEngine:
    def __init__(self, models=("m",), *, name=None, max_running=64, script=answer, address=None):
        """`address`: (host, port) to listen on instead of a free port of 127.0.0.1."""
        self.models = list(models)
        self.max_running = max_running
        self.script = script
        self._host, self.port = address or ("127.0.0.1", free_port())
        self.name = name or f"fake-{self.port}"
        self.url = f"http://{self._host}:{self.port}"
        self.requests = []     # in the order in which they were completely received
        self.connections = 0
        self.exchanges = []    # those being answered
        self.completed = 0
        self._gate = threading.Condition()
        self._passes = 0       # requests that hold() may let through
        self._lock = threading.Lock()
        self._open = set()
        self._listener = None
        self._reporter = None
        self._tls = None
        self.problems = collections.deque()  # exceptions of scripts; the fixture asserts that there were none

    # ------------------------------------------------------------------------------------------------- server

    def start(self):
        self._listener = socket.create_server((self._host, self.port), backlog=1024)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def serve_tls(self, certificate, key):
        """Connections from now on speak TLS."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)

    def stop_listening(self):
        """New connections are refused from now on; open ones go on."""
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def die(self):
        """What SIGKILL of an engine looks like from outside."""
        self.stop_listening()
        with self._lock:
            sockets = list(self._open)
        for sock in sockets:
            try:
                reset(sock)
            except OSError:
                pass

    def stop(self):
        if self._reporter:
            self._reporter.stop()
        self.release(math.inf)
        self.die()

    def _accept(self, listener):
        for number in itertools.count(1):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections = number
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                return  # it was no TLS, or the gateway has closed
        with self._lock:
            self._open.add(sock)
        reader = Reader(sock)
        try:
            while True:
                request = self._read(reader, number)
                exchange = Exchange(self, request, sock)
                with self._lock:
                    self.requests.append(request)
                    self.exchanges.append(exchange)
                try:
                    self.script(exchange)
                    self.completed += 1
                finally:
                    with self._lock:
                        self.exchanges.remove(exchange)
                if exchange.closed or (request.header("connection") or "").lower() == "close":
                    return
        except (Incomplete, OSError):
            pass  # the gateway closed, or the test broke the connection
        except Exception as problem:  # a script's mistake must fail the test, not vanish with its thread
            self.problems.append(problem)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    @staticmethod
    def _read(reader, number):
        reader.reset_raw()
        start, headers = reader.head()
        method, target, _ = start.split(" ")
        if value_of(headers, "transfer-encoding") == "chunked":
            body = b""
            while chunk := reader.chunk():
                body += chunk
        else:
            body = reader.exactly(int(value_of(headers, "content-length") or 0))
        return Request(method, target, headers, body, reader.reset_raw(), number, time.monotonic())

    # ---------------------------------------------------------------------------------------- what tests steer

    def hold(self, then=answer):
        """From now on requests wait until release(), then `then` answers them. A request whose gateway goes away is dropped."""
        def script(exchange):
            while not self._let_through():
                if exchange.gone():
                    raise Incomplete
            then(exchange)
        with self._gate:
            self._passes = 0   # what an earlier one has not used
        self.script = script

    def occupy(self, client, *request, **keywords):
        """Takes a seat until release() or open_gate(): client.send(*request, **keywords), which is returned once it has come and is held."""
        self.hold()
        seen = len(self.requests)
        pending = client.send(*request, **keywords)
        self.wait_requests(seen + 1)
        return pending

    def _let_through(self):
        with self._gate:
            if not self._gate.wait_for(lambda: self._passes, 0.01):
                return False
            self._passes -= 1
            return True

    def release(self, count=1):
        with self._gate:
            self._passes += count
            self._gate.notify_all()

    def open_gate(self):
        """Ends hold(): those waiting and those to come are answered."""
        self.script = answer
        self.release(math.inf)

    def wait_requests(self, count, seconds=10):
        until(lambda: len(self.requests) >= count, lambda: f"{count} requests at the engine, {len(self.requests)} came", seconds)
        return self.requests

    def contents(self):
        """The marks of the requests in order of arrival."""
        return [request.content() for request in self.requests]

    # -------------------------------------------------------------------------------------------------- report

    def announce(self, url, **overrides):
        """Reports to Redis from now on, as docs/engine-report.md says; `overrides` replaces fields."""
        self._reporter = Reporter(self, url, overrides)
        self._reporter.start()
        return self._reporter


class Reporter:
    """Writes and publishes the engine's report every 200 ms, and at once when told."""

    def __init__(self, engine, url, overrides, prefix="llm:"):
        self.engine = engine
        self.overrides = dict(overrides)
        self.boot = overrides.get("boot", int(time.time() * 1000))
        self.key = f"{prefix}engine:{overrides.get('id', engine.name)}"
        self.channel = f"{prefix}engines"
        self._redis = redis.Redis.from_url(url, socket_timeout=5)
        self._sequence = itertools.count(1)
        self._started = time.monotonic()
        self._wake = threading.Event()
        self._stop = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.report()
        self._thread.start()

    def fields(self):
        engine = self.engine
        uptime = time.monotonic() - self._started
        return {"v": 1, "id": engine.name, "url": engine.url, "models": engine.models, "state": "ready", "boot": self.boot,
                "seq": next(self._sequence), "ttl_ms": 3000, "max_running": engine.max_running,
                "running": len(engine.exchanges), "waiting": 0, "kv_usage": 0.1, "uptime_s": uptime,
                "tokens_in": engine.completed * 7, "tokens_out": engine.completed * 4, "decode_tokens": engine.completed * 3,
                "user_seconds": engine.completed * 0.1, "completed": engine.completed, "tokens_per_second": 0,
                "tokens_per_second_per_user": 0, **self.overrides}

    def report(self, **overrides):
        """One report now; `overrides` also hold for all later ones."""
        with self._lock:
            self.overrides.update(overrides)
            fields = self.fields()
            text = json.dumps(fields)
            if fields["state"] == "gone":
                self._redis.delete(self.key)
            else:
                self._redis.set(self.key, text, px=max(1, int(fields["ttl_ms"])))
            self._redis.publish(self.channel, text)

    def leave(self):
        """As an engine that stops: gone, key deleted."""
        self.stop()
        self.report(state="gone")

    def _run(self):
        while not self._stop:
            self._wake.wait(0.2)
            if self._stop:
                return
            try:
                self.report()
            except redis.RedisError:
                pass  # a test stopped Redis; the next round tries again

    def stop(self):
        self._stop = True
        self._wake.set()
        self._thread.join()


def leave_to_successor(gate, redis_url, leaving, successor):
    """
    `leaving`, which alice's request holds, says goodbye; `successor` of the same name comes. Returns that request; leaving.open_gate() ends it.
    """
    reporter = leaving.announce(redis_url)
    gate.wait_model("m", "alice")
    leaving.hold()
    running = gate.client.send(token="alice")
    leaving.wait_requests(1)
    reporter.leave()
    until(lambda: gate.status()["engines"][0]["leaving"], "it has left")
    successor.announce(redis_url)
    until(lambda: len(gate.status()["engines"]) == 2, "both are known")
    return running
