"""llm_routing prefix: a conversation stays with the engine that has computed its beginning."""

import collections
import random

import pytest

from support.client import chat_body
from support.users import user


class Conversation:
    def __init__(self, number, opening_words=300):
        self.rng = random.Random(number)
        self.messages = [{"role": "system", "content": self.words(opening_words)}]

    def words(self, count):
        return " ".join(str(self.rng.randrange(10 ** 6)) for _ in range(count))

    def turn(self, **more):
        self.messages.append({"role": "user", "content": self.words(60)})
        body = chat_body(messages=list(self.messages), **more)
        self.messages.append({"role": "assistant", "content": self.words(80)})
        return body


def engines_of(gate, engines, bodies):
    """The index of the engine that each of the bodies reached, one after the other."""
    reached = []
    for body in bodies:
        before = [len(engine.requests) for engine in engines]
        reply = gate.client.ask(body, token="alice")
        assert reply.status == 200, reply.body
        gate.wait_held(0)
        reached.append(next(i for i, engine in enumerate(engines) if len(engine.requests) > before[i]))
        assert engines[reached[-1]].requests[-1].body == body
    return reached


def test_a_conversation_stays_with_its_engine(fake_engine, gateway):
    engines = [fake_engine() for _ in range(4)]
    gate = gateway(engines, http="llm_routing prefix;")
    talks = [Conversation(number) for number in range(16)]
    homes = engines_of(gate, engines, [talk.turn() for talk in talks])
    assert len(set(homes)) > 1, "new conversations go anywhere"
    for round_ in range(4):
        order = list(range(len(talks)))
        random.Random(round_).shuffle(order)
        assert engines_of(gate, engines, [talks[i].turn(stream=round_ % 2 == 0) for i in order]) == [homes[i] for i in order]


@pytest.mark.parametrize("words", [1200, 12_000, 60_000], ids=["in memory", "in a file", "longer than all keys"])
def test_whatever_the_body_lies_in(fake_engine, gateway, words):
    engines = [fake_engine() for _ in range(4)]
    gate = gateway(engines, http="llm_routing prefix;", location="client_body_buffer_size 16k;")
    talks = [Conversation(100 + number, words) for number in range(4)]
    homes = engines_of(gate, engines, [talk.turn() for talk in talks])
    for _ in range(3):
        assert engines_of(gate, engines, [talk.turn() for talk in talks]) == homes


def test_other_policies_and_short_prompts_spread(fake_engine, gateway):
    for http, body in ("llm_routing throughput;", Conversation(7).turn()), ("llm_routing prefix;", chat_body()):
        engines = [fake_engine() for _ in range(2)]
        gate = gateway(engines, http=http)
        # 40 coins on one side: one case in 5 * 10^11
        assert len(set(engines_of(gate, engines, [body] * 40))) == 2, http


def test_a_full_engine_keeps_nobody_waiting(fake_engine, gateway):
    engines = [fake_engine(max_running=1) for _ in range(2)]
    gate = gateway(engines, http="llm_routing prefix;")
    talk = Conversation(3)
    (home,) = engines_of(gate, engines, [talk.turn()])
    for engine in engines:
        engine.hold()
    first = gate.client.send(talk.turn(), token="alice")
    engines[home].wait_requests(2)
    second = gate.client.send(talk.turn(), token="alice")
    engines[1 - home].wait_requests(1)
    for engine in engines:
        engine.open_gate()
    assert [first.reply().status, second.reply().status] == [200, 200]


def test_who_fits_the_engine_goes_first(fake_engine, gateway):
    """Two clients whose turn it is alike; the later one's prompt is known to the engine."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice"), user("bob"), user("carol")], http="llm_routing prefix;")
    talk, other = Conversation(1), Conversation(2)
    gate.client.ask(talk.turn(), token="alice")
    gate.wait_held(0)
    engine.hold()
    running = gate.client.send(chat_body(), token="carol")
    engine.wait_requests(2)
    waiting = [gate.client.send(other.turn(), token="bob")]
    gate.wait_queued(1)
    waiting.append(gate.client.send(talk.turn(), token="alice"))
    gate.wait_queued(2)
    engine.open_gate()
    assert [exchange.reply().status for exchange in (running, *waiting)] == [200] * 3
    assert [request.json()["messages"][0] for request in engine.requests[2:]] == [talk.messages[0], other.messages[0]]


def test_the_policy_changes_with_a_reload(fake_engine, gateway):
    engines = [fake_engine() for _ in range(3)]
    gate = gateway(engines, http="llm_routing round_robin;")
    talk = Conversation(5)
    assert collections.Counter(engines_of(gate, engines, [talk.turn() for _ in range(6)])) == {0: 2, 1: 2, 2: 2}
    gate.blocks["http"] = gate.blocks["http"].replace("round_robin", "prefix")
    gate.reload()
    (home,) = engines_of(gate, engines, [talk.turn()])
    assert engines_of(gate, engines, [talk.turn() for _ in range(10)]) == [home] * 10
