"""nginx -t: a wrong value names the directive, the file and the line; a right one passes."""

import re
import subprocess

import pytest

from support import sanitizers
from support.client import chat_body
from support.nginx import fill
from support.page_size import pages_of_64_kib
from support.paths import CONF, MODULE, nginx_version
from support.poll import until

WRONG = [
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1;"),
    ("http", "llm_engine", "llm_engine ftp://127.0.0.1:1 model=m;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m max_running=many;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m max_running=0;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m colour=red;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m key=file:/does/not/exist;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m key=;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=m 'key=two words';"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=a model=b;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=a,a;"),
    ("http", "llm_engine", "llm_engine http://unix:sock model=a;"),
    ("http", "llm_engine", "llm_engine http://127.0.0.1:1 model=a backup backup;"),
    ("http", "llm_engine", f"llm_engine http://127.0.0.1:{'0' * 300}1 model=a id=long;"),
    ("http", "llm_engine", f"llm_engine http://127.0.0.1:{'0' * 150}1 model=a;"),
    ("http", "llm_priority_db", "llm_priority_db postgresql://x/y refresh=1s refresh=2s;"),
    ("http", "llm_priority_db", "llm_priority_db mysql://x;"),
    ("http", "llm_priority_db", "llm_priority_db file:/does/not/exist;"),
    ("http", "llm_priority_db", "llm_priority_db postgresql://x/y refresh=never;"),
    ("http", "llm_redis", "llm_redis http://127.0.0.1;"),
    ("http", "llm_redis", "llm_redis redis://127.0.0.1:99999/0;"),
    ("http", "llm_redis", "llm_redis redis://127.0.0.1:1/0 suffix=x;"),
    ("http", "llm_scheduler", "llm_scheduler fair;"),
    ("http", "llm_aging", "llm_aging sometimes;"),
    ("http", "llm_min_throughput", "llm_min_throughput fast;"),
    ("http", "llm_min_throughput", "llm_min_throughput -1;"),
    ("http", "llm_min_throughput", f"llm_min_throughput 1 model={'m' * 256};"),
    ("http", "llm_min_throughput", "".join(f"llm_min_throughput 1 model=m{number};" for number in range(65))),
    ("http", "llm_queue_size", "llm_queue_size 0x10;"),
    ("http", "llm_queue_size", "llm_queue_size 100000000;"),
    ("http", "llm_threshold_scope", "llm_threshold_scope everybody;"),
    ("http", "llm_routing", "llm_routing best;"),
    ("http", "llm_client_priority", "llm_client_priority raise;"),
    ("location", "llm_queue_timeout", "llm_queue_timeout long;"),
    ("location", "llm_dispatch", "llm_dispatch maybe;"),
    ("location", "llm_retries", "llm_retries -1;"),
    ("location", "llm_retries", "llm_retries x;"),
    ("location", "llm_engine_priority", "llm_engine_priority sglang;"),
    ("location", "llm_usage_inject", "llm_usage_inject maybe;"),
    ("location", "llm_queue_keepalive", "llm_queue_keepalive often;"),
    ("location", "llm_compat", "llm_compat other;"),
    ("location", "llm_observe", "llm_observe maybe;"),
    ("locations", "llm_status", "location /s/ { llm_status everybody; }"),
    ("http", "llm_redis", "llm_redis redis://127.0.0.1:1/0; llm_redis redis://127.0.0.1:1/0;"),
    ("http", "llm_redis", "llm_redis redis://nowhere.invalid;"),
    ("http", "llm_priority_db", "llm_priority_db postgresql://nowhere.invalid/x;"),
    ("http", "llm_priority_db", "llm_priority_db postgresql://x/y grace=99999999999d;"),
    ("http", "llm_usage", "llm_usage on;"),
    ("http", "llm_usage", "llm_usage yes;"),
    ("http", "llm_usage", "llm_usage postgresql://127.0.0.1/x?colour=red;"),
    ("http", "llm_usage", "llm_usage postgresql://nowhere.invalid/x;"),
    ("http", "llm_balance", "upstream other { server 127.0.0.1:1; llm_balance; }"),
]


@pytest.mark.parametrize("block,directive,text", WRONG, ids=[text for _, _, text in WRONG])
def test_wrong_values_are_refused(nginx, block, directive, text):
    if directive == "llm_dispatch":
        gate = nginx(start=False, locations="location /x/ { %s }" % text)
    else:
        gate = nginx(start=False, **{block: text})
    status, output = gate.test_conf()
    assert status != 0, output
    line = next(number for number, there in enumerate(gate.conf.read_text().splitlines(), 1) if text in there)
    assert re.search(r"\[emerg\].*" + directive + rf".* in \S+nginx\.conf:{line}$", output, re.MULTILINE), output


@pytest.mark.parametrize("parameters", ["model=mod\xe8le", "model=m id=mod\xe8le"], ids=["model", "id"])
def test_names_are_utf_8(nginx, tmp_path, parameters):
    """They are the labels of metrics, and Prometheus refuses a page for one that is not."""
    for encoding, refused in (("latin-1", 1), ("utf-8", 0)):
        (tmp_path / "engines.conf").write_text(f"llm_engine http://127.0.0.1:1 {parameters};", encoding=encoding)
        status, output = nginx(start=False, http=f"include {tmp_path}/engines.conf;").test_conf()
        assert (status, "of UTF-8" in output) == (refused, bool(refused)), output


def test_a_password_in_an_engines_url_is_not_shown(nginx):
    gate = nginx(start=False, http="llm_engine http://user:pass-word@127.0.0.1:1 model=m;")
    status, output = gate.test_conf()
    assert status != 0 and "expected http(s)://host[:port] and key=" in output
    assert "pass-word" not in output


def test_a_repeated_key_is_refused_without_showing_it(nginx):
    gate = nginx(start=False, http="llm_engine http://127.0.0.1:1 model=m key=sk-first key=sk-second;")
    status, output = gate.test_conf()
    assert status != 0 and 'the parameter "key" may be given once' in output
    assert "sk-" not in output


@pytest.mark.skipif(nginx_version() >= (1, 29, 7), reason="nginx sets keepalive up after all balancers, whatever the order")
def test_keepalive_before_the_balancer_is_refused(nginx):
    status, output = nginx(start=False, http="upstream other { keepalive 4; llm_balance; }").test_conf()
    assert status != 0
    assert re.search(r"\[emerg\].*llm_balance.* in \S+nginx\.conf:\d+", output), output


@pytest.mark.parametrize("text,beside", [("llm_balance; server 127.0.0.1:1;", "server"), ("zone other 64k; llm_balance;", "zone"),
                                         ("llm_balance; zone other 64k;", "zone")])
def test_what_cannot_stand_beside_the_balancer(nginx, text, beside):
    """With `zone` nginx crashed."""
    status, output = nginx(start=False, http=f"upstream other {{ {text} }}").test_conf()
    assert status == 1
    assert re.search(rf'\[emerg\].*"other" in \S+nginx\.conf:\d+: "{beside}" is not allowed beside "llm_balance"', output), output


@pytest.mark.parametrize("size", ["1k", "x", ""])
def test_wrong_zone_sizes_are_refused(nginx, size):
    status, output = nginx(start=False, zone=size).test_conf()
    assert status != 0
    assert "llm_zone" in output or '"llm"' in output, output


@pytest.mark.skipif(sanitizers.ACTIVE, reason="their runtime must be loaded first")
def test_pages_of_64_kib(nginx, gateway, fake_engine, tmp_path):
    """The smallest zone that is allowed serves there as well."""
    def smallest(**keywords):
        status, output = nginx(start=False, zone="1k", **keywords).test_conf()
        assert status == 1
        return int(re.search(r'expected at least (\d+)k', output)[1])

    large_pages = pages_of_64_kib(tmp_path)
    size = smallest(env=large_pages)
    assert size > smallest(), "more goes to what nginx puts in front of the zone"
    gate = gateway([fake_engine()], zone=f"{size}k", env=large_pages)
    for content in ("short", "x" * 300_000):
        assert gate.client.ask(chat_body(content=content, stream=True), token="alice").status == 200
    gate.reload()
    assert gate.client.ask(chat_body(), token="alice").status == 200


RIGHT = [
    ("http", "llm_engine http://[::1]:8000 model=a,b id=x max_running=5 org=cs backup;"),
    ("http", "llm_redis rediss://user:pw@127.0.0.1:6380/2 prefix=p:;"),
    ("http", "llm_redis unix:/tmp/none.sock;"),
    ("http", "llm_scheduler strict; llm_aging off; llm_min_throughput 20; llm_queue_size 100; llm_threshold_scope queue;"),
    ("http", "llm_scheduler weighted; llm_aging 45s; llm_min_throughput 20 model=a; llm_min_throughput 10.5;"),
    ("http", "llm_routing prefix; llm_client_priority ignore;"),
    ("http", "llm_queue_timeout 5s; llm_retries 0; llm_dispatch off; llm_compat off; llm_observe off;"),
    ("location", "llm_queue_timeout 1m; llm_retries 3;"),
    ("location", "llm_model $arg_model;"),
    ("location", "llm_engine_priority vllm; llm_usage_inject on; llm_queue_keepalive 10s; llm_compat aristote; llm_observe on;"),
    ("locations", "location /r/ { llm_status readonly; } location /s/ { llm_status; }"),
]


@pytest.mark.parametrize("block,text", RIGHT, ids=[text for _, text in RIGHT])
def test_right_values_pass(nginx, block, text):
    status, output = nginx(start=False, **{block: text}).test_conf()
    assert status == 0, output


@pytest.mark.parametrize("beside,warned", [("proxy_cache c;", True), ("proxy_cache c; proxy_buffering on;", False), ("", False)])
def test_a_cache_that_keeps_nothing_is_told(nginx, tmp_path, beside, warned):
    """Nothing said that llm_dispatch takes the buffering which nginx's cache needs."""
    http = f"proxy_cache_path {tmp_path}/cache keys_zone=c:1m;"
    for block in ({"http": http, "location": beside}, {"http": http + beside}):
        status, output = nginx(start=False, **block).test_conf()
        assert status == 0
        assert bool(re.search(r'\[warn\] .*"proxy_cache" keeps nothing in location "/v1/"', output)) == warned, output
    status, output = nginx(start=False, http=http + "proxy_cache c;", location="proxy_cache off;").test_conf()
    assert status == 0 and "keeps nothing" not in output


@pytest.mark.parametrize("engines,models", [(100, 1), (1, 64)])
def test_more_engines_or_models_than_the_zone_holds(nginx, engines, models):
    """None of them was there, which only the error log said."""
    names = ",".join(f"m{number}" for number in range(models))
    lines = " ".join(f"llm_engine http://127.0.0.1:{number} model={names};" for number in range(1, engines + 1))
    status, output = nginx(start=False, zone="1m", http=lines).test_conf()
    assert status == 1
    assert re.search(rf'\[emerg\].*"llm_engine": {engines} engines of {models} models are more than', output), output


def test_start_says_what_the_zone_holds(nginx):
    gate = nginx(start=False, zone="16m")
    status, output = gate.test_conf()
    assert status == 0
    # nginx -t logs where the configuration says, once it has read it
    assert re.search(r"\d+ clients.*\d+ requests", output + gate.error_log()), output


def test_sample_nginx_conf_passes(nginx, tmp_path):
    """conf/nginx.conf as it is, but for paths that this machine or user may lack."""
    gate = nginx(start=False)
    text = (CONF / "nginx.conf").read_text()
    for path, here in {"modules/ngx_http_llm_dispatch_module.so": f'"{MODULE}"', "/var/log/nginx": tmp_path, "/run/nginx.pid": tmp_path / "pid",
                       "file:/etc/nginx/llm-tokens.json": f'"file:{CONF / "llm-tokens.json"}"', "user www-data;": ""}.items():
        assert path in text, path
        text = text.replace(path, str(here))
    temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = text.replace("http {", "http { " + temporary)
    gate.write_conf = lambda: gate.conf.write_text(text)
    status, output = gate.test_conf()
    assert status == 0, output


def test_user_directives_win_over_the_proxy_defaults(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], location="proxy_set_header X-Mine yes; proxy_set_header User-Agent mine; proxy_http_version 1.1;")
    assert gate.client.ask(token="alice").status == 200
    request = engine.requests[0]
    assert request.header("x-mine") == "yes" and request.header("user-agent") == "mine"
    assert request.header("authorization") is None


def test_balancer_without_dispatch_is_500_and_a_log_line(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="location /plain/ { proxy_pass http://llm_engines; }")
    assert gate.client.ask(token="alice", target="/plain/x").status == 500
    gate.wait_logged("llm_dispatch")


def test_placeholders_leave_nginx_variables_alone():
    assert fill("a { b ${c} {d} $e; }", {"d": 1}) == "a { b ${c} 1 $e; }"


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0, reason="needs a file system of its own")
def test_localhost_is_the_address_where_engines_listen(redis_server, fake_engine, gateway, tmp_path):
    """As many machines have it, it is ::1 as well, and first."""
    engine = fake_engine()
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 localhost ip6-localhost\n127.0.0.1 localhost\n::1 only6\n")
    gate = gateway(http=f"llm_engine http://localhost:{engine.port} model=m id=both; llm_engine http://only6:{engine.port} model=other id=six;"
                        f"llm_redis redis://localhost:{redis_server.port};", start=False)
    argv = gate._argv
    gate._argv = lambda: ["unshare", "-m", "bash", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "-", *argv()]
    gate.start()
    assert [gate.client.ask(token="alice").status for _ in range(2)] == [200] * 2
    assert gate.client.ask(chat_body("other"), token="alice").status == 502, "a name of IPv6 only stays one"
    until(lambda: gate.status()["sources"]["redis"]["up"], gate.error_log)
    assert "(keys)" not in gate.error_log(), "Redis was reached at once"
