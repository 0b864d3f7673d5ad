"""F10: clients that read slowly or not at all: memory stays bounded, and a seat is free as soon as its engine is done where the answer fits."""

import socket
import threading
import time

from support import invariants
from support.client import chat_body
from support.poll import until
from support.users import user

CLIENTS = 60


def slow_client(gate, **more):
    """A request whose client has a small window and reads nothing by itself."""
    pending = gate.client.send(chat_body(**more), token="alice", timeout=60)
    pending.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    return pending


def big_answer(size):
    def script(exchange):
        exchange.body(200, b"x" * size, [("Content-Type", "application/json")])
    return script


def test_seats_are_free_when_the_engine_is_done(fake_engine, gateway):
    """Answers of 256 KB wait in buffers for clients that read nothing; one seat serves them all."""
    engine = fake_engine(max_running=1, script=big_answer(256 << 10))
    gate = gateway([engine], [user("alice", threshold=1000)])
    readers = [slow_client(gate) for _ in range(CLIENTS)]
    engine.wait_requests(CLIENTS, 30)
    gate.wait_held(0)
    for reader in readers:
        reply = reader.reply()
        assert reply.complete and len(reply.body) == 256 << 10
    invariants.check(gate, expected={"completed": CLIENTS}, probed=False)


def test_memory_is_bounded(fake_engine, gateway):
    """Answers of 8 MB for clients that read nothing: the engine is slowed, not the gateway filled. Who leaves frees everything."""
    engine = fake_engine(max_running=CLIENTS, script=big_answer(8 << 20))
    gate = gateway([engine], [user("alice", threshold=1000)])
    gate.client.ask(token="alice")  # buffers and pools of the first request
    growth = invariants.Growth(gate)
    readers = [slow_client(gate) for _ in range(CLIENTS)]
    engine.wait_requests(CLIENTS + 1, 30)
    for reader in readers:
        assert reader.head() == 200
    full = growth.now()["memory"] - growth.first["memory"]
    assert full < CLIENTS * (256 << 10), f"{full >> 10} KB for {CLIENTS} slow readers"
    for reader in readers:
        reader.reset()
    gate.wait_held(0)
    gate.wait_outcomes({"completed": 1, "cancelled_running": CLIENTS})
    growth.check(memory=CLIENTS * (32 << 10))


def test_who_reads_nothing_is_given_up(fake_engine, gateway):
    engine = fake_engine(max_running=4, script=big_answer(8 << 20))
    gate = gateway([engine], [user("alice", threshold=1000)], location="send_timeout 500ms;")
    start = time.monotonic()
    readers = [slow_client(gate) for _ in range(4)]
    engine.wait_requests(4)
    gate.wait_outcomes({"cancelled_running": 4}, 10)
    assert time.monotonic() - start < 8
    gate.wait_held(0)
    for reader in readers:
        reader.close()


def test_a_byte_at_a_time(fake_engine, gateway):
    """Patient readers of a stream get every byte; the others are not held up by them."""
    def script(exchange):
        exchange.stream_head()
        for number in range(40):
            exchange.event({"choices": [{"index": 0, "delta": {"content": "x" * 50}}], "n": number})
        exchange.event("[DONE]")
        exchange.end()

    gate = gateway([fake_engine(script=script)], [user("alice", threshold=1000)])
    replies = []

    class Sip:
        """A socket that gives seven bytes at a time."""
        def __init__(self, sock):
            self.recv = lambda size: sock.recv(7)

    def read(pending):
        pending._reader.socket = Sip(pending.socket)
        replies.append(pending.reply())

    readers = [slow_client(gate, stream=True) for _ in range(8)]
    threads = [threading.Thread(target=read, args=(reader,), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(replies) == 8 and all(reply.complete and len(reply.events()) == 41 for reply in replies)
    until(lambda: gate.metrics().outcomes() == {"completed": 8}, "all are counted")
