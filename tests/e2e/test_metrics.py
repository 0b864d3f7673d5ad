"""/metrics and /llm/status.json: present, in form, and right after known traffic."""

import gzip
import re
import time

import pytest

from support.client import chat_body
from support.paths import ROOT
from support.users import user

PAGE = ROOT / "docs" / "metrics.md"


def documented():
    """{name: type} of the tables of docs/metrics.md."""
    rows = re.findall(r"^\| (`llm_[^|]*) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_page_of_metrics_names_all_of_them_and_no_other(redis_server, fake_engine, gateway):
    engine = fake_engine()
    gate = gateway(http=f"llm_redis {redis_server.url};")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    for stream in (False, True):
        assert gate.client.ask(chat_body(stream=stream, stream_options={"include_usage": True} if stream else None), token="alice").status == 200
    metrics = gate.metrics()
    declared = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.text, re.MULTILINE))
    assert declared == documented()
    seen = {name if name in declared else re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics.names()}
    assert seen == set(declared), "each has a sample after a request and a stream"


def test_text_format(fake_engine, gateway):
    gate = gateway([fake_engine()])
    gate.client.ask(token="alice")
    reply = gate.client.get("/metrics")
    assert reply.header("content-type").startswith("text/plain")
    text = reply.body.decode()
    declared = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert set(declared) == set(re.findall(r"^# HELP (\S+) ", text, re.MULTILINE))
    assert len(re.findall(r"^# TYPE", text, re.MULTILINE)) == len(declared), "a name is declared twice"
    for name, labels, number in gate.metrics().samples:
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in declared else name
        assert family in declared, name
        assert name.endswith("_total") == (declared[family] == "counter"), name
    assert text.endswith("\n")


def test_histograms_add_up(fake_engine, gateway):
    gate = gateway([fake_engine()])
    for _ in range(3):
        gate.client.ask(token="alice")
    gate.wait_outcomes({"completed": 3})
    metrics = gate.metrics()
    assert metrics.total("llm_request_duration_seconds_count", model="m") == 3
    assert metrics.total("llm_request_duration_seconds_bucket", model="m", le="+Inf") == 3
    buckets = [number for name, labels, number in metrics.samples if name == "llm_request_duration_seconds_bucket"]
    assert buckets == sorted(buckets)


def test_every_gap_between_tokens_is_seen(fake_engine, gateway):
    """Those after the last batch of sixteen were not, and of a short answer none at all."""
    counts = [1, 2, 6, 20]

    def script(exchange):
        exchange.stream_head()
        for number in range(exchange.request.json()["max_tokens"]):
            if number:
                time.sleep(0.012)
            exchange.event({"choices": [{"index": 0, "delta": {"content": f"w{number} "}}]})
        exchange.event("[DONE]")
        exchange.end()

    gate = gateway([fake_engine(script=script)])
    for count in counts:
        assert gate.client.ask(chat_body(stream=True, max_tokens=count), token="alice").complete
    gate.wait_outcomes({"completed": len(counts)})
    metrics = gate.metrics()
    gaps = sum(counts) - len(counts)
    assert metrics.total("llm_inter_token_seconds_count", model="m") == gaps
    assert metrics.total("llm_inter_token_seconds_sum", model="m") >= gaps * 0.01
    assert metrics.total("llm_time_to_first_token_seconds_count", model="m") == len(counts)


def test_tokens_are_counted(fake_engine, gateway):
    gate = gateway([fake_engine()], [user("alice", name="Alice")])
    for _ in range(5):
        gate.client.ask(token="alice")
    gate.wait_outcomes({"completed": 5})
    metrics = gate.metrics()
    assert metrics.total("llm_tokens_total", model="m", type="prompt") == 35
    assert metrics.total("llm_tokens_total", model="m", type="completion") == 20
    assert metrics.total("llm_client_tokens_total", client="Alice", type="completion") == 20


def test_cached_prompt_tokens_are_counted(fake_engine, gateway):
    def script(exchange):
        usage = {"prompt_tokens": 700, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 512}}
        exchange.json({"object": "chat.completion", "choices": [], "usage": usage})

    gate = gateway([fake_engine(script=script)])
    for _ in range(3):
        gate.client.ask(token="alice")
    gate.wait_outcomes({"completed": 3})
    metrics = gate.metrics()
    assert metrics.total("llm_tokens_total", model="m", type="prompt") == 2100
    assert metrics.total("llm_cached_prompt_tokens_total", model="m") == 1536


def test_a_stream_that_is_an_error_and_nothing_else_costs_no_tokens(fake_engine, gateway):
    """vLLM 0.32 answers so when its own queue (--max-num-queued-reqs) is full."""
    def script(exchange):
        exchange.stream_head()
        exchange.chunk(b'data: {"error": {"message": "The engine is currently busy and cannot accept new requests. Please try again later '
                       b'or on a different instance.", "type": "Service Unavailable", "param": null, "code": 503}}\n\n')
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.end()

    gate = gateway([fake_engine(script=script)])
    reply = gate.client.ask(chat_body(content="word " * 200, stream=True), token="alice")
    assert reply.status == 200 and reply.complete and '"code": 503' in reply.events()[0]
    gate.wait_outcomes({"completed": 1})
    assert gate.metrics().total("llm_tokens_total") == 0


def test_models_never_registered_share_one_series(fake_engine, gateway):
    gate = gateway([fake_engine()])
    for number in range(20):
        gate.client.ask(chat_body(f"invented-{number}"), token="alice")
    gate.wait_outcomes({"rejected_model_not_found": 20})
    metrics = gate.metrics()
    assert metrics.total("llm_requests_total", model="", outcome="rejected_model_not_found") == 20
    assert "invented" not in metrics.text


def test_counters_survive_a_reload(fake_engine, gateway):
    gate = gateway([fake_engine()])
    for _ in range(4):
        gate.client.ask(token="alice")
    gate.wait_outcomes({"completed": 4})
    gate.reload()
    assert gate.metrics().outcomes() == {"completed": 4}


def test_labels_are_escaped(fake_engine, gateway):
    gate = gateway([fake_engine()], [user("alice", name='Quote " back \\ slash')])
    gate.client.ask(token="alice")
    gate.wait_outcomes({"completed": 1})
    assert gate.metrics().values("llm_client_tokens_total", client='Quote \\" back \\\\ slash')


def test_dashboard_and_status(fake_engine, gateway):
    gate = gateway([fake_engine()])
    gate.client.ask(token="alice")
    page = gate.client.get("/llm/")
    assert page.status == 200 and page.header("content-type").startswith("text/html")
    assert not re.search(rb'(src|href)="https?://', page.body), "the dashboard loads something from elsewhere"
    status = gate.client.get("/llm/status.json")
    assert status.header("content-type") == "application/json"
    assert isinstance(status.json(), dict)
    assert gate.client.get("/llm/nothing").status == 404


@pytest.mark.parametrize("location", ["~ ^/(short|long)/", "~* /SHORT", "/short", "/short/"])
def test_status_in_any_location(fake_engine, gateway, location):
    """One with a regular expression took the whole path for what stands behind it."""
    engine = fake_engine(max_running=1)
    gate = gateway(http=f"llm_engine {engine.url} model=m id=a//b;", locations=f"location {location} {{ llm_status admin; }}")
    admin = [("x-llm-admin", "1")]
    assert gate.client.get("/short/status.json").json()["engines"][0]["id"] == "a//b"
    assert gate.client.get("/short/").header("content-type").startswith("text/html")
    assert gate.client.get("/short/nothing").status == 404
    assert gate.client.ask(b"", target="/short/engines/a%2F%2Fb/drain", headers=admin).status == 200
    assert gate.status()["engines"][0]["drained"]
    assert gate.client.ask(b"", target="/short/engines/a//b/undrain", headers=admin).status == 200
    running = engine.occupy(gate.client, token="alice")
    assert gate.client.ask(method="DELETE", target=f"/short/requests/{gate.status()['requests'][0]['id']}", headers=admin).status == 200
    assert running.reply().status == 503


@pytest.mark.parametrize("target,kind", [("/metrics", "text/plain; version=0.0.4; charset=utf-8"), ("/llm/", "text/html; charset=utf-8")])
def test_pages_are_compressed_as_gzip_types_say(gateway, fake_engine, target, kind):
    """Their types were compared with the charset behind them, so that none was ever in the list."""
    gate = gateway([fake_engine(models=["modèle"])], server="gzip on; gzip_types text/plain; charset koi8-r; charset_types *;")
    plain = gate.client.get(target)
    packed = gate.client.get(target, headers=[("Accept-Encoding", "gzip")])
    assert (plain.header("content-encoding"), packed.header("content-encoding")) == (None, "gzip")
    for reply, body in ((plain, plain.body), (packed, gzip.decompress(packed.body))):
        assert reply.header("content-type") == kind, "what it is written in is not changed"
        assert ("modèle" if target == "/metrics" else "–") in body.decode()
