"""
What must hold after every fault, checked from outside.

I1  idle: nothing is queued, granted or running, for no client, no pool and no engine, in status.json and in the metrics
I2  every request has finished (the caller hands over the fates of all it has sent)
I3  a probe is answered in less than 100 ms
I4  no growth of memory, file descriptors or zone use by repetition (class Growth)
I5  no [alert], [emerg], [crit], crash or sanitizer report in any log
I6  accepted = completed + rejected + cancelled + failed, in the metrics as in the caller's own count
"""

import os
import time

from . import sanitizers
from .client import chat_body
from .metrics import Metrics
from .poll import until
from .traffic import outcomes

PROBE_SECONDS = 0.1


def busy(gate):
    """What is not at zero, as {what: number}; empty when the gateway is idle."""
    status = gate.status()
    found = {f"totals.{name}": number for name, number in status["totals"].items()}
    for model in status["models"]:
        found |= {f"model {model['name']} {key}": model[key] for key in ("queued", "running", "oldest_ms")}
    for engine in status["engines"]:
        found[f"engine {engine['id']} held"] = engine["held"]
    for client in status["clients"]:
        found |= {f"client {client['name']} {key}": client[key] for key in ("running", "waiting")}
    found["requests"] = len(status["requests"])
    metrics = gate.metrics()
    for name in ("llm_queue_depth", "llm_queue_oldest_seconds", "llm_engine_held"):
        found |= {f"{name}{labels}": number for sample, labels, number in metrics.samples if sample == name}
    return {what: number for what, number in found.items() if number}


def idle(gate, seconds=5):
    """I1."""
    until(lambda: not busy(gate), lambda: f"idle, but there is {busy(gate)}", seconds)


def probe(gate, token="alice", body=None, tries=20):
    """I3. A machine that is busy with other things may spoil a try, not all of them. Returns the number of requests sent."""
    times = []
    for number in range(1, tries + 1):
        start = time.monotonic()
        reply = gate.client.ask(body or chat_body(content="probe"), token=token)
        times.append(time.monotonic() - start)
        assert reply.status == 200 and reply.complete, (reply.status, reply.body)
        if times[-1] < PROBE_SECONDS:
            return number
    raise AssertionError(f"a probe takes {min(times):.3f} s at best")


def counted(metrics, expected, *, unsure=0, lost=0):
    """
    I6: a complaint, or None. `expected`: {outcome: number} that clients know of; `unsure`: requests that were accepted but whose
    clients left, so that they may count as any outcome; `lost`: answered by a worker that was killed a moment later, so that
    nobody may have counted them.
    """
    has = metrics.outcomes()
    short = sum(max(0, number - has.get(outcome, 0)) for outcome, number in expected.items())
    total, known = sum(has.values()), sum(expected.values())
    if short > lost or not known - lost <= total <= known + unsure + lost:
        return f"the metrics count {has}, clients know of {dict(expected)} and {unsure} unsure, {lost} may be lost"
    if unsure == 0 and lost == 0 and has != {outcome: number for outcome, number in expected.items() if number}:
        return f"the metrics count {has}, clients know of {dict(expected)}"
    return None


def check(gate, fates=None, *, expected=None, before=None, token="alice", body=None, lost=0, probed=True):
    """
    All of them but growth. `fates`: what became of every request since the start (or since the Metrics `before`);
    `expected`: further outcomes that the test knows of, {outcome: number}. Without both the sums are not compared.
    """
    if fates is not None:
        open_ends = [fate for fate in fates if not fate.end]
        assert not open_ends, f"{len(open_ends)} requests have not finished"
    idle(gate)
    probes = probe(gate, token, body) if probed else 0
    if fates is not None or expected is not None:
        known = outcomes(fates or [])
        for outcome, number in (expected or {}).items():
            known[outcome] += number
        known["completed"] += probes
        unsure = sum(1 for fate in fates or [] if fate.outcome() is None)
        until(lambda: counted(since(gate.metrics(), before), known, unsure=unsure, lost=lost) is None,
              lambda: counted(since(gate.metrics(), before), known, unsure=unsure, lost=lost))
    gate.check_logs()


def since(metrics, before):
    """The counters since `before`, a Metrics too."""
    if before is None:
        return metrics
    difference = Metrics("")
    for name, labels, number in metrics.samples:
        difference.samples.append((name, labels, number - before.total(name, **labels) if name.endswith("_total") else number))
    return difference


def _resident(pid):
    """
    Bytes that belong to the process alone and are in memory: what a leak makes grow. 0 under AddressSanitizer, which keeps
    up to 256 MB of what a process has freed, so as to see who uses it still.
    """
    if sanitizers.ACTIVE:
        return 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith(("Private_Dirty:", "Private_Clean:")))


class Growth:
    """I4: memory, descriptors and zone use of master and workers now; ask again after repetitions."""

    def __init__(self, gate):
        self._gate = gate
        self.first = self.now()

    def now(self):
        gate = self._gate
        pids = [gate.pid, *gate.workers(), *gate.old_workers()]
        zone = gate.status()
        return {"processes": len(pids),
                "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
                "memory": sum(_resident(pid) for pid in pids),
                "zone": len(zone["requests"]) + len(zone["engines"])}

    def check(self, *, memory=2 << 20, descriptors=0, seconds=10):
        """Fails when more than this has come to stay. Idle connections and pools may take a moment to go."""
        def settled():
            now = self.now()
            return (now["processes"] == self.first["processes"] and now["zone"] <= self.first["zone"]
                    and now["descriptors"] <= self.first["descriptors"] + descriptors
                    and now["memory"] <= self.first["memory"] + memory)

        until(settled, lambda: f"no growth: {self.first} became {self.now()}", seconds)
