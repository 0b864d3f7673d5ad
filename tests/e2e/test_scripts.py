"""The scripts behind `make`, where a user's machine is not as usual."""

import os
import shutil
import subprocess

import pytest

from support.paths import ROOT


@pytest.mark.timeout(600)  # an environment takes a busy machine a minute
def test_the_environment_of_a_moved_checkout_is_made_anew(tmp_path):
    """Its programs name the directory where they were made."""
    before, after = tmp_path / "before", tmp_path / "after it"
    for name in ("scripts", "tests"):
        (before / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "venv.sh", before / "scripts")
    (before / "tests" / "requirements.txt").write_text("# none: nothing is fetched\n")
    (before / "tests" / "requirements-optional.txt").write_text("# none\n")

    def run(place):
        return subprocess.run([place / "scripts" / "venv.sh"], capture_output=True, text=True, check=True, timeout=300).stdout

    assert "Installing" in run(before) and run(before) == ""
    before.rename(after)
    assert "Installing" in run(after) and run(after) == ""
    subprocess.run([after / ".venv" / "bin" / "pip", "--version"], check=True, capture_output=True)


@pytest.mark.timeout(600)
def test_an_optional_package_may_be_missing(tmp_path):
    for name in ("scripts", "tests"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "scripts" / "venv.sh", tmp_path / "scripts")
    (tmp_path / "tests" / "requirements.txt").write_text("# none\n")
    (tmp_path / "tests" / "requirements-optional.txt").write_text(f"# why\nnot-there==1.0 --hash=sha256:{'0' * 64}\n")
    run = subprocess.run([tmp_path / "scripts" / "venv.sh"], env={**os.environ, "PIP_NO_INDEX": "1"}, capture_output=True, text=True,
                         check=True, timeout=300)
    assert run.stdout.endswith("the tests that need them are skipped: not-there==1.0\n"), run.stdout


@pytest.mark.parametrize("version, found", [
    ({"cmake": "3.22.1-1ubuntu1", "g++": "4:11.2.0-1ubuntu1"}, "it has cmake 3.22.1 (3.25 is needed), g++ 11.2.0 (12 is needed), no nginx-dev."),
    ({"cmake": "3.25.1-1", "g++": "4:12.2.0-3", "nginx-dev": "1.22.1-9+deb12u11"}, None),
])
def test_a_distribution_that_is_too_old_is_told_in_one_sentence(version, found, tmp_path):
    """Before anything is installed. Its own tools are played; nothing of this machine is asked or changed."""
    def program(name, text):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    program("dpkg-query", "exit 1")  # nothing is there
    program("sudo", 'exec "$@"')
    for name in ("tee", "chmod", "rm"):  # what keeps services from starting
        program(name, "exit 0")
    program("apt-get", f'case "$*" in *install*) echo installing >>{tmp_path}/installed; exit 1 ;; esac')
    program("apt-cache", '[ "$LC_ALL" = C ] || exec echo "  Candidat : 1"\n'  # it speaks the user's language
            "case $2 in " + " ".join(f"{name}) echo '  Candidate: {number}' ;;" for name, number in version.items()) +
            " *) echo '  Candidate: (none)' ;; esac")
    run = subprocess.run([ROOT / "scripts" / "deps.sh", "build"], capture_output=True, text=True, timeout=60,
                         env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}", LC_ALL="C.UTF-8", SKIP_DEPS="", TMPDIR=str(tmp_path)))
    assert run.returncode == 1
    if found is None:
        assert (tmp_path / "installed").exists() and "too old" not in run.stderr
    else:
        assert found in run.stderr and "Ubuntu 24.04" in run.stderr and run.stderr.count("\n") == 1
        assert not (tmp_path / "installed").exists()


def test_another_nginx_is_built_when_another_is_named(tmp_path):
    """Older, or with a changed file; what was built in somebody's tree is left there."""
    def source(name, version):
        place = tmp_path / name
        (place / "src").mkdir(parents=True)
        (place / "objs").mkdir()
        (place / "objs" / "nginx").write_text("of somebody else")
        (place / "src" / "version").write_text(version)
        (place / "configure").write_text("#!/bin/sh\nmkdir objs\nprintf 'all:\\n\\tcp src/version objs/nginx\\n' >Makefile\n")
        (place / "configure").chmod(0o755)
        return place

    def build(place):
        script = f"""set -euo pipefail; . {ROOT}/scripts/nginx_tree.sh; mark=$(nginx_source_mark '{place}')
            if [ "$(cat mark 2>/dev/null)" != "$mark" ]; then
                copy_nginx '{place}' tree; build_nginx tree "$PWD/log" --with-debug; echo "$mark" >mark; echo built
            fi
            cat tree/objs/nginx"""
        return subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout

    older, newer = source("its older", "1"), source("newer", "2")
    assert [build(newer), build(newer), build(older)] == ["built\n2", "2", "built\n1"]
    (older / "src" / "version").write_text("3")
    assert build(older) == "built\n3"
    (older / "configure").write_text("#!/bin/sh\necho what is wrong\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(older)
    assert "what is wrong\nBuilding nginx failed (everything is in " in failed.value.stderr


def test_headers_of_another_package_are_configured_anew(tmp_path):
    """A package's files are as old as the package: no newer than the copy that was made of the former one."""
    package, build = tmp_path / "package", tmp_path / "build"
    text = (ROOT / "cmake" / "Nginx.cmake").read_text()
    assert '"/usr/share/nginx/src"' in text
    (tmp_path / "Nginx.cmake").write_text(text.replace('"/usr/share/nginx/src"', f'"{package}"'))
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(headers NONE)\ninclude(Nginx.cmake)\n")
    (package / "src").mkdir(parents=True)
    (package / "conf_flags").write_text("NGX_CONF_FLAGS=(--with-compat)\n")
    (package / "configure").write_text('#!/bin/sh\n[ "$*" = --with-compat ] && mkdir objs && cp src/nginx.h objs/ngx_auto_config.h\n')
    (package / "configure").chmod(0o755)

    def configured(version, seconds):
        """(headers, whether they were configured now)"""
        (package / "src" / "nginx.h").write_text(version)
        for path in package.rglob("*"):
            os.utime(path, (seconds, seconds))
        said = subprocess.run(["cmake", "-S", tmp_path, "-B", build], capture_output=True, text=True, check=True, timeout=60).stdout
        return (build / "nginx-dev" / "objs" / "ngx_auto_config.h").read_text(), "Configuring a copy" in said

    former, later = "#define NGX_OPENSSL  1\n1.22.1", "#define NGX_OPENSSL  1\n1.26.3"
    assert configured(former, 1_600_000_000) == (former, True)
    assert configured(former, 1_600_000_000) == (former, False)
    assert configured(later, 1_700_000_000) == (later, True)
    assert configured(former, 1_600_000_000) == (former, True)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        configured("1.22.1", 1_600_000_000)
    assert "has no OpenSSL" in refused.value.stderr and "--with-http_ssl_module" in refused.value.stderr
