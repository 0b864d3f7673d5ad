"""The demo model, through the program that serves it: it answers its questions and tells a story that goes on."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_demo_model_passes_its_own_check(start_engine):
    served = start_engine(model=str(ROOT / "models/demo"))
    check = subprocess.run([sys.executable, ROOT / "tools/check_demo_model.py", ROOT / "models/demo",
                            "--url", f"http://127.0.0.1:{served.port}", "--model", "demo"],
                           capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
