"""Shares: what a saturated engine gives to clients of different weight."""

import collections

import pytest

from support.client import chat_body
from support.load import saturate, tokens_of
from support.users import user

ANSWERS = 440


@pytest.fixture
def sim(redis_server, llm_engine, gateway):
    """Factory: a gateway with these users before one simulated engine of four seats; returns (gateway, model)."""
    def make(users, http=""):
        llm_engine(redis=redis_server.url, backend="sim", arguments=["--max-running", "4"])
        gate = gateway(users=users, http=f"llm_redis {redis_server.url}; {http}")
        gate.wait_ready(60)
        return gate, gate.client.get("/v1/models", token=users[0]["token"]).json()["data"][0]["id"]

    return make


def shares(answers):
    """{token: share of all tokens}, after asserting that every answer was good."""
    tokens = collections.Counter()
    for answer in answers:
        assert answer.status == 200, answer.body
        tokens[answer.token] += sum(tokens_of(answer))
    return {token: count / sum(tokens.values()) for token, count in tokens.items()}


def test_weights_one_to_three(sim):
    gate, model = sim([user("one", priority=1, threshold=100), user("three", priority=3, threshold=100)])
    body = chat_body(model, max_tokens=16, ignore_eos=True)
    got = shares(saturate(gate.port, {"one": body, "three": body}, outstanding=24, answers=ANSWERS, settled=16))
    assert abs(got["one"] - 0.25) <= 0.03, got


def test_longer_answers_do_not_get_more(sim):
    """Equal weights, answers of 8 and 32 tokens: the shares of tokens are equal, so the numbers of requests are not."""
    gate, model = sim([user("short", priority=2, threshold=100), user("long", priority=2, threshold=100)])
    bodies = {"short": chat_body(model, "x", max_tokens=8, ignore_eos=True), "long": chat_body(model, "x", max_tokens=32, ignore_eos=True)}
    answers = saturate(gate.port, bodies, outstanding=24, answers=ANSWERS, settled=16)
    cost = collections.Counter()
    for answer in answers:
        assert answer.status == 200, answer.body
        prompt, completion = tokens_of(answer)
        cost[answer.token] += prompt + 2 * completion  # as the scheduler charges
    assert abs(cost["short"] / sum(cost.values()) - 0.5) <= 0.03, cost
