"""Starts llm-engine (and redis-server) for the tests; every test leaves nothing behind."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

DEADLINE = 30.0


def find_engine():
    """The program: $LLM_ENGINE, or the newest build."""
    named = os.environ.get("LLM_ENGINE")
    if named:
        return named
    root = pathlib.Path(__file__).resolve().parents[2]
    built = sorted(root.glob("build/*/llm-engine"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.skip("llm-engine is not built")
    return str(built[-1])


def wait_for(condition, what, deadline=DEADLINE):
    """Polls until `condition()` gives something true and returns it."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.01)
    raise AssertionError(f"timed out: {what}")


class Engine:
    """One running llm-engine."""

    def __init__(self, log_path, *options):
        self.log_path = log_path
        self.log = open(log_path, "w+")
        self.process = subprocess.Popen(
            [find_engine(), "--listen", "127.0.0.1:0", *options], stderr=self.log, stdout=subprocess.DEVNULL
        )
        self.port = int(wait_for(self._port, "the engine listens"))

    def _port(self):
        if self.process.poll() is not None:
            raise AssertionError("llm-engine ended: " + self.output())
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.output())
        return found and found.group(1)

    def output(self):
        return pathlib.Path(self.log_path).read_text()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body as JSON if it is)"""
        connection = self.connect()
        try:
            data = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            text = response.read()
            kind = response.getheader("content-type", "")
            return response.status, response.headers, json.loads(text) if text and kind == "application/json" else text
        finally:
            connection.close()

    def chat(self, content="hi", **fields):
        headers = fields.pop("headers", None)
        body = {"model": "sim", "messages": [{"role": "user", "content": content}], **fields}
        return self.request("POST", "/v1/chat/completions", body, headers)

    def metric(self, name):
        text = self.request("GET", "/metrics")[2].decode()
        found = re.search(rf"^vllm:{name}{{[^}}]*}} (\S+)$", text, re.M)
        assert found, f"no metric {name}"
        return float(found.group(1))

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.log.close()
        return self.process.returncode


@pytest.fixture
def start_engine(tmp_path):
    """
    start_engine(options…) -> Engine with the sim backend, or with a model directory when `model` names one; all are
    stopped, and must end with status 0.
    """
    engines = []

    def start(*options, sim="base=2,sequence=0,context=0,prefill=0", model=None):
        chosen = ["--model", model] if model else ["--backend", "sim", "--model", "sim", "--sim", sim]
        engine = Engine(str(tmp_path / f"engine{len(engines)}.log"), *chosen, *options)
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        status = engine.stop()
        assert status == 0, engine.output()
        assert "Sanitizer" not in engine.output(), engine.output()


class Redis:
    def __init__(self, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory = directory
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "redis answers")

    def _answers(self):
        try:
            return self.command("PING") == "PONG"
        except OSError:
            return False

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    @staticmethod
    def encode(*words):
        data = f"*{len(words)}\r\n".encode()
        for word in words:
            word = word.encode()
            data += b"$%d\r\n%s\r\n" % (len(word), word)
        return data

    @classmethod
    def read(cls, stream):
        line = stream.readline().decode().rstrip("\r\n")
        kind, rest = line[0], line[1:]
        if kind == "$":
            return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return [cls.read(stream) for _ in range(int(rest))]
        return int(rest) if kind == ":" else rest

    def command(self, *words):
        with self.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(self.encode(*words))
            return self.read(stream)

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


@pytest.fixture
def redis(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis(str(tmp_path))
    yield server
    if server.process.poll() is None:
        server.stop()
