"""Conversations to train on: topics mixed, with and without a system prompt, in ChatML, packed into rows."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from . import chat_talk, chat_words, chat_world, stories  # noqa: F401 (the first three register topics)
from .topics import make_turns
from .words import Random, Turn, any_name, ask, invented_name, normalise

START, END, SEPARATOR = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SYSTEM_PROMPTS = ["You are a helpful assistant."] * 5 + [
    "You are a friendly assistant.", "Answer the questions of the user.", "You are a small language model.",
    "Be kind and brief.", "You are a helpful, honest assistant. Answer in simple English.",
    "You are an assistant that answers questions and tells stories.",
]
STORY_SHARE = 0.09  # of all exchanges; by tokens, stories and poems make up about half


@dataclass
class Conversation:
    system: str | None
    turns: list[Turn]

    def segments(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether the model should learn to write it."""
        if self.system is not None:
            yield f"{START}system\n{self.system}{END}\n", False
        for user, assistant in self.turns:
            yield f"{START}user\n{user}{END}\n{START}assistant\n", False
            yield f"{assistant}{END}", True
            yield "\n", False


def _persona(r: Random) -> Conversation:
    """A system prompt that gives the assistant a name, which it then uses."""
    name = any_name(r) if r.random() < 0.7 else invented_name(r)
    kind = r.choice(["a friendly assistant", "a helpful assistant", "an assistant", "a teacher", "a storyteller",
                     "the assistant of a small shop"])
    question = ask(r, ["What is your name?", "Who are you?", "Tell me your name.", "Introduce yourself.",
                       "What should I call you?"])
    return Conversation(f"You are {name}, {kind}.", [(question, f"I am {name}, {kind}. How can I help you?")])


def conversation(r: Random, banned: set[str]) -> Conversation:
    """One to six exchanges. No message of the user is, normalised, one of `banned`."""
    if r.random() < 0.03:
        result = _persona(r)
    else:
        result = Conversation(r.choice(SYSTEM_PROMPTS) if r.random() < 0.4 else None, [])
    count = r.choices((1, 2, 3, 4, 6), (45, 25, 15, 10, 5))[0]
    while len(result.turns) < count:
        if r.random() < STORY_SHARE:
            turns = stories.told_story(r) if r.random() < 0.85 else [stories.poem(r)]
        else:
            turns = make_turns(r)
        if not any(normalise(user) in banned for user, _ in turns):
            result.turns += turns
    return result


class Corpus:
    """An endless, reproducible supply of training rows: the batch of a step depends only on seed and step."""

    def __init__(self, tokenizer: Tokenizer, seed: str, banned_questions: list[str]):
        self.tokenizer = tokenizer
        self.seed = seed
        self.banned = {normalise(question) for question in banned_questions}
        self.separator = tokenizer.token_to_id(SEPARATOR)

    def encode(self, r: Random, longest: int) -> tuple[list[int], list[bool]]:
        """The tokens of one document of at most `longest` and for each whether it is to be learned."""
        if r.random() < 0.03:  # plain text, so that the model can also continue a story without any chat
            pieces = [(stories.story(r)[1], True), (SEPARATOR, True)]
        else:
            pieces = [*conversation(r, self.banned).segments(), (SEPARATOR, False)]
        ids: list[int] = []
        learn: list[bool] = []
        for encoding, (_, flag) in zip(self.tokenizer.encode_batch_fast([text for text, _ in pieces]), pieces):
            ids += encoding.ids
            learn += [flag] * len(encoding.ids)
        return ids[:longest], learn[:longest]

    def batch(self, step: int, rows: int, length: int) -> tuple[list[list[int]], list[list[bool]]]:
        """`rows` rows of `length` tokens, each starting with a whole document. The unused end is not learned."""
        r = random.Random(f"{self.seed}:{step}")
        ids: list[list[int]] = [[] for _ in range(rows)]
        learn: list[list[bool]] = [[] for _ in range(rows)]
        misses = 0
        while misses < 2 * rows:  # first fit; a document that fits nowhere is dropped
            tokens, flags = self.encode(r, length)
            room = next((i for i in range(rows) if len(ids[i]) + len(tokens) <= length), None)
            if room is None:
                misses += 1
                continue
            ids[room] += tokens
            learn[room] += flags
        for row, flags in zip(ids, learn):
            flags += [False] * (length - len(row))
            row += [self.separator] * (length - len(row))
        return ids, learn


def sample_texts(seed: str, count: int) -> Iterator[str]:
    """Raw text to train the tokenizer on."""
    r = random.Random(seed)
    for _ in range(count):
        for user, assistant in conversation(r, set()).turns:
            yield user
            yield assistant
