"""
The grant log of the checked module (llm_test_faults log=PATH), and the proof that it breaks no promise:

- an attempt has one grant and one lease; what has ended gets nothing any more
- at each lease the engine had room within its limit, and what the zone counts there is what the log adds up to
- within a flow requests are granted in the order of their arrival; no grant passes a waiting request of a stricter class,
  but for the tenth that is kept for aged ones
- the service of two clients that wait all the time differs by no more than what is under way for them
- a rebuild after a death in the lock changes no request but the one that was being changed
"""

import collections
import math
import struct

_HEADER = struct.Struct("<QQQ40x")
_RECORD = struct.Struct("<IiqQIIIIiiIIIIddII")
_MAGIC = 0x31676F6C6D6C6C
_NONE = 0xFFFFFFFF
_KINDS = ("", "queued", "unqueued", "leased", "released", "granted", "aged", "started", "returned", "ended", "held", "charged",
          "rebuilt", "found")
_STATES = ("free", "queued", "granted", "running", "ended")

Record = collections.namedtuple("Record", "kind pid time_us seq index generation account pool priority level_class seats engine "
                                          "engine_held max_running limit value flag lease")


def read(path):
    with open(path, "rb") as file:
        magic, count, capacity = _HEADER.unpack(file.read(_HEADER.size))
        assert magic == _MAGIC, "not a grant log"
        assert count < capacity, "the grant log is full"
        data = file.read(count * _RECORD.size)
    return [Record(_KINDS[fields[0]], *fields[1:]) for fields in _RECORD.iter_unpack(data)]


class _Request:
    def __init__(self, record):
        self.seq = record.seq
        self.account = record.account
        self.state = "new"
        self.flow = None  # the flow it stands in
        self.lease = None
        self.seats = record.seats
        self.attempts = 0


class Checker:
    """largest_prompt, largest_output: tokens of the largest request of the load; they bound what may be under way."""

    def __init__(self, largest_prompt, largest_output):
        self.largest_prompt = largest_prompt
        self.largest_output = largest_output
        self.live = {}
        self.gone = set()
        self.flows = collections.defaultdict(dict)  # (account, pool, priority, class): {seq: request}
        self.engine_held = collections.Counter()
        self.held_accounts = set()
        self.service = collections.Counter()
        self.under_way = collections.Counter()
        self.most_under_way = collections.Counter()
        self.weights = {}
        self.spans = {}  # pair of accounts that both wait: [smallest, largest] difference of service since they do
        self.passed = None  # a grant that went before a stricter class: the next record must say why
        self.since_aged = collections.Counter()
        self.grants = self.aged = self.rebuilds = 0
        self.largest_span = 0.0
        self._survivors = None

    def run(self, records):
        for number, record in enumerate(records):
            try:
                self._step(record)
            except AssertionError as error:
                story = [other for other in records[:number + 1] if (other.index, other.generation) == (record.index, record.generation)]
                raise AssertionError(f"record {number}, {record}: {error}\nof this request: " + "\n  ".join(map(str, story[-12:]))) from None
        return self

    def assert_idle(self):
        assert not self.live, f"{len(self.live)} requests never ended"
        assert not any(self.engine_held.values()), dict(self.engine_held)

    def _step(self, record):
        if self.passed is not None:
            assert record.kind == "aged" and record.seq == self.passed, "a grant passed a stricter class"
            self.passed = None
        if self._survivors is not None and record.kind != "found":
            self._end_of_rebuild()
        key = (record.index, record.generation)
        if record.kind not in ("held", "rebuilt"):
            assert key not in self.gone or record.kind == "ended", "something happens to a request that has ended"
        getattr(self, "_" + record.kind)(record, key)

    def _request(self, record, key):
        if key not in self.live:
            self.live[key] = _Request(record)
        return self.live[key]

    # ---- the queue

    def _queued(self, record, key):
        request = self._request(record, key)
        assert request.state in ("new", "queued"), f"queued while {request.state}"
        assert request.flow is None, "queued twice"
        request.state = "queued"
        request.flow = (record.account, record.pool, record.priority, record.level_class)
        self.flows[request.flow][request.seq] = request
        self._backlog_changed()

    def _unqueued(self, record, key):
        request = self.live[key]
        assert request.flow is not None
        del self.flows[request.flow][request.seq]
        if not self.flows[request.flow]:
            del self.flows[request.flow]
        request.flow = None
        self._backlog_changed()

    def _held(self, record, _):
        (self.held_accounts.add if record.flag else self.held_accounts.discard)(record.account)
        self._backlog_changed()

    # ---- leases and grants

    def _leased(self, record, key):
        request = self._request(record, key)
        assert request.lease is None, "a second lease"
        assert request.state in ("new", "queued", "running"), f"leased while {request.state}"
        moved = request.state == "running"
        request.lease = record.engine
        self.engine_held[record.engine] += record.seats
        assert self.engine_held[record.engine] == record.engine_held, f"the log adds up to {self.engine_held[record.engine]}"
        before = record.engine_held - record.seats + int(record.value)
        over = 1 if moved else 0
        if not record.flag:  # an engine that preempts takes a stricter class beyond its limit
            assert before < max(1, math.floor(record.limit)) + over, "no room within the limit"
        assert before < record.max_running + over + (2 if record.flag else 0), "more than the engine can run"
        self.under_way[record.account] += 1
        self.most_under_way[record.account] = max(self.most_under_way[record.account], self.under_way[record.account])

    def _released(self, record, key):
        request = self.live[key]
        assert request.lease == record.engine, "released what it does not hold"
        request.lease = None
        self.engine_held[record.engine] -= record.seats
        assert self.engine_held[record.engine] == record.engine_held, f"the log adds up to {self.engine_held[record.engine]}"
        self.under_way[record.account] -= 1

    def _granted(self, record, key):
        request = self._request(record, key)
        assert request.state in ("new", "queued") and request.lease is not None, f"granted while {request.state}"
        request.state = "running" if record.flag else "granted"
        self.grants += 1
        self.since_aged[record.pool] += 1
        flow = (record.account, record.pool, record.priority, record.level_class)
        assert all(seq > request.seq for seq in self.flows.get(flow, ())), "an earlier request of its flow still waits"
        if any(pool == record.pool and level > record.level_class and account not in self.held_accounts
               for account, pool, _, level in self.flows):
            self.passed = request.seq

    def _aged(self, record, _):
        self.aged += 1
        assert self.since_aged[record.pool] >= 10, "more than a tenth of the dispatches passed a stricter class"
        self.since_aged[record.pool] = 0

    def _started(self, _, key):
        request = self.live[key]
        assert request.state == "granted" and request.lease is not None, f"started while {request.state}"
        request.state = "running"

    def _returned(self, _, key):
        request = self.live[key]
        assert request.state == "granted" and request.lease is None, f"returned while {request.state}"
        request.state = "queued"

    def _ended(self, _, key):
        if key in self.gone:
            return  # told to its owner, who frees it
        request = self.live.pop(key, None)
        assert request is None or (request.lease is None and request.flow is None), "ended with a lease or in a queue"
        self.gone.add(key)

    # ---- service

    def _charged(self, record, _):
        self.service[record.account] += record.value
        self.weights[record.account] = max(1, record.priority)
        for pair, span in self.spans.items():
            if record.account in pair:
                difference = self.service[pair[0]] - self.service[pair[1]]
                span[:] = min(span[0], difference), max(span[1], difference)
                self.largest_span = max(self.largest_span, span[1] - span[0])
                bound = self._bound(pair[0]) + self._bound(pair[1])
                assert span[1] - span[0] <= bound, f"service of {pair} differs by {span[1] - span[0]:.0f}, at most {bound:.0f} is allowed"

    def _bound(self, account):
        """
        By how much a client's service may run ahead of, or be taken back behind, that of one that waits too. Who is granted has the
        least service; until it has again, it is charged that request's prompt and the output of all that it has under way. A worker
        that dies has all of that refunded.
        """
        most = self.most_under_way[account]
        ahead = self.largest_prompt + most * self.largest_output
        refunded = most * (self.largest_prompt + self.largest_output)
        return (ahead + refunded) / self.weights.get(account, 1)

    def _backlog_changed(self):
        waiting = {(account, level) for account, _, _, level in self.flows if account not in self.held_accounts}
        pairs = {(one, other) for one, level in waiting for other, other_level in waiting if one < other and level == other_level}
        for pair in set(self.spans) - pairs:
            del self.spans[pair]
        for pair in pairs - set(self.spans):
            difference = self.service[pair[0]] - self.service[pair[1]]
            self.spans[pair] = [difference, difference]

    # ---- a death in the lock

    def _rebuilt(self, *_):
        self.rebuilds += 1
        self._survivors = {}

    def _found(self, record, key):
        self._survivors[key] = record

    def _end_of_rebuild(self):
        found, self._survivors = self._survivors, None
        lost = [key for key, request in self.live.items() if key not in found and request.state != "ended"]
        new = [key for key in found if key not in self.live and key not in self.gone]
        changed = [key for key, record in found.items()
                   if key in self.live and self.live[key].state != _STATES[record.flag] and _STATES[record.flag] != "ended"]
        assert len(lost) + len(new) + len(changed) <= 1, f"a death lost {lost}, made {new} and changed {changed}"
        risen = [key for key, record in found.items() if key in self.gone and _STATES[record.flag] != "ended"]
        assert not risen, f"{risen} had ended"
        before, self.live = self.live, {}
        self.flows.clear()
        self.held_accounts.clear()
        self.engine_held.clear()
        self.under_way.clear()
        self.spans.clear()
        for key, record in found.items():
            if _STATES[record.flag] == "ended":
                self.gone.add(key)
                continue
            request = self._request(record, key)
            request.state = _STATES[record.flag]
            if record.lease:
                request.lease = record.engine
                self.engine_held[record.engine] += record.seats
                self.under_way[record.account] += 1
        self.gone.update(key for key in before if key not in self.live)
