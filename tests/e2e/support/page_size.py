"""A machine whose pages have 64 KiB, as on arm64: nginx asks once, with getpagesize()."""

import subprocess


def pages_of_64_kib(directory):
    """Environment variables under which a program is told so."""
    source, library = directory / "page_size.c", directory / "page_size.so"
    source.write_text("int getpagesize(void) { return 65536; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}
