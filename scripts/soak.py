#!/usr/bin/env python3
"""
Random faults under 1.3x load, for as long as asked; fails on any broken promise and says what it did.

SOAK_SECONDS (1800): how long. SEED: repeats the order of a run that printed it. BUILD_DIR (build/release): what to test. The load replays
bench/traces/azure_2023_conversation.csv, its clients drawn as those of arena_27_clients.csv, on four nginx workers, three simulated
engines, Redis and PostgreSQL, all private. After each cycle of faults the load stops and every invariant is checked (support/invariants.py).
"""

import collections
import csv
import itertools
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from support import invariants  # noqa: E402
from support.client import chat_body  # noqa: E402
from support.llm_engine import LlmEngine  # noqa: E402
from support.middlebox import Relay  # noqa: E402
from support.nginx import Nginx  # noqa: E402
from support.poll import until  # noqa: E402
from support.postgres import Postgres  # noqa: E402
from support.redis_server import RedisServer  # noqa: E402
from support.soak_faults import KINDS  # noqa: E402
from support.traffic import Plan, Traffic, outcomes  # noqa: E402

LOAD = 1.3             # times what the engines can serve
CYCLE_SECONDS = 60     # of faults, between two checks of everything
ENGINES, SEATS = 3, 8
TOKENS_DIVISOR = 8     # answers are this much shorter than in the trace: a test machine has few processors


def read_trace(name):
    with open(ROOT / "bench" / "traces" / name, encoding="ascii") as file:
        return list(csv.DictReader(file))


class World:
    """Everything that runs, and the books that are kept about it."""

    def __init__(self, directory, rng):
        self.rng = rng
        self.trace = read_trace("azure_2023_conversation.csv")
        self.callers = [row["client"] for row in read_trace("arena_27_clients.csv")]
        self.directory = directory
        self.settings = ["llm_min_throughput 2;"]
        self.gate = None
        self.started = []
        self._place = rng.randrange(len(self.trace))
        self.forget()

    def forget(self):
        """A new cycle begins: the books are empty."""
        self.fates = []
        self.unsure = 0                          # requests whose outcome no client has seen
        self.expected = collections.Counter()    # outcomes of requests that no fate records
        self.kills = 0
        self.lost_ports = set()
        self.windows = []                        # (from, to, excused outcomes)

    def start(self):
        self.redis = self._up(RedisServer(self.directory / "redis"))
        self.redis_relay = Relay(self.redis.port)
        self.postgres = self._up(Postgres())
        self.database = self.postgres.create_database()
        rows = [(client, self.rng.randint(1, 9), 15) for client in sorted(set(self.callers))]
        rows += [("mallory", 5, 15), ("crowd", 1, 40), ("slow", 1, 40), ("probe", 9, 100)]
        with self.postgres.connect(self.database) as connection:
            for token, priority, threshold in rows:
                connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES (%s, %s, %s, %s)",
                                   (token, token, priority, threshold))
        self.database_relay = Relay(self.postgres.port)
        self.engines = [self._up(self._engine(f"engine{number}")) for number in range(ENGINES)]
        self.gate = Nginx(self.directory / "nginx", zone="16m", location="llm_queue_timeout 15s; proxy_read_timeout 30s;")
        for pattern in (r"exited on signal 9", r"zone \"llm\" was locked by"):
            self.gate.allow(r"\[alert\].*" + pattern)
        self.write_settings()
        self.gate.start()
        self.gate.wait_ready(60)
        until(lambda: self.gate.metrics().total("llm_engine_up") == ENGINES, "all engines are known", 30)

    def _engine(self, name):
        cost = ["--sim", "base=15,sequence=0.1,context=0,prefill=0.005"]
        return LlmEngine(self.directory / name, sim=True, redis=self.redis.url,
                         arguments=["--id", name, "--max-running", str(SEATS), *cost])

    def _up(self, server):
        server.start()
        self.started.append(server)
        return server

    def write_settings(self):
        database = f"postgresql://llm@127.0.0.1:{self.database_relay.port}/{self.database}"
        self.gate.blocks["http"] = "\n    ".join([f"llm_redis redis://127.0.0.1:{self.redis_relay.port}/0;",
                                                  f'llm_priority_db "{database}" refresh=5s;', *self.settings])

    def stop(self):
        if self.gate:
            self.gate.kill()
        for server in reversed(self.started):
            if isinstance(server, LlmEngine):
                if server._process:
                    server._process.kill()
            else:
                (server.remove if isinstance(server, Postgres) else server.kill)()
        for relay in (getattr(self, "redis_relay", None), getattr(self, "database_relay", None)):
            if relay:
                relay.stop()

    # -------------------------------------------------------------------------------------------------- load

    @staticmethod
    def body(prompt, output, stream):
        return chat_body("sim", "x" * prompt, max_tokens=max(1, output), stream=stream)

    def plan(self):
        row = self.trace[self._place]
        self._place = (self._place + 1) % len(self.trace)
        rng = self.rng_of_load
        token = "mallory" if rng.random() < 0.03 else rng.choice(self.callers)
        body = self.body(min(int(row["prompt_tokens"]), 4000), int(row["output_tokens"]) // TOKENS_DIVISOR, rng.random() < 0.7)
        return Plan(token, body, rng.uniform(0, 4) if rng.random() < 0.06 else None)

    def arrivals(self, rate):
        """The trace's arrivals from the current place on, stretched to `rate` requests per second on average."""
        times = [float(row["arrival_s"]) for row in self.trace]
        stretch = len(times) / times[-1] / rate
        at = 0.0
        for place in itertools.count(self._place):
            before, now = times[(place - 1) % len(times)], times[place % len(times)]
            at += max(0.0, now - before) * stretch
            yield at

    def capacity(self, seconds=10):
        """Requests per second that the engines serve when all their seats are taken."""
        self.rng_of_load = random.Random(1)
        traffic = Traffic(self.gate.port, self.plan, outstanding=int(ENGINES * SEATS * 1.5)).start()
        time.sleep(seconds / 3)
        mark, start = len(traffic.results), time.monotonic()
        time.sleep(seconds)
        rate = sum(fate.ok for fate in traffic.results[mark:]) / (time.monotonic() - start)
        self.fates += traffic.stop(120)
        return rate

    def ask(self, token):
        """One small request besides the load; it is in the books."""
        traffic = Traffic(self.gate.port, lambda: Plan(token, self.body(5, 2, False)), arrivals=iter([0.0])).start()
        self.fates += traffic.finish()
        return self.fates[-1]

    # ------------------------------------------------------------------------------------------------- judgement

    def complaint(self, fate):
        """What is wrong with this fate, or None."""
        token = fate.plan.token
        if fate.left or fate.ok or fate.status == 429 and fate.code in ("threshold", "queue_timeout", "queue_full"):
            return None
        if fate.port in self.lost_ports and fate.broken:
            fate.orphaned = True
            return None
        if token == "mallory" and fate.status == 401:
            return None
        kind = "broken" if fate.broken else fate.outcome()
        if any(kind in excused and begin <= fate.end and fate.start <= end for begin, end, excused in self.windows):
            return None
        return (f"{token}: {fate.status} {fate.code} complete={fate.complete} after {fate.end - fate.start:.2f} s, "
                f"{fate.size} bytes, port {fate.port}")


class Table:
    """What each kind of fault has done, for the end."""

    def __init__(self):
        self.rows = {}

    def add(self, name, during, figure):
        row = self.rows.setdefault(name, {"times": 0, "served": 0, "failed": 0, "figures": [], "what": ""})
        row["times"] += 1
        row["served"] += sum(fate.ok for fate in during)
        row["failed"] += sum(fate.broken or (fate.status or 0) >= 500 for fate in during)
        if figure:
            row["what"] = figure[0]
            row["figures"].append(figure[1])

    def __str__(self):
        lines = [f"{'fault':28} {'times':>5} {'served':>7} {'failed':>7}  figure: median, worst"]
        for name, row in sorted(self.rows.items()):
            figure = f"{row['what']}: {statistics.median(row['figures']):.2f}, {max(row['figures']):.2f}" if row["figures"] else ""
            lines.append(f"{name:28} {row['times']:5} {row['served']:7} {row['failed']:7}  {figure}")
        return "\n".join(lines)


def throughput_after(fates, moment):
    """Completions per second in seconds 1 to 5 after a moment, relative to the 8 s before it; None without enough of them."""
    before = sum(fate.ok and moment - 8 <= fate.end < moment for fate in fates) / 8
    after = sum(fate.ok and moment + 1 <= fate.end < moment + 5 for fate in fates) / 4
    return after / before if before > 2 else None


def run_cycle(world, rate, until_time, table, kinds, ratios):
    """Load and faults, then silence and all checks. Returns the number of requests."""
    world.forget()
    before = world.gate.metrics()
    traffic = Traffic(world.gate.port, world.plan, arrivals=world.arrivals(rate)).start()
    kills = []
    try:
        while time.monotonic() < until_time:
            time.sleep(world.rng.uniform(0.5, 4))
            fault = next(kinds)()
            begin, mark = time.monotonic(), len(traffic.results)
            print(f"{time.strftime('%H:%M:%S')} {fault.name}", flush=True)
            world.windows.append((begin, float("inf"), fault.excuses))
            figure = fault.strike(world, world.rng)
            world.windows[-1] = (begin, time.monotonic() + fault.settle, fault.excuses)
            if fault.name == "worker killed":
                kills.append(begin)
            table.add(fault.name, traffic.results[mark:], figure)
    finally:
        fates = traffic.stop(120)
    ratios += [ratio for moment in kills if (ratio := throughput_after(fates, moment)) is not None]
    world.fates += fates
    complaints = [complaint for fate in world.fates if (complaint := world.complaint(fate))]
    assert not complaints, f"{len(complaints)} requests failed without a cause, first:\n  " + "\n  ".join(complaints[:8])
    world.gate.check_logs()
    invariants.idle(world.gate, 15)
    until(lambda: world.gate.metrics().total("llm_engine_up") == ENGINES, "all engines are used again", 60)
    probes = invariants.probe(world.gate, "probe", world.body(5, 1, False), 40)
    known = outcomes(world.fates) + world.expected
    known["completed"] += probes
    unsure = world.unsure + sum(1 for fate in world.fates if fate.outcome() is None)
    wrong = lambda: invariants.counted(invariants.since(world.gate.metrics(), before), known, unsure=unsure, lost=world.kills)
    until(lambda: wrong() is None, wrong, 15)
    return len(world.fates)


def endless(rng):
    """Every kind once in a random order, again and again."""
    while True:
        yield from rng.sample(KINDS, len(KINDS))


def check_growth(first, now):
    assert now["processes"] == first["processes"] and now["zone"] <= first["zone"] + ENGINES, (first, now)
    assert now["descriptors"] <= first["descriptors"] + 100, f"descriptors grow: {first} became {now}"
    assert now["memory"] <= first["memory"] * 1.3 + (8 << 20), f"memory grows: {first} became {now}"


def number(name, default):
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        sys.exit(f"{name} is \"{text}\"; a whole number is expected")
    return int(text)


def main():
    seconds = number("SOAK_SECONDS", 1800)
    seed = number("SEED", random.SystemRandom().randrange(10 ** 6))
    rng = random.Random(seed)
    print(f"SEED={seed}, {seconds} s", flush=True)
    table, ratios = Table(), []
    with tempfile.TemporaryDirectory(prefix="llm-soak-", ignore_cleanup_errors=True) as directory:
        world = World(pathlib.Path(directory), rng)
        try:
            world.start()
            rate = world.capacity() * LOAD
            print(f"the engines serve {rate / LOAD:.1f} requests/s; the load is {rate:.1f}/s", flush=True)
            world.rng_of_load = random.Random(seed)
            kinds = endless(rng)
            end = time.monotonic() + seconds
            first, cycles, requests = None, 0, 0
            while time.monotonic() < end:
                requests += run_cycle(world, rate, min(end, time.monotonic() + CYCLE_SECONDS), table, kinds, ratios)
                cycles += 1
                growth = invariants.Growth(world.gate).first
                first = first or growth
                check_growth(first, growth)
                print(f"-- cycle {cycles}: all invariants hold after {requests} requests; {growth}", flush=True)
            world.gate.finish()
            for engine in world.engines:
                engine.finish()
        except BaseException as problem:
            print(table)
            print(f"FAILED with SEED={seed}: {problem}", flush=True)
            if not isinstance(problem, (AssertionError, KeyboardInterrupt)):
                traceback.print_exc()
            if world.gate:
                keep = pathlib.Path(tempfile.gettempdir()) / f"llm-soak-{seed}-error.log"
                keep.write_text(world.gate.error_log())
                print(f"nginx's log is kept in {keep}")
            return 1
        finally:
            world.stop()
    print(table)
    if ratios:
        print("throughput in the 5 s after a worker was killed, relative to before: "
              f"median {statistics.median(ratios):.2f}, worst {min(ratios):.2f}")
    print(f"SEED={seed}: {requests} requests in {cycles} cycles, every invariant held after each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
