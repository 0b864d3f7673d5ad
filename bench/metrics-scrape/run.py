#!/usr/bin/env python3
"""What one scrape of llm_metrics costs the worker that answers it: 1000 clients, 64 engines, 8 models, all with a past.

    bench/metrics-scrape/run.py [--build DIR] [--scrapes N] [--check]

Processor time of the worker over many scrapes, less what as many requests for a static answer cost. --check exits 1 above 1 ms.
"""

import argparse
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402
from processes import cpu_seconds  # noqa: E402

ALLOWED_MS = 1.0
CLIENTS, ENGINES, MODELS = 1000, 64, 8


def cost(gate, target, count):
    """Processor milliseconds of the worker per request for `target`."""
    worker, = gate.workers()
    before = cpu_seconds([worker])
    size = 0
    for _ in range(count):
        size = len(gate.client.get(target).body)
    return (cpu_seconds([worker]) - before) / count * 1e3, size


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    options.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    options.add_argument("--scrapes", type=int, default=2000)
    options.add_argument("--check", action="store_true")
    options = options.parse_args()
    needs.need(options.build)
    os.environ["BUILD_DIR"] = str(options.build)
    from support.bulk import ANSWER, ask_all  # pylint: disable=import-outside-toplevel
    from support.client import chat_body
    from support.nginx import Nginx
    from support.ports import free_port
    from support.users import user, write_tokens

    with tempfile.TemporaryDirectory() as directory:
        home = pathlib.Path(directory)
        tokens = write_tokens(home / "tokens.json", [user(f"t{number}") for number in range(CLIENTS)])
        ports = [free_port() for _ in range(ENGINES)]
        engines = "".join(f"llm_engine http://127.0.0.1:{port} model=model-{number % MODELS} id=engine-{number};"
                          for number, port in enumerate(ports))
        listen = "".join(f"listen 127.0.0.1:{port};" for port in ports)
        gate = Nginx(home / "nginx", workers=1, zone="64m", locations="location = /static { return 200 x; }",
                     http=f"keepalive_requests 1000000; llm_priority_db file:{tokens}; {engines}"
                          f"server {{ {listen} location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}")
        gate.start()
        try:
            gate.wait_ready()
            bodies = [chat_body(f"model-{number}") for number in range(MODELS)]
            done = ask_all(gate, [(f"t{number}", bodies[(number + turn) % MODELS]) for turn in range(4) for number in range(CLIENTS)])
            assert done == {200: 4 * CLIENTS}, done
            plain, _ = cost(gate, "/static", options.scrapes)
            scrape, size = cost(gate, "/metrics", options.scrapes)
        finally:
            gate.finish()
    print(f"{CLIENTS} clients, {ENGINES} engines, {MODELS} models: {scrape - plain:.3f} ms of processor time per scrape "
          f"({size // 1024} KiB; a static answer costs {plain:.3f} ms)")
    if options.check and scrape - plain > ALLOWED_MS:
        raise SystemExit(f"more than {ALLOWED_MS} ms")


if __name__ == "__main__":
    main()
