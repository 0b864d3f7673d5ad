"""The demo model, through the program that serves it: it answers its questions and tells a story that goes on."""
import subprocess
import sys

from support.paths import DEMO_MODEL, ROOT


def test_demo_model_passes_its_own_check(start_engine):
    served = start_engine(model=DEMO_MODEL)
    check = subprocess.run([sys.executable, ROOT / "tools/check_demo_model.py", DEMO_MODEL,
                            "--url", f"http://127.0.0.1:{served.port}", "--model", "demo"],
                           capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
