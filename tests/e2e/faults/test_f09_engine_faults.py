"""F9: engines that die, hang or talk nonsense, real and scripted: before the first byte one more attempt, after it an honest end."""

import json
import os
import signal
import time

import pytest

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.users import user


def long_answer(**more):
    return chat_body("sim", max_tokens=100000, stream=True, **more)


def test_killed_in_the_stream(llm_engine, gateway):
    """A real engine, SIGKILL: its streams end with an error event and without the final chunk; new requests are honest failures."""
    engine = llm_engine(sim=True)
    gate = gateway(users=[user("alice", threshold=100)], http=f"llm_engine {engine.url} model=sim max_running=4;")
    pending = [gate.client.send(long_answer(), token="alice") for _ in range(4)]
    for one in pending:
        next(one.parts())
    engine.kill()
    for one in pending:
        reply = one.reply()
        assert not reply.complete, "a truncated answer looks complete"
        assert json.loads(reply.events()[-1])["error"]["code"] == "engine_error"
    invariants.check(gate, expected={"engine_error": 4}, probed=False)


def test_killed_with_another_to_take_over(llm_engine, gateway):
    """What runs on the dead one ends honestly; what waits and what comes is served by the other, and none is lost."""
    engines = [llm_engine(sim=True, arguments=["--sim", "base=1,sequence=0,context=0,prefill=0.001,reply=5"]) for _ in range(2)]
    gate = gateway(users=[user("alice", threshold=100)],
                   http="\n    ".join(f"llm_engine {engine.url} model=sim max_running=16;" for engine in engines))
    engines[0].kill()
    replies = [gate.client.send(chat_body("sim"), token="alice") for _ in range(12)]
    assert [one.reply().status for one in replies] == [200] * 12
    invariants.check(gate, expected={"completed": 12}, body=chat_body("sim"))


def test_hangs_before_the_head(llm_engine, gateway):
    """SIGSTOP: the kernel still accepts connections for it, and nothing ever comes."""
    engine = llm_engine(sim=True)
    gate = gateway(users=[user("alice", threshold=100)], http=f"llm_engine {engine.url} model=sim max_running=4;",
                   location="proxy_read_timeout 500ms;")
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        reply = gate.client.ask(chat_body("sim"), token="alice")
        assert (reply.status, reply.json()["error"]["code"]) == (504, "engine_timeout")
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    body = chat_body("sim", max_tokens=3)
    assert gate.client.ask(body, token="alice").status == 200
    invariants.check(gate, expected={"timeout": 1, "completed": 1}, body=body)


def chunked(payload):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + payload


GARBAGE = {
    "nothing": b"", "noise": bytes(range(256)) * 8, "http 0.9": b"hello\n", "smtp": b"220 mail ready\r\n",
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x28", "status only": b"HTTP/1.1 200", "status text": b"HTTP/1.1 abc OK\r\n\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100000,
    "NUL in a header": b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_for_a_head(fake_engine, gateway, name):
    """One attempt elsewhere, and the client never sees a byte of it."""
    def script(exchange):
        exchange.send(GARBAGE[name])
        exchange.fin()

    bad, good = fake_engine(script=script), fake_engine()
    gate = gateway([bad, good], http="llm_routing round_robin;")
    gate.allow(r"\[crit\].*upstream")
    for _ in range(4):
        reply = gate.client.ask(token="alice")
        assert reply.status == 200 and reply.text() == "hello from the engine", (reply.status, reply.body[:100])
    assert bad.requests, "the engine was never tried"
    assert len(bad.requests) <= 4
    invariants.check(gate, expected={"completed": 4})


BROKEN_BODIES = {
    "early end": b"20\r\n{\"choices\":", "bad chunk size": b"xyz\r\n{}\r\n0\r\n\r\n", "negative chunk": b"-5\r\n{}\r\n",
    "huge chunk": b"fffffffffffffffffff\r\n{}", "chunk too long": b"1\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("buffering", ["off", "on"])
@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_broken_body(fake_engine, gateway, name, buffering):
    """After the first byte nothing is repeated, and the end does not look like one."""
    def script(exchange):
        exchange.send(chunked(BROKEN_BODIES[name]))
        exchange.fin()

    bad = fake_engine(script=script)
    gate = gateway([bad], location=f"proxy_buffering {buffering};")
    pending = gate.client.send(token="alice")
    try:
        reply = pending.reply()
        assert not (reply.status == 200 and reply.complete), "a broken answer looks complete"
        status = reply.status
    except ConnectionError:
        status = None
    assert status in (None, 200, 502)
    gate.wait_outcomes({"engine_error": 1})
    bad.script = answer
    invariants.check(gate, expected={"engine_error": 1})


def test_connection_refused_then_back(fake_engine, gateway):
    """An engine that comes back is used again without anybody's help."""
    engine = fake_engine()
    gate = gateway([engine], location="llm_queue_timeout 2s;")
    engine.die()
    statuses = [gate.client.ask(token="alice").status for _ in range(5)]
    assert set(statuses) <= {502, 503}
    engine.start()
    start = time.monotonic()
    until(lambda: gate.client.ask(token="alice").status == 200, "the engine is used again", 15)
    assert time.monotonic() - start < 15
    invariants.check(gate)
