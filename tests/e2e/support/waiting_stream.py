"""Streams that wait under llm_queue_keepalive, for the tests of it."""

import json
import re

from .client import chat_body
from .fake_engine import answer
from .poll import until
from .users import user
from .wire import Incomplete

EVERY = 60  # ms
QUEUED, PROCESSING = b": queued\n\n", b": processing\n\n"
BODY = chat_body(content="waits", stream=True)


def for_waiting(script):
    """What becomes of a request that has waited; others are answered."""
    return lambda exchange: script(exchange) if exchange.request.content() == "waits" else answer(exchange)


def busy_gateway(fake_engine, gateway, *, users=(user("alice", threshold=50),), every=f"{EVERY}ms", location="", then=answer, **keywords):
    """
    (gateway, engine, running): `running` has the engine's only seat until engine.release() or open_gate(); `then` answers it and
    those that wait behind it.
    """
    engine = fake_engine(max_running=1)
    gate = gateway([engine], users, location=f"llm_queue_keepalive {every}; {location}", **keywords)
    engine.hold(then)
    running = gate.client.send(chat_body(content="first"), token=users[0]["token"])
    engine.wait_requests(1)
    return gate, engine, running


def finish(engine, running):
    """Lets the engine answer everybody."""
    engine.open_gate()
    assert running.reply().status == 200


def wait(gate, body=BODY, token="alice", **keywords):
    return gate.client.send(body, token=token, **keywords)


def bare(received):
    """What has come of a stream, without the comments before its first event."""
    return re.sub(rb"^(: (queued|processing)\n\n)+", b"", received)


def begun(pending, comments=2):
    """Reads the head and so many comments; returns an iterator over what is to come."""
    assert pending.head() == 200
    parts = pending.parts()
    received = b""
    while received.count(QUEUED) < comments:
        received += next(parts)
    assert received == QUEUED * received.count(QUEUED)
    return parts


def rest(parts):
    """(what is still to come, without comments; whether its end was proper)."""
    received = b""
    try:
        for part in parts:
            received += part
    except (Incomplete, ConnectionError):
        return bare(received), False
    return bare(received), True


def assert_whole(parts):
    received, complete = rest(parts)
    assert complete and received.startswith(b"data: ") and received.endswith(b"data: [DONE]\n\n") and b"error" not in received, received
    return received


def the_event(parts):
    """The data of the one event that is to come, before an end that is none."""
    received, complete = rest(parts)
    assert not complete, received
    assert re.fullmatch(rb"data: [^\r\n]+\n\n", received), received
    return json.loads(received[len("data: "):])


def assert_failed(parts, code, kind="server_error"):
    """That event has an error object of the gateway's own; returns it."""
    document = the_event(parts)
    assert set(document) == {"error"} and set(document["error"]) == {"message", "type", "param", "code"}, document
    assert (document["error"]["code"], document["error"]["type"]) == (code, kind) and document["error"]["message"], document
    return document["error"]


def stream_line(gate):
    """The first line of the access log that is of a stream, once there is one."""
    return until(lambda: next((line for line in gate.access_log() if line["stream"] == "1"), None), "the stream is logged")
