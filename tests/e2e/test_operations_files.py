"""What conf/ brings for watching and running: alert rules, the Grafana dashboard, systemd units, the autoscaler."""

import json
import os
import re
import shutil
import subprocess

import pytest

from support.client import chat_body
from support.paths import CONF, program
from support.poll import until
from support.process import Process
from support.users import user

RULES = CONF / "prometheus"
DASHBOARD = CONF / "grafana" / "llm-dispatch.json"


def promtool(*arguments, cwd=RULES):
    return subprocess.run([program("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def expressions(panels):
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_alert_rules():
    assert promtool("check", "rules", "--lint-fatal", "llm-rules.yml").returncode == 0
    done = promtool("test", "rules", "llm-rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = set(re.findall(r"alert: (\w+)", (RULES / "llm-rules.yml").read_text()))
    tests = (RULES / "llm-rules.test.yml").read_text()
    assert alerts == set(re.findall(r"alertname: (\w+)\n", tests)), "each alert has a test in which it fires"


def test_the_test_of_the_rules_can_fail(tmp_path):
    """Each rule turned around in turn: the test notices."""
    rules = (RULES / "llm-rules.yml").read_text()
    shutil.copy(RULES / "llm-rules.test.yml", tmp_path)
    changes = [(" == 0", " == 2"), (" == 1\n", " == 2\n"), ("oldest_seconds > 20", "oldest_seconds > 30"), ("> 0.05", "> 0.15"), ("> 0.02", "> 0.2")]
    for there, instead in changes:
        assert there in rules
        (tmp_path / "llm-rules.yml").write_text(rules.replace(there, instead))
        assert promtool("test", "rules", "llm-rules.test.yml", cwd=tmp_path).returncode != 0, there


def test_rules_and_dashboard_use_metrics_that_exist(gateway, fake_engine, tmp_path):
    gate = gateway([fake_engine()])
    declared = set(re.findall(r"^# TYPE (\S+)", gate.metrics().text, re.MULTILINE))
    board = json.loads(DASHBOARD.read_text())
    found = expressions(board["panels"])
    assert len(found) > 20
    texts = [*found, *(variable["query"]["query"] for variable in board["templating"]["list"] if isinstance(variable["query"], dict)),
             *re.findall(r"expr: (.*)", (RULES / "llm-rules.yml").read_text()), (RULES / "llm-rules.yml").read_text()]
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for text in texts for name in re.findall(r"\b(llm_[a-z_]+)\b(?=[{ \[,)\n]|$)", text)}
    used -= {"llm_queue_timeout", "llm_min_throughput", "llm_priority_db"}  # directives in texts for people
    assert used - declared == set()
    # Prometheus parses each query, once Grafana's variables are filled in
    filled = [expr.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$model", ".*") for expr in found]
    rules = {"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]}]}
    (tmp_path / "rules.yml").write_text(json.dumps(rules))  # JSON is YAML
    done = promtool("check", "rules", "rules.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("unit", ["nginx.service", "llm-engine@.service", "llm-reporter@.service"])
def test_systemd_units(tmp_path, unit):
    units = CONF / "systemd"
    if unit == "nginx.service":
        shutil.copytree(units / "nginx.service.d", tmp_path / "nginx.service.d")
        (tmp_path / unit).write_text("[Unit]\nDescription=nginx\n[Service]\nType=forking\nPIDFile=/run/nginx.pid\nExecStart=/bin/true\n"
                                     "ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile /run/nginx.pid\n")
    else:
        text = (units / unit).read_text()
        assert re.search(r"^ExecStart=/usr/bin/llm-\w+ \$OPTIONS$", text, re.MULTILINE)
        (tmp_path / unit).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / unit], env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or unit.partition("@")[0].removesuffix(".service") in line]
    assert not said and done.returncode == 0, done.stderr
    if unit != "nginx.service":
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=25", tmp_path / unit], env=environment,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"exposure above 2.5:\n{done.stdout[-400:]}"


def test_desired_engines(redis_server, fake_engine, gateway):
    """Enough engines of the present size for what runs and waits; while none is usable, of the size that they have."""
    gate = gateway(users=[user("alice", threshold=50)], http=f"llm_redis {redis_server.url};")
    engine = fake_engine(max_running=4)
    reporter = engine.announce(redis_server.url)
    gate.wait_model("m", "alice")

    def wanted(count):
        until(lambda: gate.metrics().total("llm_desired_engines", model="m") == count, lambda: gate.metrics().text)

    wanted(0)
    engine.hold()
    pending = [gate.client.send(token="alice") for _ in range(10)]
    gate.wait_queued(6)
    wanted(3)
    reporter.report(state="loading")
    wanted(3)
    reporter.report(state="ready")
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 10
    wanted(0)


def test_autoscaler(fake_engine, gateway, tmp_path):
    engine = fake_engine(max_running=2)
    gate = gateway([engine], [user("alice", threshold=50)])
    told = tmp_path / "told"
    told.touch()
    script = Process(["sh", CONF / "samples" / "scale-engines.sh", f"http://127.0.0.1:{gate.port}/metrics", "m", "4",
                      "sh", "-c", f'echo "$@" >>{told}', "sh", "replicas"], tmp_path / "output", env={"INTERVAL": "0.1", "PATIENCE": "1"})
    try:
        until(lambda: told.read_text() == "replicas 1\n", script.output)
        engine.hold()
        pending = [gate.client.send(token="alice") for _ in range(5)]
        gate.wait_queued(3)
        until(lambda: told.read_text().endswith("replicas 3\n"), told.read_text)
        pending += [gate.client.send(chat_body(content="more"), token="alice") for _ in range(20)]
        until(lambda: told.read_text().endswith("replicas 4\n"), told.read_text)  # and no more than 4
        engine.open_gate()
        assert [one.reply().status for one in pending] == [200] * 25
        until(lambda: told.read_text().endswith("replicas 1\n"), told.read_text)
    finally:
        script.stop()
