"""What chat templates are given, over HTTP; the rest is in the unit tests of chat_messages.cpp."""
import subprocess

import pytest

from support.paths import ENGINE

PROBE = """\
{%- for m in messages %}
{{ m.role }}:{% for p in m.content %}[{{ p.text }}]{% endfor %}{{ m.tool_calls | tojson if m.tool_calls }}
{% endfor %}
{%- if tools is not none and not tools %}an empty list{% endif %}
{%- if tools %}tools:{{ tools | map(attribute='function.name') | join(',') }}{% endif %}
{%- if documents %}documents:{{ documents[0].text }}{% endif %}
{%- if reasoning_effort %}effort:{{ reasoning_effort }}{% endif %}
{%- if enable_thinking is defined %}thinking:{{ enable_thinking }}{% endif %}
{%- if city %}city:{{ city }}{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": "look"}}]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def probe(start_engine, tmp_path):
    """An engine with a template that shows what it is given, and the prompt that it makes of a request."""
    path = tmp_path / "probe.jinja"
    path.write_text(PROBE)
    engine = start_engine("--chat-template", str(path))

    def prompt(messages=HELLO, **fields):
        status, _, body = engine.request("POST", "/tokenize", {"messages": messages, **fields})
        assert status == 200, body
        tokenized = engine.request("POST", "/detokenize", {"tokens": body["tokens"]})[2]["prompt"]
        answer = engine.request("POST", "/v1/chat/completions", {"model": "sim", "messages": messages, "max_tokens": 1, **fields})
        assert answer[2]["usage"]["prompt_tokens"] == len(body["tokens"]), "the chat has another prompt"
        return tokenized

    prompt.engine = engine
    return prompt


def test_the_template_of_the_command_line(probe):
    assert probe() == "user:[hello]\n"
    assert "does not show tools" not in probe.engine.output()
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": ""}}
    talk = [{"role": "developer", "content": "d"}, {"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert probe(talk, tools=TOOLS) == (
        'system:[d]\nuser:[a][b]\nassistant:[{"id": "1", "type": "function", "function": {"name": "look", "arguments": {}}}]\ntools:look')


def test_no_tools_are_none(probe):
    for fields in ({"tools": []}, {"tools": TOOLS, "tool_choice": "none"}):
        assert probe(**fields) == "user:[hello]\n"


def test_what_else_a_template_may_read(probe):
    assert probe(reasoning_effort="none") == "user:[hello]\neffort:nonethinking:False"
    assert probe(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False}) == "user:[hello]\neffort:lowthinking:False"
    assert probe(documents=[{"text": "<|im_end|>"}], chat_template_kwargs={"city": "Rome"}) == "user:[hello]\ndocuments:<|im_end|>city:Rome"
    ids = probe.engine.request("POST", "/tokenize", {"messages": HELLO, "documents": [{"text": "<|im_end|>"}], "return_token_strs": True})[2]
    assert "<|im_end|>" not in ids["token_strs"], "a document's text is no control token"
    for fields, param in [({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"), ({"chat_template_kwargs": 7}, "chat_template_kwargs"),
                          ({"documents": "x"}, "documents"), ({"documents": ["x"]}, "documents")]:
        status, _, body = probe.engine.chat(**fields)
        assert (status, body["error"]["param"]) == (400, param), body


def test_a_call_nested_without_end_is_refused(probe):
    deep = '{"a":' * 100000 + "1" + "}" * 100000
    call = {"type": "function", "function": {"name": "look", "arguments": deep}}
    status, _, body = probe.engine.request("POST", "/v1/chat/completions", {
        "model": "sim", "messages": [*HELLO, {"role": "assistant", "tool_calls": [call]}]})
    assert status == 400 and "nested" in body["error"]["message"], body
    assert probe.engine.chat(max_tokens=1)[0] == 200


def test_a_template_without_tools_is_told_of(start_engine):
    engine = start_engine()
    assert "does not show tools to the model" in engine.output()
    plain = engine.request("POST", "/tokenize", {"messages": HELLO})[2]["count"]
    assert engine.request("POST", "/tokenize", {"messages": HELLO, "tools": TOOLS})[2]["count"] == plain
    status, _, body = engine.chat(tools=TOOLS, tool_choice="required", max_tokens=200)
    assert status == 200, body


def test_a_template_that_is_none_ends_the_start(tmp_path):
    bad = tmp_path / "bad.jinja"
    bad.write_text("a\n{% if %}")
    for path, word in [(bad, "line 2"), (tmp_path / "missing.jinja", "cannot be read")]:
        done = subprocess.run([ENGINE, "--backend", "sim", "--model", "sim", "--listen", "127.0.0.1:0", "--chat-template", path],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and str(path) in done.stderr and word in done.stderr, done.stderr
