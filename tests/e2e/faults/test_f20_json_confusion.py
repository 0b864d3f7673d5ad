"""
F20: bodies that two JSON parsers could read differently. What the gateway accepts it forwards byte for byte, and both Python's
json and the real engine (nlohmann-json) then read the model, stream, priority and limits that the gateway has read.
"""

import collections
import json
import random
import re
import socket

import pytest

from support import invariants
from support.client import request_bytes
from support.errors import assert_error
from support.users import user
from support.wire import Reader, value_of

M = b'"model":"sim"'
P = b'"messages":[{"role":"user","content":"x"}]'

REFUSED = [
    b'{"model":"sim","model":"other",P}', b'{"model":"sim","\\u006dodel":"other",P}', b'{"\\u006d\\u006F\\u0064el":"sim","model":"sim",P}',
    b'{"model":"sim","model":null,P}', b'{"model":null,"model":"sim",P}', b'{M,"stream":true,"stream":true,P}',
    b'{M,"stre\\u0061m":false,"stream":true,P}', b'{M,"priority":1,"priority":2,P}', b'{M,"max_tokens":1,"max_tokens":9,P}',
    b'{M,"max_tok\\u0065ns":1,"max_tokens":9,P}', b'{M,"n":1,"n":2,P}', b'{M,"stream":"true",P}', b'{M,"stream":"false",P}',
    b'{M,"stream":1,P}', b'{M,"stream":0,P}', b'{M,"stream":[],P}', b'{M,"stream":True,P}', b'{M,"stream":TRUE,P}', b'{M,"stream":truer,P}',
    b'{M,"max_tokens":1e400,P}', b'{M,"max_tokens":1e2,P}', b'{M,"max_tokens":1.0,P}', b'{M,"n":-1,P}',
    b'{M,"max_tokens":01,P}', b'{M,"max_tokens":+1,P}', b'{M,"max_tokens":0x10,P}', b'{M,"max_tokens":1_000,P}', b'{M,"max_tokens":NaN,P}',
    b'{M,"max_tokens":Infinity,P}', b'{M,"max_tokens":"5",P}', b'{M,"priority":1.5,P}', b'{M,"priority":"9",P}', b'{M,"priority":true,P}',
    b'{M,P}{"model":"other"}', b'{M,P},', b'{M,P}]', b'{M,P}}', b'{M,P}\0', b'{M,P}x', b'{M,P}//x', b'/**/{M,P}', b'{M,/**/P}', b'{M,P,}',
    b'{,M,P}', b'{M P}', b'{M;P}', b"{'model':'sim',P}", b'{model:"sim",P}', b'[{M,P}]', b'"{M,P}"', b'{"model":"sim\n",P}', b'{"model":"s\\im",P}',
    b'{"model":"sim\\ud800",P}', b'{"model":"\\udc00sim",P}', b'{"model":"sim\\u00",P}', b'{"model":"sim\\x41",P}', b'{"a":"\xff",M,P}',
    b'{"model":["sim"],P}', b'{"model":{"a":"sim"},P}', b'{"model":1,P}', b'{"model":true,P}', b'\xef\xbb\xbf{M,P}', b'{M,"x":1e400e5,P}',
    b'{M,"x":.5,P}', b'{M,"x":5.,P}', b'{M,"x":-,P}', b'{M,"x":"\x01",P}', b'{M,"x":\'y\',P}', b'{M,"x":undefined,P}', b'\x00{M,P}',
]
# accepted: (body, model, stream, max_tokens)
ACCEPTED = [
    (b'{M,P}', "sim", False, None), (b' \t\r\n{ M , P } \n', "sim", False, None), (b'{"\\u006dodel":"sim",P}', "sim", False, None),
    (b'{"model":"\\u0073im",P}', "sim", False, None), (b'{"model":"other",P}', "other", False, None),
    (b'{M,"stream":null,P}', "sim", False, None), (b'{M,"stre\\u0061m":true,P}', "sim", True, None), (b'{M,"Stream":true,P}', "sim", False, None),
    (b'{M,"STREAM":true,"MODEL":"other",P}', "sim", False, None), (b'{"Model":"other",M,P}', "sim", False, None),
    (b'{"model ":"other",M,P}', "sim", False, None), (b'{" model":"other",M,P}', "sim", False, None), (b'{"model\\u0000":"other",M,P}', "sim", False, None),
    (b'{"x":{"model":"other","stream":true},M,P}', "sim", False, None), (b'{"x":[{"model":"other"},"model","other"],M,P}', "sim", False, None),
    (b'{"x":"\\"model\\":\\"other\\"",M,P}', "sim", False, None), (b'{"x":"}","y":"{",M,P}', "sim", False, None),
    (b'{"x":"\\\\","z":"model",M,P}', "sim", False, None), (b'{M,"max_tokens":3,P}', "sim", False, 3), (b'{M,"max_t\\u006fkens":3,P}', "sim", False, 3),
    (b'{M,"max_tokens":null,P}', "sim", False, None), (b'{M,"Max_Tokens":1,"max_tokens":3,P}', "sim", False, 3),
    (b'{M,"stream":false,"x":{"stream":true,"stream":true},P}', "sim", False, None), (b'{"\xd0\xbcodel":"other",M,P}', "sim", False, None),
    (b'{"x":1E5,"y":-0.0e-5,M,P}', "sim", False, None), (b'{"x":"\\ud83d\\ude00",M,P}', "sim", False, None),
]


def fill(body):
    """M and P stand for a model and a prompt."""
    for letter, member in ((b"M", M), (b"P", P)):
        body = re.sub(rb'(?<![\w"])' + letter + rb'(?![\w"])', member, body)
    return body


def understood(gate, index):
    """(model, stream) as the access log says."""
    entry = gate.access_log(index + 1)[index]
    return entry["model"], entry["stream"]


class Duplicate(Exception):
    pass


@pytest.fixture
def gate(llm_engine, gateway):
    """The real engine, which serves both models: nothing but the body tells it which."""
    engine = llm_engine(sim=True, arguments=["--served-model-name", "sim,other", "--sim", "base=0.1,sequence=0,context=0,prefill=0.001,reply=12"])
    return gateway(users=[user("alice", threshold=100, priority=5)], http=f"llm_engine {engine.url} model=sim,other;", workers=1)


def engine_view(reply):
    """(model, stream, completion tokens) of an answer of the real engine."""
    streamed = (reply.header("content-type") or "").startswith("text/event-stream")
    if streamed:
        events = [json.loads(event) for event in reply.events() if event != "[DONE]"]
        return events[0]["model"], True, None
    document = reply.json()
    return document["model"], False, document["usage"]["completion_tokens"]


def test_refused(gate):
    for body in REFUSED:
        reply = gate.client.ask(fill(body), token="alice")
        assert reply.status == 400, (body, reply.status, reply.body)
        assert_error(reply, 400, "invalid_json")
    invariants.check(gate, expected={"rejected_invalid_json": len(REFUSED)}, body=fill(b"{M,P}"))


def test_accepted_is_read_alike(gate):
    for index, (body, model, stream, limit) in enumerate(ACCEPTED):
        body = fill(body)
        reply = gate.client.ask(body, token="alice")
        assert reply.status == 200, (body, reply.body)
        seen_model, seen_stream, tokens = engine_view(reply)
        assert (seen_model, seen_stream) == (model, stream), body
        assert tokens is None or limit is None or tokens == limit, body
        assert understood(gate, index) == (model, "1" if stream else "0"), body
        document = json.loads(body)
        assert document["model"] == model and bool(document.get("stream")) == stream and document.get("max_tokens") == limit, body
    invariants.check(gate, expected={"completed": len(ACCEPTED)}, body=fill(b"{M,P}"))


NAMES = [b'"model"', b'"\\u006dodel"', b'"mo\\u0064el"', b'"Model"', b'"stream"', b'"str\\u0065am"', b'"Stream"', b'"max_tokens"',
         b'"max\\u005ftokens"', b'"priority"', b'"n"', b'"x"', b'"mode\\u006C"', b'"max_completion_tokens"']
VALUES = [b'"sim"', b'"other"', b'"s\\u0069m"', b"true", b"false", b"null", b"1", b"2", b"0", b"-1", b"1.0", b"1e0", b"1e400", b'"true"', b'"1"',
          b"[]", b"{}", b'{"model":"other"}', b'["sim"]', b"01", b"1 ", b" 3", b'"\\ud83d\\ude00"', b'"\\ud83d"', b"nul", b"tru", b"-0", b"NaN"]
FITTING = {"model": [b'"sim"', b'"other"', b'"s\\u0069m"', b"null"], "stream": [b"true", b"false", b"null"],
           **{name: [b"1", b"2", b"0", b"null", b" 3"] for name in ("max_tokens", "max_completion_tokens", "n", "priority")}}
ENDS = [b"}"] * 30 + [b"} ", b"}\n", b"}x", b"}}", b",}", b"", b"}{}"]


def random_body(rng):
    members = [P]
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(NAMES)
        fitting = FITTING.get(json.loads(name), VALUES)
        members.append(name + b":" + rng.choice(fitting if rng.random() < 0.8 else VALUES))
    if rng.random() < 0.5:
        members.append(M)
    rng.shuffle(members)
    return b"{" + b",".join(members) + rng.choice(ENDS)


def test_random_bodies(fake_engine, gateway):
    """Of each body that passes, Python reads what the gateway has read; of each that Python reads strictly, the gateway says why not."""
    rng = random.Random(20)
    engine = fake_engine(models=["sim", "other"])
    gate = gateway([engine], [user("alice", threshold=100, priority=5)], workers=1)
    counts = collections.Counter()
    passed = 0
    sock = socket.create_connection(("127.0.0.1", gate.port), timeout=20)
    reader = Reader(sock)
    for number in range(900):
        body = random_body(rng)
        sock.sendall(request_bytes("POST", "/v1/chat/completions", [("Authorization", "Bearer alice")], body))
        start, headers = reader.head()
        status = int(start.split()[1])
        if value_of(headers, "transfer-encoding") == "chunked":
            while reader.chunk():
                pass
        else:
            reader.exactly(int(value_of(headers, "content-length") or 0))
        counts[status] += 1
        if value_of(headers, "connection") == "close":
            sock.close()
            sock = socket.create_connection(("127.0.0.1", gate.port), timeout=20)
            reader = Reader(sock)
        if status != 200:
            assert status in (400, 404), (body, status)
            continue
        assert engine.requests[passed].body == body
        passed += 1
        document = json.loads(body, object_pairs_hook=strict_top(body))
        entry = gate.access_log(number + 1)[number]
        assert entry["model"] == document["model"], body
        assert entry["stream"] == ("1" if document.get("stream") else "0"), body
        assert document.get("stream") in (None, True, False), body
        for key in ("max_tokens", "max_completion_tokens", "n"):
            assert document.get(key) is None or type(document[key]) is int, body
        assert (document.get("n") or 0) >= 0, body
        lowered = document.get("priority")
        assert lowered is None or type(lowered) is int
        assert entry["priority"] == str(5 if lowered is None else max(1, min(5, lowered))), (body, entry)
    sock.close()
    assert len(engine.requests) == passed
    assert counts[200] > 100 and counts[400] > 100, counts
    invariants.check(gate, body=b"{" + M + b"," + P + b"}")


def strict_top(body):
    """Refuses duplicates of the control keys at any level (a nested one would do no harm; the generator makes none)."""
    control = {"model", "stream", "max_tokens", "max_completion_tokens", "priority", "n"}

    def check(pairs):
        names = [name for name, _ in pairs if name in control]
        if len(names) != len(set(names)):
            raise Duplicate(body)
        return dict(pairs)

    return check
