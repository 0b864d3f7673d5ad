"""The official OpenAI client through the gateway to llm-engine with the demo model: what users' programs do."""

import asyncio
import json

import openai
import pytest

from support.fake_engine import answer
from support.paths import DEMO_MODEL
from support.users import user

MESSAGES = [{"role": "user", "content": "What is nginx?"}]


def client_of(gate, token="alice", **keywords):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gate.port}/v1", api_key=token, max_retries=0, timeout=60, **keywords)


@pytest.fixture
def demo(redis_server, llm_engine, gateway):
    """(gateway, name of the demo model), with a real engine behind."""
    llm_engine(redis=redis_server.url)
    gate = gateway(http=f"llm_redis {redis_server.url};")
    gate.wait_ready(60)
    return gate, client_of(gate).models.list().data[0].id


def test_completion(demo):
    gate, model = demo
    answer = client_of(gate).chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, temperature=0)
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.usage.prompt_tokens > 0
    assert answer.model == model


def test_stream_equals_the_whole(demo):
    gate, model = demo
    client = client_of(gate)
    whole = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, temperature=0)
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_legacy_completion(demo):
    gate, model = demo
    answer = client_of(gate).completions.create(model=model, prompt="nginx is", max_tokens=8, temperature=0)
    assert answer.choices[0].text


def test_async_client(demo):
    gate, model = demo

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gate.port}/v1", api_key="alice", max_retries=0) as client:
            async def stream():
                text = ""
                async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=16,
                                                                           temperature=0, stream=True):
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                return text

            return await asyncio.gather(*(stream() for _ in range(4)))

    assert all(text.strip() for text in asyncio.run(ask_all()))


def test_models(demo):
    gate, model = demo
    client = client_of(gate)
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_demo_model_answers_from_its_files(demo):
    """The name that the engine announces is the one that clients use."""
    _, model = demo
    assert model
    assert json.loads((DEMO_MODEL / "config.json").read_text())


@pytest.fixture
def fake(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    return engine, gateway([engine], [user("alice", threshold=0), user("limited", models=["other"])])


@pytest.mark.parametrize("token,model,expected,code", [
    ("nobody", "m", openai.AuthenticationError, "invalid_api_key"),
    ("alice", "none", openai.NotFoundError, "model_not_found"),
    ("limited", "m", openai.PermissionDeniedError, "model_not_allowed"),
])
def test_errors_become_exceptions(fake, token, model, expected, code):
    _, gate = fake
    with pytest.raises(expected) as caught:
        client_of(gate, token).chat.completions.create(model=model, messages=MESSAGES)
    assert caught.value.code == code
    assert caught.value.request_id


def test_a_refused_token_is_called_as_openai_calls_it(fake):
    """Clients that sit on others' libraries (LiteLLM) know a 401 of type invalid_request_error from a 400 by these words alone."""
    _, gate = fake
    for token in ("nobody", "not a token"):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            client_of(gate, token).chat.completions.create(model="m", messages=MESSAGES)


def test_bad_request(fake):
    _, gate = fake
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(gate).chat.completions.create(model="m", messages=MESSAGES, extra_body={"routing-mode": "public"})
    assert (caught.value.code, caught.value.param) == ("invalid_json", "routing-mode")


def test_rate_limit_and_its_retry(fake):
    engine, gate = fake
    running = engine.occupy(gate.client, token="alice")
    with pytest.raises(openai.RateLimitError) as caught:
        client_of(gate).chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.code == "threshold"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    engine.open_gate()
    assert running.reply().status == 200
    assert client_of(gate).chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == "hello from the engine"


def test_server_errors(fake):
    engine, gate = fake
    engine.script = lambda exchange: exchange.reset()
    with pytest.raises(openai.InternalServerError) as caught:
        client_of(gate).chat.completions.create(model="m", messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (502, "engine_error")


def test_broken_stream_raises(fake):
    engine, gate = fake

    def script(exchange):
        exchange.stream_head()
        exchange.event({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                        "choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]})
        exchange.reset()

    engine.script = script
    stream = client_of(gate).chat.completions.create(model="m", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)
    engine.script = answer
