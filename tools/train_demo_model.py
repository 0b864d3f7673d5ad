#!/usr/bin/env python3
"""Trains the demo model from scratch and writes it as a Hugging Face directory.

    pip install torch tokenizers safetensors numpy
    python3 tools/train_demo_model.py --output models/demo

The text is generated (tools/demo_model/), so nothing is downloaded. The same seed gives the same tokenizer, data and
initial weights; sums on another machine or with another number of threads round differently. A run that was stopped
goes on from its checkpoint, which goes when the run is complete. The last line is the loss on conversations that the
training has not seen.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from demo_model.corpus import END, SEPARATOR, Corpus
from demo_model.model import Config, Llama
from demo_model.tokenizer import tokenizer_config, train_tokenizer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the model; has questions.json")
    parser.add_argument("--checkpoint", type=Path, default=Path("build/demo_model.ckpt"), help="to save to and go on from")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--tokens-per-step", type=int, default=4096)
    parser.add_argument("--length", type=int, default=384, help="tokens in a row; some steps use the whole context")
    parser.add_argument("--long-every", type=int, default=5, help="one step of so many uses rows of the whole context")
    parser.add_argument("--seed", default="demo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="faster by a fifth on a CPU; needs a C++ compiler")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    return parser.parse_args()


def make_optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms. With few steps, Muon learns far faster."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() == 2 and ".layers." in name else others).append(parameter)
    return [torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01),
            torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0)]


def rate_at(step: int, steps: int, warmup: int = 50) -> float:
    """The share of the full learning rate: a short rise, then a straight line down to almost nothing."""
    return min((step + 1) / warmup, 1.0) * max(1.0 - step / steps, 0.01)


def load_batch(corpus: Corpus, step: int, rows: int, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [rows, length] and targets, which are -100 where nothing is to be learned."""
    ids, learn = corpus.batch(step, rows, length + 1)
    tokens = torch.tensor(ids, device=device)
    targets = tokens.masked_fill(~torch.tensor(learn, device=device), -100)
    return tokens[:, :-1], targets[:, 1:]


def loss_of(model: Llama, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the tokens to learn."""
    with torch.autocast(inputs.device.type, torch.bfloat16):
        hidden = model.hidden(inputs)
        wanted = targets != -100
        logits = model.logits(hidden[wanted])
    return F.cross_entropy(logits.float(), targets[wanted])


@torch.no_grad()
def validate(model: Llama, corpus: Corpus, batches: int, rows: int, length: int, device: str) -> float:
    losses = [loss_of(model, *load_batch(corpus, i, rows, length, device)).item() for i in range(batches)]
    return sum(losses) / len(losses)


def export(model: Llama, tokenizer: Tokenizer, directory: Path) -> None:
    """Writes what Hugging Face's transformers, and whatever reads its format, needs to load the model."""
    config = model.config
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    ends = {"bos_token_id": tokenizer.token_to_id(SEPARATOR), "eos_token_id": tokenizer.token_to_id(END),
            "pad_token_id": tokenizer.token_to_id(SEPARATOR)}
    described = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(config), "head_dim": config.head_dim,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "rope_scaling": None,
        "tie_word_embeddings": True, "initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": True, **ends,
    }
    for name, content in (("config.json", described),
                          ("generation_config.json", {**ends, "do_sample": False, "max_new_tokens": 400}),
                          ("tokenizer_config.json", tokenizer_config(config.max_position_embeddings))):
        (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(sum(arguments.seed.encode()))
    device = arguments.device

    config = Config()
    tokenizer = train_tokenizer(config.vocab_size, arguments.seed)
    config = replace(config, vocab_size=tokenizer.get_vocab_size())
    banned = [entry["question"] for entry in json.loads((arguments.output / "questions.json").read_text())]
    corpus = Corpus(tokenizer, arguments.seed, banned)
    held_out = Corpus(tokenizer, arguments.seed + " held out", banned)

    model = Llama(config).to(device)
    optimizers = make_optimizers(model)
    first = 0
    if arguments.checkpoint.exists():
        state = torch.load(arguments.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        first = state["step"]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in make_optimizers(model)]
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size} parameters, {tokenizer.get_vocab_size()} tokens, from step {first} to {arguments.steps}", flush=True)

    def save(step: int) -> None:
        arguments.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.checkpoint.with_suffix(".part")
        states = [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"model": model.state_dict(), "optimizers": states, "step": step}, partial)
        partial.replace(arguments.checkpoint)
        export(model, tokenizer, arguments.output)

    plain_hidden = model.hidden
    if arguments.compile:
        model.hidden = torch.compile(plain_hidden, dynamic=False)
    started = time.monotonic()
    for step in range(first, arguments.steps):
        is_long = step % arguments.long_every == arguments.long_every - 1
        length = config.max_position_embeddings if is_long else arguments.length
        rows = arguments.tokens_per_step // length
        loss = loss_of(model, *load_batch(corpus, step, rows, length, device))
        loss.backward()
        for optimizer, rate in zip(optimizers, rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_at(step, arguments.steps)
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step} loss {loss.item():.4f} time {time.monotonic() - started:.0f}", flush=True)
        if (step + 1) % arguments.save_every == 0:
            save(step + 1)
    save(arguments.steps)

    model.hidden = plain_hidden
    loss = validate(model, held_out, 20, 8, arguments.length, device)
    # the next run, of another text or for more steps, begins anew
    arguments.checkpoint.unlink(missing_ok=True)
    print(f"held-out loss {loss:.4f} nats per token the assistant writes", flush=True)


if __name__ == "__main__":
    main()
