"""POST /v1/embeddings, over the simulated backend and the demo model."""
import base64
import json
import math
import shutil
import struct

import pytest

from support.paths import DEMO_MODEL
from support.poll import until


def embed(engine, given, model="sim", **fields):
    headers = fields.pop("headers", None)
    return engine.request("POST", "/v1/embeddings", {"model": model, "input": given, **fields}, headers)


def vectors(body):
    assert [one["index"] for one in body["data"]] == list(range(len(body["data"])))
    assert all(one["object"] == "embedding" for one in body["data"])
    return [one["embedding"] for one in body["data"]]


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


def test_shapes_of_input_and_output(start_engine):
    engine = start_engine()
    status, _, body = embed(engine, "hello")
    assert status == 200 and body["object"] == "list" and body["model"] == "sim"
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    one = vectors(body)[0]
    assert len(one) == 32 and length(one) == pytest.approx(1, abs=1e-5)
    assert vectors(embed(engine, ["a", "hello"])[2])[1] == one
    assert vectors(embed(engine, list(b"hello"))[2]) == [one]
    assert vectors(embed(engine, [[97], list(b"hello")])[2])[1] == one
    packed = embed(engine, "hello", encoding_format="base64", user="somebody")[2]["data"][0]["embedding"]
    assert list(struct.unpack("<32f", base64.b64decode(packed))) == pytest.approx(one)
    short = vectors(embed(engine, "hello", dimensions=5)[2])[0]
    assert len(short) == 5 and length(short) == pytest.approx(1, abs=1e-5)
    assert [x / length(one[:5]) for x in one[:5]] == pytest.approx(short, abs=1e-5)
    assert engine.metric("num_requests_running") == 0 and engine.metric("prompt_tokens_total") > 0


@pytest.mark.parametrize("fields, param", [
    ({"input": None}, "input"), ({"input": []}, "input"), ({"input": ""}, "input"), ({"input": [1, 999]}, "input"),
    ({"input": [{}]}, "input"), ({"input": "x" * 9000}, "input"), ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
    ({"input": "x", "dimensions": 33}, "dimensions"), ({"input": "x", "dimensions": 0}, "dimensions"),
    ({"input": "x", "model": "none"}, "model"), ({"input": "x", "truncate_prompt_tokens": 1}, "truncate_prompt_tokens"),
    ({"input": "x", "normalize": False}, "normalize"), ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
])
def test_refusals(start_engine, fields, param):
    status, _, body = start_engine().request("POST", "/v1/embeddings", {"model": "sim", **fields})
    assert status in (400, 404) and body["error"]["param"] == param, body


@pytest.mark.parametrize("pooling", ["lasttoken", "mean_tokens"])
def test_same_alone_in_chunks_and_in_a_crowd(start_engine, tmp_path, pooling):
    """Chunks of a prompt, other prompts beside it and what the prefix cache holds change no bit."""
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_" + pooling: True, "pooling_mode_cls_token": False}))
    text = "Once upon a time there was a server that told stories. " * 30
    small = start_engine("--max-step-tokens", "128", "--max-running", "4", model=str(model))
    large = start_engine(model=str(model))
    alone = vectors(embed(small, text, model="model")[2])[0]
    assert length(alone) == pytest.approx(1, abs=1e-5)
    crowd = vectors(embed(large, [text, "nginx", text + "!", text], model="model")[2])
    assert crowd[0] == alone and crowd[3] == alone and crowd[2] != alone
    assert vectors(embed(large, text, model="model")[2])[0] == alone
    assert large.chat("hi", model="model", max_tokens=2)[0] == 200


@pytest.mark.parametrize("options, context", [({"model": DEMO_MODEL}, 1024), ({}, 256)])
def test_an_input_may_fill_the_context(start_engine, options, context):
    """No answer follows it. Also where memory holds one context and no more."""
    engine = start_engine("--max-context", str(context), "--kv-tokens", str(context), **options)
    model = "demo" if options else "sim"
    status, _, body = embed(engine, [[5] * context, [5] * (context - 1)], model=model)
    assert status == 200 and body["usage"]["prompt_tokens"] == 2 * context - 1, body
    status, _, body = embed(engine, [5] * (context + 1), model=model)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert body["error"]["message"] == f"This model's maximum context length is {context} tokens, but the prompt has {context + 1}."
    status, _, body = engine.request("POST", "/v1/completions", {"model": model, "prompt": [5] * context})
    assert status == 400 and "one more is needed for the answer" in body["error"]["message"], body


@pytest.mark.parametrize("files", [
    {"1_Pooling/config.json": {"pooling_mode_cls_token": True}},
    {"modules.json": [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]},
])
def test_what_the_model_would_need_is_named(start_engine, tmp_path, files):
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    for name, content in files.items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(json.dumps(content))
    engine = start_engine(model=str(model))
    status, _, body = embed(engine, "x", model="model")
    assert status == 400 and body["error"]["code"] == "unsupported_parameter"
    assert "Dense" in body["error"]["message"] or "cls" in body["error"]["message"]
    assert engine.chat("hi", model="model", max_tokens=2)[0] == 200


def test_thousands_of_inputs(start_engine):
    engine = start_engine("--max-waiting", "8", sim="base=0,sequence=0,context=0,prefill=0")
    body = embed(engine, [f"text {i}" for i in range(2048)])[2]
    assert len(vectors(body)) == 2048
    assert embed(engine, ["x"] * 2049)[0] == 400


def test_inputs_in_line_keep_nobody_else_out(start_engine):
    """They count as one request where text is asked for: 2,048 of them made every chat a 429 until the last few."""
    engine = start_engine("--max-running", "2", "--max-waiting", "1", sim="base=5")  # 5 s
    connection = engine.connect()
    connection.request("POST", "/v1/embeddings", json.dumps({"model": "sim", "input": ["x"] * 2048}))
    until(lambda: engine.metric("num_requests_waiting") > 1000, "the inputs wait")
    assert engine.chat(max_tokens=1, priority=-1)[0] == 200
    assert embed(engine, ["x"])[0] == 429
    connection.close()
    until(lambda: engine.metric("num_requests_waiting") == 0, "they are gone")
    assert embed(engine, ["x"])[0] == 200
