#!/usr/bin/env python3
"""The forward pass in plain NumPy float64, as the independent reference of the engine: no cache, no batching.

  tools/reference_forward.py DIR 1,2,3     prints the logits after each token, one row per token

Written from the model cards and papers (RMSNorm: Zhang & Sennrich 2019; RoPE: Su et al. 2021; SwiGLU: Shazeer 2020;
GQA: Ainslie et al. 2023), and checked against transformers by tools/make_model_goldens.py.
"""

import json
import os
import struct
import sys

import numpy as np


def read_safetensors(path):
    """Name -> float64 array."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    body = data[8 + length:]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = body[begin:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def read_model(directory):
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    index = os.path.join(directory, "model.safetensors.index.json")
    files = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as file:
            files = sorted(set(json.load(file)["weight_map"].values()))
    tensors = {}
    for name in files:
        tensors.update(read_safetensors(os.path.join(directory, name)))
    return config, tensors


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope_frequencies(config, d):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta", 10000.0)
    frequency = theta ** (-np.arange(0, d, 2) / d)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        return frequency / rope["factor"]
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        # Periods that fit the original context: few = stretched by the factor, many = kept.
        periods = rope["original_max_position_embeddings"] * frequency / (2 * np.pi)
        keep = np.clip((periods - low) / (high - low), 0, 1)
        return frequency * (keep + (1 - keep) / rope["factor"])
    assert kind == "default", kind
    return frequency


def rotate(x, angles):
    """x: [token, head, d]; pairs are (i, i + d/2)."""
    half = x.shape[-1] // 2
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def sliding_window(config, layer):
    kind = config["model_type"]
    if kind == "mistral":
        return config.get("sliding_window")
    if kind in ("qwen2", "qwen3") and config.get("use_sliding_window"):
        return config["sliding_window"] if layer >= config["max_window_layers"] else None
    return None


def forward(config, tensors, tokens):
    """Logits after each of `tokens`: [token, vocab]."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    d = config.get("head_dim") or config["hidden_size"] // heads
    eps = config.get("rms_norm_eps", 1e-6)
    n = len(tokens)
    angles = np.arange(n)[:, None] * rope_frequencies(config, d)[None, :]
    embedding = tensors["model.embed_tokens.weight"]
    x = embedding[np.array(tokens)]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        linear = lambda name, v: v @ tensors[layer + name + ".weight"].T + tensors.get(layer + name + ".bias", 0.0)
        h = rms_norm(x, tensors[layer + "input_layernorm.weight"], eps)
        q = linear("self_attn.q_proj", h).reshape(n, heads, d)
        k = linear("self_attn.k_proj", h).reshape(n, kv_heads, d)
        v = linear("self_attn.v_proj", h).reshape(n, kv_heads, d)
        if layer + "self_attn.q_norm.weight" in tensors:
            q = rms_norm(q, tensors[layer + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, tensors[layer + "self_attn.k_norm.weight"], eps)
        q, k = rotate(q, angles), rotate(k, angles)
        k, v = np.repeat(k, heads // kv_heads, 1), np.repeat(v, heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(d)
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        window = sliding_window(config, i)
        scores[:, (distance < 0) | (distance >= (window or n))] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + linear("self_attn.o_proj", np.einsum("hqk,khd->qhd", weights, v).reshape(n, heads * d))
        h = rms_norm(x, tensors[layer + "post_attention_layernorm.weight"], eps)
        gate = linear("mlp.gate_proj", h)
        x = x + linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * linear("mlp.up_proj", h))
    head = embedding if config.get("tie_word_embeddings", False) else tensors["lm_head.weight"]
    return rms_norm(x, tensors["model.norm.weight"], eps) @ head.T


def main():
    config, tensors = read_model(sys.argv[1])
    for row in forward(config, tensors, [int(token) for token in sys.argv[2].split(",")]):
        print(" ".join(f"{value:.9g}" for value in row))


if __name__ == "__main__":
    main()
