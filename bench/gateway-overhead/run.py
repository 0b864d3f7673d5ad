#!/usr/bin/env python3
"""What the module costs over plain nginx: the same proxying of the same 1 KB chat request, without and with llm_dispatch.

    bench/gateway-overhead/run.py [--build DIR] [--seconds S] [--rounds N] [--clients N] [--check]

Three measurements, because each can mislead alone:
  requests/s      wrk, alternating runs; on a shared machine information, not proof
  CPU/request     user + system time of the gateway's worker over those runs
  Ir/request      user instructions under callgrind, (I(5N) - I(N)) / 4N: start-up cancels out, and noise of the machine too
The token is the last of --clients (100,000) tokens. --check exits 1 when the module takes more than 10 % more instructions.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402
from processes import cpu_seconds  # noqa: E402
from support.client import request_bytes  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.paths import program  # noqa: E402
from support.process import Process, accepts, children_of  # noqa: E402
from support.wire import Reader, value_of  # noqa: E402

ALLOWED = 1.10
CALLGRIND_REQUESTS = 400
NAMES = ("plain", "dispatch")


def chat_body():
    """1 KB, most of it one string, as prompts are."""
    body = {"model": "m", "messages": [{"role": "user", "content": ""}], "temperature": 0.7, "max_tokens": 256}
    words = "the quick brown fox jumps over the lazy dog and "
    body["messages"][0]["content"] = (words * 30)[:1024 - len(json.dumps(body))]
    return json.dumps(body).encode()


class Bench:
    def __init__(self, build, directory, clients=1):
        self.directory = directory
        self.module = build / "ngx_http_llm_dispatch_module.so"
        self.upstream_port = free_port()
        self.body = chat_body()
        (directory / "body.json").write_bytes(self.body)
        tokens = [f"sk-{number}" for number in range(1, clients)] + ["sk-bench"]
        (directory / "tokens.json").write_text(json.dumps({"users": [{"token": token, "priority": 5, "threshold": 1000} for token in tokens]}))

    def write(self, template, name, values):
        text = (HERE / template).read_text()
        for key, value in {"directory": self.directory, "upstream": self.upstream_port, "name": name, **values}.items():
            text = text.replace("{%s}" % key, str(value))
        path = self.directory / f"{name}.conf"
        path.write_text(text)
        return path

    def start_nginx(self, conf, port, name, prefix=()):
        process = Process([*prefix, program("nginx"), "-p", self.directory, "-c", conf, "-e", self.directory / f"{name}.log"],
                          self.directory / f"{name}.out")
        process.wait_port(port, 300)  # under valgrind, on a busy machine
        return process

    def start_upstream(self):
        return self.start_nginx(self.write("upstream.conf", "upstream", {}), self.upstream_port, "upstream")

    def start_gateway(self, name, *, master="on", prefix=()):
        """(process, port) of one of NAMES."""
        port = free_port()
        values = {"load": "", "http": "", "servers": f"server 127.0.0.1:{self.upstream_port};", "master": master, "port": port,
                  "user": "user root;" if os.geteuid() == 0 else "",
                  "location": 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization ""; '
                              "proxy_buffering off;"}
        if name == "dispatch":
            values.update(load=f'load_module "{self.module}";', servers="llm_balance;", location="llm_dispatch on;",
                          http=f"llm_zone llm 64m; llm_priority_db file:{self.directory}/tokens.json; "
                               f"llm_engine http://127.0.0.1:{self.upstream_port} model=m max_running=1000;")
        process = self.start_nginx(self.write("gateway.conf", name, values), port, name, prefix)
        self.wait_answer(process, port)
        return process, port

    def wait_answer(self, process, port):
        """Until the clients are loaded. Few attempts: each is an instruction count."""
        for _ in range(300):
            try:
                return ask(port, self.body, 1)
            except Refused:
                time.sleep(1)
        process.stop(signal.SIGKILL)
        raise SystemExit("the gateway refuses its client")

    # ---------------------------------------------------------------------------------------- wrk and /proc

    def load(self, seconds, rounds):
        """{name: (best requests/s, least CPU microseconds per request)}"""
        gateways = {name: self.start_gateway(name) for name in NAMES}
        rates, costs = {name: [] for name in NAMES}, {name: [] for name in NAMES}
        try:
            for _ in range(rounds):
                for name, (process, port) in gateways.items():
                    worker = next(iter(children_of(process.pid)))
                    before = cpu_seconds([worker])
                    done = subprocess.run([program("wrk"), "-t1", "-c16", f"-d{seconds}s", "-s", HERE / "post.lua", f"http://127.0.0.1:{port}/"],
                                          capture_output=True, text=True, check=True,
                                          env={**os.environ, "BENCH_BODY": str(self.directory / "body.json")}).stdout
                    spent = cpu_seconds([worker]) - before
                    if "Non-2xx" in done:
                        raise SystemExit(f"{name} answered with errors:\n{done}")
                    requests = int(re.search(r"(\d+) requests in", done)[1])
                    rates[name].append(float(re.search(r"Requests/sec:\s*([\d.]+)", done)[1]))
                    costs[name].append(spent / requests * 1e6)
        finally:
            for process, _ in gateways.values():
                process.stop(signal.SIGQUIT)
        return {name: (max(rates[name]), min(costs[name])) for name in NAMES}

    # -------------------------------------------------------------------------------------------- callgrind

    def instructions(self, name):
        """User instructions per request."""
        totals = [self._instructions_of(name, count) for count in (CALLGRIND_REQUESTS, 5 * CALLGRIND_REQUESTS)]
        return (totals[1] - totals[0]) / (4 * CALLGRIND_REQUESTS)

    def _instructions_of(self, name, count):
        out = self.directory / f"{name}.callgrind"
        out.unlink(missing_ok=True)
        process, port = self.start_gateway(name, master="off", prefix=[program("valgrind"), "--tool=callgrind", "-q",
                                                                      f"--callgrind-out-file={out}"])
        try:
            ask(port, self.body, count)
        finally:
            # without a master, nginx looks at the signal after its next event only
            process.send_signal(signal.SIGQUIT)
            accepts(port)
            process.stop(signal.SIGQUIT, 60)
        return int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)[1])


class Refused(RuntimeError):
    pass


def ask(port, body, count):
    """This many requests over one connection."""
    data = request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer sk-bench"), ("Content-Type", "application/json")], body)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        reader = Reader(connection)
        for _ in range(count):
            connection.sendall(data)
            start, headers = reader.head()
            if start.split()[1] != "200":
                raise Refused(f"the gateway answered {start}")
            if value_of(headers, "transfer-encoding") == "chunked":
                while reader.chunk():
                    pass
            else:
                reader.exactly(int(value_of(headers, "content-length")))
            reader.reset_raw()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    needs.need(arguments.build, programs=("nginx", "wrk", "valgrind"))

    with tempfile.TemporaryDirectory(prefix="llm-bench-") as directory:
        bench = Bench(arguments.build.resolve(), pathlib.Path(directory), arguments.clients)
        upstream = bench.start_upstream()
        try:
            started = time.time()
            load = bench.load(arguments.seconds, arguments.rounds)
            counted = {name: bench.instructions(name) for name in NAMES}
        finally:
            upstream.stop(signal.SIGQUIT)

    ratio = counted["dispatch"] / counted["plain"]
    print(f"{len(bench.body)} byte chat request, {arguments.clients} clients, one worker, best of {arguments.rounds} runs of {arguments.seconds} s, "
          f"{CALLGRIND_REQUESTS} and {5 * CALLGRIND_REQUESTS} requests under callgrind ({time.time() - started:.0f} s in all)")
    print(f"{'':14}{'plain nginx':>14}{'llm_dispatch':>14}{'ratio':>8}")
    for label, plain, dispatch in [("requests/s", load["plain"][0], load["dispatch"][0]),
                                   ("CPU us/request", load["plain"][1], load["dispatch"][1]),
                                   ("Ir/request", counted["plain"], counted["dispatch"])]:
        print(f"{label:14}{plain:14.1f}{dispatch:14.1f}{dispatch / plain:8.3f}")
    return 1 if arguments.check and ratio > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
