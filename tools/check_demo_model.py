#!/usr/bin/env python3
"""Checks that the demo model answers: 25 of its 30 questions, and a story of 100 tokens that does not go in circles.

    python3 tools/check_demo_model.py models/demo
    python3 tools/check_demo_model.py models/demo --url http://127.0.0.1:8000 --model demo [--key KEY]

Without --url the model is computed here, by a NumPy reference (needs numpy, tokenizers and jinja2). With --url an
OpenAI-compatible server is asked instead, and only Python's standard library is needed. Greedy in both cases.
Exit status 0 when both rules hold.
"""

import argparse
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ENOUGH = 25
STORY_PROMPTS = ["Tell me a story about a brave mouse.", "Write a short story about a robot and a lonely girl."]
STORY_TOKENS = 100
MOST_REPEATS = 3

Chat = Callable[[str, int], tuple[str, int]]  # user's message, token limit -> answer, number of its tokens


def by_server(url: str, model: str, key: str | None) -> Chat:
    def chat(message: str, max_tokens: int) -> tuple[str, int]:
        body = {"model": model, "messages": [{"role": "user", "content": message}], "max_tokens": max_tokens,
                "temperature": 0}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(url.rstrip("/") + "/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    return chat


def by_reference(directory: Path) -> Chat:
    from demo_model.reference import ReferenceModel

    model = ReferenceModel(directory)

    def chat(message: str, max_tokens: int) -> tuple[str, int]:
        text, tokens = model.chat([{"role": "user", "content": message}], max_tokens)
        return text, len(tokens)

    return chat


def most_repeats(text: str) -> int:
    """How often the commonest run of four words (or punctuation marks) occurs."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return max(Counter(zip(words, words[1:], words[2:], words[3:])).values(), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the model's directory, with questions.json")
    parser.add_argument("--url", help="base URL of an OpenAI-compatible server, without /v1")
    parser.add_argument("--model", default="demo", help="the model's name at that server")
    parser.add_argument("--key", help="API key for that server")
    arguments = parser.parse_args()
    if arguments.url:
        chat = by_server(arguments.url, arguments.model, arguments.key)
    else:
        chat = by_reference(arguments.directory)

    questions = json.loads((arguments.directory / "questions.json").read_text())
    right = 0
    for entry in questions:
        answer, _ = chat(entry["question"], 80)
        good = entry["keyword"].lower() in answer.lower()
        right += good
        print(f"{'ok  ' if good else 'MISS'} {entry['question']}\n       {answer}")

    stories_hold = True
    for prompt in STORY_PROMPTS:
        story, length = chat(prompt, STORY_TOKENS)
        repeats = most_repeats(story)
        good = length == STORY_TOKENS and repeats <= MOST_REPEATS
        stories_hold = stories_hold and good
        print(f"{'ok  ' if good else 'MISS'} {prompt}\n       {story}\n"
              f"       {length} tokens, no four words in a row more than {repeats} times")

    print(f"{right} of {len(questions)} questions answered, {ENOUGH} needed; "
          f"stories {'hold' if stories_hold else 'do not hold'}")
    return 0 if right >= ENOUGH and stories_hold else 1


if __name__ == "__main__":
    raise SystemExit(main())
