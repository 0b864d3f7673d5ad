"""Questions about numbers and words, and requests for lists."""

from . import facts as f
from .topics import topic
from .words import Random, Turn, a, any_name, ask, cap, join


@topic(9)
def arithmetic(r: Random) -> list[Turn]:
    x, y = r.randint(0, 10), r.randint(0, 10)
    operation = r.choice("++-*")
    if operation == "-":
        x, y = x + y, x
        question = ["What is {x} minus {y}?", "What is {x} - {y}?", "{x} - {y} = ?", "Subtract {y} from {x}.",
            "{x} minus {y}", "How much is {x} minus {y}?"]
        answer = f"{x} minus {y} is {x - y}."
    elif operation == "*":
        question = ["What is {x} times {y}?", "What is {x} * {y}?", "{x} * {y} = ?", "Multiply {x} by {y}.",
            "{x} times {y}", "How much is {x} times {y}?", "What is {x} x {y}?"]
        answer = f"{x} times {y} is {x * y}."
    else:
        question = ["What is {x} plus {y}?", "What is {x} + {y}?", "{x} + {y} = ?", "Add {x} and {y}.",
            "{x} plus {y}", "How much is {x} plus {y}?", "{x}+{y}",
                    "What is the sum of {x} and {y}?", "Calculate {x} + {y}."]
        answer = f"{x} plus {y} is {x + y}."
    slots = {"x": x, "y": y}
    if r.random() < 0.3 and max(x, y) <= 12:
        slots = {"x": f.NUMBERS[x], "y": f.NUMBERS[y]}
    return [(ask(r, question, **{n: str(v) for n, v in slots.items()}), answer)]


@topic(2)
def apples(r: Random) -> list[Turn]:
    x, y, name = r.randint(2, 9), r.randint(1, 8), any_name(r)
    thing = r.choice(["apples", "books", "coins", "eggs", "balls", "flowers"])
    if r.random() < 0.5:
        return [(ask(r, ["{n} has {x} {t} and gets {y} more. How many {t} does {n} have?",
            "{n} has {x} {t}. A friend gives {n} {y} more. How many {t} are there now?"],
                     n=name, x=str(x), y=str(y), t=thing),
                         f"{x} plus {y} is {x + y}, so {name} has {x + y} {thing}.")]
    x += y
    return [(ask(r, ["{n} has {x} {t} and gives away {y}. How many {t} are left?",
        "{n} has {x} {t} and loses {y} of them. How many {t} does {n} have now?"],
                 n=name, x=str(x), y=str(y), t=thing),
                     f"{x} minus {y} is {x - y}, so {name} has {x - y} {thing} left.")]


@topic(2)
def counting(r: Random) -> list[Turn]:
    start, stop = (1, r.randint(3, 12)) if r.random() < 0.6 else sorted(r.sample(range(0, 13), 2))
    numbers = f.NUMBERS[start:stop + 1] if r.random() < 0.5 else [str(n) for n in range(start, stop + 1)]
    spelled = f.NUMBERS if numbers[0].isalpha() else [str(n) for n in range(13)]
    if r.random() < 0.25:
        return [(ask(r, ["Count backwards from {y} to {x}.", "Count down from {y} to {x}."], x=spelled[start],
            y=spelled[stop]), cap(", ".join(numbers[::-1])) + ".")]
    wording = ["Count to {y}.", "Please count to {y}.", "Can you count to {y}?",
        "Count up to {y}."] if start == 1 else []
    return [(ask(r, wording or ["Count from {x} to {y}.", "Can you count from {x} to {y}?"], x=spelled[start],
        y=spelled[stop]), cap(", ".join(numbers)) + ".")]


@topic(4)
def opposite(r: Random) -> list[Turn]:
    x, y = r.choice(f.OPPOSITES)
    if y not in f.ONE_WAY and x not in f.ONE_WAY and r.random() < 0.5:
        x, y = y, x
    return [(ask(r, ["What is the opposite of {x}?", "What's the opposite of {x}?", "opposite of {x}",
        "Tell me the opposite of {x}.", "Give me the opposite of {x}.",
                     "What is the opposite of the word {x}?", "Which word is the opposite of {x}?",
                         "Name the opposite of {x}."], x=x),
             f"The opposite of {x} is {y}.")]


@topic(5)
def listing(r: Random) -> list[Turn]:
    kind = r.choice(list(f.LISTS))
    count = r.randint(2, 5)
    items = r.sample(f.LISTS[kind], count)
    number = f.NUMBERS[count] if r.random() < 0.7 else str(count)
    question = ask(r, ["List {n} {k}.", "Name {n} {k}.", "Give me {n} {k}.", "Tell me {n} {k}.",
        "Can you name {n} {k}?", "What are {n} {k}?", "Give me a list of {n} {k}.",
                       "Give me the names of {n} {k}.", "I need {n} {k}."], n=number, k=kind)
    if r.random() < 0.35:
        return [(question, "\n".join(f"{i}. {cap(item)}" for i, item in enumerate(items, 1)))]
    return [(question, f"Here are {f.NUMBERS[count]} {kind}: {join(items)}.")]


@topic(2)
def member(r: Random) -> list[Turn]:
    kind, wrong = r.sample(["fruits", "animals", "colours", "countries", "planets", "instruments", "drinks", "metals",
        "clothes"], 2)
    item, one = r.choice(f.LISTS[kind]), {"countries": "country", "clothes": "piece of clothing"}
    asked = kind if r.random() < 0.5 else wrong
    name, singular = item, one.get(asked, asked[:-1])
    true = f"{a(one.get(kind, kind[:-1]))}"
    subject = name if name[0].isupper() or kind in ("colours", "drinks", "metals") else a(name)
    return [(ask(r, ["Is {s} {x}?"], s=subject, x=a(singular)),
        f"{'Yes' if asked == kind else 'No'}, {subject} is {true}.")]


@topic(4)
def translate(r: Random) -> list[Turn]:
    word, forms = r.choice(list(f.TRANSLATIONS.items()))
    i = r.randrange(3)
    language = ("French", "Spanish", "German")[i]
    return [(ask(r, ["How do you say {w} in {l}?", "Translate {w} into {l}.", "What is {w} in {l}?",
        'What is "{w}" in {l}?', 'Translate "{w}" to {l}.', "What is the {l} word for {w}?"],
                 w=word, l=language), f'"{cap(word)}" is "{forms[i]}" in {language}.')]


@topic(3)
def grammar(r: Random) -> list[Turn]:
    kind = r.randrange(4)
    if kind == 0:
        one, many = r.choice(list(f.PLURALS.items()))
        return [(ask(r, ["What is the plural of {w}?", "plural of {w}", "What's the plural form of {w}?",
            "One {w}, two ...?"], w=one), f'The plural of "{one}" is "{many}".')]
    if kind == 1:
        now, past = r.choice(list(f.PASTS.items()))
        return [(ask(r, ["What is the past tense of {w}?", "past tense of {w}", "What is the past of {w}?",
            "What's the past form of {w}?"], w=now), f'The past tense of "{now}" is "{past}".')]
    if kind == 2:
        x, y = r.choice(list(f.RHYMES.items()))
        if r.random() < 0.5:
            x, y = y, x
        return [(ask(r, ["What rhymes with {w}?", "Give me a word that rhymes with {w}.", "Find a rhyme for {w}.",
            "Which word rhymes with {w}?"], w=x), f'A word that rhymes with "{x}" is "{y}".')]
    word = r.choice(r.choice(list(f.LISTS.values())) + list(f.ANIMALS)).split()[0]
    return [(ask(r, ["Spell {w}.", "How do you spell {w}?", "Spell the word {w}.", "Can you spell {w}?"], w=word),
        "-".join(word.upper()) + ".")]


@topic(3)
def numbers(r: Random) -> list[Turn]:
    x, y = r.sample(range(0, 21), 2)
    kind = r.randrange(6)
    if kind == 0:
        return [(ask(r, ["Is {x} even or odd?", "Is the number {x} even or odd?", "Is {x} an even number?",
            "Is {x} an odd number?"], x=str(x)), f"{x} is an {'odd' if x % 2 else 'even'} number.")]
    if kind == 1:
        return [(ask(r, ["Which is bigger, {x} or {y}?", "Which number is larger, {x} or {y}?",
            "Is {x} more than {y}?", "What is more, {x} or {y}?"], x=str(x), y=str(y)),
            f"{max(x, y)} is bigger than {min(x, y)}.")]
    if kind == 2:
        return [(ask(r, ["What number comes after {x}?", "Which number comes after {x}?", "What comes after {x}?",
            "What is the next number after {x}?"], x=str(x)), f"The number after {x} is {x + 1}.")]
    if kind == 3:
        return [(ask(r, ["What is half of {x}?", "How much is half of {x}?", "Divide {x} by two.",
            "What is {x} divided by 2?"], x=str(2 * x)), f"Half of {2 * x} is {x}.")]
    if kind == 4:
        return [(ask(r, ["What is twice {x}?", "Double {x}.", "What is the double of {x}?"], x=str(x)),
            f"Twice {x} is {2 * x}.")]
    i = r.randrange(25)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [(ask(r, ["Which letter comes after {x}?", "What letter comes after {x}?", "Which letter follows {x}?",
        "What is the letter after {x}?"], x=letters[i]), f"The letter after {letters[i]} is {letters[i + 1]}.")]
