"""F13: more clients or requests than the zone holds: a clear refusal and a clear line in the log; what is queued is unaffected."""

import json
import re

from support import invariants
from support.client import chat_body
from support.errors import assert_error
from support.poll import until
from support.users import user, write_tokens


def test_requests(fake_engine, gateway):
    engine = fake_engine(max_running=4)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=100000)], zone="1m", main="worker_rlimit_nofile 8192;")
    limit = gate.status()["zone"]["requests"]
    assert 50 < limit < 2000
    running = [gate.client.send(chat_body(content="running"), token="alice", timeout=110) for _ in range(4)]
    engine.wait_requests(4)
    waiting = []
    refused = None
    while refused is None and len(waiting) <= limit:
        one = gate.client.send(chat_body(content=f"r{len(waiting)}"), token="alice", timeout=110)
        until(lambda: one.answered() or gate.queued() == len(waiting) + 1, "it waits or is refused")
        if one.answered():
            refused = one.reply()
        else:
            waiting.append(one)
    assert_error(refused, 429, "queue_full")
    assert len(waiting) > limit // 2
    gate.wait_logged(r"\[warn\].*the queue is full")
    for _ in range(5):
        assert_error(gate.client.ask(token="alice"), 429, "queue_full")
    assert len(re.findall("the queue is full", gate.error_log())) <= 4, "a line for each"
    waiting[0].reset()
    gate.wait_queued(len(waiting) - 1)
    again = gate.client.send(chat_body(content="again"), token="alice", timeout=110)
    gate.wait_queued(len(waiting))
    engine.open_gate()
    assert all(one.reply().status == 200 for one in [*running, *waiting[1:], again]), "what was queued was lost"
    assert set(engine.contents()) == {"running", "again", *(f"r{number}" for number in range(1, len(waiting)))}
    invariants.check(gate, expected={"completed": 4 + len(waiting), "cancelled_queued": 1, "rejected_queue_full": 6})


def test_clients(fake_engine, gateway):
    """The whole load is refused and the old table stays."""
    gate = gateway([fake_engine()], zone="1m")
    limit = gate.status()["zone"]["clients"]
    write_tokens(gate.tokens, [user("alice"), *(user(f"u{number}") for number in range(limit + 1))])
    gate.wait_logged(rf"has more clients than the zone holds \({limit}\)")
    for _ in range(3):
        assert gate.client.ask(token="alice").status == 200
        assert_error(gate.client.ask(token="u5"), 401, "invalid_api_key")
    write_tokens(gate.tokens, [user("alice"), user("bob")])
    until(lambda: gate.client.ask(token="bob").status == 200, "a table that fits is loaded again")
    invariants.check(gate)


def test_engines(redis_server, fake_engine, gateway):
    """Reports of more engines than the zone holds: those that fit work, the rest is said in the log."""
    engine = fake_engine()
    gate = gateway(zone="1m", http=f"llm_redis {redis_server.url};")
    limit = gate.status()["zone"]["engines"]
    reporter = engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    for number in range(limit + 5):
        fields = {**reporter.fields(), "id": f"e{number}", "url": f"http://127.0.0.1:{1 + number}", "models": [f"x{number}"], "state": "draining"}
        redis_server.client.publish("llm:engines", json.dumps(fields))
    gate.wait_logged(r"llm: .*e\d+.*the zone has no room")
    assert gate.client.ask(token="alice").status == 200
    invariants.check(gate)
