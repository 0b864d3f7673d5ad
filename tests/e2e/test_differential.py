"""
"Clients notice nothing": random traffic through the gateway and through nginx's own proxy_pass, with the same settings, to the
same engine. What engines get and what clients see must be the same but for what the gateway adds and takes.

DIFFERENTIAL_CASES in the environment says how many connections are tried, DIFFERENTIAL_SEED which; DIFFERENTIAL_ONLY runs one
case of them. A failure prints the seed and the numbers of its cases.
"""

import json
import os
import random
import subprocess
import threading
import traceback

import pytest

from support import random_traffic
from support.differential import ScriptedEngine, compare_answers, compare_requests, http1, http2
from support.nginx import Nginx
from support.paths import nginx_version, program
from support.poll import until
from support.ports import free_port
from support.random_traffic import STRIPPED, TOKEN
from support.users import user, write_tokens

CASES = int(os.environ.get("DIFFERENTIAL_CASES", "200"))
SEED = os.environ.get("DIFFERENTIAL_SEED", "1")
ONLY = os.environ.get("DIFFERENTIAL_ONLY")
PAIRS = 4
HOLDING = ("gzip", "gunzip", "sub_filter", "ssi", "charset", "addition", "postpone")  # filters that hold back what they are not sure of


def lacking():
    """Names of directives that this nginx was built without."""
    said = subprocess.run([program("nginx"), "-V"], capture_output=True, text=True, check=True).stderr
    options = {"sub_filter": "http_sub_module", "gunzip": "http_gunzip_module", "addition_types": "http_addition_module",
               "auth_request": "http_auth_request_module", "aio threads": "--with-threads"}
    return [name for name, option in options.items() if option not in said]


def wants_usage(body):
    return bool((json.loads(body).get("stream_options") or {}).get("include_usage"))


class Pair:
    """Two servers with the same settings, one that dispatches ("g") and a plain one ("p"), and their engine."""

    def __init__(self, number, engine, draw, lacking):
        self.number = number
        self.engine = engine
        self.model = engine.models[0]
        self.server, self.location, self.keepalive, self.own = random_traffic.settings(draw, lacking)
        self.ports = {side + version: free_port() for side in "pg" for version in "12"}

    def conf(self):
        """Directives for http."""
        keepalive = f"keepalive {self.keepalive}; keepalive_timeout 4s;" if self.keepalive else ""
        stripped = "".join(f'proxy_set_header {name} ""; ' for name in ("Authorization", "Connection", *STRIPPED))
        plain = f"proxy_set_header Host 127.0.0.1:{self.engine.port}; {stripped} proxy_read_timeout 600s; " \
                "proxy_next_upstream error timeout invalid_header non_idempotent;"
        for name, value in (("proxy_http_version", "1.1"), ("proxy_ignore_headers", "X-Accel-Redirect X-Accel-Limit-Rate X-Accel-Charset"), ("proxy_buffering", "off")):
            plain += "" if name in self.location else f" {name} {value};"
        text = f"""
        upstream plain{self.number} {{ server 127.0.0.1:{self.engine.port}; {keepalive} }}
        upstream gate{self.number} {{ llm_balance; {keepalive} }}
        llm_engine {self.engine.url} model={self.model} id=engine{self.number};"""
        for side, name, first in (("p", "plain", plain), ("g", "gate", f"llm_dispatch on; {self.own}")):
            text += f"""
        server {{
            listen 127.0.0.1:{self.ports[side + '1']};
            listen 127.0.0.1:{self.ports[side + '2']} http2;
            client_max_body_size 8m;
            port_in_redirect off;
            {self.server}
            location /v1/     {{ {first} {self.location} proxy_pass http://{name}{self.number}; }}
            location = /probe {{ return 200 "probe"; }}
            location = /auth  {{ internal; return 204; }}
            location = /mirror {{ internal; return 204; }}
        }}"""
        return text

    def run(self, case):
        """Complaints about one case: a connection to each server with the same requests."""
        draw = random.Random(f"{SEED}:{case}")
        second = draw.random() < 0.2  # HTTP/2
        count = draw.choice([1, 1, 1, 2, 4])
        asks = [random_traffic.ask(draw, self.model, second) for _ in range(count)]
        mishap = draw.randrange(count)
        answers = [random_traffic.answer(draw, number != mishap, second) for number in range(count)]
        answers = [random_traffic.without_body(answer) if ask.method == "HEAD" else answer for ask, answer in zip(asks, answers)]
        cuts = draw.randrange(1 << 30)
        seen, again = {}, {}
        for side in "pg":
            names = [f"{case}.{number}{side}" for number in range(count)]
            self.engine.answers.update(zip(names, answers))
            if second:
                seen[side] = http2(self.ports[side + "2"], asks, [name.encode() for name in names])
            else:
                wire = b"".join(ask.wire().replace(b"{case}", name.encode(), 1) for ask, name in zip(asks, names))
                pieces = random_traffic.split(random.Random(cuts), wire)
                seen[side], again[side] = http1(self.ports[side + "1"], pieces, [ask.method for ask in asks])
        self.close_breaker()
        complaints = []
        # an answer before the end of a request that nginx passes on as it comes ends the connection
        unread = "proxy_request_buffering off" in self.location and any(answer.early for answer in answers)
        if unread:
            for some in seen.values():
                del some[1 + [answer.early for answer in answers].index(True):]
        fewer = min(seen.values(), key=len)
        if len(seen["p"]) != len(seen["g"]) and fewer[-1].end in ("length", "chunked", "none", "hangs"):
            complaints.append(f"{len(seen['p'])} answers, {len(seen['g'])} from the gateway, the last {fewer[-1]}"[:1000])
        cut = unread or any(answer.end == "rst" for answer in answers) or not seen["g"][-1].whole()
        if again.get("p") != again.get("g") and not cut:
            complaints.append(f"whether the connection can be used again: {again['p']}, {again['g']} the gateway's, {seen['g'][-1].line}")
        for number, (plain, gate) in enumerate(zip(seen["p"], seen["g"])):
            ask, answer = asks[number], answers[number]
            plain_got, gate_got = (self.engine.got.pop(f"{case}.{number}{side}", []) for side in "pg")
            injected = ask.stream and any(one.body not in (None, ask.body) and wants_usage(one.body) and not wants_usage(ask.body)
                                          for one in gate_got)
            found = [compare_answers(plain, gate, answer, ask, injected=injected, reached=bool(plain_got), last=number == count - 1,
                                     holding=any(name in self.location for name in HOLDING))]
            if ask.broken is None or ask.broken.startswith(b"0"):
                found.append(compare_requests(plain_got, gate_got, gate, answer, ask, self.own))
            complaints += [f"request {number} of {count}, HTTP/{2 if second else ask.version}, {ask.method} {ask.path[:80]}: {one}\n"
                           f"   {answer}\n   {ask.headers}"[:4000] for one in found if one]
        return complaints

    def close_breaker(self):
        """A good answer."""
        body = b'{"model":"%s"}' % self.model.encode()
        head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        until(lambda: http1(self.ports["g1"], [head + body], ["POST"])[0][0].status == 200, "the engine answers again", 30)


@pytest.mark.skipif(nginx_version() >= (1, 23), reason="what proxy_pass does with odd answers differs from version to version")
def test_clients_notice_nothing(tmp_path):
    print(f"DIFFERENTIAL_SEED={SEED}")
    draw = random.Random(f"settings {SEED}")
    engines = [ScriptedEngine(models=[f"m{number}"]) for number in range(PAIRS)]
    pairs = [Pair(number, engine, draw, lacking()) for number, engine in enumerate(engines)]
    write_tokens(tmp_path / "tokens.json", [user(TOKEN)])
    gate = Nginx(tmp_path / "nginx", template="differential.conf", workers=draw.choice([1, 4]),
                 http=f"llm_priority_db file:{tmp_path}/tokens.json;" + "".join(pair.conf() for pair in pairs))
    found = []

    def work(pair):
        for case in range(pair.number, CASES, PAIRS):
            if ONLY and case != int(ONLY):
                continue
            try:
                complaints = pair.run(case)
            except Exception:  # of the test's own: the other cases go on
                complaints = [traceback.format_exc()]
            found.extend(f"case {case}: {complaint}\n   {pair.server} | {pair.location} | keepalive {pair.keepalive} | {pair.own}"
                         for complaint in complaints)

    threads = [threading.Thread(target=work, args=(pair,)) for pair in pairs]
    for engine in engines:
        engine.start()
    try:
        gate.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gate.finish()  # nothing is held, no alert
    finally:
        gate.kill()
        for engine in engines:
            engine.stop()
    assert not any(engine.problems for engine in engines), [engine.problems for engine in engines]
    assert not found, f"{len(found)} differences, seed {SEED}:\n" + "\n\n".join(found)
