"""Engines that announce themselves in Redis; and Redis absent, stopped, restarted empty."""

import json
import os
import re
import signal
import time

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.fake_engine import leave_to_successor
from support.name_server import NameServer
from support.paths import ROOT
from support.poll import stays, until
from support.reporter import report_of
from support.users import user


@pytest.fixture
def gate(redis_server, gateway):
    return gateway(http=f"llm_redis {redis_server.url};")


def test_engine_appears_serves_and_leaves(redis_server, gate, fake_engine):
    assert_error(gate.client.ask(token="alice"), 404, "model_not_found")
    engine = fake_engine()
    reporter = engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    assert gate.client.ask(token="alice").status == 200
    assert len(engine.requests) == 1
    reporter.leave()
    until(lambda: gate.client.ask(token="alice").status == 503, "the engine that left is not used")
    assert_error(gate.client.ask(token="alice"), 503, "no_engine")


def test_engine_found_by_reading_the_keys(redis_server, fake_engine, gateway):
    """One that reported before the gateway started and is silent since."""
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, ttl_ms=60000)
    reporter.stop()
    gate = gateway(http=f"llm_redis {redis_server.url};")
    gate.wait_model("m", "alice")
    assert gate.client.ask(token="alice").status == 200


def test_prefix(redis_server, fake_engine, gateway):
    engine = fake_engine()
    gate = gateway(http=f"llm_redis {redis_server.url} prefix=other:;")
    engine.announce(redis_server.url)
    stays(lambda: gate.client.ask(token="alice").status == 404, "an engine of another prefix is used", 0.5)


def test_draining_engine_gets_nothing_new(redis_server, gate, fake_engine):
    leaving, staying = fake_engine(), fake_engine()
    reporter = leaving.announce(redis_server.url)
    gate.wait_model("m", "alice")
    running = leaving.occupy(gate.client, token="alice")
    reporter.report(state="draining")
    staying.announce(redis_server.url)
    until(lambda: len(gate.metrics().values("llm_engine_up")) == 2, "both are known")
    until(lambda: gate.client.ask(token="alice").status == 200 and len(staying.requests) > 0, "the other engine serves")
    before = len(leaving.requests)
    for _ in range(10):
        assert gate.client.ask(token="alice").status == 200
    assert len(leaving.requests) == before
    leaving.open_gate()
    assert running.reply().status == 200


def test_loading_engine_lets_requests_wait(redis_server, gate, fake_engine):
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, state="loading")
    gate.wait_metric("llm_engine_up")
    waiting = gate.client.send(token="alice")
    gate.wait_queued(1)
    assert not engine.requests
    reporter.report(state="ready")
    assert waiting.reply().status == 200


def test_reported_limit_holds(redis_server, fake_engine, gateway):
    engine = fake_engine(max_running=2)
    gate = gateway(users=[user("alice", threshold=50)], http=f"llm_redis {redis_server.url};")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    engine.hold()
    pending = [gate.client.send(token="alice") for _ in range(5)]
    engine.wait_requests(2)
    gate.wait_queued(3)
    engine.open_gate()
    assert all(one.reply().status == 200 for one in pending)


@pytest.mark.parametrize("stop", ["stop", "kill"])
def test_redis_goes_and_comes_back_empty(redis_server, gate, fake_engine, stop):
    engine = fake_engine()
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    until(lambda: gate.metrics().total("llm_redis_up") == 1, "llm_redis_up is 1")
    getattr(redis_server, stop)()
    until(lambda: gate.metrics().total("llm_redis_up") == 0, "llm_redis_up is 0")
    for _ in range(5):
        assert gate.client.ask(token="alice", timeout=5).status == 200, "routing goes on with what is known"
    redis_server.start()
    until(lambda: gate.metrics().total("llm_redis_up") == 1, "the gateway is connected again", 5)
    late = fake_engine(["late"])
    late.announce(redis_server.url)
    gate.wait_model("late", "alice")
    assert gate.client.ask(token="alice").status == 200


def test_redis_absent_at_start(redis_server, fake_engine, gateway):
    redis_server.stop()
    static = fake_engine(["static"])
    gate = gateway([static], http=f"llm_redis {redis_server.url};")
    assert gate.client.ask(chat_body("static"), token="alice").status == 200
    redis_server.start()
    fake_engine().announce(redis_server.url)
    gate.wait_model("m", "alice")
    assert gate.client.ask(token="alice").status == 200


def test_a_worker_that_stood_still_does_not_blame_redis(redis_server, gateway):
    """It had asked nothing for longer than a server may be silent, and took that for the server's silence."""
    gate = gateway(http=f"llm_redis {redis_server.url};", workers=1)
    until(lambda: gate.metrics().total("llm_redis_up") == 1, "Redis is connected")
    worker, = gate.workers()
    os.kill(worker, signal.SIGSTOP)
    time.sleep(4)
    os.kill(worker, signal.SIGCONT)
    connections = redis_server.client.info()["total_connections_received"]
    stays(lambda: gate.metrics().total("llm_redis_up") == 1, "Redis is called down", 2)
    assert redis_server.client.info()["total_connections_received"] == connections
    redis_server.send_signal(signal.SIGSTOP)
    until(lambda: gate.metrics().total("llm_redis_up") == 0, "Redis is called down", 6)
    redis_server.send_signal(signal.SIGCONT)


def test_a_report_updates_a_static_engine(redis_server, fake_engine, gateway):
    """It keeps what the configuration says of it; its key was lost with the first report."""
    engine = fake_engine()
    gate = gateway(http=f"llm_redis {redis_server.url}; llm_engine {engine.url} model=m id=static max_running=5 org=cs key=secret;")
    engine.models = ["m", "more"]
    engine.announce(redis_server.url, max_running=3, org="other", running=0)
    gate.wait_model("more", "alice")
    until(lambda: gate.status()["engines"][0]["report_age_ms"] is not None, "the report has arrived")
    (shown,) = gate.status()["engines"]
    assert (shown["id"], shown["organisation"], shown["max_running"], shown["models"]) == ("static", "cs", 5, ["m", "more"])
    for model in ("m", "more"):
        assert gate.client.ask(chat_body(model), token="alice").status == 200
        assert engine.requests[-1].header("authorization") == "Bearer secret"


def test_queued_requests_survive_a_redis_restart(redis_server, fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway(users=[user("alice", threshold=50)], http=f"llm_redis {redis_server.url};")
    engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    engine.hold()
    pending = [gate.client.send(token="alice") for _ in range(6)]
    gate.wait_queued(5)
    redis_server.kill()
    redis_server.start()
    engine.open_gate()
    assert all(one.reply().status == 200 for one in pending)


def test_silent_engine_keeps_getting_work(redis_server, gate, fake_engine):
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, ttl_ms=200)
    gate.wait_model("m", "alice")
    reporter.stop()
    until(lambda: redis_server.client.get(reporter.key) is None, "the key is gone")
    deadline = time.monotonic() + 3  # longer than 10 x ttl_ms
    while time.monotonic() < deadline:
        assert gate.client.ask(token="alice").status == 200


def test_silent_engine_without_successes_is_forgotten(redis_server, gate, fake_engine):
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, ttl_ms=200)
    gate.wait_model("m", "alice")
    reporter.stop()
    until(lambda: not gate.metrics().values("llm_engine_up"), "the engine is forgotten after 10 x ttl_ms", 8)
    assert gate.metrics().total("llm_engines_lost_total") == 1
    gate.wait_logged(f'engine "{engine.name}" has stopped reporting without saying goodbye')


def test_an_engine_that_comes_back_by_another_name(redis_server, gate, fake_engine):
    """What succeeds at its address since is the successor's: the former name does not double what the engine is given."""
    engine = fake_engine(max_running=2)
    former = engine.announce(redis_server.url, id="former", ttl_ms=200)
    gate.wait_model("m", "alice")
    former.stop()
    engine.announce(redis_server.url, id="latter", ttl_ms=200)
    until(lambda: len(gate.status()["engines"]) == 2, "both are known")

    def one_is_left():
        assert gate.client.ask(token="alice").status == 200
        return [entry["id"] for entry in gate.status()["engines"]] == ["latter"]

    until(one_is_left, "the former name is forgotten after 10 x ttl_ms, although requests succeed", 8)
    gate.wait_logged('engine "former" has stopped reporting without saying goodbye')


def test_an_engine_that_says_goodbye_is_not_lost(redis_server, gate, fake_engine):
    reporter = fake_engine().announce(redis_server.url)
    gate.wait_model("m", "alice")
    reporter.leave()
    until(lambda: not gate.metrics().values("llm_engine_up"), "the engine has left")
    assert gate.metrics().total("llm_engines_lost_total") == 0


def test_a_listed_engine_that_stops_reporting_is_counted_and_stays(redis_server, fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], http=f"llm_redis {redis_server.url};")
    reporter = engine.announce(redis_server.url, ttl_ms=200)
    until(lambda: gate.metrics().values("llm_engine_report_age_seconds"), "its reports have come")
    reporter.stop()
    until(lambda: gate.metrics().total("llm_engines_lost_total") == 1, "its reports are missed", 8)
    assert not gate.metrics().values("llm_engine_report_age_seconds")
    assert gate.client.ask(token="alice").status == 200


LIES = [
    "not json", "[]", "null", "{}", '{"v":1}', '{"v":2,"id":"x"}', "\xff\xfe", "{" * 100000, '"' + "x" * 300000 + '"',
]


def test_lying_reports_are_ignored(redis_server, gate, fake_engine):
    engine = fake_engine()
    reporter = engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    workers = gate.workers()
    for lie in LIES:
        redis_server.client.publish("llm:engines", lie.encode("utf-8", "surrogatepass"))
    good = {**reporter.fields(), "seq": 10 ** 9}
    for field, value in [("seq", -1), ("seq", "x"), ("boot", None), ("models", []), ("models", "m"), ("models", [5]), ("url", "ftp://x"),
                         ("url", "http://"), ("url", "http://127.0.0.1:0"), ("url", "http://127.0.0.1:70000"), ("state", "happy"), ("ttl_ms", 0), ("ttl_ms", 1e30), ("max_running", -5),
                         ("running", 1e300), ("kv_usage", "lots"), ("tokens_out", -1), ("user_seconds", True), ("id", "")]:
        redis_server.client.publish("llm:engines", json.dumps({**good, field: value}))
    redis_server.client.set("llm:engine:liar", "nonsense", px=5000)
    for _ in range(5):
        assert gate.client.ask(token="alice").status == 200
    assert gate.workers() == workers, "a report killed a worker"
    assert [entry["id"] for entry in gate.client.get("/v1/models", token="alice").json()["data"]] == ["m"]


def test_of_two_engines_with_one_id_the_later_start_wins(redis_server, gate, fake_engine):
    """And the log says so, also of an engine whose report was malformed a moment ago: that had used up its line of the minute."""
    older, younger = fake_engine(name="twin"), fake_engine(name="twin")
    older.announce(redis_server.url, boot=1000)
    gate.wait_model("m", "alice")
    redis_server.client.publish("llm:engines", '{"v":1,"id":"twin"}')
    gate.wait_logged('report of engine "twin" ignored')
    report = younger.announce(redis_server.url, boot=2000)
    gate.wait_logged(f'engine "twin" is at {younger.url} now')
    assert gate.client.ask(token="alice").status == 200
    assert len(younger.requests) == 1 and not older.requests
    report.stop()


def test_a_leaving_engine_and_its_successor_are_one_series(redis_server, gate, fake_engine):
    """Two would make Prometheus refuse the page."""
    leaving, successor = fake_engine(name="twin"), fake_engine(name="twin")
    running = leave_to_successor(gate, redis_server.url, leaving, successor)
    assert gate.client.ask(token="alice").status == 200 and len(successor.requests) == 1
    assert gate.metrics().values("llm_engine_up", engine="twin") == [1]
    until(lambda: gate.metrics().values("llm_engine_held", engine="twin") == [1], "only the leaving one's seat is held")
    leaving.open_gate()
    assert running.reply().status == 200
    until(lambda: gate.metrics().values("llm_engine_held") == [0], "its seat is free")


def test_stale_sequence_is_ignored(redis_server, gate, fake_engine):
    engine = fake_engine()
    reporter = engine.announce(redis_server.url)
    gate.wait_model("m", "alice")
    stale = {**reporter.fields(), "seq": 0, "boot": reporter.boot - 1000, "state": "failed"}
    redis_server.client.publish("llm:engines", json.dumps(stale))
    stays(lambda: gate.client.ask(token="alice").status == 200, "an older report replaced a newer one", 0.3)


def test_password_and_database_in_the_url(redis_server, fake_engine, gateway):
    redis_server.client.acl_setuser("gate", enabled=True, passwords=["+s3cret/:"], keys=["*"], channels=["*"], commands=["+@all"])
    url = f"redis://gate:s3cret%2F%3A@127.0.0.1:{redis_server.port}/3"
    engine = fake_engine()
    engine.announce(f"redis://127.0.0.1:{redis_server.port}/3", ttl_ms=60000).stop()
    gate = gateway(http=f"llm_redis {url};")
    gate.wait_model("m", "alice")
    assert gate.client.ask(token="alice").status == 200
    assert "s3cret" not in gate.error_log()


@pytest.fixture
def name_server():
    server = NameServer({})
    yield server
    server.stop()


def test_names_that_the_system_alone_knows(redis_server, postgres_cluster, fake_engine, name_server, gateway):
    """A `resolver` made localhost unknown: name servers need not know it, nor what stands in /etc/hosts."""
    name = postgres_cluster.create_database()
    with postgres_cluster.connect(name) as connection:
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'Alice', 5, 10)")
        fake_engine().announce(f"redis://127.0.0.1:{redis_server.port}/0")
        database = f"postgresql://llm@localhost:{postgres_cluster.port}/{name}"
        gate = gateway(users=None, http=f'{name_server.directive} llm_redis redis://localhost:{redis_server.port}; llm_priority_db "{database}"; llm_usage on;')
        gate.wait_model("m", "alice")
        assert gate.client.ask(token="alice").status == 200
        until(lambda: connection.execute("SELECT 1 FROM metrics").fetchone(), "usage is written")
    assert name_server.asked


def test_an_engine_whose_name_gets_another_address(redis_server, fake_engine, name_server, gateway):
    """It was looked up again after half a minute at the earliest, whatever its TTL."""
    first = fake_engine()
    second = fake_engine(address=("127.0.0.2", first.port))
    name_server.addresses["engine.test"] = ["127.0.0.1"]
    first.url = f"http://engine.test:{first.port}"
    reporter = first.announce(redis_server.url)
    gate = gateway(http=f"{name_server.directive} llm_redis {redis_server.url};")
    gate.wait_model("m", "alice")
    assert gate.client.ask(token="alice").status == 200
    assert first.requests[0].header("host") == f"engine.test:{first.port}"
    first.die()
    name_server.addresses["engine.test"] = ["127.0.0.2"]
    reporter.report(boot=reporter.boot + 1)
    until(lambda: gate.client.ask(token="alice").status == 200, "the engine is found where it is now", 20)
    assert second.requests


def test_engines_of_a_host_with_addresses_of_both_kinds(redis_server, fake_engine, name_server, gateway):
    """From the second one on each second of them was spoken to at the IPv6 address, where most engines do not listen."""
    name_server.addresses["host.test"], name_server.ttl = ["::1", "127.0.0.1"], 60
    gate = gateway(http=f"{name_server.directive} llm_redis {redis_server.url};")
    for model in (f"m{number}" for number in range(8)):
        engine = fake_engine([model])
        engine.url = f"http://host.test:{engine.port}"
        engine.announce(redis_server.url)
        gate.wait_model(model, "alice")
        assert gate.client.ask(chat_body(model), token="alice").status == 200


def test_an_engine_whose_name_is_not_known_yet(redis_server, fake_engine, name_server, gateway):
    engine = fake_engine()
    engine.url = f"http://engine.test:{engine.port}"
    engine.announce(redis_server.url)
    gate = gateway(http=f"{name_server.directive} llm_redis {redis_server.url};")
    gate.wait_logged("host \"engine.test\" cannot be resolved: Host not found")
    pending = gate.client.send(token="alice")
    gate.wait_queued(1)
    name_server.addresses["engine.test"] = ["127.0.0.1"]
    assert pending.reply().status == 200


def test_tls_from_redis_to_the_engine(redis_server, fake_engine, gateway, certificate):
    trusted, key = certificate
    port = redis_server.serve_tls(trusted, key)
    engine = fake_engine()
    engine.serve_tls(trusted, key)
    engine.url = f"https://127.0.0.1:{engine.port}"
    engine.announce(redis_server.url)
    gate = gateway(http=f"llm_redis rediss://localhost:{port};", proxy="https", main="env SSL_CERT_FILE;")
    gate.wait_logged(r"llm: redis \S+ \(keys\): the certificate is refused: self-signed certificate")
    trusting = gateway(http=f"llm_redis rediss://localhost:{port};", proxy="https", main="env SSL_CERT_FILE;",
                       env={"SSL_CERT_FILE": str(trusted)})
    trusting.wait_model("m", "alice")
    assert trusting.client.ask(token="alice").status == 200
    assert len(engine.requests) == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_engines_report_over_tls(redis_server, llm_engine, reporter, certificate, host):
    port = redis_server.serve_tls(*certificate)
    url = f"rediss://{host}:{port}"
    stranger = llm_engine(sim=True, redis=url, arguments=["--id", "stranger"])
    trusting = {"SSL_CERT_FILE": str(certificate[0])}
    engine = llm_engine(sim=True, redis=url, arguments=["--id", "engine"], env=trusting)
    until(lambda: report_of(redis_server, "engine"), "the engine reports")
    reporter(engine="vllm", url=engine.url, redis=url, arguments=["--id", "sidecar"], env=trusting)
    until(lambda: (report_of(redis_server, "sidecar") or {}).get("state") == "ready", "the reporter reports")
    until(lambda: "Redis is not reachable, everything else goes on: the certificate is refused: self-signed certificate" in stranger.output(),
          "who does not know the authority says so")
    assert report_of(redis_server, "stranger") is None
    engine.finish()
    until(lambda: report_of(redis_server, "engine") is None, "it has said goodbye")


def test_a_certificate_of_another_host_is_refused(redis_server, llm_engine, certificate):
    port = redis_server.serve_tls(*certificate)
    redis_server.client.config_set("bind", "127.0.0.1 127.0.0.2")
    engine = llm_engine(sim=True, redis=f"rediss://127.0.0.2:{port}", env={"SSL_CERT_FILE": str(certificate[0])})
    until(lambda: "the certificate is refused: IP address mismatch" in engine.output(), "the engine says why")
    assert redis_server.client.keys("*") == []


def test_a_redis_that_wants_a_certificate_says_so(redis_server, llm_engine, gateway, certificate):
    port = redis_server.serve_tls(*certificate, ask_clients=True)
    trusting = {"SSL_CERT_FILE": str(certificate[0])}
    engine = llm_engine(sim=True, redis=f"rediss://127.0.0.1:{port}", env=trusting)
    until(lambda: "Redis is not reachable" in engine.output(), "the engine says why")
    assert "certificate required" in engine.output()
    gate = gateway(http=f"llm_redis rediss://127.0.0.1:{port};", main="env SSL_CERT_FILE;", env=trusting)
    gate.wait_logged(r"llm: redis \S+ \(keys\): the connection broke \(.*certificate required\); trying again")


def test_a_redis_without_tls_is_no_rediss(redis_server, llm_engine, gateway):
    engine = llm_engine(sim=True, redis=f"rediss://127.0.0.1:{redis_server.port}")
    until(lambda: "the TLS handshake failed" in engine.output(), "the engine says why")
    gate = gateway(http=f"llm_redis rediss://127.0.0.1:{redis_server.port};")
    gate.wait_logged(r"llm: redis \S+ \(keys\): no TLS handshake within 1\.5 s; trying again")


def test_the_logins_of_the_security_page_are_enough(redis_server, llm_engine, gateway):
    lines = re.findall(r"^ACL SETUSER (\w+) +(.*)$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == ["engine", "gateway"]
    for name, rules in lines:
        redis_server.client.execute_command("ACL", "SETUSER", name, *rules.split())
    there = redis_server.url.removeprefix("redis://")
    engine = llm_engine(sim=True, redis=f"redis://engine:PASSWORD@{there}")
    gate = gateway(users=None, http=f"llm_redis redis://gateway:PASSWORD@{there};")
    until(lambda: gate.metrics().total("llm_engine_up") == 1, "the engine is known")
    engine.finish()
    until(lambda: gate.metrics().total("llm_engine_up") == 0, "it has said goodbye")
    assert redis_server.client.keys("*") == [] and redis_server.client.acl_log() == []


def test_a_redis_that_refuses_what_is_asked_of_it_fills_no_log(redis_server, fake_engine, gateway):
    """An ACL without SCAN: each attempt gets as far as the greeting."""
    redis_server.client.acl_setuser("gateway", enabled=True, passwords=["+secret"], keys=["llm:engine:*"], channels=["llm:engines"],
                                    commands=["+get", "+mget", "+subscribe", "+ping"])
    connections = lambda: redis_server.client.info("stats")["total_connections_received"]
    before = connections()
    gate = gateway([fake_engine()], http=f"llm_redis {redis_server.url.replace('//', '//gateway:secret@')};", workers=1)
    until(lambda: connections() > before + 6, "it tries again and again", 20)
    gate.wait_logged(r"SCAN was refused: NOPERM")
    assert len(re.findall(r"SCAN was refused", gate.error_log())) == 1
    assert len(re.findall(r"connected again", gate.error_log())) <= 1
    assert gate.client.ask(token="alice").status == 200
