"""The gateways that run.py compares: what each lacks here, how it is configured, and which processes are its own.

Each serves the model "m" of one engine to the client "sk-bench", with one process that works where it can be told so, and its defaults otherwise.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from processes import family
from support.paths import CONF, postgres_binaries, program
from support.ports import free_port
from support.process import Process

TOKEN = "sk-bench"
SEATS = 1000
CLIENTS = [{"token": f"sk-{number}", "name": f"c{number}", "priority": 3, "threshold": SEATS} for number in range(999)] \
    + [{"token": TOKEN, "name": "bench", "priority": 3, "threshold": SEATS}]
# what --install installs, each into an environment of its own
PACKAGES = {"litellm": ["litellm[proxy]==1.106.2"], "vllm-router": ["vllm-router==0.1.17"], "smg": ["sglang-router==0.3.2"]}
ARISTOTE = "https://github.com/CentraleSupelec/aristote-dispatcher"
ARISTOTE_VERSION = "v1.5.0"


def said(*argv):
    """What a program prints, in one line."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split())


def version_in(text):
    return re.search(r"\d+(\.\d+)+", text)[0]


def not_found(name, package):
    try:
        program(name)
    except AssertionError:
        return f"{name} is not installed (Debian's package {package})"
    return None


class Gateway:
    """`work`: where --install puts things. `directory`: empty, for this run. `engine`: its port. `port` and `processes` hold once it is started."""

    name = does = ""
    verbatim = True  # whether answers are the engine's, byte for byte

    def __init__(self, work, directory, engine, build):
        self.work, self.directory, self.engine, self.build = work, directory, engine, build
        self.port = free_port()
        self.processes = []

    def missing(self):
        """What it lacks here, in words; None when it can run."""
        return None

    def version(self):
        return ""

    def start(self):
        raise NotImplementedError

    def run(self, name, argv, **more):
        process = Process(argv, self.directory / f"{name}.log", **more)
        self.processes.append(process)
        return process

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    def output(self):
        return "\n".join(process.output()[-2000:] for process in self.processes)

    def stop(self):
        """Ends all at once: what they would still write is in a directory that goes."""
        pids = family(self.pids)
        for process in self.processes:
            process.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its parent took it along

    # ------------------------------------------------------------------------------------- for those of Python's package index

    def installed(self, environment, command):
        """(path of a program in one of our environments, what to say when it is not there)"""
        path = self.work / environment / "bin" / command
        return path, None if path.exists() else f"not installed: {sys.argv[0]} --install does it"

    def package_version(self, environment, package):
        return said(self.work / environment / "bin" / "python", "-c", f"import importlib.metadata as m; print(m.version('{package}'))")


class PlainNginx(Gateway):
    """The floor: hands on what comes, knows nobody."""

    name = "nginx proxy_pass"
    does = "nothing else"
    values = {"load": "", "http": "", "location": 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization ""; '
                                                  "proxy_buffering off;"}

    def version(self):
        return version_in(said(program("nginx"), "-v"))

    def configuration(self):
        return {**self.values, "servers": f"server 127.0.0.1:{self.engine};"}

    def start(self):
        text = (pathlib.Path(__file__).parents[1] / "gateway-overhead" / "gateway.conf").read_text()
        values = {"directory": self.directory, "name": "nginx", "port": self.port, "master": "on",
                  "user": "user root;" if os.geteuid() == 0 else "", **self.configuration()}
        for key, value in values.items():
            text = text.replace("{%s}" % key, str(value))
        (self.directory / "nginx.conf").write_text(text)
        self.run("nginx", [program("nginx"), "-p", self.directory, "-c", self.directory / "nginx.conf", "-e", self.directory / "nginx.log"])


class Dispatch(PlainNginx):
    """This one."""

    name = "llm_dispatch"
    does = "clients of a file, queue, dispatch, usage in metrics"

    def version(self):
        return f"in nginx {super().version()}"

    def clients(self):
        path = self.directory / "tokens.json"
        path.write_text(json.dumps({"users": CLIENTS}))
        return f"llm_priority_db file:{path};"

    def configuration(self):
        return {"load": f'load_module "{self.build}/ngx_http_llm_dispatch_module.so";', "servers": "llm_balance;", "location": "llm_dispatch on;",
                "http": f"llm_zone llm 64m; {self.clients()} llm_engine http://127.0.0.1:{self.engine} model=m max_running={SEATS};"}


class WithPostgres(Gateway):
    """One that has a PostgreSQL of its own, whose processes count as its own."""

    database = None

    def missing(self):
        try:
            postgres_binaries()
        except AssertionError:
            return "PostgreSQL is not installed (Debian's package postgresql)"
        try:
            import psycopg  # noqa: F401
        except ImportError:
            return "the Python package psycopg is not installed: scripts/venv.sh makes .venv with it"
        return None

    def start_database(self):
        """A new database without tables; its name."""
        from support.postgres import Postgres

        self.database = Postgres()
        self.database.start()
        self.processes.append(self.database.process)
        return self.database.create_database(schema=False, notify=False)

    def insert_clients(self, name):
        with self.database.connect(name) as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO users (token, name, priority, threshold) VALUES (%(token)s, %(name)s, %(priority)s, %(threshold)s)", CLIENTS)

    def stop(self):
        if not self.database:
            return super().stop()
        # it ends by itself, so that nothing stays of its shared memory
        self.processes = [process for process in self.processes if process is not self.database.process]
        super().stop()
        return self.database.remove()


class DispatchWithPostgres(WithPostgres, Dispatch):
    name = "llm_dispatch with PostgreSQL"
    does = "clients and a row of usage per request in PostgreSQL, queue, dispatch"

    def clients(self):
        name = self.start_database()
        with self.database.connect(name) as connection:
            for part in ("schema.sql", "llm_notify.sql"):
                connection.execute((CONF / part).read_text())
        self.insert_clients(name)
        return f'llm_priority_db "{self.database.url(name)}"; llm_usage on;'


class HaProxy(Gateway):
    name = "HAProxy"
    does = "clients of a file, queue by maxconn"

    def missing(self):
        return not_found("haproxy", "haproxy")

    def version(self):
        return version_in(said(program("haproxy"), "-v"))

    def start(self):
        (self.directory / "tokens").write_text("".join(f"Bearer {client['token']}\n" for client in CLIENTS))
        (self.directory / "haproxy.cfg").write_text(f"""
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    timeout client 600s
    timeout server 600s
    timeout connect 5s
    timeout queue 600s
frontend api
    bind 127.0.0.1:{self.port}
    http-request deny deny_status 401 unless {{ req.hdr(Authorization) -m str -f {self.directory}/tokens }}
    default_backend engines
backend engines
    server one 127.0.0.1:{self.engine} maxconn {SEATS}
""")
        self.run("haproxy", [program("haproxy"), "-f", self.directory / "haproxy.cfg"])


class VllmRouter(Gateway):
    name = "vllm-router"
    does = "dispatch"
    environment, command, package = "vllm-router", "vllm-router", "vllm-router"
    words = ()

    def missing(self):
        return self.installed(self.environment, self.command)[1]

    def version(self):
        return self.package_version(self.environment, self.package)

    def start(self):
        self.run("router", [self.installed(self.environment, self.command)[0], *self.words, "--host", "127.0.0.1", "--port", self.port,
                            "--worker-urls", f"http://127.0.0.1:{self.engine}", "--policy", "round_robin", "--prometheus-host", "127.0.0.1",
                            "--prometheus-port", free_port(), "--log-level", "error"])


class SglangGateway(VllmRouter):
    name = "SGLang Model Gateway"
    environment, command, package = "smg", "smg", "sglang-router"
    words = ("launch",)


class LiteLlm(Gateway):
    name = "LiteLLM"
    does = "one key, dispatch, usage"
    verbatim = False
    workers = 1

    def missing(self):
        return self.installed("litellm", "litellm")[1]

    def version(self):
        return self.package_version("litellm", "litellm")

    def start(self):
        (self.directory / "config.yaml").write_text(json.dumps({
            "model_list": [{"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": f"http://127.0.0.1:{self.engine}/v1", "api_key": "none"}}],
            "general_settings": {"master_key": TOKEN},
            "litellm_settings": {"telemetry": False}}))
        self.run("litellm", [self.work / "litellm" / "bin" / "litellm", "--config", self.directory / "config.yaml", "--host", "127.0.0.1",
                             "--port", self.port, "--num_workers", self.workers, "--telemetry", "False"],
                 env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR",
                      "LITELLM_DISABLE_NO_REDIS_WARNING": "true", "PATH": f"{self.work}/litellm/bin:{os.environ['PATH']}"}, cwd=self.directory)


class LiteLlmTwo(LiteLlm):
    name = "LiteLLM with 2 workers"
    workers = 2


class Aristote(WithPostgres):
    """Its sender, its consumer, a RabbitMQ and a PostgreSQL, as its compose.yml has them; what they log, they log at its defaults."""

    name = "Aristote Dispatcher"
    does = "clients and a row of usage per request in PostgreSQL, queue, dispatch"

    broker = next(pathlib.Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"), None)

    @property
    def source(self):
        return self.work / "aristote-dispatcher"

    def missing(self):
        if not self.source.exists():
            return f"no source: git clone --branch {ARISTOTE_VERSION} {ARISTOTE} {self.source}, then {sys.argv[0]} --install"
        if not self.broker:
            return "RabbitMQ is not installed (Debian's package rabbitmq-server)"
        return self.installed("aristote", "fastapi")[1] or super().missing()

    def version(self):
        return f"{ARISTOTE_VERSION.removeprefix('v')} with RabbitMQ {version_in(str(self.broker))}"

    def start_broker(self):
        """(port, port of its management)"""
        home = self.directory / "rabbitmq"
        home.mkdir()
        port, management, names = free_port(), free_port(), free_port()
        (home / "enabled_plugins").write_text("[rabbitmq_management].")
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n")
        self.run("epmd", [program("epmd"), "-port", names, "-address", "127.0.0.1"])
        # RUNNING_UNDER_SYSTEMD: no shell between us and the broker
        self.run("rabbitmq", [self.broker], cwd=home, env={
            "HOME": str(home), "RABBITMQ_HOME": str(self.broker.parents[1]), "RABBITMQ_NODENAME": f"peers{port}@localhost", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(home / "data"), "RABBITMQ_LOG_BASE": str(home / "log"), "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"), "RABBITMQ_PID_FILE": str(home / "pid"), "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1"}).wait_port(management, 120)
        return port, management

    def start(self):
        database = self.start_database()
        port, management = self.start_broker()
        programs = self.work / "aristote" / "bin"
        env = {"PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1", "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": str(port),
               "RABBITMQ_MANAGEMENT_PORT": str(management), "MODEL": "m", "MODEL_HOST_MAPPING": json.dumps({"m": ["bench"]}),
               "DATABASE_URL": self.database.url(database).replace("postgresql:", "postgresql+psycopg2:"), "ROUTING_STRATEGY": "round-robin",
               "QUALITY_OF_SERVICE_POLICY": "parallel-requests-threshold-requeue",
               "VLLM_SERVERS": json.dumps({f"http://127.0.0.1:{self.engine}": {"organization": "bench", "max_parallel_requests": SEATS}})}
        made = subprocess.run([programs / "alembic", "upgrade", "head"], cwd=self.source, env={**os.environ, **env}, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.insert_clients(database)
        self.run("consumer", [programs / "python", "-m", "src.consumer.main"], cwd=self.source, env=env)
        self.run("sender", [programs / "fastapi", "run", "--host", "127.0.0.1", "--port", self.port, "src/sender/main.py"], cwd=self.source, env=env)


GATEWAYS = [PlainNginx, HaProxy, Dispatch, DispatchWithPostgres, VllmRouter, SglangGateway, LiteLlm, LiteLlmTwo, Aristote]


def install(work):
    """The Python ones, each into an environment of its own below `work`."""
    work.mkdir(parents=True, exist_ok=True)
    wanted = dict(PACKAGES)
    source = work / "aristote-dispatcher" / "src"
    if source.exists():
        wanted["aristote"] = [f"-r{source / part / 'requirements.txt'}" for part in ("sender", "consumer")]
    for name, packages in wanted.items():
        print(f"== {name}: {' '.join(packages)}", flush=True)
        python = work / name / "bin" / "python"
        if not python.exists():
            subprocess.run([shutil.which("python3"), "-m", "venv", work / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
