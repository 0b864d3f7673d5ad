"""F4: reloads under load, each with other weights, limits and engines: no request fails, none is done twice, old workers leave."""

import itertools
import os
import random
import time

from support import invariants
from support.client import chat_body
from support.fake_engine import answer
from support.poll import until
from support.traffic import Plan, Traffic
from support.users import user, write_tokens

TOKENS = ("alice", "bob", "carol")


def slow_answer(exchange):
    time.sleep(0.03)
    answer(exchange)


def rows(rng):
    return [user(token, priority=rng.randint(1, 9), threshold=1000, max_running=rng.choice((None, 4, 8))) for token in TOKENS]


def test_reloads_with_changed_settings_under_load(fake_engine, gateway):
    rng = random.Random(4)
    engines = [fake_engine(max_running=4, script=slow_answer) for _ in range(3)]
    gate = gateway(engines[:2], rows(rng), workers=2)
    tail = gate.blocks["http"][gate.blocks["http"].index("llm_priority_db"):]
    marks = itertools.count()
    traffic = Traffic(gate.port, lambda: Plan(rng.choice(TOKENS), chat_body(content=f"r{next(marks)}", stream=rng.random() < 0.5)),
                      outstanding=14).start()
    generations = set(gate.workers())
    for round_ in range(8):
        write_tokens(gate.tokens, rows(rng))
        used = rng.sample(engines, rng.randint(1, 3))
        lines = [f"llm_engine {engine.url} model=m id={engine.name} max_running={rng.randint(1, 6)};" for engine in used]
        lines += [f"llm_scheduler {rng.choice(('weighted', 'strict'))};", f"llm_routing {rng.choice(('throughput', 'least_running', 'prefix', 'random'))};",
                  f"llm_min_throughput {rng.choice((0, 5))};", f"llm_aging {rng.choice(('1s', 'off'))};"]
        gate.blocks["http"] = "\n    ".join([*lines, tail])
        gate.reload(30)
        generations |= set(gate.workers())
        mark = len(traffic.results)
        until(lambda: len(traffic.results) >= mark + 10, f"answers come after reload {round_}")
    fates = traffic.stop()
    failed = [fate for fate in fates if not fate.ok]
    assert not failed, failed[:3]
    contents = list(itertools.chain.from_iterable(engine.contents() for engine in engines))
    assert len(contents) == len(set(contents)) == len(fates), "a request was sent twice, or lost"
    until(lambda: not gate.old_workers(), "the old workers end", 20)
    assert len(generations) == 2 * 9
    # the master has to collect them, too
    until(lambda: not [pid for pid in generations - set(gate.workers()) if os.path.exists(f"/proc/{pid}")], "nothing is left of them")
    invariants.check(gate, fates)
