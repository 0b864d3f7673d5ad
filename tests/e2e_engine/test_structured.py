"""response_format and forced tool calls: whatever the model would like to say, the answer has the form that was asked for."""
import json
import threading

import jsonschema
import pytest

from support.paths import DEMO_MODEL

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "height": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "näher"]}, "minItems": 1, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        "spouse": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/other"}]},
    },
    "required": ["name", "age", "tags", "born", "code", "spouse"],
    "additionalProperties": False,
    "$defs": {"other": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}, "required": ["name"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "now"}},
]


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def checked(text, schema):
    value = json.loads(text)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(value)
    return value


@pytest.fixture
def demo(start_engine):
    engine = start_engine(model=DEMO_MODEL)

    def chat(content="What is nginx?", engine=engine, **fields):
        return engine.chat(content, model="demo", **{"max_tokens": 700, "temperature": 1.2, **fields})

    chat.engine = engine
    return chat


def stream_text(engine, **fields):
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "What is nginx?"}], **fields}
    status, _, text = engine.request("POST", "/v1/chat/completions", body)
    assert status == 200, text
    events = [json.loads(event.removeprefix("data: ")) for event in text.decode().split("\n\n")[:-2]]
    deltas = [choice["delta"] for event in events for choice in event["choices"] if choice["index"] == 0]
    return "".join(delta.get("content") or "" for delta in deltas), deltas


def test_answers_satisfy_their_schema(demo):
    status, _, body = demo(n=8, seed=3, response_format=schema_format(PERSON))
    assert status == 200, body
    texts = {choice["message"]["content"] for choice in body["choices"]}
    for choice in body["choices"]:
        assert choice["finish_reason"] == "stop", choice
        checked(choice["message"]["content"], PERSON)
    assert len(texts) == 8


@pytest.mark.parametrize("schema", [
    {"type": "array", "items": {"type": "integer", "minimum": -20, "exclusiveMaximum": 7}, "minItems": 2, "maxItems": 4},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
               {"properties": {"b": {"type": "string", "format": "uuid"}}, "required": ["b"]}]},
    {"type": "object", "properties": {"kind": {"const": "leaf"}, "child": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
     "required": ["kind", "child"]},
    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0.25, "maximum": 0.75}, "minProperties": 1,
     "maxProperties": 1, "description": "of any name"},
    {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    {"enum": ["x", 1, None, ["y", {"z": 2.5}]]},
])
def test_many_schemas(demo, schema):
    body = demo(n=4, seed=5, response_format=schema_format(schema))[2]
    ended = [choice for choice in body["choices"] if choice["finish_reason"] == "stop"]
    for choice in ended:
        checked(choice["message"]["content"], schema)
    assert ended, body


def test_json_object(demo):
    body = demo(n=6, seed=1, max_tokens=300, response_format={"type": "json_object"})[2]
    ended = [choice["message"]["content"] for choice in body["choices"] if choice["finish_reason"] == "stop"]
    assert ended and all(isinstance(json.loads(text), dict) for text in ended)
    assert all(choice["message"]["content"].startswith("{") for choice in body["choices"])
    assert demo(max_tokens=5, response_format={"type": "text"})[0] == 200


def test_same_text_alone_batched_preempted_and_streamed(start_engine):
    fields = {"seed": 11, "temperature": 1.0, "max_tokens": 400, "response_format": schema_format(PERSON), "logprobs": True}
    engine = start_engine("--max-running", "1", model=DEMO_MODEL)
    alone = engine.chat("What is nginx?", model="demo", **fields)[2]["choices"][0]
    checked(alone["message"]["content"], PERSON)
    assert stream_text(engine, **{**fields, "logprobs": False})[0] == alone["message"]["content"]

    # A higher class takes the only seat away, again and again.
    result = {}
    low = threading.Thread(target=lambda: result.update(
        body=engine.chat("What is nginx?", model="demo", headers={"x-llm-priority": "90"}, **fields)[2]))
    before = engine.metric("generation_tokens_total")
    low.start()
    while engine.metric("num_preemptions_total") == 0 and low.is_alive():
        if engine.metric("generation_tokens_total") > before:
            engine.chat("hi", model="demo", max_tokens=2, headers={"x-llm-priority": "10"})
    low.join()
    assert result["body"]["choices"][0] == alone

    # And among others, free and constrained.
    many = start_engine(model=DEMO_MODEL)
    threads = [threading.Thread(target=lambda i=i: many.chat(
        "Tell me a story.", model="demo", max_tokens=60, seed=i, **({"response_format": {"type": "json_object"}} if i % 2 else {})))
        for i in range(4)]
    for thread in threads:
        thread.start()
    assert many.chat("What is nginx?", model="demo", **fields)[2]["choices"][0] == alone
    for thread in threads:
        thread.join()


def test_stop_and_length_still_end_it(demo):
    body = demo(seed=2, max_tokens=10, response_format=schema_format(PERSON))[2]
    assert body["choices"][0]["finish_reason"] == "length" and body["usage"]["completion_tokens"] == 10
    body = demo(seed=2, stop=['"age'], response_format=schema_format(PERSON))[2]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["content"].rstrip().endswith(",")


def test_completions(demo):
    status, _, body = demo.engine.request("POST", "/v1/completions", {
        "model": "demo", "prompt": "nginx is", "max_tokens": 200, "response_format": schema_format({"enum": [1, "two"]})})
    assert status == 200 and json.loads(body["choices"][0]["text"]) in (1, "two")


@pytest.mark.parametrize("choice, names", [("required", {"weather", "now"}),
                                           ({"type": "function", "function": {"name": "weather"}}, {"weather"})])
def test_forced_calls(demo, choice, names):
    body = demo(n=4, seed=1, tools=TOOLS, tool_choice=choice)[2]
    seen = set()
    for one in body["choices"]:
        assert one["finish_reason"] == "tool_calls" and not one["message"]["content"], one
        for call in one["message"]["tool_calls"]:
            function = call["function"]
            seen.add(function["name"])
            parameters = next(t["function"] for t in TOOLS if t["function"]["name"] == function["name"]).get("parameters", {"maxProperties": 0})
            checked(function["arguments"], parameters)
    assert seen <= names
    _, deltas = stream_text(demo.engine, seed=1, temperature=1.2, max_tokens=700, tools=TOOLS, tool_choice=choice)
    streamed = []
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", [])):
        if "name" in piece["function"]:
            streamed.append(dict(piece["function"]))
        else:
            streamed[piece["index"]]["arguments"] += piece["function"]["arguments"]
    assert streamed == [call["function"] for call in body["choices"][0]["message"]["tool_calls"]]


def test_schema_beside_tools(demo):
    """The model may answer in the schema or call a tool; an answer is not taken for a call."""
    schema = {"type": "object", "properties": {"name": {"enum": ["Ada", "Bob"]}, "parameters": {"const": {}}}, "required": ["name", "parameters"]}
    body = demo(n=8, seed=4, tools=TOOLS, response_format=schema_format(schema))[2]
    for choice in body["choices"]:
        if choice["message"].get("tool_calls"):
            assert choice["message"]["tool_calls"][0]["function"]["name"] in ("weather", "now")
        else:
            checked(choice["message"]["content"], schema)


@pytest.mark.parametrize("fields, param, word", [
    ({"response_format": "json"}, "response_format", "type"),
    ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format", "name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format", "schema"),
    ({"response_format": schema_format({"properties": {"a": {"not": {}}}})}, "response_format", "'not'"),
    ({"response_format": schema_format({"type": "string", "format": "iri"})}, "response_format", "'iri'"),
    ({"response_format": schema_format({"type": "integer", "minimum": 3, "maximum": 1})}, "response_format", "nothing"),
    ({"tool_choice": "required"}, "tool_choice", "no 'tools'"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", "required"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "none"}}}, "tool_choice", "not among"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "function"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"if": {}}}}], "tool_choice": "required"},
     "tools[0].function.parameters", "'if'"),
    ({"guided_json": {"type": "object"}}, "guided_json", "supported"),
])
def test_refusals(start_engine, fields, param, word):
    status, _, body = start_engine().chat(**fields)
    assert status == 400 and body["error"]["param"] == param and word in body["error"]["message"], body


def test_bodies_that_would_take_long_to_read_are_refused(start_engine):
    engine = start_engine()
    members = ",".join(f'"k{i}":0' for i in range(100000))
    for body_text in ['{"model":"sim","messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{' + members + "}}",
                      '{"model":"sim","messages":' + "[" * 100000 + "]" * 100000 + "}",
                      '{"model":"sim","messages":[{"role":"user","content":"x"}],"chat_template_kwargs":' + '{"a":' * 100000 + "1" + "}" * 100001]:
        status, _, body = engine.request("POST", "/v1/chat/completions", body_text)
        assert status == 400 and body["error"]["code"] == "invalid_json", body
    assert engine.chat(max_tokens=1)[0] == 200
