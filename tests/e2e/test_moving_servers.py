"""docs/operations.md, "Passwords, and servers that move": Redis that fails over behind HAProxy, passwords that change."""

import re
import shutil

import pytest

from support import invariants
from support.client import chat_body
from support.paths import ROOT, program
from support.poll import until
from support.ports import free_port
from support.process import Process
from support.redis_server import RedisServer

PAGE = ROOT / "docs" / "operations.md"
GATEWAY_ACL = ["%R~llm:engine:*", "&llm:engines", "+get", "+mget", "+scan", "+subscribe", "+ping"]


@pytest.fixture
def replica(redis_server, tmp_path):
    server = RedisServer(tmp_path / "replica")
    server.start()
    server.client.replicaof("127.0.0.1", redis_server.port)
    until(lambda: server.client.info("replication")["master_link_status"] == "up", "the replica follows")
    yield server
    server.stop()


@pytest.fixture
def proxy(redis_server, replica, tmp_path):
    """HAProxy as the page has it: the port that leads to the primary."""
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
        pytest.skip("no haproxy here")
    text = re.search(r"^```haproxy\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1]
    port = free_port()
    for there, here in {"127.0.0.1:6400": f"127.0.0.1:{port}", "10.0.0.1:6379": f"127.0.0.1:{redis_server.port}",
                        "10.0.0.2:6379": f"127.0.0.1:{replica.port}"}.items():
        assert there in text
        text = text.replace(there, here)
    conf = tmp_path / "haproxy.cfg"
    conf.write_text(text)
    process = Process([program("haproxy"), "-db", "-f", conf], tmp_path / "haproxy.log")
    process.wait_port(port)
    yield port
    process.stop()


def test_redis_fails_over_behind_a_proxy(redis_server, replica, proxy, llm_engine, gateway):
    url = f"redis://127.0.0.1:{proxy}"
    gate = gateway(http=f"llm_redis {url};")
    llm_engine(sim=True, redis=url)
    gate.wait_ready()
    redis_server.kill()
    until(lambda: gate.metrics().total("llm_redis_up") == 0, "the loss is noticed")
    assert gate.client.ask(chat_body("sim", max_tokens=2), token="alice").status == 200
    replica.client.replicaof("NO", "ONE")
    until(lambda: gate.metrics().total("llm_redis_up") == 1, "the other one is used")
    until(lambda: gate.metrics().values("llm_engine_report_age_seconds")[0] < 0.9, "the engine reports to it")
    assert gate.client.ask(chat_body("sim", max_tokens=2), token="alice").status == 200
    assert gate.metrics().total("llm_engines_lost_total") == 0
    invariants.check(gate, body=chat_body("sim", max_tokens=2))


def test_the_password_of_redis_changes(redis_server, fake_engine, gateway):
    admin = redis_server.client
    admin.execute_command("ACL", "SETUSER", "gateway", "on", ">old", *GATEWAY_ACL)
    there = f"127.0.0.1:{redis_server.port}"
    gate = gateway(http=f"llm_redis redis://gateway:old@{there};")
    reporter = fake_engine().announce(redis_server.url)
    gate.wait_model("m", "alice")
    admin.execute_command("ACL", "SETUSER", "gateway", ">new")
    gate.blocks["http"] = gate.blocks["http"].replace("gateway:old", "gateway:new")
    gate.reload()
    admin.execute_command("ACL", "SETUSER", "gateway", "<old")
    until(lambda: gate.metrics().total("llm_redis_up") == 1, "it is connected with the new one")
    reporter.report(max_running=7)
    until(lambda: gate.metrics().values("llm_engine_limit") == [7], "reports are heard")
    assert "was refused" not in gate.error_log()
