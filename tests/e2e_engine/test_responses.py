"""POST /v1/responses: the official client and its models take what llm-engine answers, whole and streamed."""
import json
import pathlib

import jsonschema
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, Field, TypeAdapter

from support.paths import DEMO_MODEL
from support.poll import until

TEXT = "The quick brown fox jumps over the lazy dog. "
WEATHER = {"type": "function", "name": "weather", "description": "Tells the weather.", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}}
EVENT = TypeAdapter(ResponseStreamEvent)


def respond(engine, **fields):
    """A whole answer, which the client's model takes as it is."""
    status, _, body = engine.request("POST", "/v1/responses", {"model": "sim", "input": "hi", **fields})
    assert status == 200, body
    assert Response.model_validate(body, strict=True).model_dump(exclude_unset=True, by_alias=True, mode="json").keys() == body.keys()
    return body


def stream(engine, **fields):
    """The events of a streamed answer, each of which the client's model takes."""
    status, headers, text = engine.request("POST", "/v1/responses", {"model": "sim", "input": "hi", "stream": True, **fields})
    assert status == 200 and headers["content-type"].startswith("text/event-stream"), text
    events = []
    for event in text.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + events[-1]["type"]
        EVENT.validate_python(events[-1], strict=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def comparable(response):
    """A response without what differs from one to the next."""
    usage = {key: value for key, value in response["usage"].items() if key != "input_tokens_details"}
    text = json.dumps({**response, "created_at": 0, "usage": usage})
    return json.loads(text.replace(response["id"].removeprefix("resp_"), "ID"))


def sim_text(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text)
    return ["--sim-text", str(path)], f"base=1,reply={len(text)}"


def client_of(engine):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{engine.port}/v1", api_key="any", max_retries=0, timeout=60)


def test_whole_answer(start_engine):
    engine = start_engine()
    body = respond(engine, max_output_tokens=9, metadata={"a": "b"}, user="u")
    assert body["output"][0]["content"] == [{"type": "output_text", "text": TEXT[:9], "annotations": [], "logprobs": []}]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["usage"]["output_tokens"] == 9 and body["usage"]["total_tokens"] == 9 + body["usage"]["input_tokens"]
    assert (body["metadata"], body["user"], body["max_output_tokens"]) == ({"a": "b"}, "u", 9)
    assert body["usage"]["input_tokens"] == engine.chat(max_tokens=1)[2]["usage"]["prompt_tokens"]
    engine = start_engine(sim="base=0,reply=12")
    body = respond(engine)
    assert (body["status"], body["output"][0]["status"], body["incomplete_details"]) == ("completed", "completed", None)


def test_stream_ends_with_the_whole_answer(start_engine):
    engine = start_engine(sim="base=1,reply=12")
    for fields in [{}, {"max_output_tokens": 5}]:
        events = stream(engine, **fields)
        assert [event["type"] for event in events[:4]] == ["response.created", "response.in_progress", "response.output_item.added",
                                                          "response.content_part.added"]
        last = events[-1]
        whole = respond(engine, **fields)
        assert last["type"] == "response." + whole["status"]
        assert comparable(last["response"]) == comparable(whole)
        text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        assert text == whole["output"][0]["content"][0]["text"] == TEXT[:fields.get("max_output_tokens", 12)]


def test_reasoning_and_calls(start_engine, tmp_path):
    options, sim = sim_text(tmp_path, '<think>which?</think>\n\n<tool_call>\n{"name": "weather", "arguments": {"city": "Lyon"}}\n</tool_call>'
                                      '<tool_call>\n{"name": "weather", "arguments": {"city": "Caen"}}\n</tool_call>')
    engine = start_engine(*options, sim=sim)
    thoughts, *calls = respond(engine, tools=[WEATHER])["output"]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "which?"}]
    assert [json.loads(call["arguments"]) for call in calls] == [{"city": "Lyon"}, {"city": "Caen"}]
    assert len({call["call_id"] for call in calls}) == 2
    for fields in [{}, {"parallel_tool_calls": False}, {"include_reasoning": False}, {"max_output_tokens": 90}, {"tool_choice": "none"}]:
        fields["tools"] = [WEATHER]
        whole = respond(engine, **fields)
        assert comparable(stream(engine, **fields)[-1]["response"]) == comparable(whole), fields
        kinds = [item["type"] for item in whole["output"]]
        assert kinds.count("function_call") == 2 - ("parallel_tool_calls" in fields) - ("max_output_tokens" in fields) \
            - 2 * ("tool_choice" in fields), fields
        assert ("reasoning" in kinds) != ("include_reasoning" in fields)
        assert whole["output"][-1]["status"] == ("incomplete" if "max_output_tokens" in fields else "completed")


def test_what_was_said_before_is_the_same_prompt_as_in_a_chat(start_engine):
    """With a template that shows tools and calls, of which every byte becomes a token."""
    engine = start_engine("--chat-template", str(pathlib.Path(__file__).resolve().parents[1] / "golden/templates/qwen25_tools.jinja"))
    function = {key: value for key, value in WEATHER.items() if key != "type"}
    response = respond(engine, instructions="Be brief.", tools=[WEATHER], max_output_tokens=1, reasoning={"effort": "none"}, input=[
        {"role": "user", "content": [{"type": "input_text", "text": "Lyon?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I ask.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Lyon","days":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"role": "user", "content": "And Caen?"}])
    chat = engine.chat(tools=[{"type": "function", "function": function}], max_tokens=1, reasoning_effort="none", messages=[
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Lyon?"},
        {"role": "assistant", "content": "I ask.", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lyon","days":1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"}, {"role": "user", "content": "And Caen?"}])[2]
    usage = chat["usage"]
    assert usage["prompt_tokens"] == response["usage"]["input_tokens"] > 500
    assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 16, "the cache knows this prompt"


def test_sampling_is_that_of_a_chat(start_engine):
    engine = start_engine(model=DEMO_MODEL)
    for fields in [{"temperature": 0}, {"seed": 5, "top_p": 0.9, "top_k": 20}, {"temperature": 0, "logit_bias": {"300": 100}}]:
        chat = engine.chat("What is nginx?", model="demo", max_tokens=12, **fields)[2]["choices"][0]["message"]["content"]
        whole = respond(engine, model="demo", input="What is nginx?", max_output_tokens=12, **fields)
        assert whole["output"][0]["content"][0]["text"] == chat
    greedy = respond(engine, model="demo", input="What is nginx?", max_output_tokens=4, temperature=0, top_logprobs=3,
                     include=["message.output_text.logprobs"])["output"][0]["content"][0]
    chat = engine.chat("What is nginx?", model="demo", max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)[2]["choices"][0]
    assert greedy["logprobs"] == chat["logprobs"]["content"]


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)
    tags: list[str] = Field(max_length=2)


def test_official_client(start_engine):
    engine = start_engine(model=DEMO_MODEL)
    client = client_of(engine)
    ask = {"model": "demo", "input": "What is nginx?", "temperature": 0, "max_output_tokens": 40}
    whole = client.responses.create(**ask)
    assert whole.output_text.strip() and whole.usage.output_tokens > 0
    deltas = [event.delta for event in client.responses.create(**ask, stream=True) if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    with client.responses.stream(**ask) as helper:
        snapshots = [event.snapshot for event in helper if event.type == "response.output_text.delta"]
        assert snapshots[-1] == helper.get_final_response().output_text == whole.output_text
    parsed = client.responses.parse(model="demo", input="Who?", text_format=Person, extra_body={"seed": 1}, max_output_tokens=900)
    assert parsed.status == "completed" and isinstance(parsed.output_parsed, Person)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ask, previous_response_id=whole.id)
    assert caught.value.param == "previous_response_id" and caught.value.code == "unsupported_parameter"
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            call(whole.id)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_tools_and_their_results(start_engine, choice):
    """The client's own items go back as they came."""
    client = client_of(start_engine(model=DEMO_MODEL))
    ask = {"model": "demo", "tools": [WEATHER], "max_output_tokens": 300, "extra_body": {"seed": 2}}
    first = client.responses.create(input="Rain?", tool_choice=choice, parallel_tool_calls=False, **ask)
    (call,) = [item for item in first.output if item.type == "function_call"]
    jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])
    with client.responses.stream(input="Rain?", tool_choice=choice, parallel_tool_calls=False, **ask) as helper:
        snapshots = [event.snapshot for event in helper if event.type == "response.function_call_arguments.delta"]
        assert snapshots[-1] == call.arguments == helper.get_final_response().output[-1].arguments
    again = client.responses.create(input=[{"role": "user", "content": "Rain?"}, *first.output,
                                           {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
                                    tool_choice="none", **ask)
    assert [item.type for item in again.output] == ["message"]


@pytest.mark.parametrize("fields, status, param, code", [
    ({"model": "other"}, 404, "model", "model_not_found"),
    ({"input": None}, 400, "input", "invalid_value"),
    ({"input": "x" * 9000}, 400, "input", "context_length_exceeded"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, 400, "input[0].content[0]",
     "unsupported_parameter"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 400, "input[0]", "unsupported_parameter"),
    ({"temperature": 3}, 400, "temperature", "invalid_value"),
    ({"max_tokens": 3}, 400, "max_tokens", "unsupported_parameter"),
    ({"background": True}, 400, "background", "unsupported_parameter"),
    ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type", "unsupported_parameter"),
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"not": {}}}}}, 400, "text.format", "unsupported_parameter"),
    ({"guided_regex": "a+"}, 400, "guided_regex", "unsupported_parameter"),
])
def test_refusals(start_engine, fields, status, param, code):
    got, _, body = start_engine().request("POST", "/v1/responses", {"model": "sim", "input": "hi", **fields})
    assert (got, body["error"]["param"], body["error"]["code"]) == (status, param, code), body
    assert body["error"]["type"] == "invalid_request_error"


def test_nothing_is_kept(start_engine, tmp_path):
    engine = start_engine()
    for method, path, allowed in [("GET", "", "GET, HEAD, DELETE, OPTIONS"), ("DELETE", "", "GET, HEAD, DELETE, OPTIONS"),
                                  ("POST", "/cancel", "POST, OPTIONS"), ("GET", "/input_items", "GET, HEAD, OPTIONS")]:
        path = "/v1/responses/resp_1" + path
        status, _, body = engine.request(method, path)
        assert (status, body["error"]["code"]) == (404, "response_not_found") and "keeps no responses" in body["error"]["message"]
        status, headers, _ = engine.request("PUT", path, "")
        assert (status, headers["allow"]) == (405, allowed)
        assert engine.request("OPTIONS", path)[0] == 200
    status, headers, _ = engine.request("GET", "/v1/responses")
    assert (status, headers["allow"]) == (405, "POST, OPTIONS")
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    locked = start_engine("--api-key-file", str(keys))
    assert locked.request("GET", "/v1/responses/resp_1")[0] == locked.request("POST", "/v1/responses", {})[0] == 401


def test_a_client_that_leaves_ends_its_answer(start_engine):
    engine = start_engine(sim="base=5")
    with engine.raw() as connection:
        body = json.dumps({"model": "sim", "input": "x", "stream": True})
        connection.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body.encode()))
        assert b"response.created" in connection.recv(4096)
    until(lambda: engine.metric("num_requests_running") == 0, "the answer is cancelled")
