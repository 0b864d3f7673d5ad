"""Load that goes on while a test breaks something: a thread of its own, every request's fate on record."""

import asyncio
import collections
import dataclasses
import json
import threading
import time

from .client import request_bytes


@dataclasses.dataclass
class Plan:
    """One request to come. `leave_after`: seconds after which its client closes the connection, answered or not."""
    token: str
    body: bytes
    leave_after: float | None = None


@dataclasses.dataclass
class Fate:
    """What became of one request. Times are monotonic seconds; `port` is the client's own end."""
    plan: Plan
    start: float
    port: int = 0
    head: float | None = None
    end: float = 0.0
    status: int | None = None
    code: str | None = None      # of an error object
    complete: bool = False       # the framing's own end was seen
    left: bool = False           # the client went away by its own will
    orphaned: bool = False       # set by tests: its worker was killed, which the client cannot tell from an engine's failure
    retry_after_ms: int | None = None
    should_retry: bool = True
    size: int = 0

    @property
    def ok(self):
        return self.status == 200 and self.complete

    @property
    def broken(self):
        """The connection ended without an answer, or in the midst of one, and the client had not left."""
        return not self.left and not self.complete

    def outcome(self):
        """The outcome that the metrics must have counted; None when the client's own view does not tell."""
        if self.left or self.orphaned or self.status is None:
            return None
        if self.status == 200:
            return "completed" if self.complete else "engine_error"
        return {"engine_error": "engine_error", "engine_timeout": "timeout", None: "completed"}.get(self.code, f"rejected_{self.code}")


def _code_of(body):
    try:
        error = json.loads(body)["error"]
        return error["code"] if {"message", "type", "param", "code"} == set(error) else None
    except (ValueError, KeyError, TypeError):
        return None


async def _read_answer(reader, fate):
    head = await reader.readuntil(b"\r\n\r\n")
    fate.head = time.monotonic()
    lines = head.decode("latin-1").split("\r\n")
    fate.status = int(lines[0].split()[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if "retry-after-ms" in headers:
        fate.retry_after_ms = int(headers["retry-after-ms"])
    fate.should_retry = headers.get("x-should-retry") != "false"
    body = await reader.read()
    fate.size = len(body)
    if headers.get("transfer-encoding") == "chunked":
        fate.complete = body.endswith(b"0\r\n\r\n")
    else:
        fate.complete = len(body) == int(headers.get("content-length", -1))
    if fate.status >= 400:
        fate.code = _code_of(body)


class Traffic:
    """
    Requests until stop(). Either `outstanding` of them are in flight at any time, or they arrive at the times of `arrivals`
    (an iterator of seconds since the start). `make_plan()` says what each one is.
    """

    def __init__(self, port, make_plan, *, outstanding=0, arrivals=None):
        self._port = port
        self._make_plan = make_plan
        self._outstanding = outstanding
        self._arrivals = arrivals
        self.results = []     # fates in the order of their ends
        self.in_flight = 0
        self.started = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.problems = []

    def start(self):
        self._thread.start()
        return self

    def stop(self, seconds=60):
        """No new requests; waits for the ends of those in flight and returns all fates."""
        self._stopping.set()
        return self.finish(seconds)

    def finish(self, seconds=60):
        """As stop(), but the rest of `arrivals` comes first."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.in_flight} requests are still unanswered {seconds} s after the last was sent"
        assert not self.problems, repr(self.problems[0])
        return self.results

    def since(self, moment):
        """Fates of requests that ended after this monotonic time."""
        return [fate for fate in list(self.results) if fate.end >= moment]

    async def _one(self, plan):
        fate = Fate(plan, time.monotonic())
        self.started += 1
        self.in_flight += 1
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            fate.port = writer.get_extra_info("sockname")[1]
            headers = [("Authorization", f"Bearer {plan.token}"), ("Content-Type", "application/json"), ("Connection", "close")]
            writer.write(request_bytes("POST", "/v1/chat/completions", headers, plan.body))
            await asyncio.wait_for(_read_answer(reader, fate), plan.leave_after)
        except asyncio.TimeoutError:
            fate.left = True
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as problem:  # a mistake of this file must not vanish in its thread
            self.problems.append(problem)
        finally:
            if writer:
                if fate.left:
                    writer.transport.abort()
                else:
                    writer.close()
            fate.end = time.monotonic()
            self.in_flight -= 1
            self.results.append(fate)
        return fate

    async def _closed_loop(self):
        while not self._stopping.is_set():
            fate = await self._one(self._make_plan())
            if fate.status is None or fate.status >= 400:
                await asyncio.sleep(0.02)  # a client that is refused does not spin

    async def _open_loop(self):
        start = time.monotonic()
        tasks = set()
        for at in self._arrivals:
            while not self._stopping.is_set() and (left := start + at - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.2))
            if self._stopping.is_set():
                break
            task = asyncio.create_task(self._one(self._make_plan()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self):
        try:
            if self._arrivals is not None:
                await self._open_loop()
            else:
                await asyncio.gather(*(self._closed_loop() for _ in range(self._outstanding)))
        except Exception as problem:
            self.problems.append(problem)


def outcomes(fates):
    """{outcome: number} of those whose outcome the client can know."""
    return collections.Counter(outcome for fate in fates if (outcome := fate.outcome()))
