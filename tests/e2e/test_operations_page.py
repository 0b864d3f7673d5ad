"""docs/operations.md: its commands, as they stand there and in their order, with real servers in a sandbox.

What belongs to the machine is replaced: absolute paths and addresses by the sandbox's, sudo, make and systemctl by small scripts.
"""

import os
import re
import stat
import subprocess
import textwrap

import pytest

from support import sanitizers
from support.paths import BUILD, ROOT, program
from support.poll import until
from support.ports import free_port
from support.process import Adopted, accepts

PAGE = ROOT / "docs" / "operations.md"

SUDO = 'exec "$@"'
# What the recipe does not build is not there afterwards, whatever these tests have built.
MAKE = """
    [ "$*" = build ]
    rm {home}/build/release
    mkdir {home}/build/release
    for name in $(/usr/bin/make -n -C "{root}" build | sed -n 's/.*build.sh release -- //p'); do
        file=$name
        [ $name != ngx_http_llm_dispatch_module ] || file=$name.so
        ln -s "{build}/$file" {home}/build/release/
    done
"""
# nginx reads a translated copy of the configuration that the operator has edited.
NGINX = """
    sed -f {home}/translate.sed {home}/etc/nginx/nginx.conf >{home}/nginx.conf
    exec env {environment} {nginx} -p {home} -c {home}/nginx.conf -e {home}/log/error.log "$@"
"""
SYSTEMCTL = """
    workers() {{ ps --ppid "$(cat {home}/nginx.pid)" -o pid=,args= | grep 'nginx: worker process$' | awk '{{print $1}}' | sort | tr '\\n' ' '; }}
    case "$*" in
    daemon-reload) ;;
    "enable nginx") ;;
    "restart nginx") nginx ;;
    "reload nginx")
        old=$(workers)
        nginx -t
        kill -HUP "$(cat {home}/nginx.pid)"
        # a test cannot wait and see: return when the new workers serve and no old one accepts
        until new=$(workers); [ -n "$new" ] && ! echo " $old" | tr ' ' '\\n' | grep . | grep -qxF -f - <(echo "$new" | tr ' ' '\\n' | grep .); do sleep 0.05; done ;;
    *) echo "systemctl $*: not foreseen" >&2; exit 1 ;;
    esac
"""


def blocks():
    """[(line, text)] of the page's sh blocks."""
    text = PAGE.read_text()
    return [(text[:match.start()].count("\n") + 2, match[1]) for match in re.finditer(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


@pytest.fixture
def sandbox(tmp_path, fake_engine, postgres_cluster):
    engine = fake_engine(models=("llama-3.1-8b",))
    port = free_port()
    database = postgres_cluster.url(postgres_cluster.create_database(schema=False, notify=False))
    home = tmp_path / "home"
    for name in ("etc/nginx", "etc/systemd/system", "log", "bin", "build", "temp"):
        (home / name).mkdir(parents=True)
    (home / "build" / "release").symlink_to(BUILD)
    (home / "conf").symlink_to(ROOT / "conf")
    environment = sanitizers.environment(home / "log", preload="NGINX_BINARY" not in os.environ)
    translations = {
        "/usr/lib/nginx/modules": f"{home}/modules", "/usr/local/bin": f"{home}/bin", "/etc/nginx": f"{home}/etc/nginx",
        "/etc/systemd": f"{home}/etc/systemd", "/var/log/nginx": f"{home}/log", "/run/nginx.pid": f"{home}/nginx.pid",
        "postgresql://llm@127.0.0.1/llm": database, "127.0.0.1:8080": f"127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{engine.port}",
    }
    only_nginx = {
        "listen 8080;": f"listen 127.0.0.1:{port};", "user www-data;": "user root;" if os.geteuid() == 0 else "",
        "worker_processes auto;": "worker_processes 2; " + " ".join(f"env {name};" for name in environment), "worker_rlimit_nofile 65536;": "", "worker_connections 16384": "worker_connections 512",
        "http {": "http { " + "".join(f"{name}_temp_path {home}/temp/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
        # a server that shares its machine with other tests
        "llm_zone llm 64m": "llm_zone llm 16m",
    }
    (home / "translate.sed").write_text("".join(f"s|{there.replace('.', '[.]')}|{here}|g\n"
                                                for there, here in {**translations, **only_nginx}.items()))
    settings = {"home": home, "root": ROOT, "build": BUILD, "nginx": program("nginx"), "environment": " ".join(f"{name}={value}" for name, value in environment.items())}
    for name, script in {"sudo": SUDO, "chgrp": '[ "$1" = www-data ] && [ -e "$2" ]', "make": MAKE, "nginx": NGINX, "systemctl": SYSTEMCTL}.items():
        path = home / "bin" / name
        path.write_text("#!/bin/bash\nset -eu\n" + textwrap.dedent(script.format(**settings) if "{home}" in script else script))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    yield home, translations, engine, port
    pid = home / "nginx.pid"
    if pid.exists() and pid.stat().st_size > 0:  # nginx -t leaves an empty one
        master = Adopted(int(pid.read_text()), home / "log" / "error.log")
        master.stop(3)  # SIGQUIT
    reports = sanitizers.reports(home / "log")
    assert not reports, reports[0].read_text(errors="replace")
    bad = [line for line in (home / "log" / "error.log").read_text().splitlines() if re.search(r"\[(alert|emerg|crit)\]", line)]
    assert not bad, bad


@pytest.mark.timeout(180)
def test_every_command_of_the_page(sandbox):
    home, translations, engine, port = sandbox
    script = ["set -euo pipefail", f"cd {home}", f"export LLM_STATUS_URL=http://127.0.0.1:{port}/llm/"]
    for line, text in blocks():
        for there, here in translations.items():
            text = text.replace(there, here)
        script += [f"echo '== operations.md:{line}'", text]
    done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=False, timeout=170,
                          env={**os.environ, "PATH": f"{home}/bin:{os.environ['PATH']}:/usr/sbin", "HOME": str(home)})
    log = (home / "log" / "error.log").read_text() if (home / "log" / "error.log").exists() else ""
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{log[-2000:]}"
    assert done.stdout.count("== operations.md:") == len(blocks()) >= 9

    # what the commands were for has come about
    assert "hello from the engine" in done.stdout
    assert engine.requests[0].header("authorization") is None
    until(lambda: accepts(port), "the gateway serves after the upgrade")
    assert "has taken over from" in done.stdout and "has none left" in done.stdout
    assert re.search(r"client=alice model=llama-3.1-8b", done.stdout), "the log line"
    assert "drained" in log and "undrained" in log


def test_every_link_of_the_docs_leads_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "conf").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
