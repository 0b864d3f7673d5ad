#!/usr/bin/env python3
"""Takes the pictures of the dashboard in docs/images: real servers, real load, a real browser.

    tools/dashboard_pictures.py [--minutes 15] [--out docs/images]

Three scenes: nothing yet, busy (after that many minutes of load; the charts show fifteen), degraded. Needs what the tests need, and pngquant.
"""

import argparse
import asyncio
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from support.browser import Browser  # noqa: E402
from support.client import chat_body, request_bytes  # noqa: E402
from support.llm_engine import LlmEngine  # noqa: E402
from support.nginx import Nginx  # noqa: E402
from support.redis_server import RedisServer  # noqa: E402
from support.users import user, write_tokens  # noqa: E402

CLIENTS = [("helpdesk", 8, 30), ("lecture-notes", 5, 20), ("code-review", 5, 20), ("translation", 3, 20), ("nightly-batch", 1, 200)]
LARGE, SMALL = "llama-3.1-8b", "mistral-7b"


async def one(port, client, model, tokens):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = chat_body(model, "Please summarise this. " * random.randint(5, 60), max_tokens=tokens, stream=True,
                         stream_options={"include_usage": True})
        writer.write(request_bytes("POST", "/v1/chat/completions", [("Authorization", f"Bearer {client}"),
                                                                   ("Content-Type", "application/json"), ("Connection", "close")], body))
        while await reader.read(1 << 16):
            pass
        writer.close()
    except OSError:
        pass


async def load(port, started, strength):
    """Requests of all clients, at a rate that rises and falls; runs until it is cancelled."""
    tasks = set()

    def send(client, model):
        task = asyncio.create_task(one(port, client, model, random.randint(40, 220)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    rates = {"helpdesk": 1.6, "lecture-notes": .8, "code-review": .8, "translation": .5, "nightly-batch": .9}
    while True:
        minutes = (time.monotonic() - started) / 60
        wave = strength() * (1 + .55 * math.sin(minutes * 1.1) + .2 * math.sin(minutes * 5))
        for client, rate in rates.items():
            if random.random() < rate * wave / 10:
                send(client, SMALL if client == "translation" or random.random() < .2 else LARGE)
        if random.random() < .01:
            send("stranger", LARGE)
        await asyncio.sleep(.1)


def picture(browser, url, path, *, whole=True, **look):
    browser.look(**look)
    browser.open(url)
    browser.wait("document.body.dataset.state === 'good'")
    browser.wait("document.querySelectorAll('.chart svg path').length > 0")
    browser.picture(path, whole=whole)
    # 256 colours are enough for a page, and a third of the bytes
    subprocess.run(["pngquant", "--force", "--strip", "--speed", "1", "--output", path, "256", path], check=True)
    print(path, path.stat().st_size // 1024, "KiB", flush=True)


async def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    options.add_argument("--minutes", type=float, default=15)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "images")
    options = options.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    home = pathlib.Path(tempfile.mkdtemp(prefix="llm-pictures-"))
    redis = RedisServer(home / "redis")
    redis.start()
    tokens = write_tokens(home / "tokens.json", [user(name, priority=priority, threshold=threshold, organization="campus")
                                                 for name, priority, threshold in CLIENTS])
    gate = Nginx(home / "nginx", workers=2, http=f"llm_redis {redis.url}; llm_priority_db file:{tokens}; llm_min_throughput 15;",
                 location="llm_queue_timeout 30s;")
    gate.start()
    browser = Browser(home / "browser")
    url = f"http://127.0.0.1:{gate.port}/llm/"
    engines = []
    try:
        picture(browser, url, options.out / "dashboard-empty.png", width=1280)
        for name, model, seats in (("gpu0@host-a", LARGE, 12), ("gpu1@host-a", LARGE, 12), ("gpu0@host-b", SMALL, 10)):
            engine = LlmEngine(home / name, redis=redis.url, sim=True, arguments=[
                "--served-model-name", model, "--id", name, "--max-running", seats, "--sim", "base=18,sequence=1.5,context=0.001,prefill=0.2"])
            engine.start()
            engines.append(engine)
        gate.wait_ready()
        strength = [1.0]
        work = asyncio.create_task(load(gate.port, time.monotonic(), lambda: strength[0]))
        await asyncio.sleep(60 * options.minutes)
        strength[0] = 2.2  # a queue for the picture
        await asyncio.sleep(15)
        for name, look in (("busy", {"width": 1280}), ("busy-dark", {"width": 1280, "dark": True}),
                           ("busy-phone", {"width": 390, "height": 1500, "whole": False})):
            await asyncio.to_thread(picture, browser, url, options.out / f"dashboard-{name}.png", **look)
        engines[0].kill()
        gate.client.ask(b"", target="/llm/engines/gpu0@host-b/drain", headers=[("x-llm-admin", "1")])
        redis.stop()
        await asyncio.sleep(9)
        for name, look in (("degraded", {"width": 1280}), ("degraded-phone-dark", {"width": 390, "height": 1500, "dark": True, "whole": False})):
            await asyncio.to_thread(picture, browser, url, options.out / f"dashboard-{name}.png", **look)
        work.cancel()
        print(json.dumps(gate.status()["totals"]))
    finally:
        browser.stop()
        gate.kill()
        for engine in engines[1:]:
            engine.kill()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
