"""llm_queue_keepalive: what may come behind a head that is out. Never another head, a page, or an end that looks proper."""

import functools
import gzip
import json

import pytest

from support.answer_cache import answer_cache
from support.client import chat_body
from support.fake_engine import answer, error
from support.paths import nginx_version
from support.poll import until
from support.users import user
from support.waiting_stream import (BODY, EVERY, QUEUED, assert_failed, assert_whole, begun, busy_gateway, for_waiting, rest, stream_line,
                                    the_event, wait)

ON = f"llm_queue_keepalive {EVERY}ms;"


@pytest.fixture
def busy(fake_engine, gateway):
    return functools.partial(busy_gateway, fake_engine, gateway)


@pytest.fixture
def answered(busy):
    """make(script, …) -> (gateway, what comes once the engine has answered the waiting stream by `script`)."""

    def make(script, location="", **keywords):
        gate, engine, running = busy(then=for_waiting(script), location=location, **keywords)
        parts = begun(wait(gate))
        engine.release(100)
        assert running.reply().status == 200
        return gate, parts

    return make


# ----------------------------------------------------------------------------------------------------- engines that fail


@pytest.mark.parametrize("buffering", ["off", "on"])
def test_engine_that_fails(answered, buffering):
    gate, parts = answered(lambda exchange: exchange.reset(), f"proxy_buffering {buffering};")
    assert_failed(parts, "engine_error")
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


def test_engine_that_says_nothing(answered):
    gate, parts = answered(lambda exchange: exchange.wait_gone(20), "proxy_read_timeout 2s;")  # the running one is held meanwhile
    assert_failed(parts, "engine_timeout")
    gate.wait_outcomes({"timeout": 1, "completed": 1})


@pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000], ids=["garbage", "too large a head"])
def test_engine_that_answers_no_http(answered, data):
    def script(exchange):
        exchange.send(data)
        exchange.fin()

    gate, parts = answered(script)
    assert_failed(parts, "engine_error")
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


def test_the_next_engine_answers(fake_engine, gateway):
    """A retry behind the head."""
    engines = [fake_engine(max_running=1) for _ in range(2)]
    gate = gateway(engines, [user("alice", threshold=50)], location=ON)
    for engine in engines:
        engine.hold()
    running = [gate.client.send(chat_body(content="first"), token="alice") for _ in engines]
    for engine in engines:
        engine.wait_requests(1)
    parts = begun(wait(gate))
    engines[0].hold(for_waiting(lambda exchange: exchange.reset()))
    engines[1].open_gate()  # room for the second attempt; the first goes to either
    engines[0].release(100)
    assert_whole(parts)
    assert [pending.reply().status for pending in running] == [200, 200]


@pytest.mark.parametrize("end", ["reset", "fin"])
@pytest.mark.parametrize("buffering", ["off", "on"])
def test_stream_that_breaks_off(answered, end, buffering):
    def script(exchange):
        exchange.stream_head()
        exchange.event({"choices": [{"index": 0, "delta": {"content": "half"}}]})
        getattr(exchange, end)()

    gate, parts = answered(script, f"proxy_buffering {buffering};")
    received, complete = rest(parts)
    assert not complete
    assert received.count(b'{"error":') == 1 and received.count(b"data: ") == 2, received
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


def test_stream_that_breaks_off_before_its_first_event(answered):
    def script(exchange):
        exchange.stream_head()
        exchange.reset()

    gate, parts = answered(script)
    assert_failed(parts, "engine_error")
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


def test_close_delimited_stream_without_its_end(answered):
    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        exchange.send(b"data: {}\n\n")
        exchange.fin()

    gate, parts = answered(script)
    received, complete = rest(parts)
    assert not complete and received.startswith(b"data: {}\n\n") and received.count(b'{"error":') == 1
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


# ------------------------------------------------------------------------------------------------- answers of other kinds


TOO_LONG = {"error": {"message": "This model's maximum context length is 8 tokens.\nYours has 9.", "type": "invalid_request_error",
                      "param": "messages", "code": "context_length_exceeded"}}
VLLM = {"object": "error", "message": "maximum context length", "type": "BadRequestError", "param": None, "code": 400}


@pytest.mark.parametrize("buffering", ["off", "on"])
@pytest.mark.parametrize("body,expected", [
    (json.dumps(TOO_LONG), TOO_LONG),
    (json.dumps(TOO_LONG, indent=2).replace("\n", "\r\n"), TOO_LONG),
    ('{"error":"busy"}', {"error": "busy"}),
    (json.dumps(VLLM, indent=1), {"error": VLLM}),
], ids=["object", "of several lines", "text", "without a name"])
def test_what_an_engine_says_of_its_refusal(answered, buffering, body, expected):
    gate, parts = answered(lambda exchange: exchange.body(400, body.encode(), [("Content-Type", "application/json")]), f"proxy_buffering {buffering};")
    assert the_event(parts) == expected
    gate.wait_outcomes({"completed": 2})
    line = stream_line(gate)
    assert (line["status"], line["prompt_tokens"], line["completion_tokens"]) == ("200", "0", "0")


@pytest.mark.parametrize("buffering", ["off", "on"])
@pytest.mark.parametrize("status,kind,body", [
    (400, "application/json", b""),
    (400, "application/json", b"[" * 16384),
    (400, "application/json", b'{"error":'),
    (400, "application/json", b'{"error":{}}'),
    (400, "application/json", b'{"error":""}'),
    (400, "application/json", b'{"detail":"no"}'),
    (400, "application/json", b'\xef\xbb\xbf{"error":"no"}'),
    (400, "application/json", b'{"error":"\xff"}'),
    (400, "application/json", b'{"error":"' + b"x" * 100_000 + b'"}'),
    (404, "text/html", b"<html>\r\n<body>404</body></html>\n\n"),
    (302, "text/html", b"<html>elsewhere</html>"),
    (401, "text/event-stream", b"data: {}\n\n"),
    (200, "text/html", b"<html>\n\nwelcome</html>"),
    (200, "application/x-ndjson", b'{"done":false}\n{"done":true}\n'),
    (200, "application/json", b'{"object":"chat.completion","choices":[]}'),
    (200, "application/json", b'{"message":{"role":"assistant","content":"x"},"done":true}'),
    (200, "application/json", b'{"message":"x"}'),
    (400, "application/json", b'{"message":{"role":"assistant"}}'),
    (204, "text/plain", None),
    (304, "text/plain", None),
], ids=lambda value: repr(value)[:30])
def test_what_is_no_stream_and_no_error_object(answered, buffering, status, kind, body):
    def script(exchange):
        if body is None:
            exchange.head(status)
        else:
            exchange.body(status, body, [("Content-Type", kind), ("Location", "/elsewhere")])

    gate, parts = answered(script, f"proxy_buffering {buffering};")
    assert assert_failed(parts, "engine_error")["message"] == (
        f"The engine answered with status {status}." if status >= 300 else "The engine's answer is no event stream.")
    gate.wait_outcomes({"completed": 2})


def test_refusal_that_breaks_off(answered):
    def script(exchange):
        exchange.head(400, [("Content-Type", "application/json"), ("Content-Length", "1000")])
        exchange.send(b'{"error":{"message":"x"}}')
        exchange.fin()

    gate, parts = answered(script)
    assert_failed(parts, "engine_error")
    gate.wait_outcomes({"engine_error": 1, "completed": 1})


def test_refusal_without_framing(answered):
    def script(exchange):
        exchange.send(b'HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"error":{"message":"x"}}')
        exchange.fin()

    _, parts = answered(script)
    assert the_event(parts) == {"error": {"message": "x"}}


@pytest.mark.parametrize("status", [429, 503])
def test_engines_that_are_full(answered, status):
    """Tried again as ever; then the engine's own words."""
    gate, parts = answered(error(status))
    assert the_event(parts)["error"]["message"] == f"engine says {status}"
    assert stream_line(gate)["attempts"] == "2"


def test_engines_are_asked_for_plain_answers(busy):
    """The client was told that nothing is encoded."""
    def script(exchange):
        exchange.body(200, gzip.compress(b"data: {}\n\ndata: [DONE]\n\n"), [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")])

    gate, engine, running = busy(then=for_waiting(script))
    parts = begun(wait(gate, headers=[("Accept-Encoding", "gzip, br")]))
    engine.release(100)
    assert running.reply().status == 200
    assert_failed(parts, "engine_error")
    assert engine.requests[1].header("accept-encoding") == "identity"
    engine.script = answer
    gate.wait_held(0)
    assert gate.client.ask(BODY, token="alice", headers=[("Accept-Encoding", "gzip, br")]).status == 200
    assert engine.requests[2].header("accept-encoding") == "gzip, br", "one that does not wait asks for what it wants"


def test_an_engine_that_changes_the_protocol(busy):
    def script(exchange):
        exchange.head(101, [("Upgrade", "h2c"), ("Connection", "Upgrade")])
        exchange.send(b"no longer HTTP")
        exchange.wait_gone()

    gate, engine, running = busy(then=for_waiting(script), location="proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;")
    parts = begun(wait(gate, headers=[("Upgrade", "h2c"), ("Connection", "Upgrade")]))
    engine.release(100)
    assert running.reply().status == 200
    assert_failed(parts, "engine_error")


@pytest.mark.skipif(nginx_version() < (1, 29), reason="nginx passes no early hints")
@pytest.mark.parametrize("waits", [False, True])
def test_early_hints(busy, waits):
    def script(exchange):
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
        answer(exchange)

    gate, engine, running = busy(then=for_waiting(script), location="early_hints $http_x_hints;")
    waiting = wait(gate, headers=[("x-hints", "1")])
    if waits:
        parts = begun(waiting)
    engine.release(100)
    assert running.reply().status == 200
    assert_whole(parts if waits else waiting.parts())


# ------------------------------------------------------------------------------------------- where else a request is led


@pytest.mark.parametrize("recursive", ["off", "on"])
def test_error_page_has_no_place_behind_a_head(busy, tmp_path, recursive):
    (tmp_path / "page.html").write_text("<html>sorry</html>")
    gate, engine, running = busy(
        location=f"llm_queue_timeout 400ms; error_page 429 /page.html; error_page 502 503 = @other; recursive_error_pages {recursive};",
        locations=f"location = /page.html {{ root {tmp_path}; }} location @other {{ return 200 other; }}")
    assert_failed(begun(wait(gate)), "queue_timeout", "rate_limit_error")
    parts = begun(wait(gate))
    engine.script = lambda exchange: exchange.reset()
    engine.release(100)
    assert running.reply().status == 200
    assert_failed(parts, "engine_error")


@pytest.mark.parametrize("status,code,kind", [(404, "not_found", "invalid_request_error"), (500, "internal_error", "server_error"),
                                              (400, "bad_request", "invalid_request_error")])
def test_intercepted_errors(answered, status, code, kind):
    gate, parts = answered(error(status), "proxy_intercept_errors on; error_page 400 404 500 = @other;",
                           locations="location @other { return 200 other; }")
    assert_failed(parts, code, kind)
    gate.wait_outcomes({"completed": 2})


@pytest.mark.parametrize("equals", ["=", ""])
def test_error_page_before_the_head_is_out(fake_engine, gateway, equals):
    """Where it leads a request waits as any other; unless its answer is to have the status of the refusal."""
    big, small = fake_engine(["m"], max_running=1), fake_engine(["small"], max_running=1)
    gate = gateway([big, small], [user("alice", threshold=50)], location=f"llm_queue_timeout 100ms; error_page 429 {equals} @small;",
                   locations=f"location @small {{ llm_dispatch on; llm_model small; {ON} proxy_pass http://llm_engines; }}")
    for engine in (big, small):
        engine.hold()
    running = [gate.client.send(chat_body("m", "first"), token="alice")]
    big.wait_requests(1)
    running.append(gate.client.send(chat_body("m", "second"), token="alice"))
    small.wait_requests(1)
    waiting = wait(gate)
    if equals:
        parts = begun(waiting)
    else:
        until(lambda: any(request["model"] == "small" and request["state"] == "queued" and request["wait_ms"] > 3 * EVERY
                          for request in gate.status()["requests"]), "it waits for the other model")
        assert not waiting.answered()
    for engine in (big, small):
        engine.open_gate()
    assert [pending.reply().status for pending in running] == [200, 200 if equals else 429]
    assert_whole(parts if equals else waiting.parts())
    assert waiting.status == (200 if equals else 429)


def test_an_engine_that_leads_to_another_model(busy, fake_engine):
    """X-Accel-Redirect, where the user heeds it: the request waits once more, with its head."""
    other = fake_engine(["other"], max_running=1)
    gate, engine, running = busy(
        then=for_waiting(lambda exchange: exchange.json({}, headers=[("X-Accel-Redirect", "@other")])),
        http=f"llm_engine {other.url} model=other max_running=1;", location="proxy_ignore_headers Vary;",
        locations=f"location @other {{ llm_dispatch on; {ON} llm_model other; proxy_pass http://llm_engines; }}"
        "location /other/ { llm_dispatch on; proxy_pass http://llm_engines; }")
    occupied = other.occupy(gate.client, chat_body("other"), target="/other/", token="alice")
    parts = begun(wait(gate))
    engine.release(2)
    assert running.reply().status == 200
    until(lambda: any(request["model"] == "other" and request["state"] == "queued" for request in gate.status()["requests"]), "it waits again")
    received = b""
    while received.count(QUEUED) < 3:
        received += next(parts)
    other.open_gate()
    assert occupied.reply().status == 200
    assert_whole(parts)
    gate.wait_outcomes({"completed": 3})


def test_an_engine_that_leads_to_a_page(answered, tmp_path):
    (tmp_path / "page.html").write_text("<html>hello</html>")
    _, parts = answered(lambda exchange: exchange.json({}, headers=[("X-Accel-Redirect", "/page.html")]), "proxy_ignore_headers Vary;",
                        locations=f"location /page.html {{ root {tmp_path}; }}")
    assert_failed(parts, "engine_error")


def test_try_files_behind_the_queue(busy):
    """An internal redirect makes nginx's filters forget the head that they have seen."""
    gate, engine, running = busy(location="try_files /nowhere @engines;",
                                 locations="location @engines { llm_dispatch on; proxy_pass http://llm_engines; }")
    parts = begun(wait(gate))
    engine.open_gate()
    assert_whole(parts)
    assert running.reply().status == 200


def test_an_answer_from_nginx_s_cache(busy, tmp_path):
    """Whatever is found there when the request has left the queue."""
    def script(exchange):
        exchange.json(TOO_LONG, 400) if exchange.request.json()["n"] == 2 else answer(exchange)

    gate, engine, running = busy(**answer_cache(tmp_path, valid="any 1h"), then=for_waiting(script))
    parts = []
    for number in (1, 1, 2, 2):
        parts.append(begun(wait(gate, chat_body(content="waits", stream=True, n=number))))
    engine.release(100)
    assert running.reply().status == 200
    assert assert_whole(parts[0]) == assert_whole(parts[1])
    assert the_event(parts[2]) == the_event(parts[3]) == TOO_LONG
    assert len(engine.requests) == 3, "two came from the cache"
    gate.wait_outcomes({"completed": 5})
