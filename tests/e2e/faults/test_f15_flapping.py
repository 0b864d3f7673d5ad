"""F15: an engine that comes and goes all the time costs its users nearly nothing: it rests longer and longer."""

import time

import pytest

from support import invariants
from support.client import chat_body
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user


@pytest.mark.slow
def test_flapping_engine(fake_engine, gateway):
    steady, flapping = fake_engine(max_running=8), fake_engine(max_running=8)
    gate = gateway([steady, flapping], [user("alice", threshold=1000)], http="llm_routing round_robin;")
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=4).start()
    rests = []
    for _ in range(2):
        until(lambda: flapping.requests, "it gets work")
        flapping.die()
        # nor is a request left that was sent there before: its success would tell at once that the engine is back
        until(lambda: state(gate, flapping) == ("open", 0), "its breaker opens", 20)
        start = time.monotonic()
        flapping.requests.clear()
        flapping.start()
        until(lambda: state(gate, flapping)[0] == "closed", "it is used again", 30)
        rests.append(time.monotonic() - start)
    fates = traffic.stop()
    # half to all of 5 s, then of 10 s
    assert rests[0] >= 2.4 and rests[1] >= 4.9, rests
    failed = [fate for fate in fates if not fate.ok]
    assert len(failed) <= len(fates) // 100, f"{len(failed)} of {len(fates)} failed"
    invariants.check(gate, fates)


def state(gate, engine):
    """Its breaker, and the seats that are held there."""
    return next((row["breaker"], row["held"]) for row in gate.status()["engines"] if row["id"] == engine.name)
