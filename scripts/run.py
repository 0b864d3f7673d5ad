"""`make run`: builds and starts a private Redis, the engine with the demo model and nginx with the module, and stays with them.

Environment: PORT (8080), LISTEN (127.0.0.1), CLIENTS ("file" or "postgres").
Everything lives in .run/<port>/ and ends with this program, however it ends. Only the standard library is used.
"""

import ctypes
import fcntl
import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "release"
MODEL = ROOT / "models" / "demo"
TOKENS = ROOT / "conf" / "llm-tokens.json"
DATABASE = "llm"
QUESTION = "Tell me a story about a fox."

PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """What went wrong, in one sentence for the person at the terminal."""


class Stopped(Exception):
    """Ctrl-C, or a polite signal."""


def say(text=""):
    print(text, flush=True)


def step(text):
    say(f"== {text}")


# ---------------------------------------------------------------------------------------------------------- children

class Child:
    """One program we started: its output goes to a log file, and it never outlives us."""

    def __init__(self, name, argv, log, stop, user):
        self.name = name
        self._log = log
        self._stop = stop
        libc = ctypes.CDLL(None)

        def die_with_parent():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(log, "ab") as output:
            # a session of its own: Ctrl-C reaches us alone, and we stop the children in order
            self._process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, cwd="/", start_new_session=True, preexec_fn=die_with_parent,
                                             **identity(user))

    def check(self):
        """Raises Failure if the program has ended."""
        status = self._process.poll()
        if status is not None:
            raise Failure(f"{self.name} ended with status {status}; the last lines of {self._log}:\n{tail(self._log)}")

    def stop(self):
        if self._process.poll() is not None:
            return
        self._process.send_signal(self._stop)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stack:
    """What runs for one port, and where its files are."""

    def __init__(self, home):
        self.home = home
        self.logs = home / "logs"
        self._children = []
        try:
            home.parent.mkdir(exist_ok=True)
            # of the same port on another address there is one already: its files must stay
            self._lock = open(home.with_suffix(".lock"), "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home, ignore_errors=True)
            self.logs.mkdir(parents=True)
        except BlockingIOError:
            raise Failure(f"make run is at work in {home} already; choose another port: make run PORT={another(int(home.name))}") from None
        except OSError as error:
            raise Failure(f"{error.filename} cannot be written ({error.strerror}): has another user run this before?") from None

    def start(self, name, argv, *, stop=signal.SIGTERM, user=None):
        child = Child(name, argv, self.logs / f"{name}.log", stop, user)
        self._children.append(child)
        return child

    def check(self):
        for child in self._children:
            child.check()

    def wait_until(self, ready, what, seconds):
        """Polls ready() until it is true; Failure when a child ends or the time is up."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise Failure(f"{what} within {seconds} s; see the logs in {self.logs}.")
            time.sleep(0.05)

    def stop(self):
        for child in reversed(self._children):
            child.stop()


def identity(user):
    """Popen arguments for running as another user (a pwd entry), or as ourselves (None)."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def tail(path, lines=15):
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ------------------------------------------------------------------------------------------------------------- parts

def program(name):
    """The path of a tool that apt installs; Debian keeps servers in directories that users' PATH may lack."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if not path:
        raise Failure(f"{name} was not found: install it (scripts/deps.sh build does on Debian), then repeat.")
    return path


def another(port):
    """A port to try next, one that is not root's alone."""
    return port + 1 if 1024 <= port < 65535 else 8080


def check_port_free(listen, port):
    with socket.socket() as probe:
        # nginx sets it too: connections in TIME_WAIT do not make a port busy
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except socket.gaierror:
            raise Failure(f"LISTEN={listen} is no IPv4 address: use 127.0.0.1, or 0.0.0.0 for all of this machine's.") from None
        except OSError as error:
            raise Failure(f"Port {port} cannot be used on {listen} ({error.strerror}); "
                          f"choose another one: make run PORT={another(port)}") from None


def build():
    step("Building (a first time takes minutes)")
    done = subprocess.run([ROOT / "scripts" / "build.sh", "release", "--", "llm-engine", "ngx_http_llm_dispatch_module"],
                          check=False)
    if done.returncode:
        raise Failure("Nothing was started, because the build did not succeed.")


def start_redis(stack):
    step("Starting Redis")
    port = free_port()
    stack.start("redis", [program("redis-server"), "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
                          "--dir", stack.home])
    stack.wait_until(lambda: accepts(port), "Redis did not accept connections", 15)
    return f"redis://127.0.0.1:{port}/0"


def start_engine(stack, redis_url):
    if not (MODEL / "config.json").exists():
        raise Failure(f"The demo model is not in {MODEL.relative_to(ROOT)}: is the checkout complete?")
    step("Starting llm-engine with the demo model")
    stack.start("engine", [BUILD / "llm-engine", "--model", MODEL, "--listen", f"127.0.0.1:{free_port()}", "--redis", redis_url])


def start_postgres(stack, scratch):
    """A private cluster with the users of the token file; returns its URL."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    if not found:
        raise Failure("PostgreSQL's programs were not found in /usr/lib/postgresql: install the package postgresql, then repeat.")
    binaries = pathlib.Path(found[-1])
    step("Starting PostgreSQL")
    data = scratch / "postgres"
    data.mkdir()
    user = None
    if os.geteuid() == 0:
        # the server refuses to run as root; its directory cannot be in .run/, which that user may be unable to reach
        user = pwd.getpwnam("postgres")
        for path in (scratch, data):
            os.chown(path, user.pw_uid, user.pw_gid)
    made = subprocess.run([binaries / "initdb", "-D", data, "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--locale=C",
                           "--no-sync"], capture_output=True, text=True, check=False, cwd="/", **identity(user))
    if made.returncode:
        raise Failure(f"PostgreSQL could not create its files: {made.stderr.strip()}")
    port = free_port()
    # SIGINT: its "fast" shutdown, which does not wait for clients to leave
    stack.start("postgres", [binaries / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", data, "-c", "fsync=off"],
                stop=signal.SIGINT, user=user)
    url = f"postgresql://{DATABASE}@127.0.0.1:{port}/"

    def psql(database, *arguments):
        return subprocess.run([binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url + database, *arguments],
                              capture_output=True, text=True, check=False, cwd=ROOT)

    stack.wait_until(lambda: psql("postgres", "-c", "SELECT 1").returncode == 0, "PostgreSQL did not answer", 30)
    rows = ", ".join("('{token}', '{name}', {priority}, {threshold})".format(**user) for user in sample_users())
    for database, arguments in [("postgres", ["-c", f"CREATE DATABASE {DATABASE}"]),
                                (DATABASE, ["-f", "conf/schema.sql", "-f", "conf/llm_notify.sql"]),
                                (DATABASE, ["-c", f"INSERT INTO users (token, name, priority, threshold) VALUES {rows}"])]:
        done = psql(database, *arguments)
        if done.returncode:
            raise Failure(f"PostgreSQL refused the sample clients: {done.stderr.strip()}")
    return url + DATABASE


def sample_users():
    return json.loads(TOKENS.read_text())["users"]


def start_nginx(stack, listen, redis_url, clients):
    step("Starting nginx")
    values = {
        "module": BUILD / "ngx_http_llm_dispatch_module.so",
        # Workers of a root master would run as nobody, who may be unable to read a checkout under /root.
        "user": "user root;" if os.geteuid() == 0 else "",
        "listen": listen, "redis": redis_url, "clients": clients,
    }
    text = (ROOT / "conf" / "demo.conf.in").read_text()
    for name, value in values.items():
        # what stands between quotes there
        text = text.replace(f"@{name}@", str(value).replace("\\", "\\\\").replace('"', '\\"'))
    conf = stack.home / "nginx.conf"
    conf.write_text(text)
    # -e: before the configuration is read, errors would go to Debian's log directory
    argv = [program("nginx"), "-p", stack.home, "-c", conf, "-e", stack.logs / "error.log"]
    test = subprocess.run([*argv, "-t"], capture_output=True, text=True, check=False)
    if test.returncode:
        raise Failure(f"nginx refuses {conf}:\n{test.stderr.strip()}")
    stack.start("nginx", argv, stop=signal.SIGQUIT)


# ----------------------------------------------------------------------------------------------------------- requests

def request(gateway, method, path, token=None, body=None):
    connection = http.client.HTTPConnection(*gateway, timeout=60)
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, json.dumps(body) if body else None, headers)
    return connection.getresponse()


def is_ready(gateway):
    try:
        return request(gateway, "GET", "/health/readiness").status == 200
    except OSError:
        return False


def ask(gateway, token, model, question):
    """One streamed chat request; the answer is printed as it arrives."""
    body = {"model": model, "stream": True, "max_tokens": 120, "messages": [{"role": "user", "content": question}]}
    answer = request(gateway, "POST", "/v1/chat/completions", token, body)
    if answer.status != 200:
        raise Failure(f"The first request was answered {answer.status}: {answer.read().decode(errors='replace')}")
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[len(b"data: "):])
        for choice in event.get("choices", []):
            print(choice["delta"].get("content") or "", end="", flush=True)
    say()


# --------------------------------------------------------------------------------------------------------------- main

def settings():
    """(address to listen on, port, kind of clients) from the environment."""
    listen = os.environ.get("LISTEN") or "127.0.0.1"
    clients = os.environ.get("CLIENTS") or "file"
    try:
        port = int(os.environ.get("PORT") or 8080)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise Failure(f"PORT={os.environ['PORT']} is not a port number (1 to 65535).")
    if clients not in ("file", "postgres"):
        raise Failure(f"CLIENTS={clients} is not known: leave it out, or use CLIENTS=postgres.")
    return listen, port, clients


def start_all(stack, scratch, listen, port, clients):
    """Starts the parts in order of need; returns when the gateway is ready."""
    redis_url = start_redis(stack)
    start_engine(stack, redis_url)
    if clients == "postgres":
        source = start_postgres(stack, scratch)
    else:
        # a copy: whoever plays with it leaves the sample alone
        tokens = stack.home / TOKENS.name
        shutil.copy(TOKENS, tokens)
        source = f"file:{tokens}"
    start_nginx(stack, f"{listen}:{port}", redis_url, source)


def show(gateway, stack):
    """The first answer, and what to do next."""
    users = sample_users()
    token = users[0]["token"]
    model = json.load(request(gateway, "GET", "/v1/models", token))["data"][0]["id"]
    step(f"Asking {model}: {QUESTION}")
    ask(gateway, token, model, QUESTION)
    say()
    step("Ready. Tokens:")
    for user in users:
        say(f"   {user['token']}   priority {user['priority']}, at most {user['threshold']} waiting ({user['name']})")
    base = "http://{}:{}".format(*gateway)
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": QUESTION}]})
    step("Copy this line:")
    say(f"curl -N {base}/v1/chat/completions -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{body}'")
    step(f"Dashboard: {base}/llm/   metrics: {base}/metrics")
    step(f"Logs: {stack.logs}")
    step("Ctrl-C stops everything.")


def main():
    def stop(number, frame):
        # once is enough: nothing may interrupt the tidying up
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        raise Stopped

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)

    stack = None
    scratch = None
    try:
        listen, port, clients = settings()
        check_port_free(listen, port)
        build()
        stack = Stack(ROOT / ".run" / str(port))
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="llm-dispatch-"))
        gateway = ("127.0.0.1" if listen == "0.0.0.0" else listen, port)
        start_all(stack, scratch, listen, port, clients)
        stack.wait_until(lambda: is_ready(gateway), "The gateway did not become ready", 60)
        show(gateway, stack)
        while True:
            stack.check()
            time.sleep(0.5)
    except Stopped:
        say()
        step("Stopping")
        return 0
    except Failure as failure:
        print(failure, file=sys.stderr, flush=True)
        return 1
    finally:
        if stack:
            stack.stop()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
