"""A real llama.cpp server (the build in the Python package xllamacpp) that serves our demo model, converted to GGUF."""

import json
import pathlib
import struct
import sys

import gguf
import numpy

from .paths import DEMO_MODEL
from .poll import until
from .ports import free_port
from .process import Process

_SERVE = pathlib.Path(__file__).with_name("llama_cpp_serve.py")


class LlamaCpp:
    def __init__(self, directory, *, slots=4):
        directory.mkdir()
        model = directory / "demo.gguf"
        convert(DEMO_MODEL, model)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = Process([sys.executable, _SERVE, model, self.port, slots], directory / "server.log")
        until(lambda: (directory / "server.log").read_text(errors="replace").startswith("http"),
              lambda: (directory / "server.log").read_text(errors="replace"), 60)

    def finish(self):
        self._process.stop()


def _tensors(path):
    """{name: float32 array} of a safetensors file of bfloat16."""
    raw = path.read_bytes()
    size, = struct.unpack("<Q", raw[:8])
    found = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "BF16", name
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            bits = numpy.frombuffer(raw[begin:end], numpy.uint16).astype(numpy.uint32) << 16
            found[name] = bits.view(numpy.float32).reshape(entry["shape"])
    return found


def _paired(weight, heads):
    """llama.cpp's rotary embedding takes neighbours, Hugging Face's the two halves of a head: rows in the other's order."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def add_shape(writer, config):
    """The sizes of a model of the Llama family, from Hugging Face's config.json."""
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def convert(source, target):
    """Writes a Llama directory in Hugging Face's format with tied embeddings and a byte-level tokenizer as GGUF."""
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()} | special
    size = config["vocab_size"]
    writer = gguf.GGUFWriter(target, "llama")
    add_shape(writer, config)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([texts.get(index, f"<unused{index}>") for index in range(size)])
    writer.add_token_types([gguf.TokenType.CONTROL if index in special else
                            gguf.TokenType.NORMAL if index in texts else gguf.TokenType.UNUSED for index in range(size)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template(json.loads((source / "tokenizer_config.json").read_text())["chat_template"])
    tensors = _tensors(source / "model.safetensors")

    def add(name, weight):
        writer.add_tensor(name, numpy.ascontiguousarray(weight))

    add("token_embd.weight", tensors["model.embed_tokens.weight"])
    add("output_norm.weight", tensors["model.norm.weight"])
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        add(theirs + "attn_q.weight", _paired(tensors[ours + "self_attn.q_proj.weight"], config["num_attention_heads"]))
        add(theirs + "attn_k.weight", _paired(tensors[ours + "self_attn.k_proj.weight"], config["num_key_value_heads"]))
        for name, original in names.items():
            add(f"{theirs}{name}.weight", tensors[f"{ours}{original}.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
