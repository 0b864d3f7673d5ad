"""What programs built with AddressSanitizer and UndefinedBehaviorSanitizer (BUILD_DIR=build/asan) need, and their reports."""

import os
import subprocess

from .paths import BUILD

ACTIVE = "asan" in BUILD.name


def environment(directory, *, preload=False):
    """
    Variables for a program of the sanitized build; its reports become files in `directory`.

    preload: the program itself has no sanitizer (the installed nginx) but loads a module that has, so the runtime must be there first.
    """
    if not ACTIVE:
        return {}
    # detect_odr_violation=0: ngx_modules is both in nginx and in each of its dynamic modules. No leak detection: it needs
    # ptrace, which containers often deny; what grows is found by looking at the processes from outside.
    common = f"abort_on_error=1:disable_coredump=1:log_path={directory}/asan"
    variables = {"ASAN_OPTIONS": f"{common}:detect_leaks=0:detect_odr_violation=0",
                 "UBSAN_OPTIONS": f"{common}:print_stacktrace=1:halt_on_error=1"}
    if preload:
        found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
        variables["LD_PRELOAD"] = os.path.realpath(found)
    return variables


def directives(variables):
    """nginx clears its environment before it starts itself anew in an upgrade: these keep ours."""
    return "".join(f"env {name};\n" for name in variables)


def reports(directory):
    return list(directory.glob("asan.*"))
