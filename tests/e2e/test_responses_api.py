"""The Responses API through the gateway: its streams say their usage unasked and end without [DONE]."""
import json

import openai
import pytest

from support.users import user

FORGED = {"type": "function", "name": "f", "parameters": {"usage": {"input_tokens": 0, "output_tokens": 0}}}


@pytest.fixture
def responses(llm_engine, gateway):
    """responses(**keywords): a gateway in front of the real engine with its simulated model, which is responses.engine."""
    engine = llm_engine(sim=True)

    def make(**keywords):
        return gateway(users=[user("alice", name="Alice")], http=f"llm_engine {engine.url} model=sim id=sim max_running=8;", **keywords)

    make.engine = engine
    return make


def client_of(gate):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gate.port}/v1", api_key="alice", max_retries=0, timeout=60)


def ask(gate, **fields):
    body = json.dumps({"model": "m", "input": "hi", "stream": True, **fields}).encode()
    return gate.client.send(body, token="alice", target="/v1/responses")


def event(exchange, kind, **fields):
    exchange.chunk(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())


@pytest.mark.parametrize("location", ["", "llm_usage_inject on;"], ids=["as it is", "with usage asked for"])
def test_tokens_are_those_that_the_engine_counted(responses, location):
    gate = responses(location=location)
    client = client_of(gate)
    request = {"model": "sim", "input": "hi", "tools": [FORGED], "tool_choice": "none"}
    whole = client.responses.create(**request, max_output_tokens=9)
    events = list(client.responses.create(**request, max_output_tokens=11, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    last = events[-1].response
    assert (whole.status, last.status) == ("incomplete", "incomplete")
    assert [line["completion_tokens"] for line in gate.access_log(2)] == ["9", "11"]
    assert [int(line["prompt_tokens"]) for line in gate.access_log()] == [whole.usage.input_tokens, last.usage.input_tokens]
    gate.wait_outcomes({"completed": 2})
    metrics = gate.metrics()
    assert metrics.total("llm_tokens_total", model="sim", type="completion") == 20
    assert metrics.total("llm_tokens_total", model="sim", type="prompt") == whole.usage.input_tokens + last.usage.input_tokens
    assert metrics.total("llm_client_tokens_total", client="Alice", type="completion") == 20
    assert metrics.total("llm_tokens_estimated_total") == 0
    pieces = sum(one.type == "response.output_text.delta" for one in events)
    assert metrics.total("llm_inter_token_seconds_count", model="sim") == pieces - 1, "what is repeated at the end is no token"


def test_an_engine_that_dies_leaves_a_broken_stream(responses):
    gate = responses()
    with pytest.raises(openai.APIError):
        for number, _ in enumerate(client_of(gate).responses.create(model="sim", input="hi", stream=True)):
            if number == 20:
                responses.engine.kill()
    gate.wait_outcomes({"engine_error": 1})
    assert int(gate.access_log()[0]["completion_tokens"]) > 0


def test_bad_requests_are_the_engines_to_refuse(responses):
    gate = responses()
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(gate).responses.create(model="sim", input="hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"
    gate.wait_outcomes({"completed": 1})


def test_a_client_that_leaves_is_charged_for_what_it_got(fake_engine, gateway):
    """Not for what its tools, which the engine repeats, say that it was."""
    def script(exchange):
        exchange.stream_head()
        event(exchange, "response.created", response={"tools": [FORGED], "usage": None})
        for _ in range(5):
            event(exchange, "response.output_text.delta", delta="x")
        exchange.wait_gone()

    gate = gateway([fake_engine(script=script)])
    pending = ask(gate)
    received = b""
    for part in pending.parts():
        received += part
        if received.count(b'"delta": "x"') == 5:
            break
    pending.reset()
    gate.wait_outcomes({"cancelled_running": 1})
    assert gate.access_log()[0]["completion_tokens"] == "5"


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed", None])
def test_close_delimited_stream(fake_engine, gateway, last):
    """An engine that frames nothing: the event that carries the usage is the only sign that the stream is whole."""
    whole = last in ("response.completed", "response.incomplete")

    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        events = [{"type": "response.created", "response": {"usage": None}}, {"type": "response.output_text.delta", "delta": "x"}]
        events += [{"type": last, "response": {"usage": {"input_tokens": 3, "output_tokens": 1} if whole else None}}] if last else []
        exchange.send("".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode())
        exchange.fin()

    gate = gateway([fake_engine(script=script)])
    reply = ask(gate).reply()
    assert reply.complete == whole
    gate.wait_outcomes({"completed" if whole else "engine_error": 1})
    assert gate.access_log()[0]["completion_tokens"] == "1"
