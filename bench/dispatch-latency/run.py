#!/usr/bin/env python3
"""How long a free seat stays empty while somebody waits for it.

    bench/dispatch-latency/run.py [--build DIR] [--answers N] [--workers N] [--seats N]

A simulated engine of a few seats is kept saturated by two clients; the gateway's own histogram llm_dispatch_seconds (seat free
until the next request is handed on) gives the percentiles, its bucket bounds their resolution. The goal is p50 < 0.3 ms, p99 < 2 ms.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402


def percentile(metrics, name, share):
    """The upper bound of the bucket in which this share of the observations is reached."""
    buckets = {}
    for sample, labels, number in metrics.samples:
        if sample == f"{name}_bucket":
            bound = float(labels["le"].replace("+Inf", "inf"))
            buckets[bound] = buckets.get(bound, 0) + number
    total = buckets[float("inf")]
    return next(bound for bound in sorted(buckets) if buckets[bound] >= share * total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release")
    parser.add_argument("--answers", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seats", type=int, default=8)
    arguments = parser.parse_args()
    needs.need(arguments.build, built=(needs.MODULE, "llm-engine"))
    os.environ["BUILD_DIR"] = str(arguments.build)

    # paths.py reads BUILD_DIR when it is imported
    from support.client import chat_body
    from support.llm_engine import LlmEngine
    from support.load import saturate
    from support.nginx import Nginx
    from support.users import user, write_tokens

    with tempfile.TemporaryDirectory(prefix="llm-bench-") as scratch:
        directory = pathlib.Path(scratch)
        tokens = write_tokens(directory / "tokens.json", [user("a", threshold=1000), user("b", threshold=1000)])
        engine = LlmEngine(directory / "engine", sim=True, arguments=["--max-running", arguments.seats])
        gateway = Nginx(directory / "nginx", workers=arguments.workers,
                        http=f"llm_priority_db file:{tokens}; llm_engine {engine.url} model=sim max_running={arguments.seats};")
        try:
            engine.start()
            gateway.start()
            gateway.wait_ready()
            bodies = {token: chat_body("sim", max_tokens=4) for token in ("a", "b")}
            started = time.monotonic()
            saturate(gateway.port, bodies, outstanding=arguments.seats * 2, answers=arguments.answers)
            rate = arguments.answers / (time.monotonic() - started)
            metrics = gateway.metrics()
            count = metrics.total("llm_dispatch_seconds_count")
            print(f"{arguments.workers} workers, {arguments.seats} seats, {rate:.0f} requests/s, {count:.0f} dispatches to a waiting request")
            print(f"mean {metrics.total('llm_dispatch_seconds_sum') / count * 1e3:.3f} ms"
                  + "".join(f", p{share * 100:g} <= {percentile(metrics, 'llm_dispatch_seconds', share) * 1e3:g} ms" for share in (0.5, 0.99)))
        finally:
            gateway.kill()
            engine.kill()


if __name__ == "__main__":
    main()
