#!/usr/bin/env python3
"""Side by side: tokenizer_bench and the reference `tokenizers` library on the same pieces, one thread each, in
seconds of processor time.

    tokenizer_bench.py BENCH_PROGRAM TOKENIZER_DIR TEXT_FILE [SECONDS]
    tokenizer_bench.py --train TEXT_FILE DIR      first makes DIR: two tokenizers of 32 000 tokens (byte level with
                                                  Llama 3's pattern; sentencepiece style as Llama 2)
"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def train(text, where):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
    import make_tokenizer_goldens as make
    make.TRAINING = pathlib.Path(text).read_text(errors="replace")[:8_000_000]
    byte_level = make.byte_level(make.LLAMA3, 32000, ignore_merges=True)
    pieces = make.sentencepiece(32000, 300, byte_fallback=True, fuse_unk=True)
    pieces.normalizer = make.normalizers.Sequence([make.normalizers.Prepend("▁"), make.normalizers.Replace(" ", "▁")])
    pieces.decoder = make.decoders.Sequence([make.decoders.Replace("▁", " "), make.decoders.ByteFallback(), make.decoders.Fuse(), make.decoders.Strip(" ", 1, 0)])
    for name, tokenizer in (("byte_level", byte_level), ("sentencepiece", pieces)):
        directory = pathlib.Path(where) / name
        directory.mkdir(parents=True, exist_ok=True)
        directory.joinpath("tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False))


def pieces_of(path):
    text, at, out = pathlib.Path(path).read_bytes(), 0, []
    while at < len(text):
        end = text.find(b"\n", min(at + 4096, len(text)))
        end = len(text) if end < 0 else end + 1
        out.append(text[at:end].decode(errors="replace"))
        at = end
    return out


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    if importlib.util.find_spec("tokenizers") is None:
        sys.exit("The Python package tokenizers is not installed: there is nothing to compare with.")
    if sys.argv[1] == "--train":
        return train(sys.argv[2], sys.argv[3])
    program, directory, text = sys.argv[1:4]
    limit = float(sys.argv[4]) if len(sys.argv) > 4 else 2.0
    import tokenizers
    pieces = pieces_of(text)
    started = time.process_time()
    tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
    print(f"reference: tokenizers {tokenizers.__version__}, load {1e3 * (time.process_time() - started):.1f} ms")
    encoded = [tokenizer.encode(piece).ids for piece in pieces]
    for name, work in (("encode", lambda i: tokenizer.encode(pieces[i])), ("decode", lambda i: tokenizer.decode(encoded[i]))):
        size = [len(piece.encode()) for piece in pieces]
        done, i, started = 0, 0, time.process_time()
        while time.process_time() - started < limit:
            work(i)
            done += size[i]
            i = (i + 1) % len(pieces)
        print(f"{name:7} {done / (time.process_time() - started) / 1e6:8.1f} MB/s")
    print("ours:", flush=True)
    subprocess.run([program, directory, text, str(limit)], check=True)


if __name__ == "__main__":
    main()
