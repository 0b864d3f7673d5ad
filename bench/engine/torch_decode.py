#!/usr/bin/env python3
"""Decode and prefill of the same shapes in PyTorch, to stand beside llm-engine's in bench/engine-gpu: bf16, a static KV cache, decoding in a CUDA graph.

  bench/engine/torch_decode.py NAME MODEL_DIR [NAME MODEL_DIR …]   times what MODEL_DIR/config.json describes, with random weights
  bench/engine/torch_decode.py --check MODEL_DIR                   on the CPU, in f32: decoding token by token gives what one pass gives

Needs torch, and for the timing a GPU; without them it says so and prints no figure. Attention is torch's scaled_dot_product_attention, fused q·k·v and
gate·up products as fast engines have them, greedy sampling (llm-engine's figures include drawing with top_p).
"""

import argparse
import json
import pathlib
import statistics
import sys

CONTEXT = 1024
BATCHES = (1, 8, 32, 128, 256)
PROMPTS = (512, 2048, 8192)


class Model:
    """The Llama and Qwen2 families, with nothing but what costs time. Shapes: x (batch, tokens, hidden)."""

    def __init__(self, torch, config, device, dtype):
        self.torch = torch
        self.device, self.dtype = device, dtype
        self.layers = config["num_hidden_layers"]
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.head = config.get("head_dim") or self.hidden // self.heads
        self.inner = config["intermediate_size"]
        self.vocab = config["vocab_size"]
        self.epsilon = config["rms_norm_eps"]
        self.theta = config["rope_theta"]
        bias = config["model_type"] == "qwen2"
        rows = (self.heads + 2 * self.kv_heads) * self.head

        def weight(*shape):
            return torch.randn(*shape, device=device, dtype=dtype) * 0.02

        self.embedding = weight(self.vocab, self.hidden)
        self.output = self.embedding if config["tie_word_embeddings"] else weight(self.vocab, self.hidden)
        self.blocks = [{"qkv": weight(rows, self.hidden), "bias": weight(rows) if bias else None, "out": weight(self.hidden, self.heads * self.head),
                        "gate_up": weight(2 * self.inner, self.hidden), "down": weight(self.hidden, self.inner)} for _ in range(self.layers)]
        self.norm = torch.ones(self.hidden, device=device, dtype=dtype)

    def cache(self, batch, length):
        shape = (self.layers, 2, batch, self.kv_heads, length, self.head)
        return self.torch.zeros(shape, device=self.device, dtype=self.dtype)

    def rotate(self, x, positions):
        """x (batch, heads, tokens, head), positions (tokens,)"""
        torch = self.torch
        half = self.head // 2
        angles = positions[:, None].float() * self.theta ** (-torch.arange(half, device=self.device).float() / half)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    def forward(self, tokens, cache, positions, mask):
        """Logits (batch, vocab) after the last of `tokens` (batch, n) at `positions` (n,). mask None: the tokens are a whole prompt."""
        torch, functional = self.torch, self.torch.nn.functional
        batch, count = tokens.shape
        x = functional.embedding(tokens, self.embedding)
        for index, block in enumerate(self.blocks):
            y = functional.linear(functional.rms_norm(x, (self.hidden,), self.norm, self.epsilon), block["qkv"], block["bias"])
            y = y.view(batch, count, -1, self.head).transpose(1, 2)
            query, key, value = y.split((self.heads, self.kv_heads, self.kv_heads), 1)
            query, key = self.rotate(query, positions), self.rotate(key, positions)
            keys, values = cache[index]
            keys.index_copy_(2, positions, key)
            values.index_copy_(2, positions, value)
            if mask is None:
                attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            else:
                attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=True)
            x = x + functional.linear(attended.transpose(1, 2).reshape(batch, count, -1), block["out"])
            y = functional.linear(functional.rms_norm(x, (self.hidden,), self.norm, self.epsilon), block["gate_up"])
            gate, up = y.split(self.inner, -1)
            x = x + functional.linear(functional.silu(gate) * up, block["down"])
        return functional.linear(functional.rms_norm(x[:, -1], (self.hidden,), self.norm, self.epsilon), self.output)


def check(torch, config):
    torch.manual_seed(1)
    model = Model(torch, config, "cpu", torch.float32)
    tokens = torch.randint(model.vocab, (2, 12))
    cache = model.cache(2, 16)
    with torch.inference_mode():
        whole = model.forward(tokens, model.cache(2, 16), torch.arange(12), None)
        for at in range(12):
            mask = (torch.arange(16) <= at)[None, None, None]
            last = model.forward(tokens[:, at:at + 1], cache, torch.tensor([at]), mask)
    difference = ((whole - last).abs().max() / whole.abs().max()).item()
    print(f"decoding token by token differs from one pass by {difference:.1e} of the largest logit")
    return difference < 1e-4


def milliseconds(torch, run, rounds):
    times = []
    for number in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        if number >= 3:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def time_decode(torch, model, batch):
    length = CONTEXT + 256
    cache = model.cache(batch, length)
    tokens = torch.zeros(batch, 1, dtype=torch.long, device="cuda")
    position = torch.full((1,), CONTEXT, device="cuda")
    mask = (torch.arange(length, device="cuda") <= CONTEXT)[None, None, None]

    def step():
        tokens.copy_(model.forward(tokens, cache, position, mask).argmax(-1, keepdim=True))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return milliseconds(torch, graph.replay, 50)


def time_prefill(torch, model, count):
    tokens = torch.zeros(1, count, dtype=torch.long, device="cuda")
    cache = model.cache(1, count)
    positions = torch.arange(count, device="cuda")
    return milliseconds(torch, lambda: model.forward(tokens, cache, positions, None).argmax(-1), 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="MODEL_DIR")
    parser.add_argument("models", nargs="*", metavar="NAME MODEL_DIR")
    arguments = parser.parse_args()
    if len(arguments.models) % 2 != 0 or not (arguments.check or arguments.models):
        parser.error("a NAME and a MODEL_DIR for each model, or --check MODEL_DIR")
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: nothing to compare with.")
        return 0
    if arguments.check:
        return 0 if check(torch, json.loads((pathlib.Path(arguments.check) / "config.json").read_text())) else 1
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} sees no GPU: nothing to compare with.")
        return 0
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}: static KV cache, CUDA graphs, scaled_dot_product_attention")
    with torch.inference_mode():
        for name, directory in zip(arguments.models[::2], arguments.models[1::2]):
            model = Model(torch, json.loads((pathlib.Path(directory) / "config.json").read_text()), "cuda", torch.bfloat16)
            for batch in BATCHES:
                took = time_decode(torch, model, batch)
                print(f"{name:<14} decode {batch:<4} {took:10.3f} ms {1000 * batch / took:12.0f} tok/s   (PyTorch)")
            for count in PROMPTS:
                took = time_prefill(torch, model, count)
                print(f"{name:<14} prefill {count:<5} {took:8.3f} ms {1000 * count / took:12.0f} tok/s   (PyTorch)")
            del model
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
