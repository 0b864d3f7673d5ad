"""llm-reporter: with pages that engines give, with a real llm-engine, with a gateway and a Redis that comes and goes."""

import http.client
import json
import subprocess
import time

import pytest

from support.client import chat_body
from support.llmctl import environment
from support.poll import until
from support.reporter import ENDPOINTS, REPORTER, Pages, report_of

MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 4096}]})


def golden(name):
    return (ENDPOINTS / name).read_text()


def vllm(running=0, waiting=0, tokens=0, seconds=0.0, completed=0, started=1.7e9):
    """What vLLM's /metrics tells, as far as it matters."""
    return (f"process_start_time_seconds {started}\n"
            f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:num_requests_waiting{{engine="0"}} {waiting}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} 0.5\nvllm:prompt_tokens_total{{engine="0"}} {tokens}\n'
            f'vllm:generation_tokens_total{{engine="0"}} {tokens}\nvllm:inter_token_latency_seconds_count{{engine="0"}} {tokens}\n'
            f'vllm:inter_token_latency_seconds_sum{{engine="0"}} {seconds}\nvllm:request_success_total{{engine="0"}} {completed}\n')


@pytest.fixture
def pages():
    made = []

    def make(content, **keywords):
        made.append(Pages(content, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def once(*words, status=0):
    done = subprocess.run([REPORTER, "--once", *words], capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout) if status == 0 else done.stderr


KINDS = {
    "vllm": ({"/health": "", "/metrics": "vllm_metrics.txt", "/v1/models": "vllm_models.json"},
             {"models": ["facebook/opt-125m", "sql-lora"], "running": 12, "kv_usage": 0.375, "max_context": 2048, "max_running": 512}),
    "sglang": ({"/health": "", "/metrics": "sglang_metrics.txt", "/get_server_info": "sglang_get_server_info.json"},
               {"models": ["m"], "running": 162, "max_running": 256, "max_context": 4096}),
    "llamacpp": ({"/health": '{"status":"ok"}', "/metrics": "llamacpp_metrics.txt", "/props": "llamacpp_props.json"},
                 {"models": ["m"], "running": 3, "max_running": 4, "max_context": 4096}),
    "tgi": ({"/health": "", "/metrics": "tgi_metrics.txt", "/info": "tgi_info.json"}, {"running": 5, "max_running": 128, "max_context": 2048}),
    "tensorrt-llm": ({"/health": "", "/prometheus/metrics": "tensorrt-llm_metrics.txt"}, {"running": 8, "kv_usage": 0.62}),
    "triton": ({"/health/ready": "", "/metrics": "triton_metrics.txt"}, {"running": 4, "max_running": 512, "kv_usage": 0.4875}),
    "lmdeploy": ({"/health": "", "/metrics": "lmdeploy_metrics.txt"}, {"running": 6, "max_running": 128, "kv_usage": 0.375}),
    "lightllm": ({"/health": "", "/metrics": "lightllm_metrics.txt"}, {"running": 2}),
    "ollama": ({"/api/version": '{"version":"0.13.0"}', "/v1/models": "ollama_models.json"},
               {"models": ["llama3.2:1b", "qwen3:0.6b"], "running": 0, "max_running": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_engine(pages, kind):
    files, expected = KINDS[kind]
    content = {path: golden(text) if text.endswith((".txt", ".json")) else text for path, text in files.items()}
    engine = pages({"/v1/models": MODELS, **content})
    report = once("--engine", kind, "--url", engine.url, "--id", "e", "--org", "cs")
    assert (report["v"], report["id"], report["url"], report["org"], report["state"]) == (1, "e", engine.url, "cs", "ready")
    assert {name: report[name] for name in expected} == expected
    assert ("user_seconds" in report) == (kind not in ("triton", "ollama"))
    assert report["tokens_out"] == 0, "counted from now on"


def test_sglang_is_not_asked_for_a_page_that_it_warns_of(pages):
    """Newer versions say at each request that /get_server_info will be removed."""
    engine = pages({"/health": "", "/metrics": golden("sglang_metrics.txt"), "/v1/models": MODELS,
                    "/server_info": golden("sglang_get_server_info.json"), "/get_server_info": (500, "")})
    assert once("--engine", "sglang", "--url", engine.url)["max_running"] == 256
    assert "/get_server_info" not in engine.asked


def test_an_https_engine_with_a_certificate_of_its_own(pages, certificate):
    engine = pages({"/health": "", "/metrics": vllm(running=3), "/v1/models": MODELS}, certificate=certificate)
    assert "certificate" in once("--engine", "vllm", "--url", engine.url, status=1)
    report = once("--engine", "vllm", "--url", engine.url, "--ca-file", str(certificate[0]))
    assert (report["running"], report["url"]) == (3, engine.url)


def test_a_gateway_learns_of_the_engine_and_its_speed(redis_server, pages, fake_engine, reporter, nginx):
    engine = fake_engine()
    page = {"text": vllm(running=1, tokens=1000, seconds=50)}
    told = pages({"/health": "", "/metrics": lambda: page["text"], "/v1/models": MODELS})
    gate = nginx(http=f"llm_redis {redis_server.url};")
    watcher = redis_server.client.pubsub()
    watcher.subscribe("llm:engines")
    one = reporter(engine="vllm", url=told.url, redis=redis_server.url,
                   arguments=["--id", "gpu0@host", "--advertise-url", engine.url, "--max-running", "7", "--org", "cs"])
    gate.wait_model("m")
    assert gate.client.ask(chat_body()).status == 200
    first = until(lambda: report_of(redis_server, "gpu0@host"), "the report stands in Redis")
    assert (first["models"], first["max_running"], first["max_context"], first["running"]) == (["m"], 7, 4096, 1)
    assert first["tokens_out"] == 0 and redis_server.client.pttl("llm:engine:gpu0@host") > 0
    shown = gate.status()["engines"][0]
    assert (shown["id"], shown["url"], shown["organisation"], shown["max_running"]) == ("gpu0@host", engine.url, "cs", 7)
    # 400 tokens in 10 seconds of users: 40 tokens/s each
    page["text"] = vllm(running=4, tokens=1400, seconds=60, completed=5)
    later = until(lambda: (now := report_of(redis_server, "gpu0@host")) and now["completed"] == 5 and now, "the counters have moved")
    assert (later["boot"], later["tokens_out"], later["decode_tokens"]) == (first["boot"], 400, 400)
    assert later["user_seconds"] == pytest.approx(10) and later["seq"] > first["seq"]
    until(lambda: gate.status()["engines"][0]["tokens_per_second_per_user"] == pytest.approx(40), "the gateway sees the speed")
    until(lambda: report_of(redis_server, "gpu0@host")["tokens_per_second"] == 0, "the last two seconds begin behind these tokens")
    # the engine restarts and has counted a little already
    page["text"] = vllm(tokens=30, seconds=1, started=1.8e9)
    until(lambda: (now := report_of(redis_server, "gpu0@host"))["boot"] > first["boot"] and now["tokens_out"] == 30, "a new boot")
    page["text"] = vllm(running=2, tokens=30, seconds=1, started=1.8e9)
    until(lambda: gate.status()["engines"][0]["running"] == 2, "the gateway hears of the new boot")
    assert gate.metrics().total("llm_bad_reports_total") == 0
    # goodbye
    assert one.stop() == 0
    assert report_of(redis_server, "gpu0@host") is None
    until(lambda: not gate.status()["engines"], "the gateway has forgotten it")
    states = []
    while message := watcher.get_message(ignore_subscribe_messages=False, timeout=0.5):
        if message["type"] == "message":
            states.append(json.loads(message["data"])["state"])
    assert states[-2:] == ["draining", "gone"] and set(states[:-2]) == {"ready"}
    watcher.close()


def test_states_follow_the_engine(redis_server, pages, reporter):
    engine = pages({"/health": (503, "loading"), "/metrics": vllm(), "/v1/models": MODELS})
    engine.stop()
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e", "--model", "m", "--fail-after", "0.5"])
    state = lambda: (report_of(redis_server, "e") or {}).get("state")
    until(lambda: state() == "loading", "requests may wait for it")
    engine.start()
    one.wait_said("answers 503")
    assert state() == "loading"
    engine.pages["/health"] = ""
    until(lambda: state() == "ready", "it is ready")
    engine.pages["/health"] = (500, "engine dead")
    until(lambda: state() == "failed", "it says that it is broken")
    engine.pages["/health"] = ""
    until(lambda: state() == "ready", "it is ready")
    engine.stop()
    until(lambda: state() == "failed", "nobody listens there")
    engine.start()
    until(lambda: state() == "ready", "it is back")
    assert "answers" in one.output()


@pytest.mark.parametrize("page, told", [
    ("<html><body>nginx</body></html>", "HTML"), ('{"detail":"x"}', "JSON"), ("", "empty"), ("vllm:num_requests_running{ 1\n", "line 1"),
    ((501, "no"), "disable-log-stats"), ((401, '{"error":"Unauthorized"}'), "answers 401; it wants a key \\(--api-key-file\\)"), (lambda: golden("sglang_metrics.txt"), "vllm:generation_tokens_total"),
    ((404, "no"), "404"), ((302, ""), "302")])
def test_nothing_is_reported_of_what_is_not_understood(redis_server, pages, reporter, page, told):
    engine = pages({"/health": "", "/metrics": page, "/v1/models": MODELS})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    one.wait_said(told)
    asked = len(engine.asked)
    until(lambda: len(engine.asked) > asked + 6, "it goes on asking")
    assert report_of(redis_server, "e") is None
    assert one.output().count("trying again") == 1, "said once"
    engine.pages["/metrics"] = vllm()
    until(lambda: report_of(redis_server, "e"), "it is understood now")


def test_a_list_of_models_that_is_none(redis_server, pages, reporter):
    engine = pages({"/health": "", "/metrics": vllm(), "/v1/models": "<html>"})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    one.wait_said("--model")
    assert report_of(redis_server, "e") is None
    assert "--model" in once("--engine", "vllm", "--url", engine.url, status=1)
    assert once("--engine", "vllm", "--url", engine.url, "--model", "x")["models"] == ["x"]


def test_more_models_than_a_report_holds(redis_server, pages, reporter):
    """vLLM lists every adapter; the base model, which comes first, must not be lost for them."""
    models = json.dumps({"object": "list", "data": [{"id": "base", "max_model_len": 4096}] + [{"id": f"lora{i}"} for i in range(100)]})
    engine = pages({"/health": "", "/metrics": vllm(), "/v1/models": models})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    one.wait_said("37 of 101 models are left out")
    report = until(lambda: report_of(redis_server, "e"), "it is reported")
    assert len(report["models"]) == 64 and report["models"][:2] == ["base", "lora0"]
    asked = len(engine.asked)
    until(lambda: len(engine.asked) > asked + 6, "it goes on asking")
    assert one.output().count("left out") == 1, "said once"


def test_silence_is_not_failure(redis_server, pages, reporter):
    """An engine that is too busy to answer keeps its state: the key runs out, and no false report is sent."""
    engine = pages({"/health": "", "/metrics": vllm(running=3), "/v1/models": MODELS})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e", "--timeout", "0.2", "--fail-after", "0.2"])
    until(lambda: report_of(redis_server, "e"), "it is reported")
    engine.pages["/metrics"] = lambda: time.sleep(1) or vllm()
    one.wait_said("(?i)timed? ?out|timeout")
    last = report_of(redis_server, "e")
    assert last["state"] == "ready"
    until(lambda: report_of(redis_server, "e") is None, "nothing new is said, and the key runs out", 20)
    engine.pages["/metrics"] = vllm(running=1)
    until(lambda: (report_of(redis_server, "e") or {}).get("running") == 1, "it answers again")


def test_redis_may_come_late_and_go(redis_server, pages, reporter):
    redis_server.stop()
    engine = pages({"/health": "", "/metrics": vllm(), "/v1/models": MODELS})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    one.wait_said("Redis is not reachable")
    asked = len(engine.asked)
    until(lambda: len(engine.asked) > asked + 6, "the engine is looked at all the same")
    redis_server.start()
    until(lambda: report_of(redis_server, "e"), "reported")
    redis_server.stop()
    one.wait_said("(?s)Redis is reachable.*Redis is not reachable")
    redis_server.start()
    until(lambda: report_of(redis_server, "e"), "reported again")


def test_our_own_engine_by_its_vllm_names(redis_server, llm_engine, reporter):
    """The real llm-engine: what the reporter derives from /metrics equals what the engine reports of itself."""
    engine = llm_engine(sim=True, redis=redis_server.url, arguments=["--id", "itself"])
    reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "seen"])
    until(lambda: report_of(redis_server, "seen"), "reported")
    for _ in range(3):
        ask(engine.url)
    names = ("tokens_in", "tokens_out", "decode_tokens", "completed")

    def equal():
        seen, itself = report_of(redis_server, "seen"), report_of(redis_server, "itself")
        return seen and itself and itself["completed"] == 3 and all(seen[name] == itself[name] for name in names) and (seen, itself)

    seen, itself = until(equal, lambda: (report_of(redis_server, "seen"), report_of(redis_server, "itself")))
    assert seen["models"] == itself["models"] == ["sim"] and seen["state"] == "ready"
    assert seen["decode_tokens"] > 0 and seen["user_seconds"] == pytest.approx(itself["user_seconds"], rel=0.1, abs=0.01)


def ask(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/chat/completions", chat_body("sim", max_tokens=20), {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def test_a_wrong_command_line(pages):
    def refused(*words):
        done = subprocess.run([REPORTER, *words], capture_output=True, text=True, timeout=60, check=False, env=environment())
        assert done.returncode == 2
        return done.stderr

    assert "vllm, sglang, llamacpp" in refused("--engine", "gpt", "--url", "http://h:1", "--redis", "redis://r")
    assert "redis://" in refused("--engine", "vllm", "--url", "http://h:1", "--redis", "r")
    assert "--redis is missing" in refused("--engine", "vllm", "--url", "http://h:1")
    help_text = subprocess.run([REPORTER, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--advertise-url" in help_text and "tensorrt-llm" in help_text


@pytest.mark.parametrize("words, told", [
    (["--url", "http://h:99999"], "--url"), (["--url", "http://:80"], "--url"), (["--advertise-url", "http://h:0"], "--advertise-url"),
    (["--advertise-url", "http://" + "h" * 255], "--advertise-url"), (["--id", "a\nb"], "--id"), (["--org", "a\x7fb"], "--org"),
    (["--model", "a\tb"], "--model"), (["--once=no"], "--once")])
def test_what_no_report_can_hold_is_refused_at_the_start(words, told):
    """It would look at the engine for ever, and never report."""
    done = subprocess.run([REPORTER, "--engine", "vllm", "--url", "http://h:1", "--redis", "redis://127.0.0.1:1", *words], capture_output=True,
                          text=True, timeout=20, check=False, env=environment())
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_metrics_at_a_path_that_ends_with_a_slash(pages):
    """Where an application is mounted, the path without it only redirects."""
    engine = pages({"/health": "", "/inner/metrics/": vllm(running=3), "/inner/metrics": (307, ""), "/v1/models": MODELS})
    assert once("--engine", "vllm", "--url", engine.url, "--metrics-url", engine.url + "/inner/metrics/")["running"] == 3


def test_a_silent_engine_is_complained_of_once(redis_server, pages, reporter):
    """However long each wait took."""
    engine = pages({"/health": lambda: time.sleep(0.5) or ""})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e", "--timeout", "0.05"])
    until(lambda: engine.asked.count("/health") > 15, "it goes on asking", 30)
    assert one.output().count("trying again") == 1, one.output()


def test_goodbye_over_a_connection_that_redis_has_closed(redis_server, pages, reporter):
    """Nothing is said of a silent engine, so that Redis may have ended the connection meanwhile."""
    engine = pages({"/health": "", "/metrics": vllm(), "/v1/models": MODELS})
    watcher = redis_server.client.pubsub()
    watcher.subscribe("llm:engines")
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e", "--timeout", "0.2"])
    until(lambda: report_of(redis_server, "e"), "it is reported")
    engine.pages["/health"] = lambda: time.sleep(1) or ""
    one.wait_said("trying again")
    asked = len(engine.asked)
    until(lambda: len(engine.asked) > asked + 4, "nothing is published any more")
    assert redis_server.client.client_kill_filter(_type="normal", skipme=True) == 1
    assert one.stop() == 0
    states = []
    while message := watcher.get_message(ignore_subscribe_messages=False, timeout=0.5):
        if message["type"] == "message":
            states.append(json.loads(message["data"])["state"])
    watcher.close()
    assert states[-1] == "gone" and report_of(redis_server, "e") is None


@pytest.mark.parametrize("kind, metrics", [("tgi", "/metrics"), ("tensorrt-llm", "/prometheus/metrics")])
def test_an_engine_that_tells_nothing_before_its_first_request(redis_server, pages, reporter, kind, metrics):
    """A gateway that never hears of it would never send one."""
    engine = pages({"/health": "", metrics: "", "/v1/models": MODELS})
    reporter(engine=kind, url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    assert until(lambda: report_of(redis_server, "e"), "it is reported")["state"] == "ready"
    engine.pages[metrics] = golden(f"{kind}_metrics.txt")
    until(lambda: report_of(redis_server, "e")["completed"] > 0, "its first requests count")


def test_a_restarted_engine_is_asked_for_its_models_at_once(redis_server, pages, reporter):
    """Where health costs an inference, it is not health that shows that the engine was away."""
    engine = pages({"/health": "", "/metrics": golden("sglang_metrics.txt"), "/v1/models": MODELS})
    one = reporter(engine="sglang", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    watcher = redis_server.client.pubsub()
    ttl = until(lambda: report_of(redis_server, "e"), "it is reported")["ttl_ms"]
    engine.stop()
    one.wait_said("trying again")
    until(lambda: redis_server.client.pttl("llm:engine:e") < ttl - 1000, "nothing is said any more")
    engine.pages["/v1/models"] = MODELS.replace('"m"', '"other"')
    last = report_of(redis_server, "e")["seq"]
    watcher.subscribe("llm:engines")
    engine.start()
    until(lambda: (report_of(redis_server, "e") or {"seq": 0})["seq"] > last + 1, "it is reported")
    assert one.stop() == 0
    models = set()
    while message := watcher.get_message(ignore_subscribe_messages=False, timeout=0.5):
        if message["type"] == "message":
            models.update(json.loads(message["data"])["models"])
    watcher.close()
    assert models == {"other"}


def test_another_trouble_with_redis_is_told_too(redis_server, pages, reporter):
    """Else the log goes on naming a password that was set right long ago, while it is the network that fails."""
    engine = pages({"/health": "", "/metrics": vllm(), "/v1/models": MODELS})
    one = reporter(engine="vllm", url=engine.url, redis=redis_server.url, arguments=["--id", "e"])
    until(lambda: report_of(redis_server, "e"), "it is reported")
    redis_server.client.config_set("requirepass", "secret")
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    one.wait_said("Redis is not reachable.*NOAUTH")
    redis_server.stop()
    one.wait_said("NOAUTH.*\n.*Redis is not reachable.*refused")
    redis_server.start()
    one.wait_said("Redis is reachable")
    assert one.output().count("NOAUTH") == 1, one.output()
