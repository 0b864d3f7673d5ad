"""A llama.cpp server, really running, behind the gateway with llm-reporter beside it: engines we did not write."""

import pytest

from support.client import chat_body
from support.poll import until
from support.reporter import report_of

pytest.importorskip("xllamacpp", reason="xllamacpp has no build for this machine")

QUESTION = "What is the capital of France?"


@pytest.fixture
def llama_cpp(tmp_path):
    from support.llama_cpp import LlamaCpp  # needs what importorskip has looked for
    server = LlamaCpp(tmp_path / "llama.cpp")
    yield server
    server.finish()


def test_behind_the_gateway(redis_server, llama_cpp, reporter, nginx):
    reporter(engine="llamacpp", url=llama_cpp.url, redis=redis_server.url, arguments=["--id", "llama"])
    gate = nginx(http=f"llm_redis {redis_server.url};")
    gate.wait_model("demo")
    report = report_of(redis_server, "llama")
    assert (report["state"], report["models"], report["max_running"], report["max_context"]) == ("ready", ["demo"], 4, 1024)
    body = chat_body("demo", content=QUESTION, temperature=0, max_tokens=40)
    reply = gate.client.ask(body)
    assert reply.status == 200 and "Paris" in reply.text()
    streamed = gate.client.ask(chat_body("demo", content=QUESTION, temperature=0, max_tokens=40, stream=True,
                                         stream_options={"include_usage": True}))
    assert streamed.complete and streamed.text() == reply.text()
    generated = 2 * reply.json()["usage"]["completion_tokens"]
    report = until(lambda: (now := report_of(redis_server, "llama")) and now["tokens_out"] == generated and now,
                   lambda: f"{generated} tokens in {report_of(redis_server, 'llama')}")
    assert report["running"] == report["waiting"] == 0
    assert 0 < report["decode_tokens"] <= generated and report["user_seconds"] > 0
    gate.wait_outcomes({"completed": 2})
    # a stream's last token ends it and is no text: only its usage tells
    logged = until(lambda: len(lines := [line for line in gate.access_log() if line["model"] == "demo"]) == 2 and lines, "both are logged")
    assert [int(line["completion_tokens"]) for line in logged] == [generated / 2] * 2
