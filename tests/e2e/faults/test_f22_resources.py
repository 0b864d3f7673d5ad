"""F22: the disk is full, descriptors or connections are used up: who needs them fails with an error, the others do not."""

import os
import resource
import socket
import subprocess

import pytest

from support import invariants
from support.client import chat_body
from support.poll import until
from support.users import user


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("the kernel does not let us mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_disk_full(small_disk, fake_engine, gateway):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=1000)], server=f"client_body_temp_path {small_disk}/body;")
    gate.allow(r"\[crit\].*(pwrite|writev|write)\(\).*(No space left|has written only)")
    gate.allow(r"\[alert\].*has written only")
    running = gate.client.send(token="alice")
    engine.wait_requests(1)
    spilled = []
    for number in range(1, 9):  # one after the other: those that are written at once would fill the disk and all fail
        spilled.append(gate.client.send(chat_body(content="x" * (500 << 10)), token="alice"))
        until(lambda: gate.queued() + sum(one.answered() for one in spilled) == number, "it waits or has failed")
    small = [gate.client.send(chat_body(content="small"), token="alice") for _ in range(8)]
    until(lambda: gate.queued() + sum(one.answered() for one in spilled) >= 16, "all wait or have failed")
    failed = [one for one in spilled if one.answered()]
    assert 3 <= len(failed) <= 6, "2 MB hold three to four bodies of half a megabyte"
    for one in failed:
        reply = one.reply()
        assert reply.status in (500, 503, 507), reply
        assert reply.json()["error"]["type"] == "server_error"
    assert not any(one.answered() for one in small)
    engine.open_gate()
    for one in [running, *small, *(one for one in spilled if one not in failed)]:
        assert one.reply().status == 200
    until(lambda: not [path for path in small_disk.rglob("*") if path.is_file()], "the disk is empty again")
    assert gate.client.ask(chat_body(content="x" * (500 << 10)), token="alice").status == 200
    until(lambda: sum(gate.metrics().outcomes().values()) == 18, "every request is counted")
    invariants.check(gate)


def open_files(gate, pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_descriptors_used_up(fake_engine, gateway):
    """Clients that hold connections open take all descriptors: nobody is lost who is served, and when they go everything goes on."""
    engine = fake_engine(max_running=8)
    gate = gateway([engine], [user("alice", threshold=1000)], workers=1, limits={resource.RLIMIT_NOFILE: 160})
    gate.allow(r"\[(crit|alert)\].*(Too many open files|worker_connections)")
    engine.hold()
    running = [gate.client.send(token="alice") for _ in range(4)]
    engine.wait_requests(4)
    worker = gate.workers()[0]
    crowd = []
    for _ in range(200):
        crowd.append(socket.create_connection(("127.0.0.1", gate.port), timeout=20))
        crowd[-1].sendall(b"GET ")
    until(lambda: open_files(gate, worker) >= 158, "all descriptors are in use")
    engine.open_gate()
    assert [one.reply().status for one in running] == [200] * 4
    # the running ones have given theirs back, which the crowd's next took: a request that comes in through an open connection now
    # finds none for its engine
    crowd[0].sendall(b"/llm/status.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert crowd[0].recv(12) == b"HTTP/1.1 200"
    body = chat_body()
    starved = b"POST" + b" /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    inside = crowd[1]
    inside.sendall(b"/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n" + starved)
    answer = inside.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401"), answer
    for one in crowd:
        one.close()
    until(lambda: gate.client.ask(token="alice").status == 200, "the gateway serves again")
    invariants.check(gate)


def test_few_descriptors_allowed(fake_engine, gateway):
    """As few as nginx can do with: the workers' own wake-ups are not among the numbers that the limit leaves."""
    engine = fake_engine(max_running=1)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=100)], main="worker_rlimit_nofile 48;")
    waiting = [gate.client.send(token="alice") for _ in range(4)]
    engine.wait_requests(1)
    gate.wait_queued(3)
    engine.open_gate()
    assert [one.reply().status for one in waiting] == [200] * 4
    gate.reload()
    invariants.check(gate, expected={"completed": 4})


def test_connections_used_up(fake_engine, gateway):
    """worker_connections: the engine's side needs one too; a request that gets none is answered, counted and forgotten."""
    engine = fake_engine(max_running=64)
    engine.hold()
    gate = gateway([engine], [user("alice", threshold=1000)], workers=1)
    text = gate.conf.read_text().replace("worker_connections 2048;", "worker_connections 48;")
    gate.write_conf = lambda: gate.conf.write_text(text)
    gate.reload()
    gate.allow(r"\[(crit|alert)\].*(worker_connections are not enough)")
    # each holds two: its client's and its engine's
    pending = [gate.client.send(token="alice") for _ in range(40)]
    until(lambda: len(engine.requests) + sum(one.answered() for one in pending) >= 18, "connections are used up")
    engine.open_gate()
    statuses = []
    for one in pending:
        try:
            statuses.append(one.reply().status)
        except ConnectionError:
            statuses.append(None)
    assert set(statuses) <= {200, 500, 502, 503, None}, statuses
    assert statuses.count(200) >= 18
    until(lambda: gate.client.ask(token="alice").status == 200, "the gateway serves again")
    invariants.check(gate)
