"""Where things are. BUILD_DIR in the environment chooses another build than build/release."""

import glob
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD_DIR", ROOT / "build" / "release")).resolve()
MODULE = BUILD / os.environ.get("E2E_MODULE", "ngx_http_llm_dispatch_module.so")
# with test-only faults, the grant log, and a check that nothing leaves the module inside the zone's lock
CHECKED_MODULE = BUILD / "ngx_http_llm_dispatch_module_checked.so"
# one that knows llm_test_faults: the module itself has them where it is built with a sanitizer, and there is no other then
FAULTY_MODULE = MODULE if BUILD.name == "asan" else CHECKED_MODULE
ENGINE = BUILD / "llm-engine"
DEMO_MODEL = ROOT / "models" / "demo"
TEMPLATES = ROOT / "t"
CONF = ROOT / "conf"


def program(name):
    """
    A tool that may live in a directory which a user's PATH lacks. NGINX_BINARY in the environment chooses another nginx
    (not NGINX: in that variable nginx looks for sockets that it inherits).
    """
    if name == "nginx" and os.environ.get("NGINX_BINARY"):
        return os.environ["NGINX_BINARY"]
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is not installed; scripts/deps.sh build test installs what the tests need"
    return path


def postgres_binaries():
    """The directory of the newest installed PostgreSQL server."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    assert found, "PostgreSQL is not installed; scripts/deps.sh test installs it"
    return pathlib.Path(found[-1])


def nginx_version():
    """(1, 22, 1) of the nginx that is tested."""
    said = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said).groups())
