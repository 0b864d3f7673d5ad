#!/usr/bin/env python3
"""What this gateway costs beside others: plain nginx and HAProxy as floors, vllm-router, SGLang Model Gateway, LiteLLM, Aristote Dispatcher.

    bench/peers/run.py [--build DIR] [--work DIR] [--only NAME,…] [--rounds N] [--seconds S] [--install] [--check]

All run at once on this machine, in front of one engine that costs next to nothing (upstream.c), and are asked in turns, round by round. Each figure is the
best of the rounds, as other work on the machine only ever adds. What is missing here is left out, with a line that says why. For each:
  CPU per request    user and system time of all its processes, its broker's and database's too, per answered request: wrk with 32 connections
  requests/s         of the same runs; wrk, engine and gateway share the machine, and what the first two take of it is printed
  added p50, p99     time of an answer, one request after the other over one connection, less the same without a gateway
  CPU per event      8 streams at once of 100 events, 10 ms apart; the request's own cost is in it
  first event        median time until a stream's first event, one stream after the other, less the same without a gateway
  memory, idle       PSS of its processes after all that; what it takes of one processor while nobody asks
Every answer's status and text are checked, and those of gateways that hand on unchanged byte for byte: one wrong answer, and the gateway has no figures.

--install puts LiteLLM, vllm-router and SGLang Model Gateway, in the versions that gateways.py names, into Python environments of their own below --work
(default: .cache/bench-peers), 1 GB in all, and what Aristote Dispatcher needs of Python once its source is there (a line says where). haproxy,
rabbitmq-server, postgresql, wrk and gcc are the distribution's. With .venv/bin/python (scripts/venv.sh) also those run that need PostgreSQL.
--check: one short round, whose figures mean little; exits 1 when an answer was wrong or a gateway did not start.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench"), str(HERE)]

import needs  # noqa: E402
from gateways import GATEWAYS, TOKEN, Dispatch, PlainNginx, install  # noqa: E402
from processes import cpu_seconds, memory_mb  # noqa: E402
from support.client import chat_body, request_bytes  # noqa: E402
from support.paths import program  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.process import Process  # noqa: E402
from support.wire import Reader, value_of  # noqa: E402

CONNECTIONS = 32
STREAMS, EVENTS, INTERVAL_MS = 8, 100, 10
TEXT = "An answer of five tokens."


class Wrong(Exception):
    """An answer was not what it has to be."""


class Asker:
    """One connection to a gateway, or to the engine itself."""

    def __init__(self, port):
        self.port = port
        self._connect()

    def _connect(self):
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = Reader(self._socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self, request):
        """(seconds until the first of the body, seconds in all, body)"""
        began = time.perf_counter()
        self._socket.sendall(request)
        start, headers = self._reader.head()
        if start.split()[1] != "200":
            raise Wrong(f"the answer is {start}")
        first = None
        body = bytearray()
        if value_of(headers, "transfer-encoding") == "chunked":
            while part := self._reader.chunk():
                first = first or time.perf_counter()
                body += part
        else:
            body += self._reader.exactly(int(value_of(headers, "content-length")))
            first = time.perf_counter()
        took = time.perf_counter() - began
        self._reader.reset_raw()
        if value_of(headers, "connection") == "close":
            self._socket.close()
            self._connect()
        return first - began, took, bytes(body)


def question(**more):
    """(body, whole request): about 1 KB, most of it one string, as prompts are."""
    body = chat_body("m", "the quick brown fox jumps over the lazy dog and " * 18, temperature=0.7, **more)
    return body, request_bytes("POST", "/v1/chat/completions", [("Authorization", f"Bearer {TOKEN}"), ("Content-Type", "application/json")], body)


def text_of_stream(body):
    lines = [line for line in body.decode().split("\n") if line.startswith("data: ")]
    if lines[-1:] != ["data: [DONE]"]:
        raise Wrong("a stream without its end")
    return "".join(choice["delta"].get("content") or "" for line in lines[:-1] for choice in json.loads(line[len("data: "):])["choices"])


class Bench:
    def __init__(self, directory, seconds):
        self.directory, self.seconds = directory, seconds
        body, self.short = question(stream=False, max_tokens=EVENTS)
        (directory / "body.json").write_bytes(body)
        self.one_event = question(stream=True, max_tokens=1)[1]
        self.events = question(stream=True, max_tokens=EVENTS)[1]
        subprocess.run(["cc", "-O2", "-o", directory / "upstream", HERE / "upstream.c"], check=True)
        self.port = free_port()
        self.engine = Process([directory / "upstream", self.port, INTERVAL_MS], directory / "upstream.log")
        self.engine.wait_port(self.port)
        with Asker(self.port) as asker:
            self.answers = {request: asker.ask(request)[2] for request in (self.short, self.one_event, self.events)}

    def check(self, verbatim, request, body):
        if verbatim:
            right, said = self.answers[request], body
        elif request == self.short:
            right, said = TEXT, json.loads(body)["choices"][0]["message"]["content"]
        else:
            right, said = text_of_stream(self.answers[request]), text_of_stream(body)
        if said != right:
            raise Wrong(f"not what the engine said, but {said[:500]!r}")

    def wait_ready(self, gateway, seconds=180):
        """Until it gives the right answers. Python's servers take a while to start."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with Asker(gateway.port) as asker:
                    for request in (self.short, self.one_event, self.events):
                        self.check(gateway.verbatim, request, asker.ask(request)[2])
                return
            except Exception as problem:  # servers that start refuse in many ways
                ended = [process for process in gateway.processes if not process.alive()]
                if ended or time.monotonic() > deadline:
                    raise Wrong(f"{type(problem).__name__}: {problem}\n{gateway.output()}") from None
                time.sleep(0.5)

    def one_by_one(self, port, verbatim, request, seconds):
        """Times of answers, one after the other: [until the first of the body], [in all]"""
        times = []
        deadline = time.monotonic() + seconds
        with Asker(port) as asker:
            while time.monotonic() < deadline or len(times) < 10:
                first, took, body = asker.ask(request)
                self.check(verbatim, request, body)
                times.append((first, took))
        return zip(*times)

    def saturated(self, gateway, seconds):
        """Requests/s, and CPU seconds per request: the gateway's, the engine's and wrk's."""
        def spent():
            return cpu_seconds(gateway.pids), cpu_seconds([self.engine.pid]), sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

        self.settle(gateway)
        before = spent()
        done = subprocess.run([program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{max(round(seconds), 1)}s", "--timeout", "60s", "-s", HERE / "check.lua",
                               f"http://127.0.0.1:{gateway.port}"], capture_output=True, text=True, check=True,
                              env={**os.environ, "BENCH_BODY": str(self.directory / "body.json")}).stdout
        requests, microseconds, wrong = map(int, done.splitlines()[-1].split())
        if wrong or not requests:
            raise Wrong(f"{wrong} of {requests} answers under load")
        self.settle(gateway)
        # what wrk left behind counts as answered, in favour of the slow
        cpu, engine, wrk = ((now - was) / (requests + CONNECTIONS) for was, now in zip(before, spent()))
        return {"rate": requests / microseconds * 1e6, "cpu": cpu, "engine": engine, "wrk": wrk}

    def settle(self, gateway, window=1.2):
        """Waits until a gateway has nothing left to do, rows of usage included, which ours writes once a second."""
        for _ in range(20):
            before = cpu_seconds(gateway.pids)
            time.sleep(window)
            if cpu_seconds(gateway.pids) - before < 0.05 * window:
                return

    def streams(self, gateway):
        """CPU seconds per event."""
        def run(_):
            with Asker(gateway.port) as asker:
                return [asker.ask(self.events)[2] for _ in range(max(round(self.seconds), 1))]

        self.settle(gateway)
        before = cpu_seconds(gateway.pids)
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            bodies = sum(pool.map(run, range(STREAMS)), [])
        self.settle(gateway)
        spent = cpu_seconds(gateway.pids) - before
        for body in bodies:
            self.check(gateway.verbatim, self.events, body)
        return spent / len(bodies) / EVENTS

    def turn(self, gateway, rate):
        """One round of one gateway: its figures. `rate`: its requests/s so far, for a run that is long beside what is under way at its end."""
        short = {}
        for name, port, verbatim, seconds in (("direct", self.port, True, self.seconds / 4), ("", gateway.port, gateway.verbatim, self.seconds)):
            _, times = self.one_by_one(port, verbatim, self.short, seconds)
            firsts, _ = self.one_by_one(port, verbatim, self.one_event, seconds)
            short |= {f"{name}p50": statistics.median(times), f"{name}p99": statistics.quantiles(times, n=100)[98], f"{name}first": statistics.median(firsts)}
        return {**short, "event": self.streams(gateway), **self.saturated(gateway, min(max(self.seconds, 20 * CONNECTIONS / rate), 15 * self.seconds))}

    def measure(self, gateways, rounds):
        """({name: figures}, {name: what went wrong})"""
        turns, failed = {gateway.name: [] for gateway in gateways}, {}
        for number in range(rounds + 1):
            for gateway in gateways if number % 2 else gateways[::-1]:
                of = turns[gateway.name]
                try:
                    if number == 0:  # warms up, and tells how fast it is
                        of.append(self.saturated(gateway, self.seconds))
                    elif gateway.name not in failed:
                        of.append(self.turn(gateway, of[0]["rate"]))
                except Exception as problem:  # a gateway may break down in any way
                    failed[gateway.name] = f"{type(problem).__name__}: {problem}"
            print(f"round {number} of {rounds}", file=sys.stderr)
        good = [gateway for gateway in gateways if gateway.name not in failed]
        before, began = [cpu_seconds(gateway.pids) for gateway in good], time.monotonic()
        time.sleep(5 * self.seconds)
        figures = {}
        for gateway, was in zip(good, before):
            of = turns[gateway.name][1:]
            best = {key: min(turn[key] for turn in of) for key in of[0]} | {"rate": max(turn["rate"] for turn in of)}
            figures[gateway.name] = best | {"idle": (cpu_seconds(gateway.pids) - was) / (time.monotonic() - began), "memory": memory_mb(gateway.pids)}
        # the same for all: the engine itself
        for key in ("p50", "p99", "first"):
            direct = min((of[f"direct{key}"] for of in figures.values()), default=0)
            for of in figures.values():
                of[key] -= direct
        return figures, failed


def show(gateways, figures):
    plain, ours = figures.get(PlainNginx.name), figures.get(Dispatch.name)

    def ratio(of, to, key):
        return f"{of[key] / to[key]:.3g}" if to else ""

    def us(seconds):
        return f"{seconds * 1e6:.{0 if seconds > 0.001 else 1}f} us"

    rows = [["", "CPU per request", "/ plain", "/ ours", "requests/s", "added p50", "added p99", "CPU per event", "/ plain", "first event", "memory", "idle"]]
    rows += [[name, us(of["cpu"]), ratio(of, plain, "cpu"), ratio(of, ours, "cpu"), f"{of['rate']:.0f}", us(of["p50"]), us(of["p99"]),
              us(of["event"]), ratio(of, plain, "event"), us(of["first"]), f"{of['memory']:.0f} MB", f"{of['idle']:.2%}"] for name, of in figures.items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *others in rows:
        print("  ".join([first.ljust(widths[0]), *(word.rjust(width) for word, width in zip(others, widths[1:]))]))
    if plain:
        print(f"beside plain nginx, wrk took {us(plain['wrk'])} of CPU per request, the engine {us(plain['engine'])}")
    for gateway in gateways:
        if gateway.name in figures:
            print(f"{gateway.name} {gateway.version()}: {gateway.does}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".cache" / "bench-peers")
    parser.add_argument("--only", help="these of " + ", ".join(kind.name for kind in GATEWAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if arguments.install:
        return install(work)
    needs.need(arguments.build, programs=("nginx", "wrk", "cc"))
    if arguments.check:
        arguments.rounds, arguments.seconds = 1, 0.5

    failed, left_out, started, ready = {}, {}, [], []
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as scratch:
        directory = pathlib.Path(scratch)
        bench = Bench(directory, arguments.seconds)
        try:
            for kind in GATEWAYS:
                if arguments.only and kind.name not in arguments.only.split(","):
                    continue
                place = directory / kind.__name__
                place.mkdir()
                gateway = kind(work, place, bench.port, arguments.build.resolve())
                if reason := gateway.missing():
                    left_out[gateway.name] = reason
                    continue
                started.append(gateway)
                try:
                    gateway.start()
                    bench.wait_ready(gateway)
                    ready.append(gateway)
                except (Wrong, AssertionError, OSError) as problem:
                    failed[gateway.name] = str(problem)
            figures, broken = bench.measure(ready, arguments.rounds)
            failed |= broken
            show(ready, figures)
        finally:
            for gateway in started:
                gateway.stop()
            bench.engine.kill()
    for name, reason in left_out.items():
        print(f"not run: {name}: {reason}")
    for name, reason in failed.items():
        print(f"FAILED: {name}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
