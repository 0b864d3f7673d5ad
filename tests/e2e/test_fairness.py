"""Shares: what a saturated engine gives to clients of different weight."""

import collections

import pytest

from support.client import chat_body
from support.load import saturate, usage_of
from support.users import user

ANSWERS = 440
OUTSTANDING = 90  # so many that no queue runs dry while this process waits for a processor


@pytest.fixture
def sim(redis_server, llm_engine, gateway):
    """Factory: a gateway with these users before one simulated engine of four seats; returns the gateway."""
    def make(users, http=""):
        llm_engine(redis=redis_server.url, sim=True, arguments=["--max-running", "4"])
        gate = gateway(users=users, http=f"llm_redis {redis_server.url}; {http}")
        return gate.wait_ready(60)

    return make


def shares(answers):
    """{token: share of all tokens}, after asserting that every answer was good."""
    tokens = collections.Counter()
    for answer in answers:
        assert answer.status == 200, answer.body
        prompt, _, completion = usage_of(answer)
        tokens[answer.token] += prompt + completion
    return {token: count / sum(tokens.values()) for token, count in tokens.items()}


def test_weights_one_to_three(sim):
    gate = sim([user("one", priority=1, threshold=100), user("three", priority=3, threshold=100)])
    body = chat_body("sim", max_tokens=16)
    got = shares(saturate(gate.port, {"one": body, "three": body}, outstanding=OUTSTANDING, answers=ANSWERS, settled=16))
    assert abs(got["one"] - 0.25) <= 0.03, got


def test_longer_answers_do_not_get_more(sim):
    """Equal weights, answers of 8 and 32 tokens: the shares of tokens are equal, so the numbers of requests are not."""
    gate = sim([user("short", priority=2, threshold=100), user("long", priority=2, threshold=100)])
    bodies = {"short": chat_body("sim", "x", max_tokens=8), "long": chat_body("sim", "x", max_tokens=32)}
    answers = saturate(gate.port, bodies, outstanding=OUTSTANDING, answers=ANSWERS, settled=16)
    cost = collections.Counter()
    for answer in answers:
        assert answer.status == 200, answer.body
        prompt, cached, completion = usage_of(answer)
        cost[answer.token] += prompt - cached + 0.1 * cached + 2 * completion  # as the scheduler charges
    assert abs(cost["short"] / sum(cost.values()) - 0.5) <= 0.03, cost
