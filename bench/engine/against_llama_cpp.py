"""Tokens per second of the CPU backend and of llama.cpp, in turns on the same machine, with the same random weights:

    against_llama_cpp.py OURS MODEL_DIR LLAMA_BENCH [--threads 2] [--prompt 512] [--generate 128] [--rounds 5]

OURS is the program engine_cpu_bench. LLAMA_BENCH is llama.cpp's program of that name, built by whoever runs this (natively, with
CMAKE_BUILD_TYPE=Release); llama-batched-bench is taken from the same directory. Three figures each, as llama-bench defines its
own: a prompt; tokens generated from an empty context; eight sequences that go on from a prompt each. Medians of the rounds.
bf16 is compared with BF16 and int8 with Q8_0; keys and values are bf16 here and f16 there.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROWS = (("prompt", 0.9), ("generation", 1.0), ("8 sequences", 1.2))


def converter():
    """A Python that has gguf: this one, or the project's virtual environment."""
    root = pathlib.Path(__file__).resolve().parents[2]
    for python in (sys.executable, root / ".venv/bin/python"):
        if pathlib.Path(python).exists() and subprocess.run([python, "-c", "import gguf"], capture_output=True).returncode == 0:
            return python
    return None


def theirs(options, model):
    """(prompt, generation, 8 sequences) in tokens per second."""
    program = pathlib.Path(options.llama_bench).resolve()
    libraries = os.pathsep.join(filter(None, (str(program.parent), os.environ.get("LD_LIBRARY_PATH"))))
    context = 8 * (options.prompt + options.generate)

    def lines(*command):
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "LD_LIBRARY_PATH": libraries})
        if ran.returncode != 0:
            sys.exit(f"{command[0]} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
        return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]

    threads = str(options.threads)
    alone = lines(program, "-m", model, "-t", threads, "-p", str(options.prompt), "-n", str(options.generate), "-r", "1", "-o", "jsonl")
    prompt, = (row["avg_ts"] for row in alone if row["n_gen"] == 0)
    generation, = (row["avg_ts"] for row in alone if row["n_prompt"] == 0)
    batched, = lines(program.parent / "llama-batched-bench", "-m", model, "-t", threads, "-c", str(context), "-b", "2048", "-ub", "512",
                     "-npp", str(options.prompt), "-ntg", str(options.generate), "-npl", "8", "--output-format", "jsonl")
    return prompt, generation, batched["speed_tg"]


def compare(options, python, dtype, kind, directory):
    model = pathlib.Path(directory) / f"{kind}.gguf"
    subprocess.run([python, pathlib.Path(__file__).with_name("gguf_model.py"), options.model, model, kind], check=True)
    ours = subprocess.Popen(
        [options.ours, "--on-demand", "--model", options.model, "--dtype", dtype, "--threads", str(options.threads),
         "--prompt", str(options.prompt), "--generate", str(options.generate)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer():
        line = ours.stdout.readline()
        if not line:
            sys.exit("engine_cpu_bench ended")
        return line

    measured = []
    try:
        answer()
        for _ in range(options.rounds):
            ours.stdin.write("\n")
            ours.stdin.flush()
            measured.append((tuple(float(word) for word in answer().split()), theirs(options, model)))
    finally:
        ours.stdin.close()
        ours.wait()
        model.unlink()
    for index, (name, aim) in enumerate(ROWS):
        mine = statistics.median(pair[0][index] for pair in measured)
        other = statistics.median(pair[1][index] for pair in measured)
        print(f"{dtype:5} {name:12} {mine:9.2f} tokens/s, llama.cpp {kind.upper():5} {other:9.2f}: {mine / other:.2f} times   [aim {aim}]",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("model")
    parser.add_argument("llama_bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    python = converter()
    if python is None:
        print("against llama.cpp: not run, no Python with the package gguf (pip install -r tests/requirements.txt)")
        return
    print(f"against llama.cpp, {options.threads} threads, prompt {options.prompt}, {options.generate} generated, "
          f"in turns, median of {options.rounds}")
    with tempfile.TemporaryDirectory() as directory:
        for dtype, kind in (("bf16", "bf16"), ("int8", "q8_0")):
            compare(options, python, dtype, kind, directory)


if __name__ == "__main__":
    main()
