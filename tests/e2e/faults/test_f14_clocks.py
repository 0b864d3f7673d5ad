"""F14: the wall clock jumps by hours, and everything stands still for a while: only monotonic time counts, nothing times out in a mass."""

import contextlib
import glob
import os
import signal
import time

import pytest

from support import invariants
from support.client import chat_body
from support import sanitizers
from support.poll import until
from support.process import children_of
from support.users import user


def faketime():
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        pytest.skip("libfaketime is not installed; scripts/deps.sh test installs it")
    if sanitizers.ACTIVE:
        pytest.skip("a program with AddressSanitizer hangs at its start under libfaketime, also when its runtime is loaded first")
    return found[0]


class WallClock:
    """What nginx takes for the time of day."""

    def __init__(self, path):
        self._path = path
        self.environment = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(path), "FAKETIME_NO_CACHE": "1",
                            "DONT_FAKE_MONOTONIC": "1"}
        self.main = "".join(f"env {name};" for name in self.environment)  # nginx clears its environment
        self.jump(0)

    def jump(self, seconds):
        scratch = self._path.with_suffix(".new")
        scratch.write_text(f"{seconds:+d}\n")
        scratch.rename(self._path)


@pytest.mark.parametrize("seconds", [3600, -3600, 60], ids=["an hour ahead", "an hour back", "suspended for a minute"])
def test_wall_clock_jumps(tmp_path, fake_engine, gateway, redis_server, seconds):
    clock = WallClock(tmp_path / "clock")
    engine = fake_engine(max_running=2)
    rows = [user("alice", threshold=100), user("brief", expires_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1800)))]
    gate = gateway(users=rows, env=clock.environment, main=clock.main, http=f"llm_redis {redis_server.url};", location="llm_queue_timeout 20s;")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    engine.hold()
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice") for number in range(12)]
    gate.wait_queued(10)
    date = gate.status()["time"]
    clock.jump(seconds)
    until(lambda: abs(gate.status()["time"] - date - seconds) < 30, "nginx sees the other time")
    beats = len(gate.status()["requests"])
    assert beats == 12 and gate.queued() == 10, "a jump of the clock ended requests"
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 12
    assert engine.contents()[2:] == [f"r{number}" for number in range(2, 12)] or len(set(engine.contents())) == 12
    assert gate.client.ask(token="brief").status == (401 if seconds > 1800 else 200)  # expires_at is a time of day
    metrics = gate.metrics()
    assert metrics.total("llm_queue_wait_seconds_sum") < 600, "a wait was measured by the wall clock"
    assert metrics.total("llm_request_duration_seconds_sum") < 600
    assert metrics.total("llm_engine_up") == 1 and metrics.total("llm_redis_up") == 1
    invariants.check(gate)


@contextlib.contextmanager
def standstill(gate, seconds):
    """All processes of the gateway stop for so long: the fault itself."""
    everybody = [gate.pid, *children_of(gate.pid)]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    yield
    for pid in reversed(everybody):
        os.kill(pid, signal.SIGCONT)


def test_everything_stands_still(fake_engine, gateway):
    """A suspended machine as nginx sees it at its worst: all processes stop for longer than any heartbeat may be late."""
    engine = fake_engine(max_running=2)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=100)])
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice") for number in range(12)]
    gate.wait_queued(10)
    with standstill(gate, 2.5):  # heartbeats are due every 0.25 s, grants live for 2 s
        pass
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 12
    assert len(set(engine.contents())) == len(engine.requests) == 12
    invariants.check(gate, expected={"completed": 12})


def test_standing_still_is_neither_waiting_nor_silence(fake_engine, gateway, redis_server):
    """Longer than requests may wait, and than engines may be silent."""
    engine = fake_engine(max_running=2)
    gate = gateway(users=[user("alice", threshold=100)], http=f"llm_redis {redis_server.url};", location="llm_queue_timeout 5s;")
    reporter = engine.announce(redis_server.url, ttl_ms=450)  # an engine is forgotten after ten such silences
    gate.wait_model("m", "alice")
    engine.hold()
    pending = [gate.client.send(chat_body(content=f"r{number}"), token="alice") for number in range(12)]
    gate.wait_queued(10)
    with standstill(gate, 6):
        reporter.stop()  # nothing tells them at once that the engine is there
    until(lambda: any(name.startswith("llm_") for name in gate.metrics().names()), "nginx runs again")
    engine.open_gate()
    statuses = []
    for one in pending:
        reporter.report()
        statuses.append(one.reply().status)
    assert statuses == [200] * 12
    assert "stopped reporting" not in gate.error_log()
    invariants.check(gate, expected={"completed": 12})
