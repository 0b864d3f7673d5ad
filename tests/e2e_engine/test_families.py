"""Random models of every family, through HTTP, against the logits of an independent float64 forward pass."""
import http.client
import json
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests/golden/models"
sys.path.insert(0, str(ROOT / "tools"))
import tiny_model  # noqa: E402

# Printable, all different; the last few have no single byte of their own.
TEXT_OF = [chr(c) for c in range(ord("!"), ord("~") + 1)] + [c + c for c in "!$%&*+-"]
END = 2


def make_model(directory, family):
    """A model directory and the golden and configuration it is made from."""
    golden = json.loads((GOLDENS / family / "golden.json").read_text())
    config = json.loads((GOLDENS / family / "config.json").read_text())
    assert len(TEXT_OF) == config["vocab_size"]
    tiny_model.write_model(str(directory), config, golden["seed"], golden["dtype"], golden["shards"])
    write_tokenizer(directory)
    return golden, config


def write_tokenizer(directory):
    model = {"type": "BPE", "vocab": {text: i for i, text in enumerate(TEXT_OF)}, "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    (directory / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": byte_level, "decoder": byte_level,
         "post_processor": None, "model": model}))


@pytest.mark.parametrize("family", sorted(path.name for path in GOLDENS.iterdir()))
def test_logprobs_and_embeddings(start_engine, tmp_path, family):
    model = tmp_path / "model"
    golden, config = make_model(model, family)
    engine = start_engine("--dtype", "f32", "--max-running", "8", "--served-model-name", "m", model=str(model))

    # Every beginning of the text at once: batches, chunks and shared prefixes on the way.
    tokens, logits = golden["tokens"], np.array(golden["logits"])  # of the last rows
    first = len(tokens) - len(logits) + 1
    status, _, body = engine.request("POST", "/v1/completions", {
        "model": "m", "prompt": [tokens[:n] for n in range(1, len(tokens) + 1)], "max_tokens": 1, "temperature": 0,
        "logprobs": 20, "ignore_eos": True})
    assert status == 200, body
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    allowed = np.where(np.arange(logits.shape[1]) == END, -np.inf, logits)
    for row, choice in enumerate(body["choices"][first - 1:]):
        assert choice["text"] == TEXT_OF[int(allowed[row].argmax())]
        top = choice["logprobs"]["top_logprobs"][0]
        best = [TEXT_OF[i] for i in np.argsort(-logits[row], kind="stable")[:len(top)]]
        assert set(top) == set(best) and len(top) == 20
        for text, got in top.items():
            assert got == pytest.approx(expected[row][TEXT_OF.index(text)], abs=2e-4)

    # The head applied to an embedding gives the logits, but for its length.
    body = engine.request("POST", "/v1/embeddings", {"model": "m", "input": [tokens[:first], tokens]})[2]
    tied = config.get("tie_word_embeddings", False)
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    shape = (config["vocab_size"], config["hidden_size"])
    head = tiny_model.random_tensor(config, golden["seed"], name, shape).astype(np.float64)
    for one, row in zip(body["data"], (logits[0], logits[-1])):
        got = head @ np.array(one["embedding"])
        assert np.abs(got / np.linalg.norm(got) - row / np.linalg.norm(row)).max() < 1e-3


def test_the_text_goes_on_behind_the_prompt(start_engine, tmp_path):
    """A sentencepiece tokenizer takes one blank from the beginning of a text, which is the prompt's and not the answer's."""
    model = tmp_path / "model"
    make_model(model, "llama2")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {"\u2581" + text: i for i, text in enumerate(TEXT_OF)}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    engine = start_engine("--served-model-name", "m", model=str(model))

    body = engine.request("POST", "/v1/completions", {"model": "m", "prompt": [40, 41], "max_tokens": 4, "echo": True,
                                                      "logprobs": 0, "temperature": 0})[2]
    choice = body["choices"][0]
    tokens = choice["logprobs"]["tokens"]
    assert len(tokens) == 6 and all(token[0] == " " for token in tokens)
    assert choice["text"] == "".join(tokens)[1:]


def test_a_form_that_the_vocabulary_cannot_spell(start_engine, tmp_path):
    """The request fails with a reason; the engine goes on."""
    make_model(tmp_path / "model", "qwen3")
    engine = start_engine("--served-model-name", "m", model=str(tmp_path / "model"))

    def complete(constant):
        schema = {"name": "s", "schema": {"const": constant}}
        return engine.request("POST", "/v1/completions", {
            "model": "m", "prompt": [5, 6], "max_tokens": 50, "n": 2, "response_format": {"type": "json_schema", "json_schema": schema}})

    status, _, body = complete("\u6771")
    assert status == 500 and body["error"]["code"] == "generation_failed" and "grammar" in body["error"]["message"]
    body = complete("fine")[2]
    assert [choice["text"] for choice in body["choices"]] == ['"fine"', '"fine"']
    # What was written before is sent before the error is.
    schema = {"name": "s", "schema": {"const": "x" * 40 + "\u6771"}}
    streamed = 0
    for _ in range(20):
        connection = engine.connect()
        connection.request("POST", "/v1/completions", json.dumps({
            "model": "m", "prompt": [5, 6], "max_tokens": 50, "stream": True,
            "response_format": {"type": "json_schema", "json_schema": schema}}))
        response = connection.getresponse()
        if response.status == 500:
            continue  # all of it was written before any of it could be sent
        streamed += 1
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
        events = [json.loads(event[6:]) for event in broken.value.partial.split(b"\n\n")[:-1]]
        assert events[-1]["error"]["code"] == "generation_failed"
        assert "".join(event["choices"][0]["text"] for event in events[:-1]) == '"' + "x" * 40
        connection.close()
    assert streamed > 0
    assert engine.metric("num_requests_running") == engine.metric("num_requests_waiting") == 0
    assert engine.request("GET", "/ready")[0] == 200
