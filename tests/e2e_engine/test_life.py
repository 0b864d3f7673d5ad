"""From the command line to the goodbye: bad options, reports to Redis, draining."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading

import pytest

from support.paths import DEMO_MODEL, ENGINE
from support.poll import until
from support.process import Process


@pytest.mark.parametrize("options, word", [
    (["--model", "/nowhere"], "/nowhere"),
    (["--model", "/tmp", "--listen", "127.0.0.1:0"], "/tmp"),
    (["--backend", "sim", "--model", "m", "--listen", "nonsense"], "nonsense"),
    (["--backend", "sim", "--model", "m", "--listen", "127.0.0.1:70000"], "65535"),
    (["--backend", "sim", "--model", "m", "--listen", "127.0.0.1:http"], "65535"),
    (["--backend", "sim", "--model", "m", "--listen", "unix:/nowhere/socket"], "No such file"),
    (["--backend", "sim", "--model", "m", "--redis", "http://x"], "--redis"),
    (["--backend", "sim", "--model", "m", "--listen", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1",
      "--advertise", "ftp://x"], "url"),
])
def test_bad_options_end_with_one_sentence(options, word):
    done = subprocess.run([ENGINE, "--listen", "127.0.0.1:0", *options], stderr=subprocess.PIPE, text=True,
                          timeout=30)
    assert done.returncode not in (0, -11, -6)
    assert word in done.stderr and done.stderr.startswith("llm-engine: ") and done.stderr.count("\n") == 1


def test_api_keys(start_engine, tmp_path):
    """The paths that do or tell something want one of the keys; those that probes ask do not."""
    keys = tmp_path / "keys"
    keys.write_text("# two of them\nsk-one\r\n\n  \nsk-two\n")
    engine = start_engine("--api-key-file", str(keys))
    for key, status in [(None, 401), ("Bearer sk-three", 401), ("Bearer ", 401), ("Basic sk-one", 401), ("sk-one", 401),
                        ("Bearer sk-one", 200), ("bearer  sk-two", 200), ("Bearer sk-one\tx", 401)]:
        headers = {"authorization": key} if key else {}
        got, sent, body = engine.chat(max_tokens=1, headers=headers)
        assert got == status, key
        assert status == 200 or (body["error"]["code"] == "invalid_api_key" and sent["www-authenticate"] == "Bearer")
        assert status == 200 or body["error"]["message"].startswith("Incorrect API key provided")  # libraries look for this
        for method, path in [("GET", "/v1/models"), ("GET", "/v1/models/sim"), ("POST", "/tokenize")]:
            data = '{"prompt":"x"}' if method == "POST" else None
            assert engine.request(method, path, data, headers)[0] == status
    assert engine.request("POST", "/drain")[0] == 401
    for path in ["/health", "/ready", "/metrics", "/ping", "/version", "/load"]:
        assert engine.request("GET", path)[0] == 200
    assert engine.request("OPTIONS", "/v1/chat/completions")[0] == 200
    (tmp_path / "none").write_text("# none\n")
    (tmp_path / "bad").write_text("good\na b\n")
    for name, word in [("none", "no key"), ("bad", "line 2"), ("absent", "cannot read")]:
        done = subprocess.run([ENGINE, "--backend", "sim", "--model", "m", "--listen", "127.0.0.1:0",
                               "--api-key-file", str(tmp_path / name)], stderr=subprocess.PIPE, text=True, timeout=30)
        assert done.returncode == 1 and word in done.stderr and "good" not in done.stderr


def test_reports(start_engine, redis, announcements):
    engine = start_engine("--redis", redis.url, "--id", "e1", "--org", "cs")
    assert engine.chat(max_tokens=10)[0] == 200
    report = until(lambda: (got := redis.report("e1")).get("completed") == 1 and got, "the report counts the request")
    assert report["state"] == "ready" and report["models"] == ["sim"] and report["org"] == "cs"
    assert report["url"] == f"http://127.0.0.1:{engine.port}"
    assert report["tokens_out"] == 10 and report["decode_tokens"] == 9 and report["preempts"] is True
    assert 0 < redis.client.pttl("llm:engine:e1") <= 3000
    engine.stop()
    seen = announcements.until_gone()
    assert redis.report("e1") == {}
    assert [r["seq"] for r in seen] == list(range(1, len(seen) + 1))
    assert {r["state"] for r in seen} >= {"ready", "draining", "gone"}


def test_an_idle_engine_reports_in_time(start_engine, redis, announcements):
    """At least every 500 ms: it planned for just that, and woke up a little later each time."""
    start_engine("--redis", redis.url, "--id", "e1")
    reports = [announcements.next() for _ in range(9)]
    idle = [report["uptime_s"] for report in reports if report["state"] == "ready"]
    gaps = sorted(later - earlier for earlier, later in zip(idle, idle[1:]))
    assert gaps[len(gaps) // 2] <= 0.5, gaps


def test_redis_restart_does_not_matter(start_engine, redis):
    engine = start_engine("--redis", redis.url, "--id", "e1")
    until(lambda: redis.report("e1"), "the first report")
    redis.stop()
    for _ in range(5):
        assert engine.chat(max_tokens=3)[0] == 200
    until(lambda: "Redis is not reachable" in engine.output(), "the engine notices")  # it may have had nothing to send so soon
    redis.start()
    until(lambda: redis.report("e1"), "the report after Redis returned")
    until(lambda: "Redis is reachable" in engine.output(), "the engine says so")


def test_a_redis_that_hangs_does_not_matter(start_engine, redis):
    engine = start_engine("--redis", redis.url, "--id", "e1")
    until(lambda: redis.report("e1"), "the first report")
    redis.send_signal(signal.SIGSTOP)
    try:
        until(lambda: "Redis is not reachable" in engine.output(), "the engine notices")
        assert "no answer within 1 s" in engine.output()
        assert engine.chat(max_tokens=3)[0] == 200
    finally:
        redis.send_signal(signal.SIGCONT)
    until(lambda: redis.report("e1").get("completed") == 1, "the report after it woke up")


def test_sigterm_does_not_wait_for_whoever_keeps_asking(start_engine):
    """The end was looked for once a second, and the turn of that second was always one with an answer not yet sent."""
    engine = start_engine("--drain-grace", "0.2")
    ended = threading.Event()
    asked = []

    def poll():
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
        try:
            while not ended.wait(0.02):
                connection.request("GET", "/metrics")
                asked.append(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            pass  # the engine has ended

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        until(lambda: len(asked) > 10, "the poller polls")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(10) == 0
    finally:
        ended.set()
        thread.join()


def test_sigterm_finishes_what_runs_and_refuses_the_rest(start_engine):
    engine = start_engine(sim="base=30")  # 1.8 s, in which the refusal must be seen
    answers = []
    thread = threading.Thread(target=lambda: answers.append(engine.chat(max_tokens=60)))
    thread.start()
    until(lambda: engine.metric("num_requests_running") == 1, "the request runs")
    engine.process.send_signal(signal.SIGTERM)
    status, headers, body = until(lambda: (got := engine.chat(max_tokens=1))[0] == 503 and got, "draining")
    assert body["error"]["code"] == "draining" and "retry-after" in headers
    thread.join()
    assert answers[0][0] == 200 and answers[0][2]["usage"]["completion_tokens"] == 60
    assert engine.process.wait(10) == 0


def test_a_draining_engine_serves_those_who_have_not_heard(start_engine, redis):
    """The report says draining at once; a request that crosses it on its way is served."""
    engine = start_engine("--redis", redis.url, "--id", "e1", "--drain-grace", "30")
    engine.process.send_signal(signal.SIGTERM)
    until(lambda: redis.report("e1").get("state") == "draining", "the report")
    assert engine.request("GET", "/ready")[0] == 503
    assert engine.chat(max_tokens=3)[0] == 200
    assert engine.process.alive(), "an idle engine left before its gateways could know"
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(10) == 0


def test_a_second_sigterm_ends_at_once(start_engine):
    engine = start_engine(sim="base=10")
    connection = engine.connect()
    connection.request("POST", "/v1/completions", json.dumps({"model": "sim", "prompt": "x", "max_tokens": 5000}))
    until(lambda: engine.metric("num_requests_running") == 1, "the request runs")
    engine.process.send_signal(signal.SIGTERM)
    until(lambda: engine.request("GET", "/ready")[0] == 503, "draining")
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(5) == 0
    connection.close()


def test_sigterm_does_not_wait_for_the_model(tmp_path, redis, announcements):
    """Loading takes minutes, and signals were not even looked at any more."""
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    (tmp_path / "model/tokenizer.json").unlink()
    os.mkfifo(tmp_path / "model/tokenizer.json")  # nobody writes it
    path = tmp_path / "socket"
    process = Process([ENGINE, "--model", str(tmp_path / "model"), "--listen", f"unix:{path}", "--redis", redis.url,
                       "--id", "e1", "--advertise", "http://127.0.0.1:1"], tmp_path / "engine.log")
    try:
        assert announcements.next()["state"] == "loading"
        assert path.exists()
    finally:
        assert process.stop(signal.SIGTERM, 10) == 0
    assert announcements.until_gone()[-1]["state"] == "gone"
    assert not path.exists()


def test_drain_keeps_the_process(start_engine):
    engine = start_engine()
    status, _, body = engine.request("POST", "/drain")
    assert status == 200 and body["state"] == "draining"
    assert engine.chat()[0] == 503 and engine.request("GET", "/ready")[0] == 503
    assert engine.request("GET", "/health")[0] == 200 and engine.process.alive()
