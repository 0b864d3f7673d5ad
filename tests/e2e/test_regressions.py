"""Defects that were found by reading: each test is the scenario in which one of them showed."""

import json
import os
import signal

import pytest

from support import invariants
from support.answer_cache import answer_cache
from support.client import chat_body
from support.errors import assert_error
from support.fake_engine import answer, error
from support.poll import until
from support.process import stop_for_now
from support.users import user
from support.wire import Incomplete


def write_plain_conf(gate, http=""):
    """A configuration in which the module is loaded, but nobody uses it; no module at all without `http`."""
    load = f"load_module \"{gate._values['module']}\";" if http else ""
    temporary = "".join(f"{name}_temp_path {gate.directory}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    gate.conf.write_text(f"""{gate.blocks['main']} {load}
daemon off; worker_processes 4; pid {gate.directory}/nginx.pid; error_log {gate.directory}/error.log info;
events {{ worker_connections 64; }}
http {{ access_log off; {temporary} {http}
    server {{ listen 127.0.0.1:{gate.port}; location / {{ return 200 plain; }} }} }}
""")


def test_reload_that_loads_the_module(fake_engine, gateway):
    """The cycle before has no place for the module's configuration in its arrays."""
    gate = gateway([fake_engine()], start=False)
    real, gate.write_conf = gate.write_conf, lambda: write_plain_conf(gate)
    gate.start()
    assert gate.client.get("/").body == b"plain"
    gate.write_conf = real
    gate.reload()
    assert gate.client.ask(chat_body(), token="alice").status == 200


def test_a_module_that_nobody_uses_costs_nothing(gateway):
    gate = gateway(start=False)
    gate.metered = False
    gate.write_conf = lambda: write_plain_conf(gate, http="map $uri $x { default y; }")
    gate.start()
    assert gate.client.get("/").body == b"plain"
    assert "llm_zone" not in gate.error_log()


def test_error_page_of_an_unknown_model_listing(fake_engine, gateway):
    """The fallback had no engine to connect to: the worker crashed."""
    gate = gateway([fake_engine()], location="error_page 404 = @other;",
                   locations="location @other { llm_dispatch on; proxy_pass http://llm_engines; }")
    workers = gate.workers()
    assert gate.client.get("/v1/models/unknown", token="alice").status == 404
    assert gate.workers() == workers
    assert gate.metrics().outcomes() == {}, "a model listing was counted"


def test_administrator_ends_a_running_request(fake_engine, gateway):
    """The request was not found among those that wait."""
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine])
    pending = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    ticket = gate.status()["requests"][0]["id"]
    reply = gate.end_request(ticket)
    assert reply.status == 200
    refused = pending.reply()
    assert_error(refused, 503, "aborted")
    assert refused.header("x-should-retry") == "false"
    gate.wait_held(0)
    gate.wait_outcomes({"cancelled_running": 1})
    engine.open_gate()
    assert gate.client.ask(chat_body(), token="alice").status == 200


@pytest.mark.parametrize("post_action", ["", "post_action /after;"])
def test_administrator_ends_a_stream(fake_engine, gateway, post_action):
    """With post_action nginx took the connection for one to keep, and the client waited on."""
    def script(exchange):
        exchange.stream_head()
        exchange.event({"choices": []})
        exchange.wait_gone()
        raise ConnectionError

    gate = gateway([fake_engine(script=script)], location=post_action, locations="location = /after { internal; return 204; }")
    pending = gate.client.send(chat_body(stream=True), token="alice")
    parts = pending.parts()
    assert next(parts).startswith(b"data: ")
    ticket = gate.status()["requests"][0]["id"]
    assert gate.end_request(ticket).status == 200
    assert json.loads(next(parts).removeprefix(b"data: "))["error"]["code"] == "aborted"
    with pytest.raises(Incomplete):
        next(parts)
    pending.close()
    gate.wait_outcomes({"cancelled_running": 1})


def test_a_client_that_closes_late_is_counted_at_once(fake_engine, gateway):
    """nginx waits for it to close: until then its request was listed as running, and lost if the worker died."""
    gate = gateway([fake_engine()], location="lingering_timeout 60s; lingering_time 60s;")
    pending = [gate.client.send(chat_body(stream=stream), token="alice", headers=[("Connection", "close")]) for stream in (False, True)]
    assert all(b"".join(one.parts()) for one in pending)
    gate.wait_outcomes({"completed": 2})
    invariants.idle(gate)
    for one in pending:
        one.close()


def test_administrator_comes_too_late(fake_engine, gateway):
    """The client has all of the answer, and nginx waits for it to close: the request is complete."""
    gate = gateway([fake_engine()])
    pending = gate.client.send(token="alice", headers=[("Connection", "close")])
    assert b"".join(pending.parts())
    for request in gate.status()["requests"]:  # none, if it has been counted already: it may be between the two
        reply = gate.end_request(request["id"])
        assert reply.status in (200, 404)
    pending.close()
    gate.wait_outcomes({"completed": 1})


def test_administrator_comes_too_late_for_an_answer_from_a_cache(fake_engine, gateway, tmp_path):
    """Only the mirror still runs: nginx let go of the request while it was being ended."""
    shadow = fake_engine(script=lambda exchange: exchange.json({}))
    gate = gateway([fake_engine(script=lambda exchange: exchange.json({"text": "x" * 7_000_000}))],
                   **answer_cache(tmp_path, "one", more="mirror /shadow;"),
                   locations=f"location = /shadow {{ internal; proxy_pass {shadow.url}; }}")
    until(lambda: gate.client.ask(token="alice").header("x-cache") == "HIT", "the answer is in the cache")
    invariants.idle(gate)
    shadow.hold(then=lambda exchange: exchange.json({}))
    pending = gate.client.send(token="alice")
    pending.head()
    gate.wait_held(0)  # told as long as the client has not read; had it, the request would be counted then, too
    [ticket] = [request["id"] for request in gate.status()["requests"]]
    assert b"".join(pending.parts())
    assert gate.end_request(ticket).status == 200
    shadow.release()
    pending.close()
    invariants.idle(gate)


def test_administrator_ends_a_waiting_request(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine])
    running = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    waiting = gate.client.send(chat_body(), token="alice")
    gate.wait_queued(1)
    [ticket] = [request["id"] for request in gate.status()["requests"] if request["state"] == "queued"]
    assert gate.end_request(ticket).status == 200
    assert_error(waiting.reply(), 503, "aborted")
    engine.open_gate()
    assert running.reply().status == 200
    gate.wait_outcomes({"cancelled_queued": 1, "completed": 1})


def test_administrator_ends_what_error_page_sends_on(fake_engine, gateway):
    """The first one of those that a worker hears of at once was submitted anew, in the place of the next, which then waited for ever."""
    spare = fake_engine(models=["spare"], name="spare")
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine, spare], [user("alice", threshold=50)], workers=2, location="error_page 503 = @spare;",
                   server="location @spare { llm_dispatch on; llm_model spare; proxy_pass http://llm_engines; }")
    running = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    waiting = [gate.client.send(chat_body(), token="alice") for _ in range(8)]
    gate.wait_queued(8)
    owners = [gate.worker_of(one) for one in waiting]
    stopped = max(owners, key=owners.count)
    tickets = [request["id"] for request in gate.status()["requests"] if request["state"] == "queued"]
    stop_for_now(stopped)
    for ticket in tickets:
        until(lambda: end_request(gate, ticket), "a worker that runs answers", 30)  # every second connection is the stopped one's
    os.kill(stopped, signal.SIGCONT)
    for one in waiting:
        reply = one.reply()
        assert reply.status == 200 and reply.json()["model"] == "spare"
    engine.open_gate()
    assert running.reply().status == 200
    gate.wait_outcomes({"completed": 9})


def test_administrator_ends_what_waits_for_a_cache(fake_engine, gateway, tmp_path):
    """It went on without its client, whose seat it kept, and nginx complained of its count."""
    engine = fake_engine()
    gate = gateway([engine], **answer_cache(tmp_path, "one", more="proxy_cache_lock on;"))
    running = engine.occupy(gate.client, token="alice")
    [first] = [request["id"] for request in gate.status()["requests"]]
    waiting = gate.client.send(token="alice", headers=[("Connection", "close")])
    gate.wait_held(2)
    [ticket] = [request["id"] for request in gate.status()["requests"] if request["id"] != first]
    assert gate.end_request(ticket).status == 200
    with pytest.raises(ConnectionError):
        waiting.reply()
    gate.wait_held(1)
    gate.wait_outcomes({"cancelled_running": 1})
    engine.open_gate()
    assert running.reply().status == 200
    gate.wait_outcomes({"cancelled_running": 1, "completed": 1})
    assert len(engine.requests) == 1


def test_post_action_keeps_no_place(fake_engine, gateway):
    """It led a request whose client had left the queue to another location, and left its place there until that had answered."""
    engine, after = fake_engine(max_running=1), fake_engine(name="after")
    engine.hold()
    after.hold()
    gate = gateway([engine], [user("alice", threshold=50)], location="post_action @after;",
                   server=f"location @after {{ llm_dispatch off; proxy_pass {after.url}; }}")
    running = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    waiting = gate.client.send(chat_body(), token="alice")
    gate.wait_queued(1)
    waiting.close()
    after.wait_requests(1)
    gate.wait_queued(0)
    gate.wait_outcomes({"cancelled_queued": 1})
    engine.open_gate()
    after.open_gate()
    assert running.reply().status == 200


def end_request(gate, ticket):
    """Whether a worker has said that the request is ended; no answer comes from one that is stopped."""
    try:
        return gate.end_request(ticket, timeout=0.3).status in (200, 404)
    except TimeoutError:
        return False


@pytest.mark.parametrize("body", [b"", b"{}", b'{"priority": 3}'])
def test_administrator_changes_what_is_not_there(gateway, fake_engine, body):
    """A body that says no priority was complained of first."""
    gate = gateway([fake_engine()])
    for ticket in ("99999999-1", "0-7", "none"):
        reply = gate.client.ask(body, method="PATCH", target=f"/llm/requests/{ticket}", headers=[("x-llm-admin", "1")])
        assert (reply.status, reply.json()["error"]["code"]) == (404, "not_found")


def test_administrator_changes_a_waiting_request(gateway, fake_engine):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine])
    pending = [gate.client.send(chat_body(), token="alice")]
    engine.wait_requests(1)
    pending.append(gate.client.send(chat_body(), token="alice"))
    gate.wait_queued(1)
    [waiting] = [request for request in gate.status()["requests"] if request["state"] == "queued"]
    change = lambda body: gate.client.ask(body, method="PATCH", target=f"/llm/requests/{waiting['id']}", headers=[("x-llm-admin", "1")])
    refused = change(b'{"priority": "high"}')
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_json")
    assert change(b'{"priority": 3}').status == 200
    assert [request["priority"] for request in gate.status()["requests"] if request["id"] == waiting["id"]] == [3]
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200, 200]


@pytest.mark.parametrize("server,chunked", [("", True), ("client_body_in_file_only clean;", False), ("client_body_in_file_only clean;", True)],
                         ids=["chunked", "file", "chunked-file"])
def test_administrator_changes_a_request_however_nginx_keeps_the_body(gateway, fake_engine, server, chunked):
    """An empty last buffer, as of a chunked body, and one in a file were both taken for a body that is too large."""
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], server=server)
    pending = [gate.client.send(chat_body(), token="alice")]
    engine.wait_requests(1)
    pending.append(gate.client.send(chat_body(), token="alice"))
    gate.wait_queued(1)
    [ticket] = [request["id"] for request in gate.status()["requests"] if request["state"] == "queued"]

    def change(body):
        sent = {"chunks": [body[:5], body[5:]]} if chunked else {"body": body}
        return gate.client.ask(method="PATCH", target=f"/llm/requests/{ticket}", headers=[("x-llm-admin", "1")], **sent).status

    assert change(b'{"priority": 3}') == 200
    assert [request["priority"] for request in gate.status()["requests"] if request["id"] == ticket] == [3]
    assert change(b'{"priority": 4}'.ljust(4096)) == 200
    assert change(b'{"priority": 5}'.ljust(4097)) == 400
    assert [request["priority"] for request in gate.status()["requests"] if request["id"] == ticket] == [4]
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200, 200]


def test_failed_engine_then_a_fallback_model(fake_engine, gateway):
    """The fallback went to the failed engine again, and a body rewritten once was rewritten at the wrong places."""
    big, small = fake_engine(["big-model"], script=lambda exchange: exchange.reset()), fake_engine(["s"])
    gate = gateway([big, small], location="llm_model big-model; error_page 502 = @small;",
                   locations="location @small { llm_dispatch on; llm_model s; proxy_pass http://llm_engines; }")
    reply = gate.client.ask(chat_body("auto"), token="alice")
    assert reply.status == 200, reply.body
    assert json.loads(big.requests[0].body)["model"] == "big-model"
    assert small.requests[0].body == chat_body("s")
    gate.wait_held(0)
    gate.wait_outcomes({"completed": 1})


def test_a_refusal_and_a_fallback_count_once(fake_engine, gateway):
    """The location that refused counted, and so did the one that answered."""
    engine, other = fake_engine(["m"], max_running=1), fake_engine(["s"])
    engine.hold()
    gate = gateway([engine, other], users=[user("alice", threshold=0)], location="error_page 429 = @small;",
                   locations="location @small { llm_dispatch on; llm_model s; proxy_pass http://llm_engines; }")
    first = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    assert gate.client.ask(chat_body(), token="alice").status == 200
    gate.wait_outcomes({"completed": 1})
    assert gate.metrics().total("llm_requests_total", model="s", outcome="completed") == 1
    engine.open_gate()
    assert first.reply().status == 200
    gate.wait_outcomes({"completed": 2})


def test_a_queue_timeout_and_a_fallback_count_once(fake_engine, gateway):
    engine, other = fake_engine(["m"], max_running=1), fake_engine(["s"], script=error(400))
    engine.hold()
    gate = gateway([engine, other], location="llm_queue_timeout 100ms; error_page 429 = @small;",
                   locations="location @small { llm_dispatch on; llm_model s; proxy_pass http://llm_engines; }")
    first = gate.client.send(chat_body(), token="alice")
    engine.wait_requests(1)
    assert gate.client.ask(chat_body(), token="alice").status == 400
    gate.wait_outcomes({"completed": 1})
    engine.open_gate()
    assert first.reply().status == 200
    gate.wait_outcomes({"completed": 2})


def test_the_engines_key_stays_with_the_engine(fake_engine, gateway):
    engine, other = fake_engine(["m"], script=lambda exchange: exchange.reset()), fake_engine()
    gate = gateway(http=f"llm_engine {engine.url} model=m key=secret;", location="error_page 502 = @other;",
                   locations=f"location @other {{ proxy_pass {other.url}; }}")
    assert gate.client.ask(chat_body(), token="alice").status == 200
    assert engine.requests[0].header("authorization") == "Bearer secret"
    assert other.requests[0].header("authorization") is None


def test_a_body_too_large_with_a_fallback(fake_engine, gateway):
    """It waited for the rest of the body for ever."""
    gate = gateway([fake_engine()], location="client_max_body_size 1k; error_page 413 = @other;",
                   locations="location @other { client_max_body_size 1k; llm_dispatch on; proxy_pass http://llm_engines; }")
    reply = gate.client.ask(token="alice", chunks=[chat_body(content="x" * 900), b"x" * 900], timeout=5)
    assert_error(reply, 413, "body_too_large")


def test_a_body_too_large_with_a_fallback_that_allows_more(fake_engine, gateway):
    """The limit of the location it was sent to was asked, which it had not passed: 400."""
    gate = gateway([fake_engine()], location="client_max_body_size 1k; error_page 413 = @other;",
                   locations="location @other { client_max_body_size 8m; llm_dispatch on; proxy_pass http://llm_engines; }")
    reply = gate.client.ask(token="alice", chunks=[chat_body(content="x" * 900), b"x" * 900], timeout=5)
    assert_error(reply, 413, "body_too_large")
    gate.wait_outcomes({"rejected_body_too_large": 1})


def test_a_body_that_does_not_come(fake_engine, gateway):
    """nginx closed the connection without an answer, and the request counted as cancelled in the queue."""
    gate = gateway([fake_engine()], location="client_body_timeout 200ms;")
    pending = gate.client.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer alice\r\n"
                              b"Content-Length: 100\r\n\r\n{")
    assert_error(pending.reply(), 408, "request_timeout")
    gate.wait_outcomes({"rejected_request_timeout": 1})


def test_a_body_that_does_not_come_with_a_fallback(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="client_body_timeout 200ms; error_page 408 = @other;",
                   locations="location @other { llm_dispatch on; proxy_pass http://llm_engines; }")
    pending = gate.client.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer alice\r\n"
                              b"Content-Length: 100\r\n\r\n{")
    assert_error(pending.reply(), 408, "request_timeout")
    gate.wait_outcomes({"rejected_request_timeout": 1})
    assert not engine.requests


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 5\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("stream", [False, True])
def test_interim_heads_are_no_answer(fake_engine, gateway, stream):
    """The first head was taken for the answer."""
    def script(exchange):
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" + INTERIM[:30])
        exchange.send(INTERIM[30:])
        answer(exchange)

    engine = fake_engine(script=script)
    gate = gateway([engine])
    for _ in range(2):
        reply = gate.client.ask(chat_body(stream=stream), token="alice")
        assert reply.status == 200 and reply.complete
        assert reply.text() == "hello from the engine"
        assert reply.header("link") is None
    assert len(engine.requests) == 2
    gate.wait_outcomes({"completed": 2})


def test_interim_heads_and_then_nothing(fake_engine, gateway):
    def script(exchange):
        exchange.send(INTERIM)
        exchange.reset()

    engine = fake_engine(script=script)
    gate = gateway([engine])
    assert_error(gate.client.ask(chat_body(), token="alice"), 502, "engine_error")
    gate.wait_outcomes({"engine_error": 1})


def test_a_spliced_body_in_a_file_is_repeated_whole(fake_engine, gateway):
    """nginx rewinds files to where the piece before ended, which brought back what was replaced."""
    bad, good = fake_engine(["routed"], script=error(503)), fake_engine(["routed"])
    gate = gateway([bad, good], location="llm_model routed; client_body_buffer_size 8k;")
    content = "x" * 100_000
    until(lambda: gate.client.ask(chat_body("a-longer-name", content), token="alice").status == 200 and bad.requests,
          "the failing engine was tried")
    for request in bad.requests + good.requests:
        assert request.body == chat_body("routed", content)


def test_every_attempt_has_its_name_in_the_log(fake_engine, gateway, tmp_path):
    bad, good = fake_engine(script=error(503)), fake_engine()
    gate = gateway([bad, good], http=f"log_format attempts '$upstream_addr'; access_log {tmp_path}/attempts attempts;")
    until(lambda: gate.client.ask(chat_body(), token="alice").status == 200 and bad.requests, "the failing engine was tried")
    expected = ", ".join(engine.url.removeprefix("http://") for engine in (bad, good))
    until(lambda: expected in (tmp_path / "attempts").read_text().splitlines(),
          lambda: f"{expected} in:\n{(tmp_path / 'attempts').read_text()}")


def test_refusals_are_counted_behind_an_error_page(fake_engine, gateway):
    """A redirect clears nginx's reference to the request, and the log phase did not find it."""
    gate = gateway([fake_engine()], location="error_page 401 = @door;", locations="location @door { return 200 door; }")
    assert gate.client.ask(chat_body()).body == b"door"
    gate.wait_outcomes({"rejected_invalid_api_key": 1})


def test_variables_elsewhere_count_nothing(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="location /missing { return 404; }")
    assert gate.client.get("/missing", token="alice").status == 404
    gate.access_log(1)
    assert gate.metrics().outcomes() == {}


def test_intercepted_answers_are_completed(fake_engine, gateway):
    gate = gateway([fake_engine(script=error(404))], location="proxy_intercept_errors on; error_page 404 = @page;",
                   locations="location @page { return 200 page; }")
    assert gate.client.ask(chat_body(), token="alice").body == b"page"
    gate.wait_outcomes({"completed": 1})


def test_a_cut_stream_with_buffering(fake_engine, gateway):
    """A close-delimited stream without [DONE] looked complete where the user had buffering on."""
    def cut(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: {\"choices\":[]}\n\n")
        exchange.fin()

    gate = gateway([fake_engine(script=cut)], location="proxy_buffering on;")
    pending = gate.client.send(chat_body(stream=True), token="alice")
    try:
        reply = pending.reply()
        assert not reply.complete
    except Exception:
        pass
    gate.wait_outcomes({"engine_error": 1})


def test_user_forbids_further_attempts(fake_engine, gateway):
    bad, good = fake_engine(script=error(503)), fake_engine(script=error(503))
    gate = gateway([bad, good], location="proxy_next_upstream_tries 1;")
    assert gate.client.ask(chat_body(), token="alice").status == 503
    assert len(bad.requests) + len(good.requests) == 1
    assert gate.access_log(1)[0]["attempts"] == "1"


def test_a_changed_zone_leaves_no_descriptors_behind(fake_engine, gateway):
    gate = gateway([fake_engine()])

    def reload_with(zone):
        gate._values["zone"] = zone
        gate.reload()
        until(lambda: not gate.old_workers(), "the old workers end")
        return len(os.listdir(f"/proc/{gate.pid}/fd"))

    before = reload_with("9m")
    assert abs(reload_with("10m") - before) < 32, "the wake-up descriptors of the old zone are still open"


def test_a_failed_reload_leaves_no_descriptors_behind(fake_engine, gateway):
    """Those of the zone that was made for it stayed open in the master."""
    gate = gateway([fake_engine()])
    before = len(os.listdir(f"/proc/{gate.pid}/fd"))
    gate.allow("bind|still could not")
    gate._values["zone"] = "9m"
    gate.blocks["locations"] = "} server { listen 192.0.2.1:1;"  # an address that no interface has
    gate.write_conf()
    gate.send_signal(signal.SIGHUP)
    gate.wait_logged(r"bind\(\) to 192\.0\.2\.1:1 failed")
    until(lambda: len(os.listdir(f"/proc/{gate.pid}/fd")) <= before + 8, "the wake-up descriptors are closed")
    assert gate.client.ask(chat_body(), token="alice").status == 200
