"use strict";
// The dashboard reads status.json every two seconds and shows it. Model, client and engine names are chosen by
// others: everything is set as text or as an attribute's value, never as markup.

const REFRESH_MS = 2000, ROWS = 8;
const $ = id => document.getElementById(id);

// ---- making and updating elements

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) { element.className = className; }
  element.append(...children);
  return element;
}
function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) { element.setAttribute(name, value); }
  if (text !== undefined) { element.textContent = text; }
  return element;
}
function setText(element, text) { if (element.textContent !== String(text)) { element.textContent = text; } }
function setClass(element, name) { if (element.className !== name) { element.className = name; } }
function field(name, className, tag = "span") {
  const element = make(tag, className);
  element.dataset.field = name;
  return element;
}
function set(row, name, text) { setText(row.querySelector(`[data-field="${name}"]`), text); }
function button(label, action, kind) {
  const element = make("button", "", label);
  element.type = "button";
  element.dataset.action = kind;
  element.addEventListener("click", action);
  return element;
}

// Shows `items` as the children of `parent`, one element per key, in order. Elements stay while their key does, so that
// focus and what a finger rests on survive an update: what is gone goes first, or all behind it would be moved, and an
// element that is moved loses the focus.
function keyed(parent, items, keyOf, create, update) {
  const known = parent.known || (parent.known = new Map());
  const seen = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!seen.has(key)) { seen.set(key, item); }
  }
  for (const [key, element] of known) {
    if (!seen.has(key)) { element.remove(); known.delete(key); }
  }
  const active = document.activeElement;
  let at = parent.firstElementChild;
  for (const [key, item] of seen) {
    let element = known.get(key);
    if (!element) {
      element = create(item);
      known.set(key, element);
    }
    update(element, item);
    if (element === at) { at = at.nextElementSibling; } else { parent.insertBefore(element, at); }
  }
  if (active !== document.activeElement && parent.contains(active)) { active.focus({ preventScroll: true }); }
}

// Gives each item of `list` a key of its own, for names need not be unique: an engine that leaves is still there beside
// its successor, and two tokens may bear one name.
function withKeys(list, nameOf) {
  const seen = new Map();
  for (const item of list) {
    const name = nameOf(item), count = (seen.get(name) || 0) + 1;
    seen.set(name, count);
    item.key = `${count} ${name}`;
  }
  return list;
}

// ---- words

const short = value => value.toFixed(1).replace(/\.0$/, "");
function number(value) {
  const size = Math.abs(value);
  if (size >= 9.995e8) { return short(value / 1e9) + " G"; }
  if (size >= 9.995e5) { return short(value / 1e6) + " M"; }
  if (size >= 1e4) { return short(value / 1e3) + " k"; }
  return Number.isInteger(value) ? String(value) : value.toFixed(size >= 100 ? 0 : size >= 1 ? 1 : 2);
}
function duration(ms) {
  if (ms < 1000) { return Math.round(ms) + " ms"; }
  if (ms < 59950) { return short(ms / 1000) + " s"; }
  const minutes = Math.floor(Math.round(ms / 1000) / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(ms / 1000) % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const percent = share => Math.round(100 * share) + " %";

// ---- changes, each asked for once more

const dialog = $("confirm");
let confirmed = null;

function ask({ title, text, yes, value, run }) {
  setText($("confirm-title"), title);
  setText($("confirm-text"), text);
  setText($("confirm-yes"), yes);
  setText($("confirm-problem"), "");
  $("confirm-field").hidden = value === undefined;
  $("confirm-value").required = value !== undefined;
  $("confirm-value").value = value === undefined ? "" : value;
  $("confirm-yes").disabled = false;
  confirmed = run;
  dialog.showModal();
  (value === undefined ? $("confirm-no") : $("confirm-value")).focus();
}
$("confirm-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("submit", async event => {
  event.preventDefault();
  const run = confirmed;  // by the time it is done another question may stand here
  $("confirm-yes").disabled = true;
  let said = "";
  try {
    await run();
  } catch (problem) {
    said = problem.message;
  }
  if (run === confirmed) {
    $("confirm-yes").disabled = false;
    setText($("confirm-problem"), said);
    if (!said) { dialog.close(); }
  }
  refresh();
});

async function change(method, path, body) {
  const answer = await fetch(path, {
    method, headers: { "x-llm-admin": "dashboard", ...(body ? { "content-type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined, signal: AbortSignal.timeout(10000) });
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message || `The gateway answered ${answer.status}.`);
  }
}
function askDrain(engine) {
  const what = engine.drained ? "undrain" : "drain";
  ask({ title: `${engine.drained ? "Undrain" : "Drain"} ${engine.id}?`, yes: engine.drained ? "Undrain" : "Drain",
        text: engine.drained ? "It gets new requests again." :
          `It gets no new requests; ${plural(engine.held, "request")} there may finish.`,
        run: () => change("POST", `engines/${encodeURIComponent(engine.id)}/${what}`) });
}
function askEnd(request) {
  const waits = request.state === "queued" || request.state === "granted";
  ask({ title: `${waits ? "Cancel" : "End"} this request of ${request.client || "an anonymous client"}?`, yes: waits ? "Cancel the request" : "End the request",
        text: waits ? "Its client gets an error and leaves the queue." : "Its client gets a broken answer; what was generated is lost.",
        run: () => change("DELETE", `requests/${encodeURIComponent(request.id)}`) });
}
function askPriority(request) {
  ask({ title: `Priority of this request of ${request.client || "an anonymous client"}`, yes: "Change",
        text: `It waits with priority ${request.priority}. Only this request changes, not its client.`, value: request.priority,
        run: () => change("PATCH", `requests/${encodeURIComponent(request.id)}`, { priority: $("confirm-value").valueAsNumber }) });
}

// ---- the parts of the page

function showTiles(s) {
  const usable = s.engines.filter(engine => engine.usable), seats = usable.reduce((sum, engine) => sum + Math.floor(engine.limit), 0);
  const oldest = Math.max(0, ...s.models.map(model => model.oldest_ms));
  const refused = lastMinute(s.history, "rejected"), failed = lastMinute(s.history, "failed");
  keyed($("tiles"), [
    { id: "queued", name: "Waiting", value: s.totals.queued, note: s.totals.queued ? `longest ${duration(oldest)}` : "nobody" },
    { id: "held", name: "Running", value: s.totals.held, note: seats ? `of ${plural(seats, "seat")}` : "no seats" },
    { id: "rate", name: "Requests per second", value: number(lastMinute(s.history, "completed")), note: "completed, last minute" },
    { id: "tokens", name: "Tokens per second", value: number(lastMinute(s.history, "completion_tokens")), note: "generated, last minute" },
    { id: "refused", name: "Refused and failed", value: number(Math.round(60 * (refused + failed))), note: `last minute, ${number(Math.round(60 * failed))} failed`, bad: failed > 0 },
    { id: "engines", name: "Engines", value: `${usable.length} of ${s.engines.length}`, note: "usable", bad: s.engines.length > 0 && usable.length === 0 },
  ], tile => tile.id, tile => {
    const element = make("div", "tile", make("div", "name", tile.name), field("value", "value", "div"), field("note", "note", "div"));
    element.dataset.tile = tile.id;
    return element;
  }, (element, tile) => {
    set(element, "value", tile.value);
    set(element, "note", tile.note);
    setClass(element.querySelector(".value"), tile.bad ? "value bad" : "value");
  });
}

// What somebody should look at, worst first.
function problemsOf(s) {
  const found = [];
  const bad = (key, text) => found.push({ key, text, kind: "bad" }), warn = (key, text) => found.push({ key, text, kind: "warn" });
  for (const model of s.models) {
    if (!model.engines_usable && (model.queued || model.engines)) {
      bad(`model ${model.name}`, `No engine can serve ${model.name}` + (model.queued ? `: ${plural(model.queued, "request")} ${model.queued === 1 ? "waits" : "wait"}.` : "."));
    }
  }
  if (!s.sources.clients.loaded && s.sources.clients.source !== "open") { bad("clients", "No clients were loaded yet: every token is refused with 503."); }
  for (const engine of withKeys(s.engines, engine => engine.id)) {
    const [text, kind] = stateOf(engine);
    if (kind === "bad") { bad(`engine ${engine.key}`, `Engine ${engine.id}: ${text}.`); }
    else if (engine.report_stale) { warn(`engine ${engine.key}`, `Engine ${engine.id} has not reported for ${duration(engine.report_age_ms)}. It keeps its work while requests to it succeed.`); }
    if (engine.below_minimum) { warn(`slow ${engine.key}`, `Engine ${engine.id} is slower than ${number(engine.minimum)} tokens/s per user with a single one.`); }
  }
  if (s.sources.redis.configured && !s.sources.redis.up) { warn("redis", "Redis cannot be reached: engines stay as they were last reported."); }
  if (s.sources.clients.loaded && !s.sources.clients.up) { warn("source", "The source of clients cannot be reached: known tokens keep working for a while."); }
  if (s.sources.clients.bad_rows) { warn("rows", `${plural(s.sources.clients.bad_rows, "client")} could not be read and ${s.sources.clients.bad_rows === 1 ? "was" : "were"} skipped; the error log names them.`); }
  return [...found.filter(problem => problem.kind === "bad"), ...found.filter(problem => problem.kind === "warn")];
}
function showProblems(s) {
  keyed($("problems"), cut(problemsOf(s), $("more-problems"), "problems"), problem => problem.key, () => make("li"), (element, problem) => {
    setText(element, problem.text);
    setClass(element, problem.kind);
  });
}

// A button below a list that shows the rest of it. Returns what to show.
function cut(list, button, word) {
  const open = button.dataset.open === "yes";
  const few = list.length <= ROWS + 1;
  button.hidden = few;
  setText(button, open ? "Show fewer" : `Show all ${list.length} ${word}`);
  button.onclick = () => { button.dataset.open = open ? "" : "yes"; show(last); };
  return few || open ? list : list.slice(0, ROWS);
}

// What a row of a request and its buttons are about; without the rest of the table a button "Cancel" would not say what it ends.
function setRequest(row, request) {
  row.item = request;
  row.dataset.request = request.id;
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-label", `${button.textContent}: request ${request.id} of ${request.client || "an anonymous client"}`);
  }
}
function makeWaiting() {
  const row = make("tr", "", field("client", "", "td"), field("priority", "number", "td"), field("wait", "number", "td"));
  row.append(make("td", "admin", make("div", "acts",
    button("Priority", () => askPriority(row.item), "priority"), button("Cancel", () => askEnd(row.item), "cancel"))));
  return row;
}
function updateWaiting(row, request) {
  setRequest(row, request);
  set(row, "client", request.client || "anonymous");
  row.title = request.held_back ? "Waits for a limit of its client, not for an engine" : "";
  set(row, "priority", request.priority + (request.held_back ? " · held back" : ""));
  set(row, "wait", duration(request.wait_ms));
}
// [[key, how many], …], most first.
function countBy(list, keyOf) {
  const counts = new Map();
  for (const item of list) { counts.set(keyOf(item), (counts.get(keyOf(item)) || 0) + 1); }
  return [...counts].sort((a, b) => b[1] - a[1]);
}
function showModels(s) {
  const waiting = s.requests.filter(request => request.state === "queued" || request.state === "granted");
  keyed($("models"), s.models, model => model.name, () => {
    const head = make("thead", "", make("tr", "", make("th", "", "Client"), make("th", "number", "Priority"), make("th", "number", "Waits"),
      make("th", "admin", make("span", "unseen", "Actions"))));
    const card = make("article", "card",
      make("div", "top", field("name", "", "h3"), field("state", "state")),
      make("p", "facts", make("span", "", field("queued", "", "b"), " waiting"), make("span", "", field("running", "", "b"), " running"),
        make("span", "", "longest ", field("oldest", "", "b")), make("span", "", "leaves ", field("drain", "", "b"), " /s"),
        make("span", "", "engines wanted ", field("desired", "", "b"))),
      make("ul", "chips"), make("table", "queue", head, make("tbody")), field("nobody", "empty", "p"), make("button", "more"));
    return card;
  }, (card, model) => {
    card.dataset.model = model.name;
    set(card, "name", model.name);
    set(card, "queued", model.queued);
    set(card, "running", model.running);
    set(card, "oldest", model.queued ? duration(model.oldest_ms) : "–");
    set(card, "drain", number(model.drain_per_second));
    set(card, "desired", model.desired_engines);
    set(card, "state", `${model.engines_usable} of ${plural(model.engines, "engine")}`);
    setClass(card.querySelector(".state"), `state ${model.engines_usable === model.engines && model.engines ? "good" : model.engines_usable ? "warn" : "bad"}`);
    const own = waiting.filter(request => request.model === model.name);
    keyed(card.querySelector(".chips"), countBy(own, request => request.client || "anonymous"), ([name]) => name,
      () => make("li", "", field("who"), " ", field("count", "", "b")), (chip, [name, count]) => { set(chip, "who", name); set(chip, "count", count); });
    const rows = cut(own, card.querySelector(".more"), "that are listed");
    card.querySelector("table").hidden = rows.length === 0;
    keyed(card.querySelector("tbody"), rows, request => request.id, makeWaiting, updateWaiting);
    const unlisted = model.queued - own.length;
    set(card, "nobody", !model.queued ? "Nobody waits." : unlisted > 0 ? `${unlisted} more are not listed here.` : "");
    card.querySelector(".empty").hidden = model.queued > 0 && unlisted <= 0;
  });
  $("no-models").hidden = s.models.length > 0;
}

// What to call an engine's condition, and how bad it is.
function stateOf(engine) {
  if (engine.leaving) { return ["leaving", "warn"]; }
  if (engine.drained) { return ["drained", "warn"]; }
  if (engine.state === "failed") { return ["failed", "bad"]; }
  if (engine.breaker === "open") { return ["resting after failures", "bad"]; }
  if (engine.breaker === "half_open") { return ["trying it again", "warn"]; }
  if (engine.state !== "ready") { return [engine.state, "warn"]; }
  if (!engine.usable) { return ["not usable", "bad"]; }
  if (engine.report_stale) { return ["silent", "warn"]; }
  return [engine.backup ? "backup" : engine.slow_start ? "ready, finding its limit" : "ready", "good"];
}
function meter(name) {
  const bar = make("div", "bar", make("i"), make("u"));
  bar.dataset.bar = name;
  return bar;
}
function setMeter(card, name, share, kind, mark) {
  const bar = card.querySelector(`[data-bar="${name}"]`), [fill, line] = bar.children;
  fill.style.width = `${100 * Math.min(1, Math.max(0, share || 0))}%`;
  setClass(fill, kind || "");
  line.hidden = mark === undefined;
  if (mark !== undefined) { line.style.left = `${100 * Math.min(1, mark)}%`; }
}
function makeEngine() {
  const card = make("article", "card",
    make("div", "top", field("id", "", "h3"), field("state", "state")),
    make("div", "meter",
      make("span", "name", "Seats"), meter("seats"), make("span", "said", field("held"), " / ", field("limit")),
      make("span", "name", "Per user"), meter("speed"), field("speed", "said"),
      make("span", "name", "KV cache"), meter("kv"), field("kv", "said")),
    make("p", "facts", make("span", "", field("tokens", "", "b"), " tokens/s"), make("span", "", "report ", field("age", "", "b")),
      make("span", "", "served ", field("served", "", "b")), make("span", "", "failures ", field("failures", "", "b"))));
  const drain = button("", () => askDrain(card.item), "drain");
  drain.classList.add("admin");
  card.append(make("div", "foot", field("models"), drain));
  return card;
}
function showEngines(s) {
  keyed($("engines"), withKeys(s.engines, engine => engine.id), engine => engine.key, makeEngine, (card, engine) => {
    card.item = engine;
    card.dataset.engine = engine.id;
    const [state, kind] = stateOf(engine);
    const limit = Math.floor(engine.limit), speed = engine.speed || engine.tokens_per_second_per_user;
    set(card, "id", engine.id);
    set(card, "state", state);
    setClass(card.querySelector(".state"), `state ${kind}`);
    set(card, "held", engine.held);
    set(card, "limit", limit);
    setMeter(card, "seats", engine.held / Math.max(engine.max_running, 1), engine.held >= limit ? "warn" : "", limit / Math.max(engine.max_running, 1));
    set(card, "speed", (speed ? number(speed) : "–") + (engine.minimum ? ` (min ${number(engine.minimum)})` : ""));
    const top = Math.max(speed, 2 * engine.minimum, 1);
    setMeter(card, "speed", speed / top, !engine.minimum || !speed ? "" : speed < engine.minimum ? "bad" : "good", engine.minimum ? engine.minimum / top : undefined);
    set(card, "kv", engine.report_age_ms === null ? "–" : percent(engine.kv_usage));
    setMeter(card, "kv", engine.kv_usage, engine.kv_usage > 0.95 ? "bad" : engine.kv_usage > 0.85 ? "warn" : "");
    set(card, "tokens", number(engine.tokens_per_second));
    set(card, "age", engine.report_age_ms === null ? "never" : duration(engine.report_age_ms) + " ago");
    set(card, "served", number(engine.served));
    set(card, "failures", number(engine.failures));
    set(card, "models", engine.models.join(", "));
    card.querySelector(".foot span").title = engine.url;
    const drain = card.querySelector("button");
    setText(drain, engine.drained ? "Undrain" : "Drain");
    drain.setAttribute("aria-label", `${drain.textContent} ${engine.id}`);
  });
  $("no-engines").hidden = s.engines.length > 0;
}

function cell(name, className, label, tag = "td") {
  const element = field(name, className, tag);
  if (label) { element.dataset.label = label; }
  return element;
}
function makeClient() {
  const share = make("td", "wide", make("div", "share", meter("share"), field("share")));
  return make("tr", "", cell("client"), cell("priority", "number", "Priority"), cell("running", "number", "Running"), cell("waiting", "number", "Waiting"),
    cell("minute", "number", "Last minute"), share, cell("prompt", "number", "In"), cell("completion", "number", "Out"));
}
function showClients(s) {
  // Weights count among those who take part: who has used or wants something in the last minute.
  const takes = client => client.tokens_last_minute > 0 || client.waiting > 0 || client.running > 0;
  const used = s.clients.reduce((sum, client) => sum + client.tokens_last_minute, 0);
  const weights = s.clients.reduce((sum, client) => sum + (takes(client) ? client.weight : 0), 0);
  const order = [...s.clients].sort((a, b) => b.tokens_last_minute - a.tokens_last_minute || b.waiting - a.waiting ||
    b.completion_tokens + b.prompt_tokens - a.completion_tokens - a.prompt_tokens || (a.name < b.name ? -1 : 1));
  keyed($("clients").tBodies[0], cut(withKeys(order, client => client.name), $("more-clients"), "clients"), client => client.key, makeClient, (row, client) => {
    row.dataset.client = client.name;
    const share = used ? client.tokens_last_minute / used : 0, due = takes(client) && weights ? client.weight / weights : 0;
    set(row, "client", (client.name || "anonymous") + (client.organisation ? ` · ${client.organisation}` : ""));
    set(row, "priority", client.priority + (client.weight !== client.priority && client.weight ? ` (weight ${number(client.weight)})` : ""));
    set(row, "running", client.running + (client.max_running ? ` / ${client.max_running}` : ""));
    set(row, "waiting", client.waiting);
    row.title = client.threshold === null ? "" : `May have ${client.threshold} waiting`;
    set(row, "minute", number(client.tokens_last_minute) + (client.tokens_per_minute ? ` / ${number(client.tokens_per_minute)}` : ""));
    set(row, "share", takes(client) ? `${percent(share)} of ${percent(due)} due` : "–");
    setMeter(row, "share", share, "", takes(client) ? due : undefined);
    set(row, "prompt", number(client.prompt_tokens));
    set(row, "completion", number(client.completion_tokens));
  });
  $("clients").hidden = s.clients.length === 0;
  $("no-clients").hidden = s.clients.length > 0;
}

function makeRunning() {
  const row = make("tr", "", cell("client"), cell("model", "", "Model"), cell("engine", "", "Engine"), cell("priority", "number", "Priority"),
    cell("age", "number", "Age"), cell("completion", "number", "Tokens out"));
  row.append(make("td", "admin", make("div", "acts", button("End", () => askEnd(row.item), "end"))));
  return row;
}
function showRunning(s) {
  const running = s.requests.filter(request => request.state === "running");
  keyed($("running").tBodies[0], cut(running, $("more-running"), "that are listed"), request => request.id, makeRunning, (row, request) => {
    setRequest(row, request);
    set(row, "client", request.client || "anonymous");
    set(row, "model", request.model ?? "");
    set(row, "engine", request.engine ?? "");
    set(row, "priority", request.priority);
    set(row, "age", duration(request.age_ms));
    set(row, "completion", number(request.completion_tokens));
  });
  $("running").hidden = running.length === 0;
  $("no-running").hidden = running.length > 0;
}

// ---- going round

let last = null, lastAt = 0, timer = 0, round = 0;

function show(s) {
  document.body.classList.toggle("may-change", s.admin);
  setText($("about"), `${s.scheduler} order · ${plural(s.sources.clients.count, "client")} (${s.sources.clients.source}) · ` +
    `${s.sources.redis.configured ? (s.sources.redis.up ? "Redis connected" : "Redis down") : "no Redis"} · version ${s.version}`);
  document.title = (s.totals.queued ? `(${s.totals.queued}) ` : "") + "LLM dispatch";
  showProblems(s);
  showTiles(s);
  showModels(s);
  showEngines(s);
  showClients(s);
  showRunning(s);
  if (!$("charts").childElementCount) { $("charts").append(...CHARTS.map(makeChart)); }
  CHARTS.forEach(drawChart);
}
// `since` is apart, or a screen reader would say at every look how long it has been.
function showLive(text, kind, since = "") {
  setText($("live-now"), text);
  setText($("live-since"), since);
  setClass($("live"), `pill ${kind}`);
  document.body.dataset.state = kind;
}
// What the gateway sent. It may be of another version than the page, and what stands before the gateway may have sent a page of its own.
function showStatus(text) {
  const before = last;
  try {
    last = JSON.parse(text);
    show(last);
  } catch (problem) {
    last = before;
    throw new Error(problem instanceof SyntaxError ? "answered with something else" : "unknown answer (reload the page)", { cause: problem });
  }
}
async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) { throw new Error(answer.status === 403 || answer.status === 401 ? "access refused" : `answered ${answer.status}`); }
    const text = await answer.text();
    if (mine !== round) { return; }  // a later one is under way
    showStatus(text);
    lastAt = Date.now();
    $("page").className = "";
    showLive("live", "good");
  } catch (problem) {
    if (mine !== round) { return; }
    const why = problem instanceof TypeError || problem.name === "TimeoutError" ? "no answer from the gateway" : problem.message;
    $("page").className = last ? "lost" : "loading";
    showLive(why, "bad", last ? ` for ${duration(Date.now() - lastAt)}` : "");
  }
  if (!document.hidden) { timer = setTimeout(refresh, REFRESH_MS); }
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) { refresh(); } });
refresh();
