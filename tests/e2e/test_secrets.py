"""Where a client's token must not be found, and what a sample configuration must not open."""

import os
import pathlib
import pty
import re
import subprocess

import pytest

from support.client import chat_body
from support.paths import BUILD, CONF
from support.poll import until
from support.ports import free_port
from support.process import Process
from support.users import user

SECRET = "sk-secret-Zq7mW2rT9xK4vB8nL5"
UNKNOWN = "sk-unknown-Hd3pY6cJ1sF0gQ4eU8"


def shared_memory(pid):
    """The contents of a process's anonymous shared mappings: the zones."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            if rights == "rw-s" and name and name[0].startswith("/dev/zero"):
                begin, end = (int(word, 16) for word in span.split("-"))
                memory.seek(begin)
                yield memory.read(end - begin)


def test_the_zone_holds_no_token(fake_engine, gateway, tmp_path):
    """Of tokens only the hash: whoever gets hold of the zone, in a core file too, has nothing to log in with."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user(SECRET, name="alice", threshold=9)])
    pending = [engine.occupy(gate.client, chat_body(content="first"), token=SECRET)]
    pending.append(gate.client.send(chat_body(content="second"), token=SECRET))
    gate.wait_queued(1)
    assert gate.client.ask(token=UNKNOWN).status == 401
    zones = list(shared_memory(gate.pid))
    assert any(b"alice" in zone for zone in zones), "the zone itself was not among what was read"
    for zone in zones:
        assert SECRET.encode() not in zone and UNKNOWN.encode() not in zone
    shown = gate.metrics().text + gate.client.get("/llm/status.json").body.decode() + gate.client.get("/llm/").body.decode()
    assert SECRET not in shown and UNKNOWN not in shown
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200, 200]
    for request in engine.requests:
        assert SECRET.encode() not in request.raw
    for log in pathlib.Path(gate.directory).glob("*.log"):
        assert SECRET not in log.read_text() and UNKNOWN not in log.read_text(), log


def samples():
    return sorted(path for path in CONF.rglob("*") if path.suffix in (".conf", ".in") and "systemd" not in path.parts)


def locations(text):
    """(what opens it, what stands in it) of each location of a configuration."""
    text = re.sub(r"#.*", "", text)
    for found in re.finditer(r"location\s+([^{]*)\{", text):
        depth, at = 1, found.end()
        while depth and at < len(text):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield found[1].strip(), text[found.end():at - 1]


@pytest.mark.parametrize("path", samples(), ids=lambda path: str(path.relative_to(CONF)))
def test_samples_open_nothing_to_everybody(path):
    """Metrics and status are for this machine only, and nobody may change anything through a sample."""
    for name, body in locations(path.read_text()):
        if "llm_metrics" in body or "llm_status" in body:
            assert re.search(r"\bdeny\s+all;", body), f"{path}: {name} is open"
            assert re.findall(r"\ballow\s+(\S+);", body) == ["127.0.0.1"], f"{path}: {name} lets others in"
        assert not re.search(r"llm_status\s+admin", body), f"{path}: {name} lets everybody on this machine change things"


def test_the_samples_are_there():
    texts = "".join(path.read_text() for path in samples())
    assert "llm_metrics" in texts and "llm_status" in texts


def test_no_descriptor_of_the_database_or_of_a_key_is_left_behind(fake_engine, gateway):
    """What workers hold open is sockets, events and logs: nothing that names a secret file."""
    engine = fake_engine()
    gate = gateway([engine], [user(SECRET, name="alice")])
    assert gate.client.ask(token=SECRET).status == 200
    for pid in (gate.pid, *gate.workers()):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
            except OSError:
                continue
            assert str(gate.tokens) != target


@pytest.mark.parametrize("name", ["llm-engine", "llm-reporter", "llmctl"])
def test_the_command_line_shows_no_password(redis_server, fake_engine, gateway, llm_engine, tmp_path, name):
    """ps shows it to everybody on the machine. The password is used all the same."""
    store = redis_server.client
    store.acl_setuser("engine", enabled=True, passwords=["+pass-word"], keys=["llm:engine:*"], channels=["llm:engines"], commands=["+set", "+del", "+publish"])
    url = f"redis://engine:pass-word@127.0.0.1:{redis_server.port}"
    if name == "llm-engine":
        process = llm_engine(sim=True, redis=url)
        until(lambda: store.keys("llm:engine:*"), "it reports")
    elif name == "llm-reporter":
        process = Process([BUILD / name, "--engine", "vllm", "--url", f"http://127.0.0.1:{free_port()}", "--redis", url, "--id", "e", "--model", "m"],
                          tmp_path / "log")
        until(lambda: store.keys("llm:engine:*"), process.output)
    else:
        gate = gateway([fake_engine()])
        ours, theirs = pty.openpty()  # a terminal, so that it stays
        process = subprocess.Popen([BUILD / name, "top", "--url", f"http://user:pass-word@127.0.0.1:{gate.port}/llm/"], stdin=theirs, stdout=theirs, stderr=theirs,
                                   env=dict(os.environ, TERM="xterm"))
        until(lambda: b"tokens/s" in os.read(ours, 65536), "the first picture")
    shown = pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert b":*********@127.0.0.1:" in shown and b"pass-word" not in shown, shown
    if name == "llm-reporter":
        process.stop()
    elif name == "llmctl":
        os.write(ours, b"q")
        assert process.wait(20) == 0
        os.close(ours)
        os.close(theirs)
