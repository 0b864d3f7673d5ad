#!/usr/bin/env python3
"""What requests that wait for an engine take of memory.

    bench/parked-memory/run.py [--build DIR] [--requests N] [--check]

N clients send a small chat request each, one runs and the others wait. Printed: growth of what the workers have for themselves alone
(Pss_Anon, so the zone is not in it) and of the part of the zone that they have touched (Pss_Shmem). Aim: below 150 MB for 10,000.
Needs the tests' Python packages: scripts/venv.sh, then .venv/bin/python bench/parked-memory/run.py
"""

import argparse
import os
import pathlib
import re
import resource
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402

ALLOWED_MB = 150
WORKERS = 16  # of 2048 connections each


def memory_mb(pids, field):
    return sum(int(re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) for pid in pids) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    needs.need(arguments.build, packages=("redis",))
    os.environ["BUILD_DIR"] = str(arguments.build)
    files = arguments.requests + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))

    # paths.py reads BUILD_DIR when it is imported
    from support.fake_engine import FakeEngine
    from support.nginx import Nginx
    from support.users import user, write_tokens

    with tempfile.TemporaryDirectory(prefix="llm-bench-") as scratch:
        directory = pathlib.Path(scratch)
        tokens = write_tokens(directory / "tokens.json", [user("a", threshold=1_000_000)])
        engine = FakeEngine(max_running=1)
        engine.start()
        engine.hold()
        gateway = Nginx(directory / "nginx", workers=WORKERS, zone="64m",
                        http=f"llm_priority_db file:{tokens}; llm_engine {engine.url} model=m max_running=1;")
        gateway.metered = False
        pending = []
        try:
            gateway.start()
            gateway.wait_ready()
            workers = gateway.workers()
            before = [memory_mb(workers, field) for field in ("Pss_Anon", "Pss_Shmem")]
            for _ in range(arguments.requests):
                pending.append(gateway.client.send(token="a"))
            gateway.wait_queued(arguments.requests - 1, 60)
            anonymous, shared = (memory_mb(workers, field) - was for field, was in zip(("Pss_Anon", "Pss_Shmem"), before))
            print(f"{arguments.requests - 1} requests waiting: {anonymous:.1f} MB in the workers ({anonymous * 1024 / arguments.requests:.1f} KB each), "
                  f"{shared:.1f} MB more of the zone touched")
        finally:
            gateway.kill()
            for request in pending:
                request.close()
            engine.stop()
    sys.exit(1 if arguments.check and anonymous + shared > ALLOWED_MB else 0)


if __name__ == "__main__":
    main()
