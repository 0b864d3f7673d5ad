"""`make run`: builds and starts a private Redis, the engine with the demo model and nginx with the module, and stays with them.

Environment: PORT (8080), LISTEN (127.0.0.1), CLIENTS ("file" or "postgres").
Everything lives in .run/ and ends with this program, however it ends. Only the standard library is used.
"""

import ctypes
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
RUN = ROOT / ".run"
LOGS = RUN / "logs"
MODEL = ROOT / "models" / "demo"
TOKENS = ROOT / "conf" / "llm-tokens.json"
DATABASE = "llm"

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

    def __init__(self, name, argv, *, stop=signal.SIGTERM, user=None, cwd=None):
        self.name = name
        self.log = LOGS / f"{name}.log"
        self._stop = stop
        libc = ctypes.CDLL(None)

        def die_with_parent():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        identity = {}
        if user:
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with open(self.log, "ab") as log:
            # a session of its own: Ctrl-C reaches us alone, and we stop the children in order
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd,
                                             start_new_session=True, preexec_fn=die_with_parent, **identity)

    def check(self):
        """Raises Failure if the program has ended."""
        status = self._process.poll()
        if status is not None:
            raise Failure(f"{self.name} ended with status {status}; the last lines of {self.log}:\n{tail(self.log)}")

    def stop(self):
        if self._process.poll() is not None:
            return
        self._process.send_signal(self._stop)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def tail(path, lines=15):
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait_until(ready, what, child, seconds):
    """Polls ready() until it is true; Failure when the child ends or the time is up."""
    deadline = time.monotonic() + seconds
    while not ready():
        child.check()
        if time.monotonic() > deadline:
            raise Failure(f"{what} within {seconds} s; see the logs in {LOGS}.")
        time.sleep(0.05)


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


def check_port_free(listen, port):
    with socket.socket() as probe:
        # nginx sets it too: connections in TIME_WAIT do not make a port busy
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except OSError as error:
            raise Failure(f"Port {port} cannot be used on {listen} ({error.strerror}); "
                          f"choose another one: make run PORT={port + 1}") from None


def build():
    step("Building (a first time takes minutes)")
    done = subprocess.run([ROOT / "scripts" / "build.sh", "release", "-DLLM_TESTS=OFF", "--", "llm-engine",
                           "ngx_http_llm_dispatch_module"], check=False)
    if done.returncode:
        raise Failure("Nothing was started, because the build did not succeed.")


def start_redis(children):
    step("Starting Redis")
    port = free_port()
    child = Child("redis", [program("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", "",
                            "--appendonly", "no", "--dir", str(RUN)])
    children.append(child)
    wait_until(lambda: accepts(port), "Redis did not accept connections", child, 15)
    return f"redis://127.0.0.1:{port}/0"


def start_engine(children, redis_url):
    if not (MODEL / "config.json").exists():
        raise Failure(f"The demo model is not in {MODEL.relative_to(ROOT)}: is the checkout complete?")
    step("Starting llm-engine with the demo model")
    port = free_port()
    child = Child("engine", [str(BUILD / "llm-engine"), "--model", str(MODEL), "--listen", f"127.0.0.1:{port}",
                             "--redis", redis_url])
    children.append(child)
    return child


def start_postgres(children, scratch):
    """A private cluster with the users of the token file; returns its URL."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    if not found:
        raise Failure("PostgreSQL's programs were not found in /usr/lib/postgresql: install the package postgresql, then repeat.")
    binaries = pathlib.Path(found[-1])
    step("Starting PostgreSQL")
    user = None
    data = pathlib.Path(scratch) / "postgres"
    data.mkdir()
    if os.geteuid() == 0:
        # the server refuses to run as root; its directory cannot be in .run/, which that user may be unable to reach
        user = pwd.getpwnam("postgres")
        os.chown(scratch, user.pw_uid, user.pw_gid)
        os.chown(data, user.pw_uid, user.pw_gid)
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    made = subprocess.run([binaries / "initdb", "-D", data, "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--locale=C",
                           "--no-sync"], capture_output=True, text=True, check=False, cwd="/", **identity)
    if made.returncode:
        raise Failure(f"PostgreSQL could not create its files: {made.stderr.strip()}")
    port = free_port()
    child = Child("postgres", [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1",
                               "-k", str(data), "-c", "fsync=off"], stop=signal.SIGINT, user=user, cwd="/")
    children.append(child)
    url = f"postgresql://{DATABASE}@127.0.0.1:{port}/"

    def psql(database, *arguments):
        return subprocess.run([binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url + database, *arguments],
                              capture_output=True, text=True, check=False, cwd=ROOT)

    wait_until(lambda: psql("postgres", "-c", "SELECT 1").returncode == 0, "PostgreSQL did not answer", child, 30)
    users = json.loads(TOKENS.read_text())["users"]
    rows = ", ".join("('{token}', '{name}', {priority}, {threshold})".format(**user) for user in users)
    for database, arguments in [("postgres", ["-c", f"CREATE DATABASE {DATABASE}"]),
                                (DATABASE, ["-f", "conf/schema.sql", "-f", "conf/llm_notify.sql"]),
                                (DATABASE, ["-c", f"INSERT INTO users (token, name, priority, threshold) VALUES {rows}"])]:
        done = psql(database, *arguments)
        if done.returncode:
            raise Failure(f"PostgreSQL refused the sample clients: {done.stderr.strip()}")
    return url + DATABASE


def start_nginx(children, listen, port, redis_url, clients):
    step("Starting nginx")
    values = {
        "module": BUILD / "ngx_http_llm_dispatch_module.so",
        # Workers of a root master would run as nobody, who may be unable to read a checkout under /root.
        "user": "user root;" if os.geteuid() == 0 else "",
        "logs": LOGS, "temp": RUN / "temp", "pid": RUN / "nginx.pid",
        "listen": f"{listen}:{port}", "redis": redis_url, "clients": clients,
    }
    text = (ROOT / "conf" / "demo.conf.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    conf = RUN / "nginx.conf"
    conf.write_text(text)
    # -e: before the configuration is read, errors would go to Debian's log directory
    argv = [program("nginx"), "-p", str(RUN), "-c", str(conf), "-e", str(LOGS / "error.log")]
    test = subprocess.run([*argv, "-t"], capture_output=True, text=True, check=False)
    if test.returncode:
        raise Failure(f"nginx refuses {conf}:\n{test.stderr.strip()}")
    child = Child("nginx", argv, stop=signal.SIGQUIT)
    children.append(child)
    return child


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
    body = {"model": model, "stream": True, "max_tokens": 64, "messages": [{"role": "user", "content": question}]}
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

def run(children, scratch):
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
    check_port_free(listen, port)
    gateway = ("127.0.0.1" if listen == "0.0.0.0" else listen, port)
    base = "http://{}:{}".format(*gateway)

    build()
    shutil.rmtree(RUN, ignore_errors=True)
    LOGS.mkdir(parents=True)
    (RUN / "temp").mkdir()

    redis_url = start_redis(children)
    engine = start_engine(children, redis_url)
    if clients == "postgres":
        source = start_postgres(children, scratch)
    else:
        shutil.copy(TOKENS, RUN / TOKENS.name)
        source = f"file:{RUN / TOKENS.name}"
    nginx = start_nginx(children, listen, port, redis_url, source)

    def ready():
        engine.check()
        return is_ready(gateway)

    wait_until(ready, "The gateway did not become ready", nginx, 60)

    users = json.loads(TOKENS.read_text())["users"]
    token = users[0]["token"]
    model = json.load(request(gateway, "GET", "/v1/models", token))["data"][0]["id"]
    question = "What is nginx?"
    step(f"Asking {model}: {question}")
    ask(gateway, token, model, question)

    say()
    step("Ready. Tokens:")
    for user in users:
        say(f"   {user['token']}   priority {user['priority']}, at most {user['threshold']} waiting ({user['name']})")
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": question}]})
    step("Copy this line:")
    say(f"curl -N {base}/v1/chat/completions -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d '{body}'")
    step(f"Dashboard: {base}/llm/   metrics: {base}/metrics")
    step(f"Logs: {LOGS}")
    step("Ctrl-C stops everything.")
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


def main():
    def stop(number, frame):
        # once is enough: nothing may interrupt the tidying up
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        raise Stopped

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)

    children = []
    scratch = tempfile.mkdtemp(prefix="llm-dispatch-")
    status = 0
    try:
        run(children, scratch)
    except Stopped:
        say()
        step("Stopping")
    except Failure as failure:
        print(failure, file=sys.stderr, flush=True)
        status = 1
    finally:
        for child in reversed(children):
            child.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
