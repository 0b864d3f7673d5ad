"""Everything llm-engine offers, with the official client through the gateway."""
import json
import math

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": "What is nginx?"}]
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 10}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"], "additionalProperties": False}}}


@pytest.fixture
def ask(redis_server, llm_engine, gateway):
    """ask(**fields): one chat completion of the demo model through the gateway; ask.client and ask.model for the rest."""
    llm_engine(redis=redis_server.url)
    gate = gateway(http=f"llm_redis {redis_server.url};")
    gate.wait_ready(60)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{gate.port}/v1", api_key="alice", max_retries=0, timeout=60)
    model = client.models.list().data[0].id

    def one(**fields):
        return client.chat.completions.create(model=model, **{"messages": MESSAGES, "max_tokens": 32, "temperature": 0, **fields})

    one.client, one.model = client, model
    return one


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)
    tags: list[str] = Field(max_length=2)
    nick: str | None = None


def test_parsed_answers(ask):
    """The client turns a class into a strict schema and the answer back into an object."""
    answer = ask.client.chat.completions.parse(model=ask.model, messages=MESSAGES, response_format=Person, seed=1,
                                               temperature=1, max_tokens=900)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_json_schema_and_json_object(ask):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer"}}, "required": ["ok", "n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    whole = ask(response_format=wanted, max_tokens=200, seed=4).choices[0].message.content
    jsonschema.validate(json.loads(whole), schema)
    stream = ask(response_format=wanted, max_tokens=200, seed=4, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole
    free = ask(response_format={"type": "json_object"}, temperature=1, seed=1, max_tokens=800)
    assert free.choices[0].message.content.startswith("{")
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}})
    assert caught.value.param == "response_format" and "'not'" in caught.value.message


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_forced_tools(ask, choice):
    answer = ask(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, temperature=1, seed=2, max_tokens=300).choices[0]
    assert answer.finish_reason == "tool_calls" and len(answer.message.tool_calls) == 1
    call = answer.message.tool_calls[0]
    assert call.function.name == "weather" and call.id
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    again = ask(messages=[*MESSAGES, answer.message.model_dump(exclude_none=True),
                          {"role": "tool", "tool_call_id": call.id, "content": "rain"}], tools=[WEATHER], tool_choice="none")
    assert not again.choices[0].message.tool_calls


def test_streamed_tool_call(ask):
    names, arguments = [], ""
    for chunk in ask(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, temperature=1, seed=2,
                     max_tokens=300, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments
    assert names == ["weather"]
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])


def test_stream_helper_hears_of_arguments_while_they_are_written(ask):
    """What programs that show or run a call's beginning use; its events carry what has come so far."""
    texts = []
    with ask.client.chat.completions.stream(model=ask.model, messages=MESSAGES, tools=[{**WEATHER, "function": {
            **WEATHER["function"], "strict": True}}], tool_choice="required", seed=2, max_tokens=300) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.delta":
                texts.append(event.arguments)
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert texts[-1] == call.function.arguments and all(b.startswith(a) for a, b in zip(texts, texts[1:]))
    jsonschema.validate(call.function.parsed_arguments, WEATHER["function"]["parameters"])


def test_embeddings(ask):
    """The client asks for base64 by itself."""
    answer = ask.client.embeddings.create(model=ask.model, input=["nginx", "a bear", "nginx"])
    first, other, again = (one.embedding for one in answer.data)
    assert first == again != other and answer.usage.prompt_tokens > 0
    assert math.isclose(sum(x * x for x in first), 1, abs_tol=1e-4)
    plain = ask.client.embeddings.create(model=ask.model, input="nginx", encoding_format="float", dimensions=8)
    assert len(plain.data[0].embedding) == 8


def test_sampling_parameters(ask):
    drawn = [ask(temperature=1, top_p=0.9, seed=7, presence_penalty=0.3, frequency_penalty=0.2,
                 extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1}).choices[0].message.content for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({c.message.content for c in ask(n=4, temperature=1.5, seed=1).choices}) > 1
    greedy = ask(logprobs=True, top_logprobs=3, max_tokens=4).choices[0]
    first = greedy.logprobs.content[0]
    assert len(first.top_logprobs) == 3 and first.logprob == first.top_logprobs[0].logprob


def test_stop_usage_and_limits(ask):
    whole = ask(max_tokens=40).choices[0].message.content
    word = whole.split()[3]
    cut = ask(max_tokens=40, stop=[word])
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].message.content == whole[:whole.index(word)]
    long = [{"role": "user", "content": "Tell me about nginx, please. " * 12}]
    ask(messages=long, max_tokens=1)
    assert ask(messages=long, max_tokens=1).usage.prompt_tokens_details.cached_tokens > 0
    assert ask(max_completion_tokens=3).usage.completion_tokens == 3
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens > chunks[-1].usage.completion_tokens > 0
    with pytest.raises(openai.BadRequestError) as caught:
        ask(messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"


def test_bias_forces_a_token(ask):
    def first(**fields):
        return ask(max_tokens=1, logprobs=True, top_logprobs=5, **fields).choices[0].logprobs.content[0]

    free = first()
    for token in range(300, 600):  # any that is no end of text: it then is the only one that is drawn
        got = first(logit_bias={str(token): 100})
        if got.token != free.token:
            break
    assert got.token != free.token
    assert first(logit_bias={str(token): 100}).token == got.token


def test_legacy_completions(ask):
    answer = ask.client.completions.create(model=ask.model, prompt=["nginx is", "A bear"], n=2, max_tokens=4, logprobs=2, temperature=1, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len(answer.choices[0].logprobs.tokens) == 4
