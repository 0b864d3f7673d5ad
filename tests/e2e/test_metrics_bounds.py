"""Metrics under what an operator has to expect: ten thousand clients, invented models, reloads; and promtool's opinion of them."""

import concurrent.futures
import json
import re
import subprocess
import threading

from support.bulk import ask_all, quick_engine
from support.client import chat_body
from support.paths import CONF, ROOT, program
from support.poll import until
from support.ports import free_port
from support.users import user


def series(metrics):
    """In their order; none stands there twice."""
    return sorted((name, *sorted(labels.items())) for name, labels, _ in metrics.samples)


def test_promtool_finds_nothing(redis_server, fake_engine, gateway):
    """Every family with at least one sample: engines announced and static, a stream, refusals, names that need escaping."""
    engine = fake_engine()
    static = fake_engine(models=('odd "name" \\ é',))
    gate = gateway(users=[user("alice", name='Quote " back \\ slash é')],
                   http=f"llm_redis {redis_server.url}; llm_engine {static.url} 'model=odd \"name\" \\\\ é' id=static;")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    for stream in (False, True):
        assert gate.client.ask(chat_body(stream=stream), token="alice").status == 200
    assert gate.client.ask(token="nobody").status == 401
    gate.wait_outcomes({"completed": 2, "rejected_invalid_api_key": 1})
    text = gate.client.get("/metrics").body
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_ten_thousand_clients_and_invented_models_add_no_series(gateway):
    count = 10000
    gate = gateway(users=[user(f"t{number}") for number in range(count)], http=quick_engine(free_port()), zone="16m")
    gate.wait_ready()
    good = [(f"t{number}", chat_body()) for number in range(count)]
    assert ask_all(gate, good[:300]) == {200: 300}
    gate.wait_outcomes({"completed": 300})
    assert ask_all(gate, [("t0", chat_body("invented-0")), ("wrong", chat_body())]) == {404: 1, 401: 1}
    gate.wait_outcomes({"completed": 300, "rejected_model_not_found": 1, "rejected_invalid_api_key": 1})
    before = series(gate.metrics())
    assert ask_all(gate, good[300:]) == {200: count - 300}
    assert ask_all(gate, [(f"t{number}", chat_body(f"invented-{number}")) for number in range(count)]) == {404: count}
    assert ask_all(gate, [(f"wrong{number}", chat_body()) for number in range(2000)]) == {401: 2000}
    gate.wait_outcomes({"completed": count, "rejected_model_not_found": count + 1, "rejected_invalid_api_key": 2001})
    metrics = gate.metrics()
    assert series(metrics) == before
    assert len(metrics.values("llm_client_tokens_total", type="completion")) == 201
    assert metrics.total("llm_client_tokens_total", type="completion") == 4 * count, "what has no series of its own is in \"other\""
    assert metrics.total("llm_client_tokens_total", type="completion", client="other") == 4 * (count - 200)
    assert "invented" not in metrics.text
    # a page that is read every two seconds stays small, too
    assert len(gate.status()["clients"]) == 500
    assert len(gate.client.get("/llm/status.json").body) < 300_000


def test_no_counter_ever_falls(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])

    def counters():
        found = gate.metrics()
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", found.text, re.MULTILINE))
        return {(name, *sorted(labels.items())): number for name, labels, number in found.samples
                if kinds.get(name, kinds.get(re.sub(r"_(bucket|sum|count)$", "", name))) in ("counter", "histogram")}

    before = counters()
    for stream in (True, False, True):
        assert gate.client.ask(chat_body(stream=stream), token="alice").status == 200
        assert gate.client.ask(b"{", token="alice").status == 400
        gate.reload()
        now = counters()
        assert not [series for series, number in before.items() if now.get(series, -1) < number]
        before = now
    gate.wait_outcomes({"completed": 3, "rejected_invalid_json": 3})


def test_traceparent_reaches_the_engine(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine])
    sent = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tracestate", "vendor=1"), ("baggage", "k=v")]
    assert gate.client.ask(token="alice", headers=sent).status == 200
    assert [(name, engine.requests[0].header(name)) for name, _ in sent] == sent


def test_the_sample_log_format_has_every_variable(fake_engine, gateway):
    """conf/nginx.conf's log_format as it stands there, with one line written by it."""
    documented = (ROOT / "docs" / "directives.md").read_text().split("## Variables")[1].split("\n## ")[0]
    variables = set(re.findall(r"`\$(llm_\w+)`", documented))
    assert "llm_outcome" in variables
    format_text = re.search(r"log_format llm_json.*?;", (CONF / "nginx.conf").read_text(), re.DOTALL)[0]
    assert set(re.findall(r"\$(llm_\w+)", format_text)) == variables
    gate = gateway([fake_engine()], http=format_text, location="access_log logs/json.log llm_json;", start=False)
    (gate.directory / "logs").mkdir()
    gate.start()
    assert gate.client.ask(chat_body(stream=True), token="alice").status == 200
    log = gate.directory / "logs" / "json.log"
    line = json.loads(until(lambda: log.read_text().endswith("\n") and log.read_text(), "a line is written"))
    assert line["status"] == 200 and line["client"] == "alice" and line["outcome"] == "completed" and line["completion_tokens"] == "4"


def test_a_long_name_is_cut_between_characters(fake_engine, gateway):
    """What is no UTF-8 would cost Prometheus the whole scrape."""
    gate = gateway([fake_engine()], [user(f"t{shift}", name="x" * shift + "é" * 40) for shift in range(2)])
    for shift in range(2):
        assert gate.client.ask(token=f"t{shift}").status == 200
    gate.wait_outcomes({"completed": 2})
    text = gate.client.get("/metrics").body.decode("utf-8")
    assert 'client="xé' in text and 'client="éé' in text


def test_a_client_named_as_the_series_of_all_others(gateway, fake_engine):
    """Behind 200 further clients there were two series of that name, and Prometheus refused the page."""
    users = [user(name, threshold=300) for name in ("other", *(f"user{number}" for number in range(201)))]
    gate = gateway([fake_engine()], users)
    tokens = lambda client: gate.metrics().total("llm_client_tokens_total", type="completion", client=client)
    assert ask_all(gate, [("other", chat_body())]) == {200: 1}
    gate.wait_outcomes({"completed": 1})
    alone = tokens("other")
    assert alone > 0
    assert ask_all(gate, [(one["token"], chat_body()) for one in users[1:]]) == {200: 201}
    gate.wait_outcomes({"completed": 202})
    samples = [line for line in gate.client.get("/metrics").body.decode().splitlines() if line.startswith('llm_client_tokens_total{client="other",type="completion"}')]
    assert len(samples) == 1
    assert tokens("other") == 2 * alone, "its own, and those of the one client that came too late"


def test_nothing_that_status_shows_is_younger_than_nothing(gateway):
    """The clock was read first, the requests last: those that came between had an age of some milliseconds less than none."""
    users = [user(f"t{number}", threshold=1000) for number in range(100)]
    gate = gateway(users=users, http=quick_engine(free_port()), zone="64m")
    gate.wait_ready()
    over = threading.Event()

    def traffic():
        while not over.is_set():
            assert set(ask_all(gate, [(one["token"], chat_body()) for one in users] * 20)) == {200}

    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = pool.submit(traffic)
        try:
            shown = [gate.status() for _ in range(150)]
        finally:
            over.set()
        asking.result()
    assert sum(len(status["requests"]) for status in shown) > 0
    assert min(request[age] for status in shown for request in status["requests"] for age in ("wait_ms", "age_ms")) >= 0
    assert min(model["oldest_ms"] for status in shown for model in status["models"]) >= 0
