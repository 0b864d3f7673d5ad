"""The scripts behind `make`, where a user's machine is not as usual."""

import shutil
import subprocess

from support.paths import ROOT


def test_the_environment_of_a_moved_checkout_is_made_anew(tmp_path):
    """Its programs name the directory where they were made."""
    before, after = tmp_path / "before", tmp_path / "after it"
    for name in ("scripts", "tests"):
        (before / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "venv.sh", before / "scripts")
    (before / "tests" / "requirements.txt").write_text("# none: nothing is fetched\n")

    def run(place):
        return subprocess.run([place / "scripts" / "venv.sh"], capture_output=True, text=True, check=True, timeout=100).stdout

    assert "Installing" in run(before) and run(before) == ""
    before.rename(after)
    assert "Installing" in run(after) and run(after) == ""
    subprocess.run([after / ".venv" / "bin" / "pip", "--version"], check=True, capture_output=True)
