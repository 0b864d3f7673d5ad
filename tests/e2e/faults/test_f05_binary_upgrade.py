"""F5: the binary is exchanged under load (USR2, WINCH, QUIT): no request fails."""

import os
import threading

from support import invariants
from support.client import chat_body
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user


def test_upgrade_under_load(fake_engine, gateway):
    engine = fake_engine(max_running=8)
    gate = gateway([engine], [user("alice", threshold=1000)], workers=2, daemon=True)
    engine.hold()
    waiting = [gate.client.send(chat_body(content=f"r{number}", stream=True), token="alice", timeout=60) for number in range(12)]
    engine.wait_requests(8)
    engine.open_gate()
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body()), outstanding=6).start()
    old = gate.pid
    descriptors = len(os.listdir(f"/proc/{old}/fd"))
    gate.upgrade()
    assert gate.pid != old and not os.path.exists(f"/proc/{old}/exe")
    mark = len(traffic.results)
    until(lambda: len(traffic.results) >= mark + 20, "the new binary serves")
    fates = traffic.stop()
    assert [one.reply().status for one in waiting] == [200] * 12, "what waited in the old binary was lost"
    failed = [fate for fate in fates if not fate.ok]
    assert not failed, failed[:3]
    assert len(os.listdir(f"/proc/{gate.pid}/fd")) <= descriptors, "descriptors of the old master were inherited"
    # counters begin anew with the new zone: it has seen a part of the requests
    invariants.check(gate)


def test_requests_that_wait_in_the_old_binary_are_served(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=100)], workers=2, daemon=True)
    engine.hold()
    waiting = [gate.client.send(chat_body(content=f"r{number}"), token="alice", timeout=60) for number in range(6)]
    gate.wait_queued(5)
    old = gate.pid
    upgrade = threading.Thread(target=gate.upgrade)
    upgrade.start()
    until(lambda: gate.pid != old, "the new master has taken over", 20)
    engine.open_gate()
    assert [one.reply().status for one in waiting] == [200] * 6
    upgrade.join()
    invariants.check(gate)
