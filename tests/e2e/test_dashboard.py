"""The dashboard in a real browser: what it shows is what status.json says, and its buttons do what they say."""

import json

import pytest
import redis

from support.client import chat_body
from support.fake_engine import leave_to_successor
from support.poll import until
from support.users import user

HTML = "<img src=x onerror=alert(1)><b>bold</b>"

# What the page shows, read back from its elements.
SHOWN = """(() => {
  const fields = e => Object.fromEntries([...e.querySelectorAll("[data-field]")].map(f => [f.dataset.field, f.textContent]));
  const all = (selector, key) => Object.fromEntries([...document.querySelectorAll(selector)].map(e => [e.dataset[key], fields(e)]));
  return { tiles: all("[data-tile]", "tile"), models: all("[data-model]", "model"), engines: all("[data-engine]", "engine"),
           clients: all("tr[data-client]", "client"), waiting: all("#models tr[data-request]", "request"),
           running: all("#running tr[data-request]", "request") };
})()"""


def selector(name, value, rest=""):
    return f"[data-{name}={json.dumps(value)}]{rest}"


def busy(gate, engine, waiting):
    """One request runs, the others wait in this order; returns all."""
    pending = [engine.occupy(gate.client, chat_body(engine.models[0], content="first"), token=waiting[0])]
    for number, token in enumerate(waiting, 1):
        pending.append(gate.client.send(chat_body(engine.models[0], content=f"w{number}"), token=token))
        gate.wait_queued(number)
    return pending


def open_dashboard(browser, gate, path="/llm/"):
    browser.look(width=1280)
    browser.open(f"http://127.0.0.1:{gate.port}{path}")
    browser.wait("document.body.dataset.state === 'good'", "the page is live")


def test_shows_what_the_status_says(fake_engine, gateway, browser):
    engine = fake_engine(max_running=1)
    idle = fake_engine(models=("other",), max_running=7)
    gate = gateway([engine, idle], [user("alice", name="Alice", priority=3, organization="cs"), user("bob", name="Bob", priority=9)])
    pending = busy(gate, engine, ["alice", "bob", "alice"])
    open_dashboard(browser, gate)
    browser.wait("document.querySelectorAll('#models tr[data-request]').length === 3")
    status = gate.status()
    shown = browser.run(SHOWN)

    assert shown["tiles"]["queued"]["value"] == str(status["totals"]["queued"]) == "3"
    assert shown["tiles"]["held"]["value"] == str(status["totals"]["held"]) == "1"
    assert shown["tiles"]["engines"]["value"] == "2 of 2"
    for model in status["models"]:
        row = shown["models"][model["name"]]
        assert (row["queued"], row["running"], row["desired"]) == tuple(str(model[key]) for key in ("queued", "running", "desired_engines"))
        assert row["state"] == f"{model['engines_usable']} of {model['engines']} engine"
    for one in status["engines"]:
        row = shown["engines"][one["id"]]
        assert (row["held"], row["limit"], row["state"]) == (str(one["held"]), str(int(one["limit"])), "ready")
        assert row["models"] == ", ".join(one["models"]) and row["served"] == str(one["served"])
        assert row["age"] == "never" and one["report_age_ms"] is None
    for client in status["clients"]:
        row = shown["clients"][client["name"]]
        assert row["client"].startswith(client["name"]) and row["priority"] == str(client["priority"])
        assert row["waiting"] == str(client["waiting"]) and row["running"] == str(client["running"])
        assert row["prompt"] == str(client["prompt_tokens"])
    requests = {request["id"]: request for request in status["requests"]}
    waiting = {name: request for name, request in requests.items() if request["state"] == "queued"}
    assert shown["waiting"].keys() == waiting.keys() and len(waiting) == 3
    for name, row in shown["waiting"].items():
        assert (row["client"], row["priority"]) == (waiting[name]["client"], str(waiting[name]["priority"]))
    assert [(row["client"], row["model"], row["engine"]) for row in shown["running"].values()] == [("Alice", "m", engine.name)]
    assert browser.run("document.title") == "(3) LLM dispatch"
    assert not browser.run("!!document.querySelector('#problems li')")

    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4
    browser.wait("document.querySelector('[data-tile=queued] .value').textContent === '0'", "the page follows")
    browser.wait("document.querySelector('[data-client=Alice] [data-field=completion]').textContent === '12'")


def test_names_are_text(fake_engine, gateway, browser):
    engine = fake_engine(models=(HTML,), name=HTML, max_running=1)
    gate = gateway(users=[user("alice", name=HTML)], http=f"llm_engine {engine.url} 'model={HTML}' 'id={HTML}' max_running=1;")
    pending = busy(gate, engine, ["alice"])
    open_dashboard(browser, gate)
    browser.wait("document.querySelectorAll('#models tr[data-request]').length === 1")
    shown = browser.run(SHOWN)
    assert shown["models"][HTML]["name"] == HTML and shown["engines"][HTML]["id"] == HTML
    assert shown["clients"][HTML]["client"] == HTML
    assert [row["client"] for row in shown["waiting"].values()] == [HTML]
    browser.click(selector("engine", HTML, " button"))
    browser.wait("document.querySelector('dialog').open")
    assert browser.text("#confirm-title") == f"Drain {HTML}?"
    assert browser.run("document.querySelectorAll('img, b[onerror], main b:not([data-field]), dialog b').length") == 0
    # as an administrator who confirms: the name travels through the URL unharmed
    browser.click("#confirm-yes")
    browser.wait("!document.querySelector('dialog').open")
    assert gate.status()["engines"][0]["drained"]
    engine.open_gate()
    assert pending[0].reply().status == 200
    gate.end_request(gate.status()["requests"][0]["id"])
    assert pending[1].reply().status == 503


def test_a_drain_by_button_takes_effect(fake_engine, gateway, browser):
    engines = [fake_engine(), fake_engine()]
    gate = gateway(engines)
    open_dashboard(browser, gate)
    first = engines[0].name
    browser.click(selector("engine", first, " button[data-action=drain]"))
    browser.wait("document.querySelector('dialog').open")
    browser.click("#confirm-no")
    browser.wait("!document.querySelector('dialog').open")
    assert not any(engine["drained"] for engine in gate.status()["engines"]), "nothing happens without the second yes"

    browser.click(selector("engine", first, " button[data-action=drain]"))
    browser.click("#confirm-yes")
    browser.wait(f"document.querySelector({json.dumps(selector('engine', first, ' .state'))}).textContent === 'drained'")
    for _ in range(6):
        assert gate.client.ask(token="alice").status == 200
    assert not engines[0].requests and len(engines[1].requests) == 6

    browser.click(selector("engine", first, " button[data-action=drain]"))
    assert browser.wait("document.querySelector('dialog').open && document.querySelector('#confirm-yes').textContent") == "Undrain"
    browser.click("#confirm-yes")
    browser.wait(f"document.querySelector({json.dumps(selector('engine', first, ' .state'))}).textContent === 'ready'")
    assert not any(engine["drained"] for engine in gate.status()["engines"])


def test_cancel_and_priority_of_a_waiting_request(fake_engine, gateway, browser):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", priority=5), user("bob", priority=5)], http="llm_scheduler strict;")
    pending = busy(gate, engine, ["alice", "bob", "alice"])
    (_, _), (bob, client), (last, _) = [(request["id"], request["client"]) for request in gate.status()["requests"] if request["state"] == "queued"]
    assert client == "bob"  # one class: older first
    open_dashboard(browser, gate)
    assert browser.run(f"[...document.querySelectorAll({json.dumps(selector('request', bob, ' button'))})].map(e => e.ariaLabel)") == [
        f"Priority: request {bob} of bob", f"Cancel: request {bob} of bob"]
    browser.click(selector("request", bob, " [data-action=cancel]"))
    browser.click("#confirm-yes")
    reply = pending[2].reply()
    assert reply.status == 503 and reply.json()["error"]["code"] == "aborted"
    browser.wait(f"!document.querySelector({json.dumps(selector('request', bob))})", "the request has left the page")

    browser.click(selector("request", last, " [data-action=priority]"))
    browser.wait("document.activeElement.id === 'confirm-value' && document.activeElement.value === '5'")
    browser.type("77")
    browser.click("#confirm-yes")
    browser.wait(f"document.querySelector({json.dumps(selector('request', last, ' [data-field=priority]'))}).textContent === '77'")
    engine.open_gate()
    assert [pending[number].reply().status for number in (0, 1, 3)] == [200] * 3
    assert engine.contents() == ["first", "w3", "w1"]


def test_focus_stays_while_the_queue_moves(fake_engine, gateway, browser):
    """Who works with the keyboard keeps his place when others leave the queue, and when the row itself goes elsewhere."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], http="llm_scheduler strict;")
    pending = busy(gate, engine, ["alice"] * 4)
    open_dashboard(browser, gate)
    order = "[...document.querySelectorAll('#models tr[data-request]')].map(row => row.dataset.request)"
    first, second, third, fourth = browser.wait(f"(rows => rows.length === 4 && rows)({order})")
    browser.run(f"document.querySelector({json.dumps(selector('request', third, ' [data-action=cancel]'))}).focus()")
    focused = "document.activeElement.closest('tr')?.dataset.request"
    pending[1].close()
    browser.wait(f"{order}.length === 3")
    assert browser.run(focused) == third
    gate.client.ask(json.dumps({"priority": 900}).encode(), method="PATCH", target=f"/llm/requests/{third}", headers=[("x-llm-admin", "1")])
    browser.wait(f"{order}.join() === {json.dumps(','.join([third, second, fourth]))}")
    assert browser.run(focused) == third
    engine.open_gate()
    assert [pending[number].reply().status for number in (0, 2, 3, 4)] == [200] * 4


def test_all_means_all(fake_engine, gateway, browser):
    engine = fake_engine()
    users = [user(f"c{number}") for number in range(230)]
    gate = gateway([engine], users)
    for one in users:
        assert gate.client.ask(token=one["token"]).status == 200
    open_dashboard(browser, gate)
    assert browser.text("#more-clients") == "Show all 230 clients"
    browser.click("#more-clients")
    browser.wait("document.querySelectorAll('tr[data-client]').length === 230 && document.querySelector('#more-clients').textContent === 'Show fewer'")
    browser.click("#more-clients")
    browser.wait("document.querySelectorAll('tr[data-client]').length === 8")


def test_a_slow_change_leaves_the_next_question_alone(fake_engine, gateway, browser):
    """Who leaves a question whose answer takes long, and asks another: the first answer is none to the second."""
    gate = gateway([fake_engine(), fake_engine()])
    open_dashboard(browser, gate)
    first, second = (engine["id"] for engine in gate.status()["engines"])
    browser.run("window.own = window.fetch")
    for outcome in ("ok: true", "ok: false, status: 500, json: async () => null"):
        browser.run("window.fetch = (path, ...more) => path === 'status.json' ? own(path, ...more) : new Promise(done => { window.answer = done; })")
        browser.click(selector("engine", first, " button[data-action=drain]"))
        browser.click("#confirm-yes")
        browser.wait("!!window.answer")
        browser.run("document.querySelector('#confirm-no').click()")
        browser.click(selector("engine", second, " button[data-action=drain]"))
        assert browser.wait("document.querySelector('dialog').open && document.querySelector('#confirm-title').textContent") == f"Drain {second}?"
        assert not browser.run("document.querySelector('#confirm-yes').disabled")
        browser.run(f"new Promise(done => {{ answer({{ {outcome} }}); window.answer = null; setTimeout(done); }})")
        assert browser.run("document.querySelector('dialog').open && document.querySelector('#confirm-problem').textContent") == ""
        browser.run("document.querySelector('#confirm-no').click(), window.fetch = own, 0")
    assert not any(engine["drained"] for engine in gate.status()["engines"])


def test_a_change_that_fails_is_told(fake_engine, gateway, browser):
    engine = fake_engine(max_running=1)
    gate = gateway([engine])
    pending = busy(gate, engine, ["alice"])
    open_dashboard(browser, gate)
    browser.click("#models [data-action=cancel]")
    browser.wait("document.querySelector('dialog').open")
    pending[1].close()
    gate.wait_queued(0)
    browser.expected.append("404")
    browser.click("#confirm-yes")
    browser.wait("document.querySelector('#confirm-problem').textContent.includes('no such')")
    engine.open_gate()
    assert pending[0].reply().status == 200


def test_read_only_shows_no_buttons(fake_engine, gateway, browser):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], locations="location /look { llm_status; }")
    pending = busy(gate, engine, ["alice"])
    open_dashboard(browser, gate, "/look")  # without the slash: it is added
    assert browser.run("location.pathname") == "/look/"
    assert gate.client.get("/llm").status == 301
    browser.wait("document.querySelectorAll('#models tr[data-request]').length === 1")
    assert browser.run("[...document.querySelectorAll('main button')].filter(b => b.offsetParent).length") == 0
    assert gate.client.ask(b"", method="DELETE", target="/look/requests/0-0", headers=[("x-llm-admin", "1")]).status == 403
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 2


def test_problems_and_a_lost_gateway(redis_server, fake_engine, gateway, browser):
    gate = gateway(http=f"llm_redis {redis_server.url};")
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, state="failed")
    gate.wait_model("m", "alice")
    open_dashboard(browser, gate)
    browser.wait("document.querySelector('#problems').textContent.includes('No engine can serve m')")
    assert f"Engine {engine.name}: failed." in browser.text("#problems")
    reporter.report(state="ready")
    browser.wait("!document.querySelector('#problems li')", "the problem is over")
    redis_server.kill()
    browser.wait("document.querySelector('#problems').textContent.includes('Redis cannot be reached')")
    browser.wait(f"document.querySelector({json.dumps(selector('engine', engine.name, ' .state'))}).textContent === 'silent'")
    # nothing new comes any more: what is shown is shown as old
    browser.expected.append("503")
    gate.blocks["server"] = "location = /llm/status.json { return 503; }"
    gate.reload()
    browser.wait("document.body.dataset.state === 'bad' && document.querySelector('#page').className === 'lost'")
    assert browser.text("#live").startswith("answered 503 for")
    assert browser.text("[role=status]") == "answered 503"  # said once, not every two seconds
    gate.blocks["server"] = ""
    gate.reload()
    browser.wait("document.body.dataset.state === 'good' && document.querySelector('#page').className === ''")


@pytest.mark.parametrize("answer,said", [("<html>sign in</html>", "answered with something else for"),
                                         ('{"version":"9"}', "unknown answer (reload the page) for"),
                                         ('{"version":"9"', "answered with something else for")])
def test_an_answer_of_somebody_else(fake_engine, gateway, browser, answer, said):
    """A page to sign in, the status of another version: it is not said that the gateway is silent, and the last true status stays."""
    gate = gateway([fake_engine()])
    open_dashboard(browser, gate)
    gate.blocks["server"] = f"location = /llm/status.json {{ return 200 '{answer}'; }}"
    gate.reload()
    browser.wait("document.body.dataset.state === 'bad' && document.querySelector('#page').className === 'lost'")
    assert browser.text("#live").startswith(said)
    browser.hover("[data-chart=requests] svg")
    assert browser.run("document.querySelectorAll('[data-engine]').length") == 1
    gate.blocks["server"] = ""
    gate.reload()
    browser.wait("document.body.dataset.state === 'good' && document.querySelector('#page').className === ''")


def test_two_engines_of_one_name(redis_server, fake_engine, gateway, browser):
    """One that leaves and its successor: both are there, and each stays in its place."""
    gate = gateway(http=f"llm_redis {redis_server.url};")
    leaving, successor = fake_engine(name="twin"), fake_engine(name="twin")
    running = leave_to_successor(gate, redis_server.url, leaving, successor)
    open_dashboard(browser, gate)
    states = "[...document.querySelectorAll('[data-engine=twin] .state')].map(state => state.textContent)"
    assert sorted(browser.run(states)) == ["leaving", "ready"]
    leaving.open_gate()
    assert running.reply().status == 200
    browser.wait(f"({states}).join() === 'ready'")


def test_many_problems_leave_room(redis_server, gateway, browser):
    """Half of a large fleet is down: the first few lines say so, the rest is a click away, and the page's figures are in sight."""
    store = redis.Redis.from_url(redis_server.url)
    for number in range(60):
        name = f"e {number} s"
        store.set(f"llm:engine:{name}", json.dumps({"v": 1, "id": name, "url": f"http://127.0.0.1:{2000 + number}", "models": ["m"], "boot": 1, "seq": 1,
                                                    "state": "failed" if number % 2 else "ready", "ttl_ms": 600000, "running": number}))
    gate = gateway(http=f"llm_redis {redis_server.url};")
    until(lambda: len(gate.status()["engines"]) == 60, "all engines are known")
    open_dashboard(browser, gate)
    browser.wait("document.querySelector('#more-problems').textContent === 'Show all 30 problems'")
    assert browser.run("document.querySelector('#tiles').getBoundingClientRect().top < innerHeight")
    browser.click("#more-problems")
    browser.wait("document.querySelectorAll('#problems li').length === 30")
    assert browser.run("document.querySelectorAll('[data-engine]').length") == 60


def test_policy_and_history(fake_engine, gateway, browser):
    gate = gateway([fake_engine()])
    page = gate.client.get("/llm/")
    policy = page.header("content-security-policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
    assert page.header("cache-control") == "no-store" and page.header("x-content-type-options") == "nosniff"
    for _ in range(4):
        assert gate.client.ask(token="alice").status == 200
    assert gate.client.ask(token="nobody").status == 401
    open_dashboard(browser, gate)
    browser.wait("last.history.completed.reduce((a, b) => a + b, 0) === 4", "the gateway has taken a sample", 30)
    history = gate.status()["history"]
    assert len({len(column) for column in history.values()}) == 1
    assert sum(history["rejected"]) == 1 and sum(history["completion_tokens"]) == 16 and sum(history["dispatched"]) == 4
    assert all(4000 <= ms <= 30000 for ms in history["interval_ms"])
    browser.wait("document.querySelectorAll('.chart svg path').length >= 8", "the charts are drawn")
    assert browser.run("[...document.querySelectorAll('.chart svg path')].some(p => p.getAttribute('d').includes('NaN'))") is False
    # the legend says what the newest sample says, or the one under the pointer
    browser.wait("(h => document.querySelector(\"[data-field='depth-running']\").textContent === String(h.running.at(-1)) &&"
                 " document.querySelector(\"[data-field='requests-refused']\").textContent === number(h.rejected.at(-1) / h.interval_ms.at(-1) * 1000))(last.history)")
    browser.hover("[data-chart=requests] svg")
    browser.wait("!!document.querySelector('[data-chart=requests] .mark')", "a line under the pointer")
    browser.wait("document.querySelector(\"[data-field='requests-completed']\").textContent === number(last.history.completed[0] / last.history.interval_ms[0] * 1000)",
                 "the pointer is left of the first sample, which is then the nearest")
    # a script that is not the page's own does not run
    browser.expected.append("Content Security Policy")
    assert browser.run("(() => { const s = document.createElement('script'); s.textContent = 'window.foreign = 1';"
                       " document.body.append(s); return window.foreign === undefined; })()")


def test_nothing_yet(gateway, browser):
    """Open access, no engine: the page says what is missing, and takes nothing for a problem."""
    gate = gateway(users=None)
    open_dashboard(browser, gate)
    for name in ("models", "engines", "clients", "running"):
        assert browser.run(f"document.querySelector('#no-{name}').offsetParent !== null"), name
    assert browser.run("document.querySelectorAll('#problems li').length") == 0
    assert browser.run("[...document.querySelectorAll('[data-tile] .value')].map(e => e.textContent)") == ["0", "0", "0", "0", "0", "0 of 0"]
    browser.wait("[...document.querySelectorAll('.chart')].length === 4")
    assert "(open)" in browser.text("#about") and "no Redis" in browser.text("#about")
    assert gate.metrics().values("llm_redis_up") == [1], "what is not configured is not down"


def test_no_secret_is_shown(fake_engine, gateway, browser):
    engine = fake_engine(max_running=1)
    gate = gateway(users=[user("sk-of-alice", name="Alice")], http=f"llm_engine {engine.url} model=m id=e max_running=1 key=sk-of-the-engine;")
    pending = busy(gate, engine, ["sk-of-alice"])
    assert engine.requests[0].header("authorization") == "Bearer sk-of-the-engine"
    open_dashboard(browser, gate)
    browser.wait("document.querySelectorAll('#models tr[data-request]').length === 1")
    shown = browser.run("document.documentElement.outerHTML") + str(gate.status()) + gate.metrics().text
    assert "Alice" in shown and "sk-of" not in shown
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 2


# Texts whose contrast with what is behind them is below WCAG's 4.5 to 1.
FAINT = """(() => {
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = text => { const [r, g, b] = rgba(text).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                              return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { while (e && rgba(getComputedStyle(e).backgroundColor)[3] === 0) { e = e.parentElement; } return getComputedStyle(e || document.documentElement).backgroundColor; };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.matches("script, style, noscript")) { continue; }
    const style = getComputedStyle(e), [a, b] = [luminance(e.closest("svg") ? style.fill : style.color), luminance(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) { found.push(`${e.tagName} ${e.className} "${walker.currentNode.textContent.trim()}" ${((a + .05) / (b + .05)).toFixed(2)}`); }
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read(redis_server, fake_engine, gateway, browser, dark):
    gate = gateway(http=f"llm_redis {redis_server.url};")
    engines = [fake_engine(max_running=1), fake_engine(), fake_engine(["other"])]
    for engine, state in zip(engines, ("ready", "loading", "failed")):
        engine.announce(redis_server.url, state=state)
    until(lambda: len(gate.status()["engines"]) == 3, "all engines are known")
    pending = busy(gate, engines[0], ["alice", "alice"])
    open_dashboard(browser, gate)
    browser.look(width=1280, dark=dark)
    browser.wait("document.querySelectorAll('.state.good, .state.warn, .state.bad').length >= 5 && !!document.querySelector('#problems li') && !!document.querySelector('.chart text')")
    assert not browser.run(FAINT)
    browser.click("#models [data-action=priority]")
    browser.wait("document.querySelector('dialog').open")
    assert not browser.run(FAINT)
    engines[0].open_gate()
    assert [one.reply().status for one in pending] == [200] * 3


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_sticks_out(fake_engine, gateway, browser, width):
    """Long names, a queue, a phone: the page never scrolls sideways."""
    engine = fake_engine(models=("an-organisation/a-model-with-a-very-long-name-that-nobody-would-type-by-hand-0123456789",), max_running=1)
    gate = gateway([engine], [user("alice", name="x" * 60, organization="y" * 60)])
    pending = busy(gate, engine, ["alice"] * 3)
    open_dashboard(browser, gate)
    browser.look(width=width)
    browser.wait("document.querySelectorAll('#models tr[data-request]').length === 3")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200] * 4
