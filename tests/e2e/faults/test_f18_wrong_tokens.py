"""F18: a flood of wrong tokens: refused from memory, without the database, and without harm to those who have the right ones."""

import itertools
import socket
import statistics
import threading
import time

from support import invariants
from support.client import chat_body, request_bytes
from support.poll import until
from support.wire import Reader, value_of


def flood(gate, stop, counts, connections=4, batch=50, batches=10):
    """Sends batches of requests with tokens that nobody has over kept connections, as fast as they are refused."""
    numbers = itertools.count()
    while not stop.is_set():
        attackers = [Reader(socket.create_connection(("127.0.0.1", gate.port), timeout=30)) for _ in range(connections)]
        for _ in range(batches):
            for one in attackers:
                one.socket.sendall(b"".join(request_bytes("GET", "/v1/models", [("Authorization", f"Bearer wrong-{next(numbers)}")])
                                            for _ in range(batch)))
            for one in attackers:
                for _ in range(batch):
                    start, headers = one.head()
                    assert start.split()[1] == "401"
                    one.exactly(int(value_of(headers, "content-length")))
                    counts.append(1)
        for one in attackers:
            one.socket.close()


def test_flood(own_postgres, relay, fake_engine, gateway):
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'alice', 5, 100)")
    middle = relay(own_postgres.port)
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "postgresql://llm@127.0.0.1:{middle.port}/{name}" refresh=1h;')
    gate.wait_ready()

    def ask(number):
        times = []
        for _ in range(number):
            start = time.monotonic()
            assert gate.client.ask(chat_body(), token="alice").status == 200
            times.append(time.monotonic() - start)
        return times

    quiet = ask(40)
    growth = invariants.Growth(gate)
    pieces, began = middle.pieces, time.monotonic()
    counts, stop = [], threading.Event()
    attacker = threading.Thread(target=flood, args=(gate, stop, counts))
    attacker.start()
    until(lambda: len(counts) > 500, "the flood runs")
    during = ask(60)
    until(lambda: len(counts) > 3000, "thousands have been refused", 60)
    stop.set()
    attacker.join(30)
    took = time.monotonic() - began
    # a heartbeat every two seconds and worker is all that the database hears
    assert middle.pieces - pieces <= 2 * 4 * (took / 2 + 2), f"{middle.pieces - pieces} messages to and from the database in {took:.1f} s"
    assert statistics.median(during) < statistics.median(quiet) * 10 + 0.1, (statistics.median(quiet), statistics.median(during))
    growth.check()
    gate.wait_outcomes({"completed": 100, "rejected_invalid_api_key": len(counts)})
    invariants.check(gate, expected={"completed": 100, "rejected_invalid_api_key": len(counts)})
