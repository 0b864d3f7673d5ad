"""Small helpers to write English with: articles, lists, and templates with choices."""

import random
import re

Turn = tuple[str, str]  # what the user says, what the assistant answers
Random = random.Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(r: Random, template: str, **slots: str) -> str:
    """Fills {slots} and picks one of each "[this|that|]" (innermost first, so choices may nest)."""
    text = template
    while (match := _CHOICE.search(text)) is not None:
        text = text[: match.start()] + r.choice(match.group(1).split("|")) + text[match.end():]
    text = text.format(**slots)
    return re.sub(r" +([.,!?\n])", r"\1", re.sub(r"  +", " ", text)).strip()


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use", "Eur")) else "a ") + noun


def cap(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def plural(noun: str) -> str:
    special = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "wolf": "wolves", "fox": "foxes", "fly": "flies",
               "butterfly": "butterflies", "fairy": "fairies", "child": "children", "snowman": "snowmen"}
    return special.get(noun) or noun + "s"


def join(items: list[str], last: str = "and") -> str:
    """"a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {last} " + items[-1]


def normalise(text: str) -> str:
    """Lower case, words only: two wordings that differ in case or punctuation alone become equal."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


_SYLLABLES = ["ba", "bo", "da", "di", "fa", "ga", "ja", "ka", "ki", "la", "lo", "ma", "mi", "mo", "na", "ni", "no",
    "pa",
              "pi", "ra", "ri", "ro", "sa", "so", "ta", "ti", "to", "va", "vi", "za", "zo"]
_ENDINGS = ["n", "r", "s", "l", "x", "a", "o", "y", "k", "th", "ra", "la", "ne", "m", "t", "lin", "mar"]
GIRLS = ["Anna", "Lily", "Mia", "Emma", "Sara", "Lucy", "Nora", "Ella", "Rosa", "Clara", "Ida", "Maya", "Zoe", "Amy"]
BOYS = ["Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Noah", "Finn", "Oscar", "Paul", "Hugo", "Emil", "Adam", "Theo"]


def invented_name(r: Random) -> str:
    """A name that the model has not met: only by copying can it get such names right."""
    return cap("".join(r.choice(_SYLLABLES) for _ in range(r.choice((1, 1, 2)))) + r.choice(_ENDINGS))


def any_name(r: Random) -> str:
    if r.random() < 0.5:
        return r.choice(GIRLS + BOYS + ["John", "Mary", "Peter", "David", "Maria", "Alex", "Chris", "Julia", "Linda"])
    return invented_name(r)


_GREETINGS = ["Hi! ", "Hello! ", "Hi, ", "Hello, ", "Hey, ", "Good morning! ", "Hi there. "]
_REQUESTS = ["Please tell me: ", "Can you tell me: ", "Quick question: ", "I have a question. ", "Tell me, ",
             "Do you know: ", "I want to know: ", "Could you tell me: ", "Question: ", "Okay, ", "So, ", "Please: ",
             "I would like to know: ", "One more question: ", "And "]


def ask(r: Random, questions: list[str], **slots: str) -> str:
    """One of the wordings, the way people type: with or without greeting, capitals, question mark."""
    text = cap(expand(r, r.choice(questions), **slots))
    chance = r.random()
    if chance < 0.06:
        text = r.choice(_GREETINGS) + text
    elif chance < 0.16 and text.endswith("?"):
        text = r.choice(_REQUESTS) + text[0].lower() + text[1:]
    elif chance < 0.20 and text.endswith("?"):
        text = text.rstrip("?.!") + r.choice([", please?", " please", "? Thanks!", ", please."])
    chance = r.random()
    if chance < 0.12:
        text = text.lower()
    if chance < 0.08 or chance > 0.94:
        text = text.rstrip("?.!")
    return text
