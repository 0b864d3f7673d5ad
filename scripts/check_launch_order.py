"""Reads the machine code of llm_backend_cuda.so (cuobjdump -sass -arch sm_90) from stdin; status 1 unless the kernels that load weights or
keys before they wait for the launch before them (device.cuh, begin_launch()) do so in the order in which they are written.

Compilers may move loads behind that wait: results stay right, and time is lost that no test of results shows.
"""

import re
import sys

EARLY = re.compile(r"gemv_kernel|gemm_kernel|decode_attention_kernel")


def main():
    loads = {}  # of each kernel, before the wait; None once it has come
    late = []
    kernel = None
    for line in sys.stdin:
        if found := re.search(r"Function : (\S+)", line):
            kernel = found.group(1) if EARLY.search(found.group(1)) else None
            loads.setdefault(kernel, 0)
        elif kernel and loads[kernel] is not None:
            if re.search(r"\bLDG(STS)?\.E\.\S*128", line):
                loads[kernel] += 1
            elif "ACQBULK" in line:
                if loads[kernel] == 0:
                    late.append(kernel)
                loads[kernel] = None
    seen = [name for name in loads if name]
    waiting = [name for name in seen if loads[name] is None]
    if not seen or len(waiting) != len(seen):
        print(f"{len(seen)} kernels that load early were found, {len(waiting)} that wait for the launch before them")
        return 1
    for name in late:
        print(f"{name} loads nothing before it waits for the launch before it")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
