"""The little that a location may change in a body: model, priority, stream_options. The rest stays byte for byte."""

import json

import pytest

from support.client import chat_body
from support.fake_engine import answer
from support.users import user


def sent(gate, engine, body, **keywords):
    """Sends a body and returns the bytes that the engine got for it."""
    before = len(engine.requests)
    reply = gate.client.ask(body, token="alice", **keywords)
    assert reply.status == 200, reply.body
    return engine.requests[before].body


def test_llm_model_routes_to_another_model_and_says_so_in_the_body(fake_engine, gateway):
    engine = fake_engine(["real"])
    gate = gateway([engine], location="llm_model real;")
    body = b'{ "model" : "alias" , "messages": [], "user": "m\\u00e9" }'
    assert sent(gate, engine, body) == b'{ "model" : "real" , "messages": [], "user": "m\\u00e9" }'
    assert sent(gate, engine, b'{"model":"real","n":1}') == b'{"model":"real","n":1}'
    assert gate.access_log()[0]["model"] == "real"


def test_llm_model_is_written_into_a_body_that_names_none(fake_engine, gateway):
    engine = fake_engine(["re\"al"])
    engine.script = lambda exchange: exchange.json({})
    gate = gateway(http=f"llm_engine {engine.url} 'model=re\"al';", location="llm_model 're\"al';")
    assert sent(gate, engine, b'{"n":1 }') == b'{"n":1 ,"model":"re\\"al"}'
    assert sent(gate, engine, b'{}') == b'{"model":"re\\"al"}'
    assert sent(gate, engine, b'{"model":null}') == b'{"model":"re\\"al"}'
    gate.blocks["location"] += "llm_engine_priority vllm; llm_usage_inject on;"
    gate.reload()
    assert sent(gate, engine, b'{}') == b'{"model":"re\\"al","priority":0}'
    assert (sent(gate, engine, b'{"stream":true}')
            == b'{"stream":true,"model":"re\\"al","stream_options":{"include_usage":true},"priority":0}'), "priority is the last member"


def test_llm_model_may_depend_on_the_client(fake_engine, gateway):
    engine = fake_engine(["big", "small"])
    gate = gateway([engine], [user("alice"), user("bob")], location="llm_model $chosen;",
                   http="map $llm_client $chosen { volatile; alice big; default \"\"; }")
    assert json.loads(sent(gate, engine, b'{"model":"small"}'))["model"] == "big"
    assert gate.client.ask(b'{"model":"small"}', token="bob").status == 200
    assert json.loads(engine.requests[-1].body)["model"] == "small"


def test_llm_model_larger_than_the_buffers(fake_engine, gateway):
    engine = fake_engine(["real"])
    gate = gateway([engine], location="llm_model real; client_body_buffer_size 8k;")
    filler = "x" * 300_000
    body = json.dumps({"messages": [{"role": "user", "content": filler}], "model": "alias", "more": filler}).encode()
    assert sent(gate, engine, body) == body.replace(b'"alias"', b'"real"')


@pytest.mark.parametrize("body, expected", [
    (b'{"model":"m"}', b'{"model":"m","priority":2}'),
    (b'{"model":"m","priority": 9 ,"n":1}', b'{"model":"m","priority": 2 ,"n":1}'),
    (b'{"priority":null,"model":"m" }', b'{"priority":2,"model":"m" }'),
])
def test_engine_priority_vllm(fake_engine, gateway, body, expected):
    engine = fake_engine()
    gate = gateway([engine], [user("alice", priority=3)], location="llm_engine_priority vllm;")
    assert sent(gate, engine, body) == expected


def test_engine_priority_is_never_below_zero(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], [user("alice", priority=40)], location="llm_engine_priority vllm;")
    assert sent(gate, engine, b'{"model":"m"}') == b'{"model":"m","priority":0}'


def usage_on_request(exchange):
    """Answers as vLLM does: the usage event comes only when it is asked for."""
    options = exchange.request.json().get("stream_options") or {}
    exchange.stream_head()
    for word in ("one ", "two"):
        exchange.event({"choices": [{"index": 0, "delta": {"content": word}}]})
    if options.get("include_usage"):
        exchange.event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}})
    exchange.event("[DONE]")
    exchange.end()


@pytest.mark.parametrize("options", [
    b'', b',"stream_options":null', b',"stream_options":{}', b',"stream_options":{"include_usage":false}',
    b',"stream_options":{"other":[1]}',
])
def test_injected_usage_is_counted_and_hidden(fake_engine, gateway, options):
    engine = fake_engine(script=usage_on_request)
    gate = gateway([engine], location="llm_usage_inject on;")
    reply = gate.client.ask(b'{"model":"m","stream":true' + options + b'}', token="alice")
    assert json.loads(engine.requests[0].body)["stream_options"]["include_usage"] is True
    assert reply.complete
    assert reply.text() == "one two"
    assert len(reply.events()) == 3 and reply.events()[-1] == "[DONE]"
    assert b"usage" not in reply.body
    line = gate.access_log()[-1]
    assert (line["prompt_tokens"], line["completion_tokens"]) == ("11", "2")


def test_usage_that_the_client_asked_for_passes(fake_engine, gateway):
    engine = fake_engine(script=usage_on_request)
    gate = gateway([engine], location="llm_usage_inject on;")
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    reply = gate.client.ask(body, token="alice")
    assert engine.requests[0].body == body
    assert b'"usage"' in reply.body and len(reply.events()) == 4


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_usage_is_not_asked_of_interfaces_that_say_it_unasked(fake_engine, gateway, path):
    engine = fake_engine(script=answer)
    gate = gateway([engine], location="llm_usage_inject on;")
    body = b'{"model":"m","stream":true}'
    assert gate.client.ask(body, token="alice", target=path).status == 200
    assert engine.requests[0].body == body


def test_injected_usage_cut_at_every_byte_is_hidden(fake_engine, gateway):
    event = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2}}\n\n'

    def script(exchange):
        exchange.stream_head()
        exchange.event({"choices": [{"index": 0, "delta": {"content": "text"}}]})
        for byte in event:
            exchange.chunk(bytes([byte]))
        exchange.event("[DONE]")
        exchange.end()

    gate = gateway([fake_engine(script=script)], location="llm_usage_inject on;")
    reply = gate.client.ask(b'{"model":"m","stream":true}', token="alice")
    assert reply.complete and reply.text() == "text"
    assert b"usage" not in reply.body and reply.events()[-1] == "[DONE]"


def test_without_any_of_them_the_body_is_untouched(fake_engine, gateway):
    engine = fake_engine(script=answer)
    gate = gateway([engine], location="llm_usage_inject on; llm_model $arg_model;")
    body = chat_body()
    assert sent(gate, engine, body) == body
