"""Prints "N passed, N failed[, N skipped]" for JUnit result files, of ctest as of pytest; status 1 unless all is well.

A file that is missing, unreadable or without any test counts as one failure: silence is no success.
"""

import sys
import xml.etree.ElementTree


def count(path):
    """(passed, failed, skipped) of one file. A test with several troubles (its call and its tidying up) is one failure."""
    troubles = {}
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        name = (case.get("classname"), case.get("name"))
        # ctest marks tests that were not run by their status alone
        kinds = {child.tag for child in case} | ({"failure"} if case.get("status") == "fail" else set())
        if case.get("status") in ("disabled", "notrun"):
            kinds.add("skipped")
        troubles.setdefault(name, set()).update(kinds)
    failed = sum(1 for kinds in troubles.values() if kinds & {"failure", "error"})
    skipped = sum(1 for kinds in troubles.values() if "skipped" in kinds and not kinds & {"failure", "error"})
    return len(troubles) - failed - skipped, failed, skipped


def main(paths):
    passed = failed = skipped = 0
    for path in paths:
        try:
            counts = count(path)
        except (OSError, xml.etree.ElementTree.ParseError) as problem:
            print(f"{path}: no results ({problem})", file=sys.stderr)
            counts = (0, 1, 0)
        if counts == (0, 0, 0):
            print(f"{path}: no test was run", file=sys.stderr)
            counts = (0, 1, 0)
        passed, failed, skipped = (total + more for total, more in zip((passed, failed, skipped), counts))
    sys.stderr.flush()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
