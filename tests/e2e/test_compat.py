"""llm_compat aristote: the exact answers of Aristote Dispatcher, for clients written against it."""

import json

import pytest

from support.client import chat_body
from support.users import user

ON = "llm_compat aristote;"


@pytest.fixture
def gate(fake_engine, gateway):
    engine = fake_engine()
    yield gateway([engine], location=ON)
    assert engine.requests == []


@pytest.mark.parametrize("headers,answer", [
    ([], "No token provided"),
    ([("Authorization", "alice")], "Invalid token"),
    ([("Authorization", "bearer alice")], "Invalid token"),
    ([("Authorization", "Bearer alice alice")], "Invalid token"),
    ([("Authorization", "Bearer nobody")], "Unauthorized"),
])
def test_tokens(gate, headers, answer):
    reply = gate.client.ask(headers=headers)
    assert (reply.status, reply.json()) == (401, {"error": answer})


@pytest.mark.parametrize("body,status,answer", [
    (b"{", 400, {"error": "Invalid JSON Body"}),
    (b"{}", 404, {"object": "error", "message": "No model specified.", "type": "NotFoundError"}),
    (b'{"model":""}', 404, {"object": "error", "message": "No model specified.", "type": "NotFoundError"}),
    (chat_body("none"), 404, {"object": "error", "error": "Unknown model"}),
    (b'{"model":"m","routing-mode":"public"}', 400,
     {"object": "error", "message": "local priority model: public not recognized: must either be 'any', 'private-first' or 'private-only'"}),
])
def test_bodies(gate, body, status, answer):
    reply = gate.client.ask(body, token="alice")
    assert (reply.status, reply.json()) == (status, answer)


def test_unknown_id(gate):
    reply = gate.client.get("/v1/models/some/model", token="alice")
    assert (reply.status, reply.json()) == (404, {"object": "error", "message": "model some/model not found", "type": "NotFoundError"})


@pytest.mark.parametrize("client_type,status", [(None, 503), ("chat", 200)])
def test_too_many_people(fake_engine, gateway, client_type, status):
    """Scope queue, and refused when the depth exceeds the threshold: with threshold 1 a second one may wait."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=1, client_type=client_type)], location=ON)
    pending = [engine.occupy(gate.client, token="alice")]
    for number in (1, 2):
        pending.append(gate.client.send(token="alice"))
        gate.wait_queued(number)
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.json()) == (status, {"error": "Too many people using the service"})
    engine.open_gate()
    assert all(one.reply().status == 200 for one in pending)


@pytest.mark.parametrize("client_type,status", [(None, 503), ("chat", 200)])
def test_busy_model(redis_server, fake_engine, gateway, client_type, status):
    fake_engine().announce(redis_server.url, state="failed")
    gate = gateway(users=[user("alice", client_type=client_type)], http=f"llm_redis {redis_server.url};", location=ON)
    gate.wait_metric("llm_engine_up")
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.json()) == (status, {"error": "m is busy, try again later"})


def test_an_engines_error_keeps_its_status(fake_engine, gateway):
    def script(exchange):
        exchange.json({"error": {"message": "no"}}, 422)

    gate = gateway([fake_engine(script=script)], location=ON)
    reply = gate.client.ask(token="alice")
    assert (reply.status, json.loads(reply.body)) == (422, {"error": {"message": "no"}})
