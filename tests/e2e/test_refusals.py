"""Every error that a request alone can cause, with its exact object and headers."""

import gzip
import json

import pytest

from support.client import chat_body, request_bytes
from support.errors import assert_error
from support.fake_engine import error
from support.users import user


def ask(gate, body, **keywords):
    return gate.client.ask(body if isinstance(body, bytes) else json.dumps(body).encode(), token="alice", **keywords)


NOT_JSON = [b"{", b"model=m", b'{"model":"m"', b'{"model":"m"}x', b'["m"]', b'"m"', b"null", b"{'model':'m'}",
            b'{"model":"m",}', b'{"model":"m"}{"model":"m"}', b'\xff\xfe{"model":"m"}', b'{"model":"m","x":1e}']


@pytest.fixture
def gate(fake_engine, gateway):
    """A gateway whose engine must see nothing of what the test sends."""
    engine = fake_engine()
    yield gateway([engine])
    assert engine.requests == []


def test_not_json(gate):
    for body in NOT_JSON:
        reply = ask(gate, body)
        assert reply.status == 400, body
        assert_error(reply, 400, "invalid_json")


CONTROL_KEYS = [
    ("model", b'{"model":"m","model":"m"}'),
    ("model", b'{"model":"m","mod\\u0065l":"other"}'),
    ("stream", b'{"model":"m","stream":true,"stream":false}'),
    ("model", b'{"model":5}'),
    ("model", b'{"model":["m"]}'),
    ("stream", b'{"model":"m","stream":"true"}'),
    ("stream", b'{"model":"m","stream":1}'),
    ("priority", b'{"model":"m","priority":"high"}'),
    ("max_tokens", b'{"model":"m","max_tokens":"10"}'),
    ("max_completion_tokens", b'{"model":"m","max_completion_tokens":true}'),
    ("max_output_tokens", b'{"model":"m","max_output_tokens":{}}'),
    ("n", b'{"model":"m","n":"2"}'),
    ("routing-mode", b'{"model":"m","routing-mode":7}'),
    ("routing-mode", b'{"model":"m","routing-mode":"public"}'),
]


def test_control_keys_of_the_wrong_form(gate):
    for key, body in CONTROL_KEYS:
        reply = ask(gate, body)
        assert reply.status == 400, body
        assert_error(reply, 400, "invalid_json", param=key)


def test_a_limit_below_zero_is_the_engines_business(fake_engine, gateway):
    """No limit to llama.cpp, whose clients write it so; what others think of it they say themselves."""
    engine = fake_engine()
    gate = gateway([engine])
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        body = chat_body(**{key: -1})
        assert gate.client.ask(body, token="alice").status == 200
        assert engine.requests[-1].body == body
    assert_error(gate.client.ask(chat_body(n=-1), token="alice"), 400, "invalid_json", param="n")


@pytest.mark.parametrize("body", [b"{}", b'{"model":""}', b'{"model":null}', b'{"messages":[{"model":"m"}]}'])
def test_model_required(gate, body):
    assert_error(ask(gate, body), 404, "model_required")


def test_no_body(gate):
    data = request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")])
    assert_error(gate.client.raw(data).reply(), 404, "model_required")
    assert_error(ask(gate, b""), 404, "model_required")
    assert_error(gate.client.get("/v1/files", token="alice"), 404, "model_required")


def test_model_not_found(gate):
    unknown = ask(gate, chat_body("unheard-of"))
    assert_error(unknown, 404, "model_not_found")
    # no engine can have a name of so many bytes, which makes no other answer
    assert [ask(gate, chat_body("x" * length)).body for length in (255, 256, 100_000)] == [unknown.body] * 3
    # a name with everything that could break the object or a header
    assert_error(ask(gate, chat_body('"\\\r\nx: y\u2028\x00é')), 404, "model_not_found")


def test_priority_in_the_log(gate):
    """That of the client, also where it was refused; none where nothing was to be dispatched."""
    assert ask(gate, chat_body("unheard-of")).status == 404
    assert gate.client.get("/v1/models", token="alice").status == 200
    assert [line["priority"] for line in gate.access_log(2)] == ["5", ""]


def test_model_not_allowed(fake_engine, gateway):
    engine = fake_engine(["m", "other"])
    gate = gateway([engine], [user("alice", models=["other"]), user("bob", models=[]), user("carol", models="m,other")])
    assert_error(ask(gate, chat_body("m")), 403, "model_not_allowed")
    assert ask(gate, chat_body("other")).status == 200
    assert gate.client.ask(token="bob").status == 200
    assert gate.client.ask(token="carol").status == 200


def test_body_too_large_by_its_length(gate):
    # nginx refuses by the header alone: nothing is read, the token is not looked at
    data = request_bytes("POST", "/v1/chat/completions", [("Content-Length", str(9 << 20))])
    assert_error(gate.client.raw(data).reply(), 413, "body_too_large")


def test_body_too_large_while_it_arrives(gate):
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice"),
                                                                            ("Transfer-Encoding", "chunked")]))
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    try:
        for _ in range(9):
            pending.send(chunk)
    except OSError:
        pass  # refused before we were done
    assert_error(pending.reply(), 413, "body_too_large")


def test_content_encoding(gate):
    body = gzip.compress(chat_body())
    assert_error(ask(gate, body, headers=[("Content-Encoding", "gzip")]), 415, "unsupported_encoding")


def test_order_of_the_checks(gate):
    assert_error(gate.client.ask(b"{", token="nobody"), 401, "invalid_api_key")
    assert_error(ask(gate, b'{"model":"","stream":7}'), 400, "invalid_json", param="stream")


def test_no_engine_when_none_is_ready(redis_server, fake_engine, gateway):
    engine = fake_engine()
    engine.announce(redis_server.url, state="failed")
    gate = gateway(http=f"llm_redis {redis_server.url};")
    gate.wait_metric("llm_engine_up")
    assert_error(ask(gate, chat_body()), 503, "no_engine")
    assert engine.connections == 0


def test_engine_error_when_attempts_are_used_up(fake_engine, gateway):
    engine = fake_engine(script=lambda exchange: exchange.reset())
    gate = gateway([engine])
    assert_error(ask(gate, chat_body()), 502, "engine_error")
    gate.wait_outcomes({"engine_error": 1})


def test_engine_error_when_nothing_listens(fake_engine, gateway):
    engine = fake_engine()
    engine.stop_listening()
    gate = gateway([engine])
    assert_error(ask(gate, chat_body()), 502, "engine_error")


def test_engine_timeout(fake_engine, gateway):
    engine = fake_engine()
    engine.hold()
    gate = gateway([engine], location="proxy_read_timeout 300ms;")
    assert_error(ask(gate, chat_body()), 504, "engine_timeout")
    assert len(engine.requests) == 1, "a timeout is not repeated"
    gate.wait_outcomes({"timeout": 1})


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_an_engines_own_error_passes_unchanged(fake_engine, gateway, status):
    engine = fake_engine(script=error(status, [("X-Engine", "yes")]))
    gate = gateway([engine])
    reply = ask(gate, chat_body())
    assert reply.status == status
    assert reply.json() == {"error": {"message": f"engine says {status}", "type": "engine", "code": None}}
    assert reply.header("x-engine") == "yes"
    gate.wait_outcomes({"completed": 1})


def test_denied_by_nginx_is_an_error_object_too(fake_engine, gateway):
    gate = gateway([fake_engine()], location="deny all;")
    reply = ask(gate, chat_body())
    assert reply.status == 403
    assert reply.header("content-type") == "application/json"
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_error_page_works_on_refusals(fake_engine, gateway):
    gate = gateway([fake_engine()], location="error_page 401 = @door;",
                   locations='location @door { default_type text/plain; return 200 "the door\\n"; }')
    reply = gate.client.ask(token="nobody")
    assert (reply.status, reply.body) == (200, b"the door\n")
    assert reply.header("www-authenticate") is None


def test_head_of_a_refusal_has_no_body(gate):
    reply = gate.client.ask(method="HEAD", target="/v1/models")
    assert reply.status == 401
    assert reply.body == b""
