#!/usr/bin/env python3
"""
Makes every call that leaves the module refuse to happen inside the zone's lock.

    lock_check.py --objdump objdump --machine x86_64 --source wrap.S --options wrap.rsp OBJECT …

Reads the relocations of the objects: every function called that none of them defines (C library, C++ library, nginx)
and that is not on the list below gets a wrapper, linked in by --wrap. The wrapper looks whether this process holds the
lock (llm::core::lock_depth); if so it names the function and ends the process, else it goes on to the function. So
whatever makes a system call, logs or allocates is caught, and what is new is caught without a list of its own.
"""

import argparse
import re
import subprocess

# Computation only: no system call, no allocation, no log. And the lock itself.
ALLOWED = re.compile(r"""
    (__)?mem(cpy|move|set|cmp|chr)(_chk)? | bcmp
  | str(n?len|n?cmp|chr)
  | exp|expm1|log|log2|log10|pow|floor|ceil|round|lround|llround|fmod|ldexp|frexp|sqrt
  | __stack_chk_fail | __assert_fail | abort
  | __(asan|ubsan|sanitizer|tsan)_.*
  | __aarch64_(cas|swp|ld(add|clr|eor|set))[0-9]+_.*
  | _Unwind_Resume
  | ngx_shmtx_(un)?lock
  | ngx_random
  | raise
""", re.VERBOSE)
# __aarch64_: atomic operations. raise: a test build's own way to die inside the lock. ngx_random: random(3) of this
# process, without a call to the kernel.


# Per machine: the relocations of calls, and the wrapper.
#
# x86-64: a call through the procedure linkage table or (-fno-plt) the global offset table: a function, never data, whose
# address would be loaded by an instruction with a REX prefix. arm64: its branches; x16 is free for what stands between.
MACHINES = {
    "x86_64": (r"R_X86_64_(?:PLT32|GOTPCRELX)", """
    cmpl $0, _ZN3llm4core10lock_depthE(%rip)
    jne 1f
    jmp __real_{name}@PLT
1:  leaq .Lname{number}(%rip), %rdi
    jmp llm_called_inside_the_lock"""),
    "aarch64": (r"R_AARCH64_(?:CALL|JUMP)26", """
    adrp x16, _ZN3llm4core10lock_depthE
    ldr w16, [x16, #:lo12:_ZN3llm4core10lock_depthE]
    cbnz w16, 1f
    b __real_{name}
1:  adrp x0, .Lname{number}
    add x0, x0, #:lo12:.Lname{number}
    b llm_called_inside_the_lock"""),
}


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--machine", required=True, choices=sorted(MACHINES))
    parser.add_argument("--source", required=True)
    parser.add_argument("--options", required=True)
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()
    relocation, wrapper = MACHINES[arguments.machine]

    defined = set()
    # not by nm: of objects that also hold the compiler's intermediate language it reads only that
    for line in run(arguments.objdump, "-t", *arguments.objects).splitlines():
        if re.match(r"[0-9a-f]{16} ", line) and "*UND*" not in line:
            defined.add(line.split()[-1])
    called = set()
    for line in run(arguments.objdump, "-r", *arguments.objects).splitlines():
        found = re.search(relocation + r"\s+([^\s+-]+)", line)
        if found and not found[1].startswith("."):
            called.add(found[1])
    names = sorted(name for name in called - defined if not ALLOWED.fullmatch(name))

    with open(arguments.source, "w", encoding="ascii") as out:
        out.write("# Made by scripts/lock_check.py.\n.text\n")
        for number, name in enumerate(names):
            out.write(f"""
.globl __wrap_{name}
.hidden __wrap_{name}
.type __wrap_{name}, %function
__wrap_{name}:{wrapper.format(name=name, number=number)}
.section .rodata
.Lname{number}: .string "{name}"
.text
""")
        out.write('.section .note.GNU-stack,"",%progbits\n')
    with open(arguments.options, "w", encoding="ascii") as out:
        out.writelines(f"-Wl,--wrap={name}\n" for name in names)


if __name__ == "__main__":
    main()
