#!/usr/bin/env python3
"""Loads a million tokens from a private PostgreSQL into a running nginx while requests flow.

    bench/clients/run.py [--build DIR] [--rows N] [--check]

Measures what users would feel of it:
  longest turn     thread CPU of the longest turn of a worker's event loop (loop_time.c, preloaded): bounds every handler run. Aim: 5 ms
  zone per client  bytes of the zone, in each generation. Aim: 150
  old table        requests with tokens of the old table during the load: all must be answered; a token of the new one is 401 until the swap
  notifications    seconds until a row changed during the load is in force. Aim: 1 s
--check exits 1 when an aim is missed. Needs the tests' Python packages: scripts/venv.sh, then .venv/bin/python bench/clients/run.py
"""

import argparse
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402

FEW = 1000


def insert(connection, prefix, count):
    """Many rows at once; with the trigger on a million notifications would follow."""
    connection.execute("ALTER TABLE users DISABLE TRIGGER USER")
    connection.execute("INSERT INTO users (token, name, organization, email, priority, threshold) "
                       f"SELECT '{prefix}' || n, 'user ' || n, 'organisation ' || n %% 50, 'user' || n || '@example.org', 1 + n %% 10, 5 "
                       "FROM generate_series(1, %s) n", [count])
    connection.execute("ALTER TABLE users ENABLE TRIGGER USER")


def zone_bytes(gateway, megabytes):
    """Bytes for one client in one generation: three fifths of the zone are the two tables, and nginx -t says how many clients fit."""
    _, said = gateway.test_conf()
    return megabytes * (1 << 20) * 3 / 5 / 2 / int(re.search(r"holds (\d+) clients", said)[1])


class Traffic:
    """Requests with a token of the old table, one after the other, while `loading`."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.statuses = {}
        self.slowest = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        number = 0
        while not self._stop:
            number = number % FEW + 1
            began = time.monotonic()
            status = self.gateway.client.ask(token=f"old-{number}").status
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[status] = self.statuses.get(status, 0) + 1

    def stop(self):
        self._stop = True
        self._thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    needs.need(arguments.build, programs=("nginx", "postgres", "cc"), packages=("redis", "psycopg"))
    os.environ["BUILD_DIR"] = str(arguments.build)

    # paths.py reads BUILD_DIR when it is imported
    from support.fake_engine import FakeEngine
    from support.nginx import Nginx
    from support.poll import until
    from support.postgres import Postgres

    failures = []

    def expect(holds, what):
        if not holds:
            failures.append(what)

    with tempfile.TemporaryDirectory(prefix="llm-bench-") as scratch:
        directory = pathlib.Path(scratch)
        shim = directory / "loop_time.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, HERE / "loop_time.c", "-ldl"], check=True)
        os.environ["LOOP_TIME"] = str(directory / "loop")
        database = Postgres()
        engine = FakeEngine()
        gateway = None
        try:
            database.start()
            engine.start()
            name = database.create_database()
            with database.connect(name) as connection:
                insert(connection, "old-", FEW)
            http = (f"llm_priority_db postgresql://llm@127.0.0.1:{database.port}/{name} refresh=2s; "
                    f"llm_engine {engine.url} model=m max_running=64;")

            def make(zone):
                return Nginx(directory / f"nginx-{zone}", workers=2, zone=zone, http=http)

            megabytes = max(arguments.rows * 500 // (1 << 20) + 16, 64)
            gateway = make(f"{megabytes}m")
            os.environ["LD_PRELOAD"] = str(shim)
            gateway.start()
            del os.environ["LD_PRELOAD"]
            gateway.wait_ready()
            loads = lambda: len(re.findall("clients loaded from", gateway.error_log()))
            traffic = Traffic(gateway)
            time.sleep(0.2)  # the rate of requests before anything happens is not measured, only that they flow

            def figures():
                found = [struct.unpack("QQQ", path.read_bytes()) for path in directory.glob("loop.*")]
                return max(longest for longest, _, _ in found), sum(turns for _, turns, _ in found), sum(above for _, _, above in found)

            before = loads()
            with database.connect(name) as connection:
                with connection.transaction():
                    insert(connection, "new-", arguments.rows)
                    connection.execute("ANALYZE users")
                reading = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query ILIKE '%users%'"
                until(lambda: connection.execute(reading).fetchone()[0] > 0, "the table is being read", 60)
                began = time.monotonic()
                seen = []
                number = 0
                new_before_swap = gateway.client.ask(token=f"new-{arguments.rows}").status
                while loads() == before:
                    number += 1
                    connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES (%s, 'fresh', 1, 1)", [f"fresh-{number}"])
                    changed = time.monotonic()
                    until(lambda: gateway.client.ask(token=f"fresh-{number}").status == 200, "a new row is in force", 300)
                    seen.append((time.monotonic() - changed, loads() == before))
                    connection.execute("DELETE FROM users WHERE token = %s", [f"fresh-{number}"])
                    changed = time.monotonic()
                    until(lambda: gateway.client.ask(token=f"fresh-{number}").status == 401, "a removed row is out of force", 300)
                    seen.append((time.monotonic() - changed, loads() == before))
                took = time.monotonic() - began
                still_removed = gateway.client.ask(token=f"fresh-{number}").status
            until(lambda: gateway.client.ask(token=f"new-{arguments.rows}").status == 200, "the new table is in force", 30)
            traffic.stop()
            longest, turns, above = figures()
            clients = gateway.metrics().total("llm_clients")
            per_client = zone_bytes(gateway, megabytes)
            during = [seconds for seconds, in_load in seen if in_load]

            print(f"{clients:.0f} clients; the load took {took:.1f} s, {sum(traffic.statuses.values())} requests meanwhile: {traffic.statuses}, "
                  f"slowest {traffic.slowest * 1e3:.0f} ms")
            print(f"longest turn of an event loop {longest / 1e6:.2f} ms of thread CPU; {above} of {turns} turns above 5 ms")
            print(f"zone of {megabytes} MB: {per_client:.0f} bytes for a client and generation")
            print(f"changes during the load: {len(during)} seen, after at most {max(during, default=0) * 1e3:.0f} ms")
            expect(above == 0, "no turn above 5 ms")
            expect(per_client <= 150, "at most 150 bytes of zone for a client and generation")
            expect(set(traffic.statuses) == {200}, "known tokens are answered throughout")
            if during:
                expect(new_before_swap == 401, "new tokens are unknown until the swap")
                expect(max(during) < 1, "changes are seen within a second")
            else:
                expect(False, "the load was over before a row could be changed: more --rows are needed to measure that")
            expect(still_removed == 401, "what was removed during the load stays so")
        finally:
            if gateway:
                gateway.kill()
            engine.stop()
            database.remove()
    for failure in failures:
        print(f"** missed: {failure}")
    sys.exit(1 if failures and arguments.check else 0)


if __name__ == "__main__":
    main()
