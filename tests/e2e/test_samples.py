"""The samples of conf/: each file as it stands there, but for addresses and paths, in front of engines, doing what it says."""

import itertools
import json
import os
import pathlib
import re
import subprocess

import pytest

from support.client import Client, chat_body
from support.errors import assert_error
from support.paths import CONF, MODULE
from support.poll import stays, until
from support.ports import free_port
from support.traffic import Plan, Traffic
from support.users import user, write_tokens

SAMPLES = CONF / "samples"


@pytest.fixture
def sample(tmp_path, gateway):
    """Factory: a gateway that includes a sample of conf/samples beside the engines, and its client. `here`: {text: what stands for it}."""

    def make(name, engines, users=(user("alice"),), here=(), **keywords):
        port = free_port()
        text = (SAMPLES / name).read_text()
        for there, instead in {"listen 8080;": f"listen 127.0.0.1:{port};", **dict(here)}.items():
            assert there in text, f"{name} has no {there!r}"
            text = text.replace(there, str(instead))
        copy = tmp_path / name
        copy.write_text(text)
        gate = gateway(engines, users, http=f"include {copy};", **keywords)
        return gate, Client(port)

    return make


@pytest.fixture(scope="module")
def provider_certificate(tmp_path_factory):
    """(authority, certificate, key): an authority of its own, and what it has signed for api.provider.example."""
    home = tmp_path_factory.mktemp("provider")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=home)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=an authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api.provider.example", "-keyout", "key.pem", "-out", "request.pem")
    (home / "names").write_text("subjectAltName=DNS:api.provider.example\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "cert.pem")
    return home / "ca.pem", home / "cert.pem", home / "key.pem"


def provider_sample(sample, tmp_path, engine, provider, authority, **keywords):
    key = tmp_path / "provider-key.conf"
    key.write_text('map "" $provider_key { default sk-of-the-provider; }\n')
    return sample("fallback-provider.conf", [engine], here={
        "llm_queue_timeout 5s;": "llm_queue_timeout 300ms;", "/etc/nginx/provider-key.conf": key,
        "proxy_pass https://api.provider.example;": f"proxy_pass https://127.0.0.1:{provider.port};",
        "/etc/ssl/certs/ca-certificates.crt": authority}, **keywords)


def test_fallback_to_a_provider(sample, fake_engine, tmp_path, provider_certificate):
    authority, certificate, key = provider_certificate
    engine, provider = fake_engine(max_running=1), fake_engine()
    provider.serve_tls(certificate, key)
    gate, client = provider_sample(sample, tmp_path, engine, provider, authority)
    running = engine.occupy(client, token="alice")
    for stream in (False, True):
        body = chat_body(content="overflow", stream=stream)
        reply = client.ask(body, token="alice", headers=[("api-key", "secret"), ("x-api-key", "secret")])
        assert reply.status == 200 and reply.complete and reply.text() == "hello from the engine"
        assert reply.header("x-served-by") == "provider"
        sent = provider.requests[-1]
        assert sent.body == body and sent.target == "/v1/chat/completions"
        assert sent.header("authorization") == "Bearer sk-of-the-provider" and sent.header("host") == "api.provider.example"
        assert "secret" not in str(sent.headers) and "alice" not in str(sent.headers)
    assert_error(client.ask(token="nobody"), 401, "invalid_api_key")  # strangers do not spend the provider's money
    assert len(provider.requests) == 2
    engine.open_gate()
    assert running.reply().status == 200
    reply = client.ask(token="alice")
    assert reply.status == 200 and reply.header("x-served-by") is None, "there is room again"
    gate.wait_held(0)


def test_fallback_to_a_provider_checks_its_certificate(sample, fake_engine, tmp_path, provider_certificate):
    engine, provider = fake_engine(max_running=1), fake_engine()
    _, certificate, key = provider_certificate
    provider.serve_tls(certificate, key)
    gate, client = provider_sample(sample, tmp_path, engine, provider, "/etc/ssl/certs/ca-certificates.crt")
    running = engine.occupy(client, token="alice")
    assert client.ask(token="alice").status == 502
    gate.wait_logged("certificate verify error")
    assert not provider.requests
    engine.open_gate()
    assert running.reply().status == 200


def test_fallback_to_a_smaller_model(sample, fake_engine):
    large, small = fake_engine(models=("llama-3.1-70b",), max_running=1), fake_engine(models=("llama-3.1-8b",), max_running=1)
    gate, client = sample("fallback-model.conf", [large, small], here={"llm_queue_timeout 10s;": "llm_queue_timeout 300ms;"})
    running = [large.occupy(client, chat_body("llama-3.1-70b"), token="alice")]
    reply = client.ask(chat_body("llama-3.1-70b"), token="alice")
    assert reply.status == 200 and small.requests[0].json()["model"] == "llama-3.1-8b"
    # a model that has no smaller one is refused as ever
    running.append(small.occupy(client, chat_body("llama-3.1-8b"), token="alice"))
    assert_error(client.ask(chat_body("llama-3.1-8b"), token="alice"), 429, "queue_timeout")
    for engine in (large, small):
        engine.open_gate()
    assert [one.reply().status for one in running] == [200] * 2
    assert gate.queued() == 0


def test_canary(sample, fake_engine):
    now, after = fake_engine(models=("llama-3.1-8b", "m")), fake_engine(models=("llama-3.1-8b-next",))
    names = [f"client{number}" for number in range(200)]
    gate, client = sample("canary.conf", [now, after], [user(name) for name in names])
    for name in names:
        assert client.ask(chat_body("llama-3.1-8b", content=name), token=name).status == 200
    chosen = set(after.contents())
    assert 0 < len(chosen) < 40, "about five of a hundred"
    assert all(request.json()["model"] == "llama-3.1-8b-next" for request in after.requests)
    assert set(now.contents()) == set(names) - chosen
    for name in sorted(chosen):  # the same clients again; other models are left alone
        assert client.ask(chat_body("llama-3.1-8b", content=name), token=name).status == 200
        assert client.ask(chat_body("m", content="other"), token=name).status == 200
    assert sorted(after.contents()) == sorted([*chosen] * 2)
    until(lambda: gate.metrics().total("llm_requests_total", model="llama-3.1-8b-next") == 2 * len(chosen), "all are counted")


def test_shadow(sample, fake_engine):
    engine, shadow = fake_engine(), fake_engine()
    shadow.hold()
    _, client = sample("shadow.conf", [engine], here={"http://10.0.0.9:8000": shadow.url, "10%": "50%"})
    bodies = [chat_body(content=f"r{number}") for number in range(40)]
    for body in bodies:  # each answered although the shadow answers nothing
        assert client.ask(body, token="alice", headers=[("x-api-key", "secret"), ("Connection", "close")]).status == 200
    assert len(engine.requests) == 40
    assert 5 < len(shadow.wait_requests(6)) < 35
    assert {request.body for request in shadow.requests} <= set(bodies)
    assert all(request.target == "/v1/chat/completions" for request in shadow.requests)
    assert "alice" not in str([request.headers for request in shadow.requests]) and "secret" not in str([request.headers for request in shadow.requests])
    shadow.open_gate()


def test_response_cache(sample, fake_engine, tmp_path):
    engine = fake_engine()
    # a path of a socket has 107 bytes at most
    socket = f"unix:/tmp/llm-e2e-{os.getpid()}-{free_port()}.sock"
    _, client = sample("response-cache.conf", [engine], [user("alice"), user("bob")],
                       here={"/var/lib/nginx/llm-cache": tmp_path / "cache", "unix:/run/nginx-llm.sock": socket})
    counter = itertools.count()

    def ask(token="alice", **more):
        reply = client.ask(chat_body(**more), token=token)
        assert reply.status == 200
        return reply, reply.header("x-cache")

    first, missed = ask(temperature=0)
    again, hit = ask(temperature=0)
    assert (missed, hit) == ("MISS", "HIT") and again.body == first.body and len(engine.requests) == 1
    assert ask("bob", temperature=0)[1] == "MISS", "each client its own"
    assert ask(temperature=0, content="another")[1] == "MISS"
    for more in ({"temperature": 0.7}, {}):
        for _ in range(2):
            assert ask(content=f"c{next(counter)}", **more)[1] == "BYPASS"
    seen = len(engine.requests)
    assert_error(client.ask(chat_body(temperature=0), token="nobody"), 401, "invalid_api_key")
    assert_error(client.ask(chat_body(temperature=0)), 401, "invalid_api_key")
    for _ in range(2):  # streams pass as they come
        reply = client.ask(chat_body(temperature=0, stream=True), token="alice")
        assert reply.status == 200 and reply.events()[-1] == "[DONE]"
    assert len(engine.requests) == seen + 2


def run_script(name, *arguments, timeout=60):
    return subprocess.run([SAMPLES / name, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=timeout)


def test_upgrade_the_module_under_load(fake_engine, gateway):
    gate = gateway([fake_engine()], [user("alice", threshold=1000)], workers=2, daemon=True)
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body(stream=True)), outstanding=4).start()
    until(lambda: len(traffic.results) >= 20, "traffic flows")
    old = gate.pid
    gate.adopt_after(lambda: run_script("upgrade-module.sh", gate.directory / "nginx.pid"), f"nginx \\d+ has taken over from {old}\n")
    assert gate.pid != old
    mark = len(traffic.results)
    until(lambda: len(traffic.results) >= mark + 20, "traffic goes on")
    failed = [fate for fate in traffic.stop() if not fate.ok]
    assert not failed, failed[:3]


def test_upgrade_that_cannot_start_changes_nothing(fake_engine, gateway):
    gate = gateway([fake_engine()], workers=2, daemon=True)
    gate.allow(r"\[emerg\].*llm_queue_timeout")
    gate.blocks["location"] = "llm_queue_timeout soon;"
    gate.write_conf()
    script = (SAMPLES / "upgrade-module.sh").read_text()
    copy = gate.directory / "upgrade.sh"
    copy.write_text(re.sub("-ge 100", "-ge 20", script))
    done = subprocess.run(["sh", copy, gate.directory / "nginx.pid"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "the old one still serves" in done.stderr
    assert gate.client.ask(token="alice").status == 200


def test_upgrade_of_an_nginx_that_cannot_find_itself(tmp_path):
    """Started as "nginx", it would look for a file of that name where it was started; it must not even be asked."""
    master = subprocess.Popen(["nginx: master process nginx", "60"], executable="/bin/sleep")
    try:
        until(lambda: pathlib.Path(f"/proc/{master.pid}/cmdline").read_bytes().startswith(b"nginx:"), "it has its name")
        (tmp_path / "nginx.pid").write_text(f"{master.pid}\n")
        done = run_script("upgrade-module.sh", tmp_path / "nginx.pid")
        assert done.returncode == 1 and 'started as "nginx 60 "' in done.stderr and "/usr/sbin/nginx" in done.stderr, done
        assert master.poll() is None, "USR2 ended it"
    finally:
        master.kill()
        master.wait()


def test_the_complete_sample_in_front_of_an_engine(nginx, fake_engine, tmp_path):
    """conf/nginx.conf with its own log format, token file and static engine, serving."""
    engine = fake_engine(models=("llama-3.1-8b",))
    tokens = write_tokens(tmp_path / "tokens.json", json.loads((CONF / "llm-tokens.json").read_text())["users"])
    gate = nginx(start=False)
    text = (CONF / "nginx.conf").read_text()
    for path, here in {"modules/ngx_http_llm_dispatch_module.so": f'"{MODULE}"', "/var/log/nginx": tmp_path, "/run/nginx.pid": tmp_path / "pid",
                       "/etc/nginx/llm-tokens.json": tokens, "user www-data;": "daemon off;" + gate.blocks["main"],
                       "worker_processes auto;": "worker_processes 4;", "worker_rlimit_nofile 65536;": "",
                       "worker_connections 16384": "worker_connections 512", "llm_zone llm 64m": "llm_zone llm 8m",
                       "http://127.0.0.1:8000": engine.url, "listen 8080;": f"listen 127.0.0.1:{gate.port};"}.items():
        assert path in text, path
        text = text.replace(path, str(here))
    temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = text.replace("http {", "http { " + temporary)
    gate.write_conf = lambda: gate.conf.write_text(text)
    gate.start()
    assert gate.client.ask(chat_body("llama-3.1-8b", stream=True), token="sk-demo-standard").complete
    assert_error(gate.client.ask(chat_body("llama-3.1-8b"), token="stranger"), 401, "invalid_api_key")
    assert gate.client.get("/health/readiness").status == 200
    log = tmp_path / "llm.log"
    until(lambda: log.exists() and "client=standard model=llama-3.1-8b" in log.read_text(), "the access log has its line")
    stays(lambda: "sk-demo" not in log.read_text() + gate.error_log(), "no token in a log", 0.05)
