"""A Qwen2 directory in Hugging Face's format, as bench/engine-cpu makes it with random weights, written as GGUF for llama.cpp:

    gguf_model.py DIRECTORY TARGET.gguf bf16|q8_0

Needs the packages gguf and numpy (tests/requirements.txt). There is no tokenizer in the file: benchmarks take token numbers.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "e2e"))

from support.llama_cpp import add_shape  # noqa: E402

# Names in Hugging Face's files and in GGUF. Qwen2's rotary embedding turns the halves of a head in both: no rows change places.
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def tensors(path):
    """(name, bf16 as uint16 array) of a safetensors file, one at a time."""
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}"
            begin, end = entry["data_offsets"]
            yield name, numpy.fromfile(path, numpy.uint16, (end - begin) // 2, offset=8 + size + begin).reshape(entry["shape"])


def convert(directory, target, kind):
    directory = pathlib.Path(directory)
    config = json.loads((directory / "config.json").read_text())
    assert config["model_type"] == "qwen2" and config["tie_word_embeddings"], "only Qwen2 with tied embeddings is converted"
    stored = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[kind]
    writer = gguf.GGUFWriter(target, "qwen2")
    add_shape(writer, config)
    writer.add_tokenizer_model("none")
    for name, bits in tensors(directory / "model.safetensors"):
        if bits.ndim == 2 and stored == gguf.GGMLQuantizationType.BF16:
            writer.add_tensor(gguf_name(name), bits.view(numpy.uint8), raw_dtype=stored)
            continue
        values = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
        if bits.ndim == 2:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, stored), raw_dtype=stored)
        else:
            writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in ("bf16", "q8_0"):
        sys.exit(__doc__)
    convert(*sys.argv[1:])
