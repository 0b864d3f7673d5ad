"""Beside nginx's own modules: access rules, authentication, error pages, limits."""

import base64
import json
import re

import pytest

from support.answer_cache import answer_cache
from support.client import chat_body
from support.errors import assert_error
from support.fake_engine import error
from support.poll import until
from support.users import user


def basic(name, password):
    return [("Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())]


@pytest.fixture
def htpasswd(tmp_path):
    path = tmp_path / "htpasswd"
    path.write_text("web:{PLAIN}secret\n")
    return path


def test_satisfy_any_lets_an_address_in_as_the_anonymous_client(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="satisfy any; allow 127.0.0.1; deny all;")
    reply = gate.client.ask(chat_body())
    assert reply.status == 200
    assert gate.client.ask(chat_body(), token="alice").status == 200
    # two workers may write their lines in either order
    assert sorted(entry["client"] for entry in gate.access_log(2)) == ["", "alice"]


def test_satisfy_any_never_excuses_a_wrong_token(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="satisfy any; allow 127.0.0.1; deny all;")
    assert_error(gate.client.ask(chat_body(), token="wrong"), 401, "invalid_api_key")
    assert not engine.requests


def test_satisfy_any_by_token_where_the_address_is_denied(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="satisfy any; deny all;")
    assert gate.client.ask(chat_body(), token="alice").status == 200
    assert gate.client.ask(chat_body()).status == 401


def test_satisfy_any_with_auth_basic(fake_engine, gateway, htpasswd):
    engine = fake_engine()
    gate = gateway([engine], location=f"satisfy any; auth_basic web; auth_basic_user_file {htpasswd};")
    assert gate.client.ask(chat_body(), headers=basic("web", "secret")).status == 200
    assert gate.client.ask(chat_body(), token="alice").status == 200
    assert gate.client.ask(chat_body(), headers=basic("web", "wrong")).status == 401
    assert len(engine.requests) == 2
    assert all(request.header("authorization") is None for request in engine.requests)


def test_access_rules_come_first(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="deny all;")
    assert_error(gate.client.ask(chat_body(), token="alice"), 403, "access_denied")
    assert not engine.requests


def test_auth_request(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="auth_request /permit;",
                   locations="location = /permit { internal; if ($http_x_pass = yes) { return 204; } return 403; }")
    assert gate.client.ask(chat_body(), token="alice", headers=[("X-Pass", "yes")]).status == 200
    assert gate.client.ask(chat_body(), token="alice").status == 403
    assert len(engine.requests) == 1


def test_limit_req_counts_by_client(fake_engine, gateway):
    gate = gateway([fake_engine()], [user("alice"), user("bob")], location="limit_req zone=per_client; limit_req_status 429;",
                   http="limit_req_zone $llm_client zone=per_client:1m rate=1r/m;")
    assert gate.client.ask(chat_body(), token="alice").status == 200
    refused = gate.client.ask(chat_body(), token="alice")
    assert refused.status == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert gate.client.ask(chat_body(), token="bob").status == 200


def test_error_page_to_a_fallback_without_dispatch(fake_engine, gateway):
    local, external = fake_engine(max_running=1), fake_engine()
    local.hold()
    gate = gateway([local], [user("alice", threshold=0)], location="error_page 429 503 = @external;",
                   locations=f"location @external {{ proxy_set_header Authorization 'Bearer their-key'; proxy_pass {external.url}; }}")
    held = gate.client.send(chat_body(), token="alice")
    gate.wait_held(1)
    reply = gate.client.ask(chat_body(), token="alice")
    assert reply.status == 200
    assert reply.header("retry-after") is None, "a header of the refusal survived into the fallback's answer"
    assert external.requests[0].header("authorization") == "Bearer their-key"
    assert external.requests[0].body == chat_body()
    local.open_gate()
    assert held.reply().status == 200


def test_error_page_to_another_model(fake_engine, gateway):
    small = fake_engine(["small"])
    big = fake_engine(["big"], max_running=1)
    big.hold()
    gate = gateway([big, small], [user("alice", threshold=0)], location="error_page 429 = @small;",
                   locations="location @small { llm_dispatch on; llm_model small; proxy_pass http://llm_engines; }")
    held = gate.client.send(chat_body("big"), token="alice")
    gate.wait_held(1)
    reply = gate.client.ask(chat_body("big"), token="alice")
    assert reply.status == 200, reply.body
    assert json.loads(small.requests[0].body)["model"] == "small"
    big.open_gate()
    assert held.reply().status == 200
    gate.wait_held(0)


def test_error_page_of_the_users_own(fake_engine, gateway, tmp_path):
    (tmp_path / "busy.html").write_text("<h1>busy</h1>")
    gate = gateway([fake_engine()], location=f"error_page 401 /busy.html; root {tmp_path};",
                   locations=f"location = /busy.html {{ root {tmp_path}; }}")
    reply = gate.client.ask(chat_body())
    assert reply.status == 401 and reply.body == b"<h1>busy</h1>"


def page_for(gateway, fake_engine, codes):
    """A gateway whose only engine is busy and whose error_page leads to a location that does not dispatch."""
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=0)], location=f"error_page {codes};",
                   locations="location @page { return 200 page; }")
    held = gate.client.send(chat_body(), token="alice")
    gate.wait_held(1)
    return gate, engine, held


def test_headers_of_a_refusal_stay_with_the_users_own_page(fake_engine, gateway):
    """It went without what clients go by when they try again, and without the request's id."""
    gate, engine, held = page_for(gateway, fake_engine, "401 429 @page")
    busy = gate.client.ask(chat_body(), token="alice", headers=[("X-Request-Id", "mine")])
    assert (busy.status, busy.body) == (429, b"page")
    assert 1 <= int(busy.header("retry-after")) <= 60
    assert busy.header("x-ratelimit-limit-requests") == "0"
    assert busy.header("x-request-id") == "mine"
    assert busy.header("x-llm-queue-ms") == "0"
    unknown = gate.client.ask(chat_body(), token="unknown")
    assert (unknown.status, unknown.body) == (401, b"page")
    assert unknown.header("www-authenticate") == "Bearer"
    assert unknown.header("retry-after") is None
    engine.open_gate()
    assert held.reply().status == 200


def test_page_of_another_status_has_no_headers_of_the_refusal(fake_engine, gateway):
    gate, engine, held = page_for(gateway, fake_engine, "401 429 =200 @page")
    for token in ("alice", "unknown"):
        reply = gate.client.ask(chat_body(), token=token)
        assert (reply.status, reply.body) == (200, b"page")
        assert reply.header("retry-after") is None
        assert reply.header("www-authenticate") is None
        assert reply.header("x-request-id")
    engine.open_gate()
    assert held.reply().status == 200


def test_locations_that_only_log_a_client_stay_as_they_are(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="location /plain { add_header X-Client $llm_client; return 200 plain; }")
    reply = gate.client.ask(token="alice", target="/plain")
    assert reply.header("x-client") == "alice"
    assert reply.header("x-request-id") is None


@pytest.mark.parametrize(("head", "body", "status", "outcome"), [
    ("Transfer-Encoding: chunked", b"fff\r\n" + b"x" * 4095 + b"\r\n", 413, "body_too_large"),
    ("Transfer-Encoding: chunked", b"none\r\n", 400, "bad_request"),
    ("Content-Length: 100", b"{", 408, "request_timeout")])
def test_error_page_of_the_users_own_for_a_body(fake_engine, gateway, tmp_path, head, body, status, outcome):
    """They counted as if the client had left."""
    (tmp_path / "page.html").write_text("page")
    gate = gateway([fake_engine()], location="client_max_body_size 1k; client_body_timeout 300ms; error_page 400 408 413 /page.html;",
                   locations=f"location = /page.html {{ root {tmp_path}; }}")
    reply = gate.client.raw(f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n{head}\r\n\r\n".encode() + body).reply()
    assert (reply.status, reply.body) == (status, b"page")
    gate.wait_outcomes({f"rejected_{outcome}": 1})
    gone = gate.client.raw(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Length: 100\r\n\r\n{")
    gone.close()
    gate.wait_outcomes({f"rejected_{outcome}": 1, "cancelled_queued": 1})


def test_refusals_after_the_answer_of_another_upstream(fake_engine, gateway):
    """What led to the location had its own upstream, or an engine of another model had answered first: nginx's page was sent."""
    other = fake_engine(script=lambda exchange: exchange.json({}, headers=[("X-Accel-Redirect", "/v1/chat/completions")]))
    gate = gateway([fake_engine(script=error(500))], location="proxy_intercept_errors on; error_page 500 = @unknown;",
                   locations=f"location /app {{ proxy_pass {other.url}; }}"
                   f"location /old {{ proxy_pass {other.url}; proxy_intercept_errors on; error_page 404 = @engines; }}"
                   "location @engines { llm_dispatch on; proxy_pass http://llm_engines; }"
                   "location @unknown { llm_dispatch on; llm_model unknown; proxy_pass http://llm_engines; }")
    assert_error(gate.client.ask(token="wrong", target="/app"), 401, "invalid_api_key")
    other.script = error(404)
    assert_error(gate.client.ask(chat_body("none"), token="alice", target="/old"), 404, "model_not_found")
    assert_error(gate.client.ask(token="alice"), 404, "model_not_found")


def test_engines_are_reached_only_where_requests_are_dispatched(fake_engine, gateway):
    """Led out of the dispatching location, a request reached its engine without the engine's key."""
    engine = fake_engine()
    gate = gateway(http=f"llm_engine {engine.url} model=m key=secret;", location="try_files /nowhere @engines;",
                   locations="location @engines { proxy_pass http://llm_engines; }")
    assert gate.client.ask(token="alice").status == 500
    gate.wait_logged('reached without "llm_dispatch on"')
    assert not engine.requests


def test_outcome_in_a_trailer_and_after_the_answer(fake_engine, gateway):
    engine, ledger = fake_engine(), fake_engine(script=lambda exchange: exchange.json({}))
    gate = gateway([engine], location="add_trailer X-Outcome $llm_outcome; post_action /ledger;",
                   locations=f"location = /ledger {{ internal; proxy_set_header X-Outcome $llm_outcome; proxy_pass {ledger.url}; }}")
    pending = gate.client.send(chat_body(stream=True), token="alice")
    received = b""
    while not received.endswith(b"0\r\nX-Outcome: completed\r\n\r\n"):
        data = pending.socket.recv(65536)
        assert data, received
        received += data
    assert ledger.wait_requests(1)[0].header("x-outcome") == "completed"
    gate.wait_outcomes({"completed": 1})


def test_subrequests_are_told_apart(fake_engine, gateway, tmp_path):
    (tmp_path / "page.html").write_text('<!--#include virtual="/v1/x" -->')
    gate = gateway([fake_engine()], locations=f"location = /page.html {{ ssi on; root {tmp_path}; }}")
    assert b"500 Internal Server Error" in gate.client.get("/page.html", token="alice").body
    gate.wait_logged(r"subrequest.*cannot be dispatched")


def test_the_gateways_own_pages_inside_another(fake_engine, gateway, tmp_path):
    """The page around them ended with the first of them."""
    (tmp_path / "page.html").write_text('<!--#include virtual="/health/liveness" -->, <!--#include virtual="/llm/status.json" -->, end')
    gate = gateway([fake_engine()], locations=f"location = /page.html {{ ssi on; root {tmp_path}; }}")
    reply = gate.client.get("/page.html")
    assert reply.complete and re.fullmatch(rb"OK, \{.*\}, end", reply.body, re.DOTALL)


def test_observe_refuses_and_queues_nothing(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=0)], location="llm_observe on;")
    pending = [gate.client.send(chat_body(), token="alice") for _ in range(3)]
    engine.wait_requests(3)
    engine.open_gate()
    assert [each.reply().status for each in pending] == [200] * 3
    gate.wait_logged(r"llm_observe: request of \"alice\" would be")
    assert gate.client.ask(chat_body(), token="wrong").status == 401


def shadow_location(engine, more=""):
    return (f"location = /shadow {{ internal; {more} proxy_pass {engine.url}$request_uri; proxy_http_version 1.1; }}")


def test_mirror_does_not_get_the_engines_key(fake_engine, gateway):
    real, shadow = fake_engine(), fake_engine(script=lambda exchange: exchange.json({}))
    gate = gateway([], http=f"llm_engine {real.url} model=m key=sk-engine;", location="mirror /shadow;",
                   locations=shadow_location(shadow))
    assert gate.client.ask(token="alice").status == 200
    request = shadow.wait_requests(1)[0]
    assert request.body == chat_body() and b"authorization" not in request.raw.lower()
    assert real.requests[0].header("authorization") == "Bearer sk-engine"


def test_mirror_of_a_request_that_falls_back(fake_engine, gateway):
    """The mirror was sent the fallback's body, with the length of the first one."""
    other, shadow = fake_engine(["another"]), fake_engine(script=lambda exchange: exchange.json({}))
    gate = gateway([other], http="llm_engine https://127.0.0.1:9 model=real;",
                   location="llm_model real; mirror /shadow; error_page 502 = @other;",
                   locations=shadow_location(shadow) +
                   "location @other { llm_dispatch on; llm_model another; proxy_pass http://llm_engines; }")
    assert gate.client.ask(b'{"model":"m"}', token="alice").status == 200
    assert other.requests[0].body == b'{"model":"another"}'
    assert shadow.wait_requests(1)[0].body == b'{"model":"real"}'


def test_auth_request_and_mirror_in_a_dispatching_server(fake_engine, gateway):
    """Their locations inherit llm_dispatch: the one was asked without any Host, the other with the engine's."""
    judge, shadow = (fake_engine(script=lambda exchange: exchange.json({})) for _ in range(2))
    gate = gateway([fake_engine()], server="llm_dispatch on;", location="auth_request /judge; mirror /shadow;",
                   locations=f"location = /judge {{ internal; proxy_pass {judge.url}; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}"
                   + shadow_location(shadow))
    assert gate.client.ask(token="alice").status == 200
    assert judge.requests[0].header("host") == f"127.0.0.1:{judge.port}"
    assert shadow.wait_requests(1)[0].header("host") == f"127.0.0.1:{shadow.port}"


def test_auth_request_of_a_fallback_sees_the_client(fake_engine, gateway):
    """It saw the key of the engine that had failed, and not the client's token."""
    real, other, judge = fake_engine(script=error(502)), fake_engine(["another"]), fake_engine(script=lambda exchange: exchange.json({}))
    gate = gateway([other], http=f"llm_engine {real.url} model=real key=sk-engine;",
                   location="auth_request /judge; llm_retries 0; proxy_intercept_errors on; error_page 502 = @other;",
                   locations="location @other { auth_request /judge; llm_dispatch on; llm_model another; proxy_pass http://llm_engines; }"
                   f"location = /judge {{ internal; proxy_pass {judge.url}; proxy_pass_request_body off;"
                   "proxy_set_header Content-Length ''; proxy_http_version 1.1; }")
    assert gate.client.ask(chat_body("real"), token="alice", headers=[("x-mark", "1")]).status == 200
    assert len(judge.requests) == 2
    for request in judge.requests:
        assert request.header("authorization") == "Bearer alice" and request.header("x-mark") == "1"
        assert request.header("x-llm-priority") is None
    assert other.requests[0].header("authorization") is None


def test_a_logged_subrequest_counts_nothing(fake_engine, gateway):
    """What its request had come to by then was counted, besides how it ended."""
    real, other = fake_engine(["real"], script=error(502)), fake_engine(["another"])
    gate = gateway([real, other], server="log_subrequest on;",
                   location="llm_retries 0; proxy_intercept_errors on; error_page 502 = @other;",
                   locations="location @other { auth_request /judge; llm_dispatch on; llm_model another; proxy_pass http://llm_engines; }"
                   "location = /judge { internal; return 204; }")
    assert gate.client.ask(chat_body("real"), token="alice").status == 200
    assert len(gate.access_log(2)) == 2
    gate.wait_outcomes({"completed": 1})


def test_blocks_inside_a_handlers_location(fake_engine, gateway):
    """In them the location was none of ours: limit_except answered 404, and after `if` an administrator might change nothing."""
    engine = fake_engine()
    gate = gateway([engine], locations="location /one/ { llm_status admin; limit_except GET { allow 127.0.0.1; deny all; } }"
                   "location /two/ { llm_status admin; if ($http_x_mark) { add_header X-Mark yes; } }"
                   "location /three/ { llm_status readonly; if ($http_x_mark) { add_header X-Mark yes; } }")
    headers = [("x-llm-admin", "1"), ("x-mark", "1")]
    for location, action, status in (("one", "drain", 200), ("two", "undrain", 200), ("three", "drain", 403)):
        reply = gate.client.ask(b"", target=f"/{location}/engines/{engine.name}/{action}", headers=headers)
        assert reply.status == status, (location, reply)
        assert gate.client.get(f"/{location}/status.json", headers=headers).status == 200
    assert gate.client.ask(token="alice").status == 200, "it is undrained"


def test_a_model_does_not_end_a_header(fake_engine, gateway):
    gate = gateway([fake_engine()], location="add_header X-Model $llm_model always;")
    reply = gate.client.ask(chat_body("a\r\nSet-Cookie: x=\x7f"), token="alice")
    assert reply.status == 404
    assert reply.header("x-model") == "a??Set-Cookie: x=?" and reply.header("set-cookie") is None


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_from_nginx_s_cache_costs_no_tokens(fake_engine, gateway, tmp_path, stream):
    engine = fake_engine()
    gate = gateway([engine], **answer_cache(tmp_path))
    body = chat_body(stream=stream, stream_options={"include_usage": True})
    replies = [gate.client.ask(body, token="alice")]
    gate.wait_outcomes({"completed": 1})  # nginx keeps an answer after its client has read it
    replies.append(gate.client.ask(body, token="alice"))
    assert [reply.header("x-cache") for reply in replies] == ["MISS", "HIT"]
    assert replies[0].body == replies[1].body and len(engine.requests) == 1
    gate.wait_outcomes({"completed": 2})
    assert gate.metrics().total("llm_tokens_total") == 11, "those of the first answer"


def test_an_answer_from_nginx_s_cache_keeps_no_seat(fake_engine, gateway, tmp_path):
    """It was kept until the client had closed."""
    gate = gateway([fake_engine()], **answer_cache(tmp_path, more="lingering_timeout 60s; lingering_time 60s;"))
    answers = 1
    while gate.client.ask(token="alice").header("x-cache") != "HIT":
        answers += 1  # nginx keeps an answer after its client has read it
    pending = gate.client.send(token="alice", headers=[("Connection", "close")])
    assert b"".join(pending.parts())
    gate.wait_held(0)
    gate.wait_outcomes({"completed": answers + 1})
    assert gate.metrics().total("llm_tokens_total") == 11 * (answers - 1), "those of the engine"
    pending.close()


def test_a_stale_answer_from_nginx_s_cache(fake_engine, gateway, tmp_path):
    """It was taken for one of the engine that had failed."""
    engine = fake_engine()
    gate = gateway([engine], **answer_cache(tmp_path, valid="200 1s", more="proxy_cache_use_stale error;"))
    first = gate.client.ask(token="alice")
    # its client has it a moment before the cache has
    until(lambda: gate.client.ask(token="alice").header("x-cache") == "HIT", "the answer is in the cache")
    engine.die()
    answers = len(engine.requests)

    def ask():
        reply = gate.client.ask(token="alice")
        assert (reply.status, reply.body) == (200, first.body)
        return reply.header("x-cache") == "STALE"

    until(ask, "the answer has become stale")
    until(lambda: gate.metrics().total("llm_tokens_total") >= 11 * answers, "the engine's answers are counted")
    assert gate.metrics().total("llm_tokens_total") == 11 * answers


@pytest.mark.parametrize("buffering", ["off", "on"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_range_that_is_not_there(fake_engine, gateway, stream, buffering):
    """nginx answers in the place of an engine that has answered: that counted as if the client had left."""
    content_type = "text/event-stream" if stream else "application/json"
    engine = fake_engine(script=lambda exchange: exchange.body(200, b"data: [DONE]\n\n", [("Content-Type", content_type)]))
    gate = gateway([engine], location=f"proxy_force_ranges on; proxy_buffering {buffering};")
    assert_error(gate.client.ask(chat_body(stream=stream), token="alice", headers=[("Range", "bytes=20000-")]), 416, "error")
    gate.wait_outcomes({"completed": 1})


def test_a_condition_that_does_not_hold(fake_engine, gateway, tmp_path):
    """Where nginx caches, its filter asks, and breaks the engine's answer off: that counted as the engine's failure."""
    engine = fake_engine(script=lambda exchange: exchange.json({}, headers=[("ETag", '"engine"')]))
    gate = gateway([engine], **answer_cache(tmp_path))
    reply = gate.client.ask(token="alice", headers=[("If-Match", '"other"')])
    assert_error(reply, 412, "error")
    gate.wait_outcomes({"completed": 1})


@pytest.mark.parametrize("what", ["llm_status", "a stream that waits"])
def test_expires_is_said_once(fake_engine, gateway, what):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=50)], location="expires 1h; llm_queue_keepalive 10ms;",
                   locations="location /short/ { expires 1h; llm_status; }")
    if what == "llm_status":
        headers = gate.client.get("/short/status.json").headers
    else:
        running = engine.occupy(gate.client, token="alice")
        waiting = gate.client.send(chat_body(stream=True), token="alice")
        assert waiting.head() == 200
        headers = waiting.headers
        engine.open_gate()
        assert (running.reply().status, waiting.reply().complete) == (200, True)
    assert [value for name, value in headers if name == "cache-control"] == ["max-age=3600"]


def test_post_action_sends_a_body_from_its_file_once_more(fake_engine, gateway):
    """nginx had closed the file when the answer began."""
    engine = fake_engine()
    gate = gateway([engine], location="client_body_buffer_size 1k; post_action @again;",
                   locations="location @again { llm_dispatch on; client_body_buffer_size 1k; proxy_pass http://llm_engines; }")
    body = chat_body(content="x" * 100_000)
    assert gate.client.ask(body, token="alice").status == 200
    assert [request.body for request in engine.wait_requests(2)] == [body, body]
    gate.wait_outcomes({"completed": 1})
