"""Tiny random models in Hugging Face form: one generator for Python and C++ (tests/support/model_builder.hpp)."""

import json
import os
import struct

import numpy as np


def counter_random(seed, name, count):
    """Uniform in [-1, 1), float32: element i of tensor `name` is a pure function of (seed, name, i)."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    key ^= (seed * 0xD1342543DE82EF95) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def head_dim(config):
    return config.get("head_dim") or (
        128 if config["model_type"] == "qwen3" else config["hidden_size"] // config["num_attention_heads"])


def tensor_shapes(config):
    """Name -> shape of every tensor of the model that `config` (config.json as a dict) describes."""
    dim, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    d = head_dim(config)
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    kind = config["model_type"]
    qkv_bias = kind == "qwen2" or (kind in ("llama", "qwen3") and config.get("attention_bias", False))
    o_bias = kind in ("llama", "qwen3") and config.get("attention_bias", False)
    shapes = {"model.embed_tokens.weight": (vocab, dim)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes[layer + "input_layernorm.weight"] = (dim,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[layer + f"self_attn.{name}_proj.weight"] = (rows, dim)
            if qkv_bias:
                shapes[layer + f"self_attn.{name}_proj.bias"] = (rows,)
        shapes[layer + "self_attn.o_proj.weight"] = (dim, q)
        if o_bias:
            shapes[layer + "self_attn.o_proj.bias"] = (dim,)
        if kind == "qwen3":
            shapes[layer + "self_attn.q_norm.weight"] = (d,)
            shapes[layer + "self_attn.k_norm.weight"] = (d,)
        shapes[layer + "post_attention_layernorm.weight"] = (dim,)
        shapes[layer + "mlp.gate_proj.weight"] = (ffn, dim)
        shapes[layer + "mlp.up_proj.weight"] = (ffn, dim)
        shapes[layer + "mlp.down_proj.weight"] = (dim, ffn)
    shapes["model.norm.weight"] = (dim,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, dim)
    return shapes


def random_tensor(config, seed, name, shape):
    """float32; every layer keeps the variance, logits have a deviation of about 3."""
    values = counter_random(seed, name, int(np.prod(shape)))
    embedding = name == "model.embed_tokens.weight"
    head = name == "lm_head.weight" or (config.get("tie_word_embeddings", False) and embedding)
    offset, scale = 0.0, 0.3
    if name.endswith("norm.weight"):
        offset, scale = 1.0, 0.2
    elif len(shape) == 2:
        scale = np.sqrt(3.0 / (1.0 if embedding and not head else float(shape[1]))) * (3.0 if head else 1.0)
    return (np.float32(offset) + values * np.float32(scale)).reshape(shape)


def round_to(values, dtype):
    """The bytes of float32 `values` as F32, F16 or BF16, rounded to nearest even."""
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    bits = values.astype("<f4").view("<u4")
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        "<u2").tobytes()


def write_safetensors(path, tensors, dtype):
    """`tensors`: name -> float32 array."""
    header, blobs, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        blob = round_to(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            out.write(blob)


def write_model(directory, config, seed, dtype="F32", shards=1):
    """config.json and random weights of `config`, in one file or in `shards` with an index."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as out:
        json.dump(config, out, indent=2)
    tensors = {name: random_tensor(config, seed, name, shape) for name, shape in tensor_shapes(config).items()}
    if shards == 1:
        write_safetensors(os.path.join(directory, "model.safetensors"), tensors, dtype)
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        write_safetensors(os.path.join(directory, file), part, dtype)
        weight_map.update({name: file for name in part})
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as out:
        json.dump({"metadata": {}, "weight_map": weight_map}, out)
