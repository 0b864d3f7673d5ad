"""Who may ask: bearer tokens, and what happens to those without one."""

import pytest

from support.client import chat_body, request_bytes
from support.errors import assert_error
from support.users import user

REFUSED = {
    "no header": [],
    "no scheme": [("Authorization", "alice")],
    "scheme alone": [("Authorization", "Bearer")],
    "scheme and space": [("Authorization", "Bearer ")],
    "another scheme": [("Authorization", "Basic YWxpY2U6")],
    "unknown token": [("Authorization", "Bearer nobody")],
    "prefix of a token": [("Authorization", "Bearer alic")],
    "token and more": [("Authorization", "Bearer alicex")],
    "two words": [("Authorization", "Bearer alice alice")],
    "another case": [("Authorization", "Bearer ALICE")],
    "empty header": [("Authorization", "")],
}


def test_refused_tokens_never_reach_an_engine(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    for name, headers in REFUSED.items():
        reply = gate.client.ask(headers=headers)
        assert reply.status == 401, name
        assert_error(reply, 401, "invalid_api_key")
    assert engine.connections == 0
    gate.wait_outcomes({"rejected_invalid_api_key": len(REFUSED)})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_case_insensitive(fake_engine, gateway, scheme):
    gate = gateway([fake_engine()])
    assert gate.client.ask(headers=[("Authorization", f"{scheme} alice")]).status == 200


def test_two_authorization_headers_are_refused(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    reply = gate.client.ask(headers=[("Authorization", "Bearer alice"), ("Authorization", "Bearer nobody")])
    assert reply.status in (400, 401)
    assert engine.connections == 0


def test_expired_and_disabled_tokens(fake_engine, gateway):
    engine = fake_engine()
    users = [user("past", expires_at="2020-01-01T00:00:00Z"), user("future", expires_at="2999-01-01T00:00:00Z"),
             user("off", disabled=True), user("on", disabled=False)]
    gate = gateway([engine], users)
    assert_error(gate.client.ask(token="past"), 401, "invalid_api_key")
    assert_error(gate.client.ask(token="off"), 401, "invalid_api_key")
    assert gate.client.ask(token="future").status == 200
    assert gate.client.ask(token="on").status == 200
    assert len(engine.requests) == 2


def test_token_stored_as_hash(fake_engine, gateway):
    # printf secret | sha256sum
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    row = user("unused", token_sha256=digest, name="hashed")
    del row["token"]
    gate = gateway([fake_engine()], [row])
    assert gate.client.ask(token="secret").status == 200
    assert_error(gate.client.ask(token=digest), 401, "invalid_api_key")


def test_open_access_without_clients(fake_engine, gateway):
    gate = gateway([fake_engine()], users=None)
    assert gate.client.ask().status == 200


def test_refusal_does_not_wait_for_the_body(fake_engine, gateway):
    gate = gateway([fake_engine()])
    head = request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer nobody"), ("Content-Length", "1000000")])
    assert_error(gate.client.raw(head).reply(), 401, "invalid_api_key")


def test_expect_continue_is_answered_by_the_refusal(fake_engine, gateway):
    gate = gateway([fake_engine()])
    body = chat_body()
    head = [("Authorization", "Bearer nobody"), ("Expect", "100-continue"), ("Content-Length", str(len(body)))]
    pending = gate.client.raw(request_bytes("POST", "/v1/chat/completions", head))
    start, _ = pending._reader.head()
    assert start.split()[1] == "401"
    pending.close()


def test_token_is_in_no_log_and_no_metric(fake_engine, gateway):
    secret = "sk-very-secret-0123456789"
    gate = gateway([fake_engine()], [user(secret, name="holder")])
    assert gate.client.ask(token=secret).status == 200
    assert_error(gate.client.ask(token=secret + "x"), 401, "invalid_api_key")
    texts = [str(gate.access_log(2)), gate.error_log(), gate.metrics().text, str(gate.status())]
    assert not any(secret in text for text in texts)
    assert "holder" in texts[0]


def test_options_without_a_token_passes(fake_engine, gateway):
    engine = fake_engine(script=lambda exchange: exchange.head(204, [("Access-Control-Allow-Origin", "*")]))
    gate = gateway([engine])
    reply = gate.client.ask(method="OPTIONS", headers=[("Origin", "https://chat.example"),
                                                       ("Access-Control-Request-Method", "POST")])
    assert reply.status == 204
    assert reply.header("access-control-allow-origin") == "*"
    assert engine.requests[0].method == "OPTIONS"
    gate.wait_outcomes({"completed": 1})


def preflight(exchange):
    exchange.head(204, [("Access-Control-Allow-Origin", "*")])


def test_options_passes_where_nobody_needs_a_token(fake_engine, gateway):
    engine = fake_engine(script=preflight)
    gate = gateway([engine], users=None)
    for target in ("/v1/chat/completions", "/v1/models"):
        assert gate.client.ask(method="OPTIONS", target=target, headers=[("Origin", "https://chat.example")]).status == 204
    assert [request.method for request in engine.requests] == ["OPTIONS"] * 2
    gate.wait_outcomes({"completed": 2})


def test_options_goes_on_to_another_engine(fake_engine, gateway):
    bad, good = fake_engine(script=lambda exchange: exchange.reset()), fake_engine(script=preflight)
    gate = gateway([bad, good])
    asked = 0
    while not bad.requests:
        assert gate.client.ask(method="OPTIONS").status == 204
        asked += 1
    assert len(good.requests) == asked
    assert gate.access_log(asked)[-1]["attempts"] == "2"
    gate.wait_outcomes({"completed": asked})


def test_options_with_no_answer(fake_engine, gateway):
    """As many attempts as other requests have; silence is not tried twice."""
    engines = [fake_engine(script=lambda exchange: exchange.reset()) for _ in range(3)]
    gate = gateway(engines)
    assert_error(gate.client.ask(method="OPTIONS"), 502, "engine_error")
    assert sum(len(engine.requests) for engine in engines) == 2
    gate.wait_outcomes({"engine_error": 1})
    for engine in engines:
        engine.hold()
    gate.blocks["location"] = "proxy_read_timeout 300ms;"
    gate.reload()
    assert_error(gate.client.ask(method="OPTIONS"), 504, "engine_timeout")
    assert sum(len(engine.requests) for engine in engines) == 3
    gate.wait_outcomes({"engine_error": 1, "timeout": 1})
