"""llm-engine and its CUDA backend, opened at run time. The GPU is emulated: the real kernels run on the CPU, slowly."""
import json
import os
import subprocess

import pytest

from support.paths import DEMO_MODEL, ENGINE
from support.poll import until
from support.process import Process

SMALL = ["--max-running", "4", "--max-step-tokens", "128", "--kv-tokens", "2048"]


@pytest.fixture
def emulated(monkeypatch):
    """Makes the next engines open the emulated backend; emulated("none") takes the GPU away."""
    library = ENGINE.parent / "llm_backend_cuda_emulated.so"
    if not library.exists():
        pytest.skip("the emulated CUDA backend is not built")
    monkeypatch.setenv("LLM_CUDA_BACKEND", str(library))

    def gpu(state):
        monkeypatch.setenv("LLM_EMULATED_GPU", state)

    return gpu


def run(*options, timeout=60):
    return subprocess.run([ENGINE, "--listen", "127.0.0.1:0", *options], stderr=subprocess.PIPE, text=True,
                          timeout=timeout)


def complete(engine, **fields):
    body = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0, **fields}
    status, _, answer = engine.request("POST", "/v1/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["text"]


def test_the_same_text_as_the_cpu(start_engine, emulated):
    on_gpu = start_engine("--backend", "auto", *SMALL, model=DEMO_MODEL)
    assert " on cuda, " in on_gpu.output()
    on_cpu = start_engine("--backend", "cpu", *SMALL, model=DEMO_MODEL)
    for fields in ({}, {"prompt": "What is a bird?", "temperature": 0.8, "seed": 5, "top_p": 0.9}):
        assert complete(on_gpu, **fields) == complete(on_cpu, **fields)


def test_sequences_at_once_unless_told(start_engine, emulated):
    for backend, sequences in (("cuda", 256), ("cpu", 64)):
        engine = start_engine("--backend", backend, "--kv-tokens", "2048", model=DEMO_MODEL)
        assert f" on {backend}, {sequences} sequences" in engine.output()


def test_without_a_gpu_auto_computes_on_the_cpu_and_cuda_ends(start_engine, emulated):
    emulated("none")
    engine = start_engine("--backend", "auto", *SMALL, model=DEMO_MODEL)
    assert "llm-engine: the NVIDIA driver finds no GPU; computing on the CPU\n" in engine.output()
    assert " on cpu, " in engine.output()
    done = run("--backend", "cuda", "--model", DEMO_MODEL)
    assert done.returncode == 1
    assert done.stderr == "llm-engine: --backend cuda: the NVIDIA driver finds no GPU\n"


def test_without_the_backend_file(monkeypatch):
    monkeypatch.setenv("LLM_CUDA_BACKEND", "/nowhere/llm_backend_cuda.so")
    done = run("--backend", "cuda", "--model", DEMO_MODEL)
    assert done.returncode == 1
    assert "is not installed" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_is_no_backend(monkeypatch, tmp_path):
    bogus = tmp_path / "llm_backend_cuda.so"
    bogus.write_text("not a library")
    monkeypatch.setenv("LLM_CUDA_BACKEND", str(bogus))
    done = run("--backend", "cuda", "--model", DEMO_MODEL)
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr and done.stderr.count("\n") == 1


def test_a_model_that_does_not_fit_ends_the_start_with_a_report(redis, announcements, emulated):
    done = run("--backend", "cuda", "--model", DEMO_MODEL, "--kv-tokens", "100000000", "--redis", redis.url, "--id", "e1")
    assert done.returncode == 1
    assert "the model does not fit: it needs " in done.stderr and "may use " in done.stderr
    assert done.stderr.count("\n") == 1
    states = [report["state"] for report in announcements.until_gone()]
    assert "failed" in states and "ready" not in states


def test_a_gpu_that_disappears_ends_the_engine_with_an_error(tmp_path, redis, announcements, emulated):
    emulated("lost=2500")
    engine = Process([ENGINE, "--listen", f"unix:{tmp_path}/engine.sock", "--advertise", "http://127.0.0.1:1", "--backend",
                      "cuda", "--model", DEMO_MODEL, *SMALL, "--redis", redis.url, "--id", "e1"], tmp_path / "engine.log")
    try:
        until(lambda: " on cuda, " in engine.output(), "the engine serves", 30)
        body = json.dumps({"model": "demo", "prompt": "Once", "max_tokens": 500, "temperature": 0, "ignore_eos": True})
        answer = subprocess.run(
            ["curl", "-s", "--unix-socket", f"{tmp_path}/engine.sock", "http://x/v1/completions", "-d", body],
            stdout=subprocess.PIPE, text=True, timeout=60)
        assert "error" in json.loads(answer.stdout), answer.stdout
        assert engine.wait(30) == 1
    finally:
        engine.kill()
    assert "the GPU" in engine.output().splitlines()[-1]
    states = [report["state"] for report in announcements.until_gone()]
    assert "ready" in states and "failed" in states


def test_the_real_backend_file_can_be_opened(monkeypatch):
    """Where it was built: its libraries are found, and it says what is missing (or finds a GPU)."""
    library = ENGINE.parent / "llm_backend_cuda.so"
    if not library.exists():
        pytest.skip("built without a CUDA toolkit")
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU: make test-gpu runs it")
    done = run("--backend", "cuda", "--model", DEMO_MODEL)
    assert done.returncode == 1
    assert "no NVIDIA driver is installed" in done.stderr or "finds no GPU" in done.stderr, done.stderr
