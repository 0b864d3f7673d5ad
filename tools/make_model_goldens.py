#!/usr/bin/env python3
"""Writes tests/golden/models/*: configurations and expected logits of tiny random models.

Needs numpy, torch and transformers. Every case holds the logits of our NumPy reference and those of transformers,
both in float64, for the last positions of a fixed prompt; the versions that computed them are stored beside.
"""

import json
import os
import tempfile

import numpy as np
import torch
import transformers

import reference_forward
import tiny_model

LAST = 3  # positions whose logits are stored
OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "models")


def base(kind, architecture, **more):
    config = {
        "architectures": [architecture], "model_type": kind, "hidden_size": 64, "intermediate_size": 112,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 101,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }
    config.update(more)
    return config


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}

# name -> (config, stored dtype, shards, tokens in the prompt)
CASES = {
    "llama2": (base("llama", "LlamaForCausalLM", num_key_value_heads=4), "F16", 1, 40),
    "llama31": (base("llama", "LlamaForCausalLM", rope_theta=500000.0, rope_scaling=LLAMA3, head_dim=32), "F32", 2, 90),
    "llama_linear": (base("llama", "LlamaForCausalLM", rope_scaling={"type": "linear", "factor": 4.0},
                          attention_bias=True), "F32", 1, 70),
    "llama32_tied": (base("llama", "LlamaForCausalLM", tie_word_embeddings=True, num_key_value_heads=1, head_dim=64,
                          rope_scaling=LLAMA3, rope_theta=500000.0), "BF16", 1, 70),
    "mistral_window": (base("mistral", "MistralForCausalLM", head_dim=32, sliding_window=24), "BF16", 2, 90),
    "mistral": (base("mistral", "MistralForCausalLM", sliding_window=None, num_key_value_heads=1), "F32", 1, 20),
    "qwen2": (base("qwen2", "Qwen2ForCausalLM", hidden_size=56, num_attention_heads=7, num_key_value_heads=1,
                   tie_word_embeddings=True, rope_theta=1000000.0, use_sliding_window=False, sliding_window=32),
              "F32", 1, 70),
    "qwen2_untied": (base("qwen2", "Qwen2ForCausalLM", num_attention_heads=2, num_key_value_heads=2), "F32", 3, 40),
    "qwen3": (base("qwen3", "Qwen3ForCausalLM", head_dim=64, tie_word_embeddings=True, rope_theta=1000000.0,
                   use_sliding_window=False, sliding_window=None), "F32", 1, 70),
    "qwen3_untied": (base("qwen3", "Qwen3ForCausalLM", head_dim=80, num_key_value_heads=4, intermediate_size=100),
                     "BF16", 1, 40),
}


def huggingface(directory, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64,
                                                              attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def main():
    for seed, (name, (config, dtype, shards, count)) in enumerate(CASES.items(), start=1):
        tokens = [int(token) for token in np.random.default_rng(seed).integers(0, config["vocab_size"], count)]
        with tempfile.TemporaryDirectory() as directory:
            tiny_model.write_model(directory, config, seed, dtype, shards)
            ours = reference_forward.forward(*reference_forward.read_model(directory), tokens)
            theirs = huggingface(directory, tokens)
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        print(f"{name:16} deviation {theirs.std():.2f}, reference against transformers {error:.1e}")
        assert error < 1e-5, name
        os.makedirs(os.path.join(OUT, name), exist_ok=True)
        with open(os.path.join(OUT, name, "config.json"), "w") as out:
            json.dump(config, out, indent=2)
            out.write("\n")
        rows = lambda logits: [[float(f"{value:.8g}") for value in row] for row in logits[-LAST:]]
        golden = {"seed": seed, "dtype": dtype, "shards": shards, "tokens": tokens, "logits": rows(ours),
                  "transformers_logits": rows(theirs),
                  "versions": {"numpy": np.__version__, "torch": torch.__version__,
                               "transformers": transformers.__version__}}
        with open(os.path.join(OUT, name, "golden.json"), "w") as out:
            json.dump(golden, out)
            out.write("\n")


if __name__ == "__main__":
    main()
