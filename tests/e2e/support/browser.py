"""A real browser: headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol), so that no driver is needed."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time

from .poll import until
from .process import _die_with_parent

_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
          "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--disable-features=Translate,OptimizationHints,MediaRouter", "--hide-scrollbars", "--force-color-profile=srgb", "--disable-lcd-text",
          "--remote-debugging-pipe"]


def _high(descriptor):
    """The same pipe end under a number that is not 3 or 4, which the browser wants."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy


class Browser:
    """One page. What it asked for, logged or threw is kept in `requests`, `console` and `exceptions`."""

    @staticmethod
    def program():
        return shutil.which("chromium") or shutil.which("google-chrome")

    def __init__(self, directory):
        program = self.program()
        assert program, "chromium is not installed; scripts/deps.sh test installs it"
        directory.mkdir(parents=True)
        self._log = directory / "chromium.log"
        their_input, ours_out = map(_high, os.pipe())
        ours_in, their_output = map(_high, os.pipe())

        def pipes():
            _die_with_parent()
            os.dup2(their_input, 3)
            os.dup2(their_output, 4)

        with open(self._log, "ab") as log:
            # a session of its own: the browser is a family of processes, and all of it must go
            self._process = subprocess.Popen([program, *_FLAGS, f"--user-data-dir={directory}/profile", "about:blank"],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=pipes, pass_fds=(3, 4),
                                             start_new_session=True, env={**os.environ, "HOME": str(directory)})
        os.close(their_input)
        os.close(their_output)
        self._out, self._in = ours_out, ours_in
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session = None
        self.requests, self.console, self.exceptions = [], [], []
        targets = self._call("Target.getTargets", seconds=60)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    # ------------------------------------------------------------------------------------------------ protocol

    def _call(self, method, seconds=30, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _receive(self, deadline, what):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{what}: no answer from the browser:\n{self._log.read_text(errors='replace')[-2000:]}"
            data = os.read(self._in, 1 << 16)
            assert data, f"{what}: the browser has ended:\n{self._log.read_text(errors='replace')[-2000:]}"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(argument.get("value", argument.get("description"))) for argument in parameters["args"]))
            case "Runtime.exceptionThrown":
                self.exceptions.append(parameters["exceptionDetails"].get("exception", {}).get("description") or parameters["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.console.append(f"{parameters['entry']['level']}: {parameters['entry']['text']}")

    # ------------------------------------------------------------------------------------------------ what tests do

    def open(self, url):
        self._call("Page.navigate", url=url)
        until(lambda: self.run("document.readyState") == "complete", f"{url} is loaded", 30)

    def run(self, script):
        """The value of a JavaScript expression, as JSON knows it; promises are awaited."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, what=None, seconds=20):
        """Waits until the expression is true, and returns its value."""
        return until(lambda: self.run(script), lambda: f"{what or script}; the page says:\n{self.run('document.body.innerText')[:3000]}", seconds)

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def _middle(self, selector):
        self.wait(f"!!document.querySelector({json.dumps(selector)})")
        return self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
                        " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")

    def hover(self, selector):
        x, y = self._middle(selector)
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector):
        """A real click in the middle of the element, so that what covers or hides it would be noticed. The page may move it just then: once more,
        unless the click comes through meanwhile (it may take the element away)."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run("window.clicked = false")

        def hit():
            if self.run("window.clicked"):
                return True
            x, y = self._middle(selector)
            if not self.run(f"(() => {{ const e = {element};"
                            f" e?.addEventListener('click', () => {{ window.clicked = true; }}, {{once: true, capture: true}});"
                            f" return !!e && e.contains(document.elementFromPoint({x}, {y})); }})()"):
                return False
            for kind in ("mousePressed", "mouseReleased"):
                self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            return self.run("window.clicked")

        until(hit, lambda: f"{selector} can be clicked; the page says:\n{self.run('document.body.innerText')[:3000]}", 20)

    def type(self, text):
        """Replaces what the focused field holds."""
        self.run("document.activeElement.select()")
        self._call("Input.insertText", text=text)

    def look(self, *, width, height=800, dark=False, scale=1):
        """Size of the window, colour scheme of the system."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, path, *, whole=True):
        """A PNG of the page; `whole`: as long as it is."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(data["data"]))

    def stop(self):
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # helpers that outlive their parent for a moment
        except ProcessLookupError:
            pass
