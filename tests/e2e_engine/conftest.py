"""Starts llm-engine (and redis-server) for the tests; every test leaves nothing behind."""
import http.client
import json
import re
import signal
import socket

import pytest

from support import jitter
from support.paths import ENGINE
from support.poll import until
from support.process import Process
from support.redis_server import RedisServer

DEADLINE = 30.0


class Engine:
    """One running llm-engine."""

    def __init__(self, log, *options):
        assert ENGINE.exists(), f"{ENGINE} is not built; make build does"
        self.process = Process([ENGINE, "--listen", "127.0.0.1:0", *options], log, env=jitter.environment())
        self.port = int(until(self._port, "the engine listens", DEADLINE))

    def _port(self):
        assert self.process.alive(), "llm-engine ended: " + self.output()
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.output())
        return found and found.group(1)

    def output(self):
        return self.process.output()

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
        """Asks it to finish; returns the exit status."""
        return self.process.stop(signal.SIGTERM, DEADLINE)


@pytest.fixture
def start_engine(tmp_path):
    """
    start_engine(options…) -> Engine with the sim backend, or with a model directory when `model` names one; all are
    stopped, and must end with status 0.
    """
    engines = []

    def start(*options, sim="base=2,sequence=0,context=0,prefill=0", model=None):
        chosen = ["--model", model] if model else ["--backend", "sim", "--model", "sim", "--sim", sim]
        engine = Engine(tmp_path / f"engine{len(engines)}.log", *chosen, *options)
        engines.append(engine)
        return engine

    yield start
    endings = [engine.stop() for engine in engines]
    for engine, status in zip(engines, endings):
        assert status == 0, engine.output()
        assert "Sanitizer" not in engine.output(), engine.output()


class Redis(RedisServer):
    """A private Redis that engines report to."""

    def report(self, engine):
        """What the engine reported last; {} where it has not, or no longer is."""
        return json.loads(self.client.get(f"llm:engine:{engine}") or "{}")


class Announcements:
    """The reports that are published from now on, in their order."""

    def __init__(self, server):
        self._channel = server.client.pubsub()
        self._channel.subscribe("llm:engines")
        assert self._message()["type"] == "subscribe"

    def _message(self):
        message = self._channel.get_message(timeout=DEADLINE)
        assert message, "no report was published"
        return message

    def next(self):
        return json.loads(self._message()["data"])

    def until_gone(self):
        """All of them up to the goodbye."""
        seen = [self.next()]
        while seen[-1]["state"] != "gone":
            seen.append(self.next())
        return seen

    def close(self):
        self._channel.close()


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def announcements(redis):
    heard = Announcements(redis)
    yield heard
    heard.close()
