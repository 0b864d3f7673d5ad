"""Reads the machine code of llm_backend_cuda.so (cuobjdump -sass -arch sm_90) from stdin; status 1 unless the kernels that load weights or
keys before they wait for the launch before them (device.cuh, begin_launch()) do so in the order in which they are written, and do not wait for
what they load.

Compilers may move loads behind that wait, or copy what was loaded from register to register before it: results stay right, and time is
lost that no test of results shows.
"""

import re
import sys

EARLY = re.compile(r"gemv_kernel|gemm_kernel|decode_attention_kernel")
LOAD = re.compile(r"\bLDG(STS)?\.E\.\S*128 (R(\d+))?")


def main():
    loads = {}  # of each kernel, before the wait; None once it has come
    faults = []
    kernel = None
    loaded = set()  # registers
    for line in sys.stdin:
        if found := re.search(r"Function : (\S+)", line):
            kernel = found.group(1) if EARLY.search(found.group(1)) else None
            loads.setdefault(kernel, 0)
            loaded = set()
        elif kernel and loads[kernel] is not None:
            if found := LOAD.search(line):
                loads[kernel] += 1
                if found.group(2):
                    loaded.update(range(int(found.group(3)), int(found.group(3)) + 4))
            elif "ACQBULK" in line:
                if loads[kernel] == 0:
                    faults.append(f"{kernel} loads nothing before it waits for the launch before it")
                loads[kernel] = None
            elif loaded.intersection(int(register) for register in re.findall(r"\bR(\d+)\b", line)):
                faults.append(f"{kernel} waits for what it loads before it waits for the launch before it")
                loaded = set()
    seen = [name for name in loads if name]
    waiting = [name for name in seen if loads[name] is None]
    if not seen or len(waiting) != len(seen):
        print(f"{len(seen)} kernels that load early were found, {len(waiting)} that wait for the launch before them")
        return 1
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
