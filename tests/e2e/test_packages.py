"""The Debian packages: what is in them, what they ask for, and that it works from where they put it."""

import os
import pathlib
import re
import subprocess

import pytest

from support import sanitizers
from support.client import chat_body
from support.paths import BUILD, ROOT

MODULE = "usr/lib/nginx/modules/ngx_http_llm_dispatch_module.so"
LINK = "etc/nginx/modules-enabled/50-mod-http-llm-dispatch.conf"
KINDS = ("libnginx-mod-http-llm-dispatch", "llm-dispatch-tools", "llm-engine")

pytestmark = pytest.mark.skipif(sanitizers.ACTIVE or "NGINX_BINARY" in os.environ, reason="packages hold the release for the installed nginx")


def output_of(*argv, **keywords):
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True, **keywords).stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """{name: .deb}, of the build that is tested."""
    made = tmp_path_factory.mktemp("packages")
    (made / "llm-engine_0.0.9-1_amd64.deb").touch()  # of a former version
    output_of(ROOT / "scripts" / "package.sh", BUILD, made, umask=0o007)
    return {output_of("dpkg-deb", "-f", path, "Package").strip(): path for path in made.glob("*.deb")}


@pytest.fixture(scope="module")
def root(packages, tmp_path_factory):
    """A directory with all packages unpacked into it."""
    place = tmp_path_factory.mktemp("root")
    for path in packages.values():
        output_of("dpkg-deb", "-x", path, place)
    return place


def test_one_package_per_part(packages):
    assert sorted(packages) == sorted(KINDS)
    provided = output_of("dpkg-query", "-W", "-f", "${Provides}", "nginx")
    abi = next(word for word in provided.split(", ") if word.startswith("nginx-abi-"))
    depends = {name: output_of("dpkg-deb", "-f", path, "Depends") for name, path in packages.items()}
    assert abi in depends["libnginx-mod-http-llm-dispatch"].split(", "), "the module fits one nginx only"
    for name, library in zip(KINDS, ("libhiredis", "libcurl", "libicu")):
        assert library in depends[name]
    # what they ask for is what was there when they were built
    if os.geteuid() == 0:
        output_of("dpkg", "--dry-run", "--install", *packages.values())


def test_no_file_is_in_two_packages(packages):
    seen = {}
    for name, path in packages.items():
        for line in output_of("dpkg-deb", "-c", path).splitlines():
            mode, owner, entry = line.split()[0], line.split()[1], line.split(maxsplit=5)[5]
            assert owner == "root/root"
            assert mode[5] == "-" and mode[8] == "-", f"{entry} can be written by others"
            assert mode[7] == "r" and (mode[0] != "d" or mode[9] == "x"), f"{entry} cannot be read by everybody"
            if not entry.endswith("/"):
                assert seen.setdefault(entry, name) == name, entry


def test_the_programs_run(root):
    for name in ("llm-engine", "llmctl", "llm-reporter"):
        assert output_of(root / "usr" / "bin" / name, "--version").startswith(name)
    for unit in (ROOT / "conf" / "systemd").glob("*.service"):
        packaged = root / "usr" / "lib" / "systemd" / "system" / unit.name
        assert packaged.read_text() == unit.read_text()
        started = next(line for line in packaged.read_text().splitlines() if line.startswith("ExecStart="))
        assert (root / started.removeprefix("ExecStart=/").split()[0]).exists()
        page = next(line for line in packaged.read_text().splitlines() if line.startswith("Documentation=file:///"))
        assert (root / page.removeprefix("Documentation=file:///")).exists()


def test_the_pages_find_each_other_and_the_configuration(root):
    """What they link to is packaged, but for what only a checkout has."""
    place = root / "usr" / "share" / "doc" / "llm-dispatch"
    pages = sorted(place.rglob("*.md"))
    assert {page.name for page in pages} >= {path.name for path in (ROOT / "docs").glob("*.md")}
    checkout = re.compile(r"(bench|engine_worker|models|ngx_module|packaging|scripts|shared|t|tests|tools)(/|$)"
                          r"|conf/helm|conf/samples/.*\.sh|conf/systemd/llm-|docs/images")
    lost = []
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()):
            target = os.path.relpath(page.parent / link, place)
            if not (place / target).exists() and not checkout.match(target):
                lost.append((page.name, link))
    assert not lost


def test_what_the_scripts_call_comes_with_them(packages, root):
    asked = output_of("dpkg-deb", "-f", packages["libnginx-mod-http-llm-dispatch"], "Depends", "Recommends")
    scripts = "".join(path.read_text() for path in (root / "usr" / "share" / "llm-dispatch").iterdir())
    for program in ("curl", "python3", "jq", "psql", "redis-cli"):  # none is part of every system
        assert (program in scripts) <= (program in asked), program


def test_the_module_serves(root, fake_engine, gateway):
    gate = gateway([fake_engine()], module=root / MODULE)
    assert gate.client.ask(chat_body(), token="alice").status == 200
    gate.wait_outcomes({"completed": 1})


@pytest.fixture
def script(packages, tmp_path):
    """Runs a maintainer script in a system of its own that is empty but for nginx's directories."""
    home = tmp_path / "system"
    (home / LINK).parent.mkdir(parents=True)
    (home / "run").mkdir()

    def run(name, *arguments, package="libnginx-mod-http-llm-dispatch"):
        control = tmp_path / f"control-{package}"
        if not control.exists():
            output_of("dpkg-deb", "-e", packages[package], control)
        text = (control / name).read_text()
        for path in ("/etc/", "/run/"):
            text = text.replace(f" {path}", f" {home}{path}").replace(f"={path}", f"={home}{path}")
        return output_of("sh", "-c", text, name, *arguments)

    run.home = home
    return run


def test_it_is_enabled_once(root, script):
    link = script.home / LINK
    assert script("postinst", "configure", "") == ""
    target = pathlib.Path(os.readlink(link))
    assert (root / target.relative_to("/")).read_text() == "load_module modules/ngx_http_llm_dispatch_module.so;\n"
    link.unlink()  # an administrator who does not want it
    assert script("postinst", "configure", "0.0.9-1") == ""
    assert not link.is_symlink()
    script("postinst", "configure", "")
    script("prerm", "upgrade", "0.2.0-1")
    assert link.is_symlink()
    script("prerm", "remove")
    assert not link.is_symlink()


@pytest.mark.parametrize("package,unit", [("llm-engine", "llm-engine"), ("llm-dispatch-tools", "llm-reporter")])
def test_services_go_with_their_package(script, monkeypatch, package, unit):
    """A removed package stops what runs of it, an upgraded one names it, a purged one leaves no link behind; without systemd nothing is tried."""
    home = script.home
    wants = home / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for instance in ("gpu0", "gpu1"):
        (wants / f"{unit}@{instance}.service").symlink_to(f"/lib/systemd/system/{unit}@.service")
    (wants / "other.service").symlink_to("/lib/systemd/system/other.service")
    (home / "bin").mkdir()
    (home / "bin" / "systemctl").write_text(f"""#!/bin/sh
echo "$*" >>{home}/told
[ "$1" != list-units ] || printf '{unit}@gpu0.service loaded active running x\n{unit}@gpu1.service loaded active running x\n'
""")
    (home / "bin" / "systemctl").chmod(0o755)
    (home / "told").touch()
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")

    def run(*words):
        (home / "told").write_text("")
        return script(*words, package=package), (home / "told").read_text()

    assert run("prerm", "remove") == ("", "") and run("postinst", "configure", "") == ("", "")
    (home / "run/systemd/system").mkdir(parents=True)
    assert run("postinst", "configure", "")[0] == ""
    said, told = run("postinst", "configure", "0.0.9-1")
    assert said.splitlines()[1:] == [f"    systemctl restart {unit}@gpu0.service", f"    systemctl restart {unit}@gpu1.service"]
    assert "daemon-reload" in told and "restart" not in told
    assert run("prerm", "upgrade", "0.2.0-1") == ("", "")
    assert run("prerm", "remove") == ("", f"stop {unit}@*.service\n")
    assert run("postrm", "remove") == ("", "daemon-reload\n") and len(list(wants.iterdir())) == 3
    assert run("postrm", "purge") == ("", "daemon-reload\n")
    assert [link.name for link in wants.iterdir()] == ["other.service"]


def test_an_upgrade_says_how_to_go_on(root, script):
    (script.home / "run" / "nginx.pid").write_text(str(os.getpid()))
    said = script("postinst", "configure", "0.0.9-1")
    command = said.splitlines()[-1].strip()
    assert os.access(root / command.removeprefix("/"), os.X_OK)
