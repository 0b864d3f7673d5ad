"""The demo model in NumPy, float32, one token at a time: slow, short, and independent of every other implementation.

Reads the Hugging Face directory itself, so that it also checks what the files say. Needs numpy, tokenizers and jinja2.
"""

import json
from pathlib import Path

import jinja2
import numpy as np
from tokenizers import Tokenizer


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file as float32. bf16 is the upper half of a float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, only BF16 is read here")
        begin, end = entry["data_offsets"]
        halves = np.frombuffer(data[start + begin : start + end], dtype="<u2").astype(np.uint32)
        tensors[name] = (halves << 16).view(np.float32).reshape(entry["shape"])
    return tensors


class ReferenceModel:
    def __init__(self, directory: Path):
        self.config = json.loads((directory / "config.json").read_text())
        self.weights = read_safetensors(directory / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        described = json.loads((directory / "tokenizer_config.json").read_text())
        self.template = environment.from_string(described["chat_template"])

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt(np.mean(x * x) + self.config["rms_norm_eps"])
        return x / scale * self.weights[name]

    def _rotate(self, x: np.ndarray, position: int) -> np.ndarray:
        half = x.shape[-1] // 2
        angles = position * self.config["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        low, high = x[:, :half], x[:, half:]
        return np.concatenate((low * cos - high * sin, high * cos + low * sin), axis=1)

    def next_logits(self, token: int, cache: list[tuple[list, list]]) -> np.ndarray:
        """Logits after `token`; `cache` holds the keys and values of every layer so far and grows by one."""
        c, w = self.config, self.weights
        heads, kv_heads, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        x = w["model.embed_tokens.weight"][token]
        for i, (keys, values) in enumerate(cache):
            p = f"model.layers.{i}."
            h = self._norm(x, p + "input_layernorm.weight")
            position = len(keys)
            q = self._rotate((w[p + "self_attn.q_proj.weight"] @ h).reshape(heads, size), position)
            keys.append(self._rotate((w[p + "self_attn.k_proj.weight"] @ h).reshape(kv_heads, size), position))
            values.append((w[p + "self_attn.v_proj.weight"] @ h).reshape(kv_heads, size))
            k = np.repeat(np.stack(keys, 1), heads // kv_heads, axis=0)
            v = np.repeat(np.stack(values, 1), heads // kv_heads, axis=0)
            scores = np.einsum("hd,htd->ht", q, k) / np.sqrt(size)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            x = x + w[p + "self_attn.o_proj.weight"] @ np.einsum("ht,htd->hd", weights, v).ravel()
            h = self._norm(x, p + "post_attention_layernorm.weight")
            gate = w[p + "mlp.gate_proj.weight"] @ h
            x = x + w[p + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (w[p + "mlp.up_proj.weight"] @ h))
        return w["model.embed_tokens.weight"] @ self._norm(x, "model.norm.weight")

    def chat(self, messages: list[dict], max_tokens: int) -> tuple[str, list[int]]:
        """The greedy answer: its text and its tokens, without the end token."""
        prompt = self.template.render(messages=messages, add_generation_prompt=True)
        cache: list[tuple[list, list]] = [([], []) for _ in range(self.config["num_hidden_layers"])]
        logits = np.zeros(0)
        for token in self.tokenizer.encode(prompt, add_special_tokens=False).ids:
            logits = self.next_logits(token, cache)
        answer: list[int] = []
        while len(answer) < max_tokens and (token := int(logits.argmax())) != self.config["eos_token_id"]:
            answer.append(token)
            logits = self.next_logits(token, cache)
        return self.tokenizer.decode(answer), answer
