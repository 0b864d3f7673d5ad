"""What processes take, from /proc: a gateway is all of them together, and all that descend from them."""

import os
import pathlib
import re
import time


def family(roots):
    """The pids of these processes and of all that descend from them."""
    parents = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text(errors="replace").rsplit(")", 1)[1].split()[1])
        except OSError:
            pass  # it has ended
    found = list(roots)
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(roots):
    """User and system time, that of descendants that have ended included."""
    total = 0.0
    for pid in family(roots):
        try:
            ended = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[13:15]
            # what clock_getcpuclockid() gives: nanoseconds, where the stat file has hundredths of a second
            total += time.clock_gettime((~pid << 3) | 2) + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            pass
    return total


def memory_mb(roots):
    """Proportional set size: of a page that several processes have, each counts its part."""
    total = 0
    for pid in family(roots):
        try:
            total += int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])
        except (OSError, TypeError):
            pass  # ended, or a process without memory
    return total / 1024
