"""
Faults that only a test build of the module can have: it dies at a chosen store inside the lock, is late for a grant,
breaks the rule of the lock; and what it does with requests is recorded and checked.
"""

import asyncio
import os
import random
import re
import signal
import time

import pytest

from support.client import chat_body
from support.grant_log import Checker, read
from support.load import attempt
from support.paths import CHECKED_MODULE, FAULTY_MODULE
from support.poll import until
from support.users import user

pytestmark = pytest.mark.skipif(not FAULTY_MODULE.exists(), reason="this build has no module with test faults")

DIED = (r"\[alert\].*worker process \d+ exited on signal 9", r"\[alert\].*shared memory zone \"llm\" was locked by")


def faulty(gateway, engines, users, faults, **keywords):
    made = gateway(engines, users, module=FAULTY_MODULE, http=f"llm_test_faults {faults};", **keywords)
    for pattern in DIED:
        made.allow(pattern)
    return made


@pytest.mark.skipif(not CHECKED_MODULE.exists(), reason="this build has no module that checks its calls inside the lock (a sanitizer makes calls of its own there)")
@pytest.mark.parametrize("breach,function", [("log", "ngx_log_error_core"), ("alloc", "ngx_alloc")])
def test_a_call_inside_the_lock_is_caught(fake_engine, gateway, breach, function):
    gate = faulty(gateway, [fake_engine()], [user("alice")], f"breach={breach}")
    gate.allow(r"called inside the zone's lock")
    gate.wait_logged(rf"called inside the zone's lock: {function}")
    until(lambda: len(gate.workers()) == 4, "the worker that was ended is replaced")
    assert gate.client.ask(token="alice").status == 200


def test_a_grant_taken_up_too_late_is_refused(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = faulty(gateway, [engine], [user("alice")], "delay_grant=2600")
    first = engine.occupy(gate.client, chat_body(content="first"), token="alice")
    late = gate.client.send(chat_body(content="late"), token="alice")
    gate.wait_queued(1)
    sleeper = gate.worker_of(late)
    engine.release()
    assert first.reply().status == 200
    gate.wait_logged("1 grants were not taken up and returned to the queue", 15)
    assert len(engine.requests) == 1
    engine.release()
    assert late.reply().status == 200
    assert engine.contents() == ["first", "late"], "its attempt has one grant that counts"
    assert sleeper in gate.workers()


def exercise(gate, engine, mark):
    """Requests that are granted, queued, cancelled in both states, and done; those of a dying worker may fail."""
    engine.hold()
    pending = []

    def send():
        try:
            pending.append(gate.client.send(chat_body(content=mark), token="alice", timeout=20))
        except OSError:
            pass  # its worker died while it was sent

    for _ in range(6):
        send()
    for one in pending[1::3]:
        one.reset()
    for _ in range(2):
        send()
    engine.release(100)
    for one in pending[0::3]:
        try:
            one.reply()
        except (ConnectionError, OSError):
            pass
    for one in pending:
        one.close()


@pytest.mark.slow
def test_death_at_every_label_is_repaired(fake_engine, gateway, tmp_path):
    """At each labelled store that traffic reaches: the zone is rebuilt, nothing stays held, a probe is answered at once."""
    log = tmp_path / "grants"
    engine = fake_engine(max_running=2)
    gate = faulty(gateway, [engine], [user("alice", threshold=100)], f"die=0 log={log}", workers=2)
    labels = int(re.search(r"llm_test_faults: (\d+) labels", gate.error_log())[1])
    assert labels >= 30
    died = []
    for label in range(labels):
        gate.blocks["http"] = re.sub(r"die=\d+", f"die={label}", gate.blocks["http"])
        before = gate.error_log().count("exited on signal 9")
        gate.reload()
        exercise(gate, engine, f"label{label}")
        until(lambda: len(gate.workers()) == 2, "two workers serve")
        gate.wait_queued(0)
        gate.wait_held(0)
        if gate.error_log().count("exited on signal 9") > before:
            died.append(label)
        engine.open_gate()
        started = time.monotonic()
        assert gate.client.ask(token="alice").status == 200
        assert time.monotonic() - started < 2, "a probe is answered at once (generous: the machine may be busy)"
    rebuilds = int(gate.metrics().total("llm_zone_rebuilds_total"))
    assert len(died) >= 12, f"only labels {died} of {labels} were reached"
    assert rebuilds >= len(died)
    checker = Checker(100, 100).run(read(log))
    assert checker.rebuilds >= len(died)


@pytest.mark.slow
def test_the_grant_log_keeps_every_promise(redis_server, llm_engine, gateway, tmp_path):
    """Three clients of weight 1, 2 and 4 keep a small engine saturated while workers are killed and nginx reloads."""
    seed = int(os.environ.get("E2E_SEED", "0")) or random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    log = tmp_path / "grants"
    llm_engine(redis=redis_server.url, sim=True, arguments=["--max-running", "4"])
    users = [user(f"u{weight}", priority=weight, threshold=100) for weight in (1, 2, 4)]
    gate = faulty(gateway, [], users, f"log={log}; llm_redis {redis_server.url}")
    gate.wait_ready(60)
    body = chat_body("sim", max_tokens=16)

    async def run():
        done = []
        stop = asyncio.Event()

        async def client(token):
            while not stop.is_set():
                done.append(await attempt(gate.port, token, body))

        tasks = [asyncio.create_task(client(one["token"])) for one in users for _ in range(10)]

        async def answers(count):
            while len(done) < count:
                await asyncio.sleep(0.01)

        for step in range(1, 9):
            await asyncio.wait_for(answers(step * 60), 60)
            if step % 2:
                workers = gate.workers()
                if workers:
                    os.kill(draw.choice(workers), signal.SIGKILL)
            else:
                gate.send_signal(signal.SIGHUP)
        await asyncio.wait_for(answers(600), 60)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        return done

    done = asyncio.run(run())
    good = sum(answer.status == 200 for answer in done)
    lost = sum(answer.status == 0 for answer in done)
    assert good + lost == len(done), {answer.status for answer in done}
    assert lost <= 4 * 30, "a killed worker loses no more than what it had"
    until(lambda: not gate.old_workers(), "the old workers end", 20)
    gate.wait_held(0)
    gate.wait_queued(0)
    records = read(log)
    checker = Checker(largest_prompt=64, largest_output=16).run(records)
    checker.assert_idle()
    favoured = next(record.account for record in records if record.kind == "charged")
    with pytest.raises(AssertionError, match="service of"):  # as if one client paid half
        Checker(largest_prompt=64, largest_output=16).run(
            [record._replace(value=record.value * 2) if record.kind == "charged" and record.account == favoured else record for record in records])
    assert checker.grants >= good
    print(f"{checker.grants} grants, {checker.aged} aged, {checker.rebuilds} rebuilds, largest difference of service {checker.largest_span:.0f}")


def test_the_checker_finds_what_is_wrong(fake_engine, gateway, tmp_path):
    """A true log passes; with one record changed it does not."""
    log = tmp_path / "grants"
    engine = fake_engine(max_running=1)
    gate = faulty(gateway, [engine], [user("low", priority=1, threshold=9), user("high", priority=5, threshold=9)],
                  f"log={log}; llm_scheduler strict")
    engine.hold()
    pending = []
    for number, token in enumerate(("low", "low", "low", "high")):
        pending.append(gate.client.send(chat_body(), token=token))
        if number == 0:
            engine.wait_requests(1)
        else:
            gate.wait_queued(number)
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4
    gate.wait_held(0)
    records = read(log)
    Checker(100, 100).run(records).assert_idle()

    def refused(change):
        with pytest.raises(AssertionError):
            Checker(100, 100).run(change(list(records))).assert_idle()

    def position(kind, nth):
        return [number for number, record in enumerate(records) if record.kind == kind][nth]

    refused(lambda log: log[:position("ended", 0)] + log[position("ended", 0) + 1:])  # one that never ends
    refused(lambda log: log[:position("started", 1) + 1] + [log[position("granted", 1)]] + log[position("started", 1) + 1:])  # twice
    refused(lambda log: log + [log[position("leased", 2)]])  # after the end
    refused(lambda log: [record._replace(limit=0.0, max_running=0) if record.kind == "leased" else record for record in log])
    refused(lambda log: [record._replace(seq=1000 - record.seq) for record in log])  # not in order of arrival
    refused(lambda log: [record._replace(level_class=-record.level_class) for record in log])  # not by class
