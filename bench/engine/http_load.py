#!/usr/bin/env python3
"""Output tokens per second of an llm-engine that this starts, with many requests at once over HTTP.

  bench/engine/http_load.py ENGINE MODEL_DIR TOKENS_IN TOKENS_OUT [--requests 512] [--at-once 256] [--backend cuda]
                            [further options of the engine]

Prompts differ from their first token on, so the prefix cache does not help. ENGINE is the program llm-engine.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time


async def post(port, body):
    """The JSON answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
                 b"content-length: %d\r\n\r\n%s" % (len(data), data))
    answer = await reader.read()
    writer.close()
    head, _, text = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.splitlines()[0].decode() + ": " + text[:200].decode(errors="replace"))
    return json.loads(text)


async def load(port, options):
    """(seconds, output tokens, input tokens)"""
    seats = asyncio.Semaphore(options.at_once)
    random.seed(1)
    totals = [0, 0]

    async def one():
        prompt = "".join(random.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(options.tokens_in))
        async with seats:
            answer = await post(port, {"model": "bench", "prompt": prompt, "max_tokens": options.tokens_out,
                                       "temperature": 0.8, "ignore_eos": True})
        totals[0] += answer["usage"]["completion_tokens"]
        totals[1] += answer["usage"]["prompt_tokens"]

    start = time.monotonic()
    await asyncio.gather(*(one() for _ in range(options.requests)))
    return time.monotonic() - start, *totals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("model")
    parser.add_argument("tokens_in", type=int)
    parser.add_argument("tokens_out", type=int)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--backend", default="cuda")
    options, further = parser.parse_known_args()
    with tempfile.NamedTemporaryFile("r") as log:
        start = time.monotonic()
        engine = subprocess.Popen(
            [options.engine, "--model", options.model, "--served-model-name", "bench", "--backend", options.backend,
             "--listen", "127.0.0.1:0", "--max-running", str(options.at_once), "--max-waiting", str(options.requests),
             "--max-context", "2048", *further], stderr=open(log.name, "w"))
        try:
            port = None
            while port is None:
                if engine.poll() is not None:
                    sys.exit("llm-engine ended: " + log.read())
                found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", open(log.name).read())
                port = found and int(found.group(1))
                time.sleep(0.05)
            ready = time.monotonic() - start
            seconds, out, read = asyncio.run(load(port, options))
        finally:
            engine.terminate()
            engine.wait()
    print(f"HTTP, {options.at_once} at once, {options.tokens_in} in / {options.tokens_out} out: "
          f"{out / seconds:.0f} output tok/s, {read / seconds:.0f} input tok/s (ready after {ready:.1f} s)")


if __name__ == "__main__":
    main()
