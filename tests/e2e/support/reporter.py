"""llm-reporter processes, and a stand-in for an engine's own endpoints: pages that a test changes."""

import http.server
import json
import re
import signal
import socket
import ssl
import threading

from . import jitter
from .llmctl import environment
from .paths import BUILD, ROOT
from .poll import until
from .ports import free_port
from .process import Process

REPORTER = BUILD / "llm-reporter"
ENDPOINTS = ROOT / "tests" / "golden" / "engine_endpoints"


class Pages:
    """An HTTP server on a port of its own; `pages` maps paths to text, (status, text), or a function that gives one of them.

    With `certificate`, a pair of files, it speaks https.
    """

    def __init__(self, pages, certificate=None):
        self.pages = dict(pages)
        self.asked = []
        self._open = set()
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._certificate = certificate
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer._open.add(self.connection)

            def finish(self):
                outer._open.discard(self.connection)
                super().finish()

            def do_GET(self):
                outer.asked.append(self.path)
                page = outer.pages.get(self.path, (404, '{"detail":"Not Found"}'))
                page = page() if callable(page) else page
                status, text = page if isinstance(page, tuple) else (200, page)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the reporter or stop() has closed

            def log_message(self, *arguments):
                pass

        self._handler = Handler
        self._server = None
        self.start()

    def start(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for connection in list(self._open):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself


class Reporter:
    def __init__(self, log, *, engine, url, redis, arguments=(), env=None):
        self.log = log
        self._process = Process([REPORTER, "--engine", engine, "--url", url, "--redis", redis, "--interval", "0.1", *arguments], log,
                                env={**environment(), **jitter.environment(), **(env or {})})

    def output(self):
        return self.log.read_text(errors="replace")

    def wait_said(self, pattern, seconds=15):
        until(lambda: re.search(pattern, self.output()), lambda: f"{pattern!r} in:\n{self.output()}", seconds)

    def stop(self, number=signal.SIGTERM):
        return self._process.stop(number)

    def finish(self):
        """Ends it well, whatever the test has done."""
        assert self._process.stop() == 0, self.output()
        assert "Sanitizer" not in self.output(), self.output()


def report_of(redis_server, engine):
    """The report that stands in Redis, or None."""
    text = redis_server.client.get(f"llm:engine:{engine}")
    return text and json.loads(text)
