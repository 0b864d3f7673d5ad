"use strict";
// The last fifteen minutes as charts, drawn by hand. Stands before dashboard.js in the page's one script.

const WINDOW_S = 900;
const perSecond = (h, name) => h[name].map((count, i) => count / Math.max(h.interval_ms[i] / 1000, 1e-3));
const CHARTS = [
  { id: "requests", title: "Requests per second", show: number, series: [
    { name: "completed", hue: "h0", of: h => perSecond(h, "completed") },
    { name: "refused", hue: "h1", of: h => perSecond(h, "rejected") },
    { name: "failed", hue: "h2", of: h => perSecond(h, "failed") }] },
  { id: "waiting", title: "Time in the queue", show: ms => duration(ms), least: 10, series: [
    { name: "median", hue: "h0", of: h => h.wait_p50_ms },
    { name: "95 of 100 within", hue: "h4", of: h => h.wait_p95_ms }] },
  { id: "tokens", title: "Tokens per second", show: number, series: [
    { name: "generated", hue: "h3", of: h => perSecond(h, "completion_tokens") },
    { name: "prompt", hue: "h4", of: h => perSecond(h, "prompt_tokens") }] },
  { id: "depth", title: "Requests at once", show: number, least: 10, series: [
    { name: "running", hue: "h3", of: h => h.running },
    { name: "waiting", hue: "h1", of: h => h.queued }] },
];

// A round number at or above `top`, and how many steps to draw.
function scale(top, least) {
  const want = Math.max(top, least || 0.1);
  const unit = 10 ** Math.floor(Math.log10(want));
  const step = [1, 2, 2.5, 5, 10].find(m => m * unit >= want) * unit;
  return step;
}
function makeChart(chart) {
  chart.svg = svg("svg", { role: "img" });
  chart.legend = make("ul");
  chart.values = chart.series.map(series => {
    const value = field(`${chart.id}-${series.name}`, "", "b");
    chart.legend.append(make("li", series.hue, series.name + " ", value));
    return value;
  });
  const element = make("div", "chart", make("div", "top", make("h3", "", chart.title), chart.legend), chart.svg);
  element.dataset.chart = chart.id;
  chart.svg.addEventListener("pointermove", event => { chart.pointer = event.offsetX; drawChart(chart); });
  chart.svg.addEventListener("pointerleave", () => { chart.pointer = null; drawChart(chart); });
  new ResizeObserver(() => drawChart(chart)).observe(chart.svg);
  return element;
}
function drawChart(chart) {
  if (!last) { return; }
  const h = last.history, width = chart.svg.clientWidth, height = chart.svg.clientHeight;
  if (!width || !height) { return; }
  const left = 46, right = 6, top = 8, bottom = 18;
  const lines = chart.series.map(series => series.of(h));
  const shown = h.time.map(time => last.time - time <= WINDOW_S);
  const most = scale(Math.max(0, ...lines.flatMap(line => line.filter((_, i) => shown[i]))), chart.least);
  const x = time => left + (width - left - right) * (1 - (last.time - time) / WINDOW_S);
  const y = value => height - bottom - (height - top - bottom) * (value / most);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(share * most), y2: y(share * most) }));
    parts.push(svg("text", { x: left - 6, y: y(share * most) + 3.5, "text-anchor": "end" }, share ? chart.show(share * most) : "0"));
  }
  for (const minutes of [15, 10, 5, 0]) {
    parts.push(svg("text", { x: x(last.time - 60 * minutes), y: height - 4, "text-anchor": minutes === 15 ? "start" : minutes ? "middle" : "end" },
      minutes ? `−${minutes} min` : "now"));
  }
  lines.forEach((line, n) => {
    let path = "", area = "", from = null;
    const close = i => { if (from !== null) { area += ` L${x(h.time[i]).toFixed(1)} ${y(0)} L${x(from).toFixed(1)} ${y(0)} Z`; from = null; } };
    line.forEach((value, i) => {
      if (!shown[i]) { return; }
      // a line is not drawn over time in which nobody recorded
      const gap = from === null || h.time[i] - h.time[i - 1] > 20;
      if (gap) { close(i - 1); from = h.time[i]; }
      const point = `${gap ? "M" : "L"}${x(h.time[i]).toFixed(1)} ${y(value).toFixed(1)} `;
      path += point;
      area += point;
    });
    close(h.time.length - 1);
    if (n === 0) { parts.push(svg("path", { class: `area ${chart.series[n].hue}`, d: area })); }
    parts.push(svg("path", { class: chart.series[n].hue, d: path }));
  });
  let at = h.time.length - 1;
  if (chart.pointer != null && h.time.length) {
    const time = last.time - WINDOW_S * (1 - (chart.pointer - left) / (width - left - right));
    at = h.time.reduce((best, t, i) => Math.abs(t - time) < Math.abs(h.time[best] - time) ? i : best, 0);
    parts.push(svg("line", { class: "mark", x1: x(h.time[at]), x2: x(h.time[at]), y1: top, y2: height - bottom }));
    const minutes = (last.time - h.time[at]) / 60;
    parts.push(svg("text", { x: x(h.time[at]) + (minutes < 3 ? -5 : 5), y: top + 8, "text-anchor": minutes < 3 ? "end" : "start" },
      new Date(h.time[at] * 1000).toLocaleTimeString()));
  }
  if (!h.time.length) {
    parts.push(svg("text", { x: (left + width - right) / 2, y: (top + height - bottom) / 2 - 6, "text-anchor": "middle" }, "The first sample comes after five seconds"));
  }
  chart.values.forEach((value, n) => setText(value, at < 0 ? "–" : chart.show(lines[n][at])));
  chart.svg.setAttribute("aria-label", chart.title + ": " + chart.series.map((series, n) => `${series.name} ${chart.values[n].textContent}`).join(", "));
  chart.svg.replaceChildren(...parts);
}

// Sum of the newest samples that cover a minute, per second.
function lastMinute(h, name) {
  let count = 0, ms = 0;
  for (let i = h.time.length - 1; i >= 0 && ms < 60000; --i) { count += h[name][i]; ms += h.interval_ms[i]; }
  return ms ? count / (ms / 1000) : 0;
}

