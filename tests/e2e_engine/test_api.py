"""The OpenAI API of llm-engine, over the simulated model."""
import json
import threading

import pytest

from support.paths import DEMO_MODEL
from support.poll import until

TEXT = "The quick brown fox jumps over the lazy dog. "


def stream(engine, path="/v1/chat/completions", **fields):
    """The events of a streamed answer; the last is "[DONE]"."""
    body = {"model": "sim", "stream": True, **fields}
    if "prompt" not in body:
        body.setdefault("messages", [{"role": "user", "content": "hi"}])
    status, headers, text = engine.request("POST", path, body)
    assert status == 200 and headers["content-type"].startswith("text/event-stream"), text
    events = text.decode().split("\n\n")
    assert events.pop() == ""
    return [event.removeprefix("data: ") if "[DONE]" in event else json.loads(event.removeprefix("data: "))
            for event in events]


def test_whole_answer(start_engine):
    engine = start_engine()
    status, headers, body = engine.chat(max_tokens=9, headers={"x-request-id": "abc"})
    assert status == 200 and headers["x-request-id"] == "abc"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": TEXT[:9], "refusal": None}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 9


def test_streamed_answer(start_engine):
    events = stream(start_engine(), max_tokens=9, stream_options={"include_usage": True})
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-2]) == TEXT[:9]
    assert events[-3]["choices"][0]["finish_reason"] == "length"
    assert events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] == 9
    assert events[-1] == "[DONE]"


def test_stop_string_across_tokens(start_engine):
    engine = start_engine()
    body = engine.chat(max_tokens=50, stop=["brown", "zzz"])[2]
    assert body["choices"][0]["message"]["content"] == "The quick "
    assert body["choices"][0]["finish_reason"] == "stop"
    events = stream(engine, max_tokens=50, stop="brown")
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "The quick "


def test_end_of_text(start_engine):
    engine = start_engine(sim="base=0,reply=12")
    body = engine.chat()[2]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["content"] == TEXT[:12]
    assert engine.chat(ignore_eos=True, max_tokens=30)[2]["usage"]["completion_tokens"] == 30
    assert engine.chat(min_tokens=20, max_tokens=30)[2]["usage"]["completion_tokens"] == 21


def test_min_tokens_hold_off_all_that_ends_a_text(start_engine):
    engine = start_engine(model=DEMO_MODEL)

    def complete(**fields):
        body = {"model": "demo", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 30, **fields}
        return engine.request("POST", "/v1/completions", body)[2]

    text = complete()["choices"][0]["text"]
    ids = engine.request("POST", "/tokenize", {"prompt": text})[2]["tokens"]
    for stop in [{"stop": text[2:7]}, {"stop_token_ids": [ids[2]]}, {"stop_token_ids": [ids[2]], "ignore_eos": True}]:
        assert complete(**stop)["usage"]["completion_tokens"] <= 4
        assert complete(min_tokens=10, **stop)["usage"]["completion_tokens"] > 10
    assert complete(min_tokens=10, stop=text[2:7])["choices"][0]["text"] == text
    late = text[len(text) * 2 // 3:][:6]
    assert complete(min_tokens=10, stop=late)["choices"][0]["text"] == text[:text.index(late)]


def test_a_prompt_gets_the_same_text_alone_and_beside_others(start_engine):
    engine = start_engine(model=DEMO_MODEL)

    def complete(prompt):
        body = {"model": "demo", "prompt": prompt, "seed": 3, "n": 2, "max_tokens": 12}
        return [c["text"] for c in engine.request("POST", "/v1/completions", body)[2]["choices"]]

    assert complete(["Once upon", "The fox"]) == complete("Once upon") + complete("The fox")


def test_completions_prompts_and_choices(start_engine):
    engine = start_engine()
    body = engine.request("POST", "/v1/completions",
                          {"model": "sim", "prompt": ["a", "bc"], "n": 2, "max_tokens": 3, "echo": True})[2]
    assert [c["text"] for c in body["choices"]] == ["aThe", "aThe", "bcThe", "bcThe"]
    assert body["usage"]["prompt_tokens"] == 3 and body["usage"]["completion_tokens"] == 12
    default = engine.request("POST", "/v1/completions", {"model": "sim", "prompt": [1, 2]})[2]
    assert default["usage"]["completion_tokens"] == 16


def test_echo_gives_the_prompt_as_it_was_sent(start_engine):
    """Not as its tokens are read back: a special token in the text stays."""
    engine = start_engine(model=DEMO_MODEL)
    for prompt in ["Hello <|im_start|>you", "a  b\u0301"]:
        ids = engine.request("POST", "/tokenize", {"prompt": prompt})[2]["tokens"]
        for given in [prompt, [prompt], ids, [ids]]:
            body = {"model": "demo", "prompt": given, "max_tokens": 1, "temperature": 0, "echo": True}
            text = engine.request("POST", "/v1/completions", body)[2]["choices"][0]["text"]
            assert text.startswith(prompt) and len(text) > len(prompt)


def test_echo_with_logprobs_scores_the_prompt(start_engine):
    """As evaluation harnesses ask for it: what the model wrote has, as a prompt, the probabilities that it had as an answer."""
    engine = start_engine("--max-step-tokens", "64", "--max-running", "4", model=DEMO_MODEL)

    def complete(prompt, **fields):
        status, _, body = engine.request("POST", "/v1/completions", {"model": "demo", "prompt": prompt, "temperature": 0, "logprobs": 2,
                                                                     "return_tokens_as_token_ids": True, **fields})
        assert status == 200, body
        return body

    begin = engine.request("POST", "/tokenize", {"prompt": "Once upon a time " * 30})[2]["tokens"]
    written = complete(begin, max_tokens=20)["choices"][0]["logprobs"]
    tokens = begin + [int(name.removeprefix("token_id:")) for name in written["tokens"]]
    for more in ({}, {"stream": False, "n": 2}, {"max_tokens": 3}):
        body = complete([tokens, tokens[:1]], **{"echo": True, "max_tokens": 0, **more})
        n, generated = more.get("n", 1), more.get("max_tokens", 0)
        for choice in body["choices"][:n]:
            scored = choice["logprobs"]
            assert scored["tokens"][:len(tokens)] == [f"token_id:{token}" for token in tokens]
            assert scored["token_logprobs"][0] is None and scored["top_logprobs"][0] is None
            assert scored["token_logprobs"][len(begin):len(tokens)] == written["token_logprobs"]
            assert scored["top_logprobs"][len(begin):len(tokens)] == written["top_logprobs"]
            assert all(value <= 0 for value in scored["token_logprobs"][1:])
            assert [len(scored[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [len(tokens) + generated] * 4
        single = body["choices"][n]["logprobs"]
        assert single["token_logprobs"][:1] == [None] and len(single["tokens"]) == 1 + generated
        assert body["usage"]["prompt_tokens"] == len(tokens) + 1 and body["usage"]["completion_tokens"] == 2 * n * generated
        assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}
    assert complete("Once", echo=True, max_tokens=0, logprobs=None)["choices"][0]["text"] == "Once"


def test_echo_with_logprobs_streamed(start_engine):
    engine = start_engine(model=DEMO_MODEL)
    body = {"model": "demo", "prompt": "The fox said", "temperature": 0, "logprobs": 0, "echo": True, "max_tokens": 4}
    whole = engine.request("POST", "/v1/completions", body)[2]["choices"][0]
    chunks = [chunk["choices"][0] for chunk in stream(engine, "/v1/completions", **body)[:-1]]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    for key in ("tokens", "token_logprobs", "text_offset"):
        assert [value for chunk in chunks if chunk["logprobs"] for value in chunk["logprobs"][key]] == whole["logprobs"][key]


def test_an_answer_that_goes_on_with_the_last_message(start_engine):
    engine = start_engine(model=DEMO_MODEL)

    def chat(last, **fields):
        messages = [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": last}]
        return engine.request("POST", "/v1/chat/completions", {"model": "demo", "messages": messages, "temperature": 0,
                                                               "max_tokens": 20, **fields})

    status, _, body = chat("The capital of", continue_final_message=True)
    assert status == 200 and body["choices"][0]["message"]["content"].startswith(" France is Paris")
    ids = engine.request("POST", "/tokenize", {"continue_final_message": True, "return_token_strs": True, "messages": [
        {"role": "assistant", "content": " <|im_end|> a  "}]})[2]
    text = engine.request("POST", "/detokenize", {"tokens": ids["tokens"]})[2]["prompt"]
    assert text == "<|im_start|>assistant\n <|im_end|> a  "
    assert ids["token_strs"].count("<|im_start|>") == 1 and "<|im_end|>" not in ids["token_strs"]
    for last, fields in [("x", {"add_generation_prompt": True}), ("", {}), (" ", {})]:
        status, _, body = chat(last, continue_final_message=True, **fields)
        assert (status, body["error"]["param"]) == (400, "continue_final_message")
    status, _, body = engine.request("POST", "/v1/completions", {"model": "demo", "prompt": "x", "continue_final_message": True})
    assert (status, body["error"]["param"]) == (400, "continue_final_message")


def test_prefix_cache_is_reported_and_salted(start_engine):
    engine = start_engine()
    cached = []
    for client in ["a", "a", "b"]:
        usage = engine.chat("x" * 200, max_tokens=1, headers={"x-llm-client": client})[2]["usage"]
        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0 and cached[1] >= 200 and cached[2] == 0


def test_models_and_health(start_engine):
    engine = start_engine("--served-model-name", "org/sim,sim")
    assert [m["id"] for m in engine.request("GET", "/v1/models")[2]["data"]] == ["org/sim", "sim"]
    assert engine.request("GET", "/v1/models/org%2Fsim")[2]["id"] == "org/sim"
    assert engine.request("GET", "/v1/models/other")[0] == 404
    assert engine.request("GET", "/health")[0] == engine.request("GET", "/ready")[0] == 200


def test_methods(start_engine):
    """405 and OPTIONS say what a path takes; HEAD is GET without a body."""
    engine = start_engine()
    for path, allowed in [("/v1/chat/completions", "POST, OPTIONS"), ("/v1/models/sim", "GET, HEAD, OPTIONS"),
                          ("/ping", "GET, HEAD, POST, OPTIONS")]:
        for method in ["PUT", "DELETE", "PATCH", "OPTIONS"]:
            status, headers, body = engine.request(method, path, "")
            assert (status, headers["allow"]) == (200 if method == "OPTIONS" else 405, allowed)
            assert method == "OPTIONS" or body["error"]["code"] == "method_not_allowed"
    assert engine.request("OPTIONS", "*")[0] == 200
    for method in ["GET", "OPTIONS", "POST"]:
        assert engine.request(method, "/nowhere", "")[0] == 404
    head = engine.request("HEAD", "/version")
    assert head[0] == 200 and int(head[1]["content-length"]) > 0


def test_web_pages(start_engine):
    """A page of another origin asks before it sends, and may read every answer, errors and streams as well."""
    page = "https://chat.example.org"
    engine = start_engine()
    asked = {"Origin": page, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}
    status, headers, _ = engine.request("OPTIONS", "/v1/chat/completions", "", asked)
    assert status == 200 and headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert "POST" in headers["access-control-allow-methods"].split(", ")
    body = {"model": "sim", "prompt": "x", "max_tokens": 2}
    for request in [body, body | {"stream": True}, body | {"model": "other"}, body | {"n": "many"}]:
        headers = engine.request("POST", "/v1/completions", json.dumps(request), {"Origin": page})[1]
        assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in engine.request("GET", "/v1/models")[1], "no page asks"

    engine = start_engine("--allowed-origins", "https://a.example.org:8443," + page)
    for origin, allowed in [(page, True), ("https://a.example.org:8443", True), ("https://a.example.org", False),
                            ("https://chat.example.org.evil.net", False), ("null", False)]:
        status, headers, _ = engine.request("OPTIONS", "/v1/chat/completions", "", asked | {"Origin": origin})
        assert status == 200 and headers["vary"] == "Origin"
        assert headers.get("access-control-allow-origin") == (origin if allowed else None)
    engine = start_engine("--allowed-origins", "none")
    headers = engine.request("OPTIONS", "/v1/chat/completions", "", asked)[1]
    assert "access-control-allow-origin" not in headers and "vary" not in headers


def test_what_probes_of_other_engines_ask(start_engine):
    engine = start_engine(sim="base=5")
    assert engine.request("GET", "/ping")[0] == engine.request("POST", "/ping", "")[0] == 200
    assert set(engine.request("GET", "/version")[2]) == {"version"}
    assert engine.request("GET", "/load")[2] == {"server_load": 0}
    with engine.raw() as connection:
        body = json.dumps({"model": "sim", "prompt": "x", "max_tokens": 5000})
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
                           % (len(body), body.encode()))
        until(lambda: engine.request("GET", "/load")[2] == {"server_load": 1}, "the request counts")
    until(lambda: engine.request("GET", "/load")[2] == {"server_load": 0}, "its client has left")


def test_tokenize_and_back(start_engine):
    engine = start_engine()
    body = engine.request("POST", "/tokenize", {"prompt": "h\u00e9"})[2]
    assert body["tokens"] == [104, 195, 169] and body["count"] == 3
    assert engine.request("POST", "/detokenize", {"tokens": body["tokens"]})[2] == {"prompt": "h\u00e9"}
    for path, fields, param in [("/tokenize", {"messages": [{"role": "user", "content": "x"}], "chat_template": "x"},
                                 "chat_template"),
                                ("/detokenize", {"tokens": [99999]}, "tokens"),
                                ("/detokenize", {"tokens": [1], "model": "no"}, "model")]:
        status, _, refused = engine.request("POST", path, fields)
        assert status in (400, 404) and refused["error"]["param"] == param, refused
    chat = engine.request("POST", "/tokenize", {"messages": [{"role": "user", "content": "x"}]})[2]
    assert chat["count"] == engine.chat("x", max_tokens=1)[2]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("fields, status, param, code", [
    ({"model": "other"}, 404, "model", "model_not_found"),
    ({"model": None}, 400, "model", "model_required"),
    ({"messages": []}, 400, "messages", None),
    ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role", None),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", None),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content",
     "unsupported_parameter"),
    ({"temperature": 3}, 400, "temperature", None),
    ({"top_logprobs": 3}, 400, "top_logprobs", None),
    ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs", None),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", None),
    ({"n": 0}, 400, "n", None),
    ({"best_of": 2}, 400, "best_of", "unsupported_parameter"),
    ({"echo": True}, 400, "echo", "unsupported_parameter"),
    ({"max_tokens": 0}, 400, "max_tokens", None),
    ({"add_special_tokens": True}, 400, "add_special_tokens", "unsupported_parameter"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, 400, "tools", None),
    ({"stream": True, "stream_options": {"include_usage": 1}}, 400, "stream_options.include_usage", "invalid_type"),
    ({"guided_regex": "a+"}, 400, "guided_regex", "unsupported_parameter"),
    ({"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "messages", "context_length_exceeded"),
])
def test_refusals(start_engine, fields, status, param, code):
    got, _, body = start_engine().chat(**fields)
    assert (got, body["error"]["param"]) == (status, param), body
    assert body["error"]["type"] == "invalid_request_error"
    assert code is None or body["error"]["code"] == code


def test_a_text_that_never_ends_is_not_read_to_its_end(start_engine):
    """Nor is its one endless word or gap: others wait meanwhile."""
    engine = start_engine(model=DEMO_MODEL)
    gap = " " * 12_000_000  # more than the split pattern can walk over
    for path, fields in [("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello " * 1_000_000}]}),
                         ("/v1/completions", {"prompt": ["x", "a" * 5_000_000]}), ("/v1/embeddings", {"input": gap})]:
        status, _, body = engine.request("POST", path, {"model": "demo", **fields})
        assert status == 400 and body["error"]["code"] == "context_length_exceeded", body
        assert "more than 4096" in body["error"]["message"]
    status, _, body = engine.request("POST", "/tokenize", {"prompt": gap})
    assert (status, body["error"]["param"]) == (400, "prompt"), body


def test_bodies_that_are_no_requests(start_engine):
    engine = start_engine("--max-body", "2000")
    path = "/v1/chat/completions"
    for bad in ["", "{", "[1]", '{"model":"\xff"}'.encode("latin-1"), '{"a":' * 300]:
        status, _, body = engine.request("POST", path, bad)
        assert status == 400 and body["error"]["code"] == "invalid_json"
    status, _, body = engine.request("POST", path, "x" * 2001)
    assert status == 413 and body["error"]["code"] == "body_too_large"
    assert engine.request("POST", path, "{}", {"content-encoding": "gzip"})[0] == 415
    assert engine.request("GET", path)[0] == 405
    assert engine.request("GET", "/nowhere")[0] == 404
    assert engine.chat(max_tokens=1)[0] == 200


def test_queue_is_bounded(start_engine):
    engine = start_engine("--max-running", "1", "--max-waiting", "1", sim="base=20")
    connections = []
    for _ in range(2):
        connection = engine.connect()
        connection.request("POST", "/v1/chat/completions",
                           json.dumps({"model": "sim", "messages": [{"role": "user", "content": "x"}],
                                       "max_tokens": 10}))
        connections.append(connection)
    status, headers, body = 200, None, None
    for _ in range(50):  # the second connection's request may still be on its way
        status, headers, body = engine.chat(max_tokens=1)
        if status != 200:
            break
    assert status == 429 and body["error"]["code"] == "queue_full" and int(headers["retry-after"]) >= 1
    for connection in connections:
        assert connection.getresponse().status == 200
        connection.close()


def test_more_choices_than_the_queue_can_ever_hold(start_engine):
    engine = start_engine("--max-running", "2", "--max-waiting", "3")
    status, _, body = engine.chat(n=6, max_tokens=1)
    assert (status, body["error"]["param"]) == (400, "n") and "at most 5" in body["error"]["message"]
    assert engine.chat(n=5, max_tokens=1)[0] == 200


def test_hundreds_of_streams(start_engine):
    engine = start_engine("--max-running", "300", sim="base=10")
    results = [None] * 300

    def one(i):
        events = stream(engine, max_tokens=40)
        results[i] = "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [TEXT[:40]] * len(results)
    assert engine.metric("generation_tokens_total") == 40 * len(results)


def test_priority_preempts(start_engine):
    engine = start_engine("--max-running", "1", sim="base=5")
    order = []

    def one(name, tokens, priority):
        body = engine.chat(name, max_tokens=tokens, headers={"x-llm-priority": str(priority)})[2]
        assert body["usage"]["completion_tokens"] == tokens
        assert body["choices"][0]["message"]["content"] == (TEXT * 10)[:tokens]
        order.append(name)

    low = threading.Thread(target=one, args=("low", 300, 90))
    low.start()
    while engine.metric("generation_tokens_total") < 20:
        pass
    one("high", 5, 10)
    low.join()
    assert order == ["high", "low"]
    assert engine.metric("num_preemptions_total") == 1


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def sim_text(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text)
    return ["--sim-text", str(path)], f"base=1,reply={len(text)}"


def test_tool_calls_and_reasoning(start_engine, tmp_path):
    options, sim = sim_text(tmp_path, '<think>which?</think>\n\n<tool_call>\n{"name": "weather", "arguments": '
                                      '{"city": "Lyon"}}\n</tool_call>')
    engine = start_engine(*options, sim=sim)
    choice = engine.chat(tools=TOOLS)[2]["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert choice["message"]["reasoning_content"] == "which?"
    call = choice["message"]["tool_calls"][0]
    call_text = call["function"]["arguments"]
    assert call["function"]["name"] == "weather" and json.loads(call["function"]["arguments"]) == {"city": "Lyon"}
    events = stream(engine, tools=TOOLS)
    deltas = [e["choices"][0]["delta"] for e in events[:-1]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "which?"
    calls = [d["tool_calls"] for d in deltas if "tool_calls" in d]
    (first, *more) = [call for one in calls for call in one]
    assert first["index"] == 0 and first["id"] and first["type"] == "function" and first["function"]["name"] == "weather"
    assert all(set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} and call["index"] == 0 for call in more)
    assert "".join(call["function"]["arguments"] for call in (first, *more)) == call_text
    # Cut off, it is a call of what there is of its arguments, as OpenAI has it.
    cut = engine.chat(tools=TOOLS, max_tokens=90)[2]["choices"][0]
    assert cut["finish_reason"] == "length" and call_text.startswith(cut["message"]["tool_calls"][0]["function"]["arguments"])
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    # Nobody asked for tools: it is text.
    assert "<tool_call>" in engine.chat()[2]["choices"][0]["message"]["content"]
    assert engine.chat(tools=[{}])[2]["error"]["param"] == "tools"


def demo_with(directory, name, change):
    """The demo model with another version of one of its files: change(its JSON) is what it says."""
    directory.mkdir()
    for file in DEMO_MODEL.iterdir():
        if file.name != name:
            (directory / file.name).symlink_to(file)
    (directory / name).write_text(json.dumps(change(json.loads((DEMO_MODEL / name).read_text()))))
    return directory


def test_a_token_that_only_the_tokenizer_knows(start_engine, tmp_path):
    """It was computed, and the engine was lost to everybody."""
    def add_padding(tokenizer):
        padding = {**tokenizer["added_tokens"][0], "id": 2560, "content": "<pad>"}
        return {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], padding]}

    engine = start_engine("--served-model-name", "sim", model=str(demo_with(tmp_path / "demo", "tokenizer.json", add_padding)))
    for path, field, value in [("completions", "prompt", "a<pad>b"), ("completions", "prompt", [7, 2560]),
                               ("embeddings", "input", ["a", "<pad>"])]:
        status, _, body = engine.request("POST", f"/v1/{path}", {"model": "sim", field: value})
        assert (status, body["error"]["param"]) == (400, field) and "2560 ('<pad>')" in body["error"]["message"]
    assert engine.chat("a<pad>b", max_tokens=2, stop_token_ids=[2560], logit_bias={"2560": 100})[0] == 200


def test_requests_that_say_nothing_take_the_models_own_defaults(start_engine, tmp_path):
    model = demo_with(tmp_path / "demo", "generation_config.json",
                      lambda config: {**config, "temperature": 0, "max_new_tokens": 9})
    body = {"model": "demo", "messages": [{"role": "user", "content": "What is a bird?"}], "ignore_eos": True}

    def ask(engine, **fields):
        answer = engine.request("POST", "/v1/chat/completions", {**body, **fields})[2]
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    engine = start_engine(model=str(model))
    assert "unless a request says otherwise: temperature 0, max_tokens 9 (generation_config.json)" in engine.output()
    text, tokens = ask(engine)
    assert tokens == 9
    assert ask(engine) == (text, tokens) == ask(engine, temperature=0)
    assert ask(engine, max_tokens=12)[1] == 12
    plain = start_engine("--generation-config", "none", model=str(model))
    assert "unless a request" not in plain.output()
    assert ask(plain, max_tokens=20)[1] == 20
