"""Programs in a browser: a page of another origin may use the API if the operator says so, as docs/operations.md shows."""

import json
import re

from support.paths import ROOT

# (origin, token, path, body or null) -> [status, text, x-request-id]; status 0: the page may not read it
ASK = """((origin, token, path, body) => fetch(origin + path, {
    method: body ? 'POST' : 'GET', body: body && JSON.stringify(body),
    headers: {Authorization: 'Bearer ' + token, ...(body && {'Content-Type': 'application/json'})},
}).then(async answer => [answer.status, await answer.text(), answer.headers.get('x-request-id')], error => [0, String(error), null]))"""

DOCUMENTED = re.search(r"^```nginx\n([^`]*Access-Control-Allow-Origin[^`]*)^```$", (ROOT / "docs" / "operations.md").read_text(),
                       re.MULTILINE)[1]


def chat(stream=False):
    return {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": stream}


def test_a_page_reads_answers_streams_and_errors(llm_engine, gateway, browser):
    engine = llm_engine(sim=True)
    browser.open(engine.url + "/version")  # any page whose origin is not the gateway's
    gate = gateway(http=f"llm_engine {engine.url} model=sim;", location=DOCUMENTED)
    gate.wait_ready()

    def ask(token, path, body=None):
        arguments = ", ".join(json.dumps(one) for one in (f"http://127.0.0.1:{gate.port}", token, path, body))
        return browser.run(f"{ASK}({arguments})")

    status, text, request_id = ask("alice", "/v1/chat/completions", chat())
    assert status == 200 and json.loads(text)["choices"]
    assert request_id, "the headers that clients look at are theirs to read, too"
    status, text, _ = ask("alice", "/v1/chat/completions", chat(stream=True))
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert ask("alice", "/v1/models")[0] == 200, "answered by the gateway itself"
    browser.expected = ["401", "404"]
    status, text, _ = ask("wrong", "/v1/chat/completions", chat())
    assert status == 401 and json.loads(text)["error"]["code"] == "invalid_api_key"
    status, text, _ = ask("alice", "/v1/chat/completions", chat() | {"model": "other"})
    assert status == 404 and json.loads(text)["error"]["code"] == "model_not_found"
