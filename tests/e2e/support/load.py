"""Many requests at once from one thread, cheaply enough that the servers and not the test are busy."""

import asyncio
import collections
import json

from .client import request_bytes

Answer = collections.namedtuple("Answer", "token status body")


async def _one(port, token, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"), ("Connection", "close")]
        writer.write(request_bytes("POST", "/v1/chat/completions", headers, body))
        data = await reader.read()
        head, _, rest = data.partition(b"\r\n\r\n")
        return Answer(token, int(head.split()[1]), rest)
    finally:
        writer.close()


async def attempt(port, token, body):
    """One request; status 0 when the gateway's worker took the connection with it."""
    try:
        return await _one(port, token, body)
    except (OSError, IndexError, ValueError):
        return Answer(token, 0, b"")


def saturate(port, bodies, *, outstanding, answers, settled=0):
    """
    Keeps `outstanding` requests of each token of `bodies` ({token: body}) in flight until `answers` are back, not counting the
    first `settled` of them; returns those in the order of their ends. What is still in flight then is dropped.
    """
    async def run():
        finished = []
        enough = asyncio.Event()

        async def client(token, body):
            while not enough.is_set():
                finished.append(await _one(port, token, body))
                if len(finished) >= settled + answers:
                    enough.set()

        tasks = [asyncio.create_task(client(token, body)) for token, body in bodies.items() for _ in range(outstanding)]
        waiter = asyncio.create_task(enough.wait())
        await asyncio.wait([*tasks, waiter], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and task.exception():
                raise task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return finished[settled:settled + answers]

    return asyncio.run(run())


def usage_of(answer):
    """(prompt, cached prompt, completion) tokens of a non-streamed answer, as its engine counted them."""
    body = answer.body
    usage = json.loads(body[body.index(b"{"):body.rindex(b"}") + 1])["usage"]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return usage["prompt_tokens"], cached, usage["completion_tokens"]
