"""Questions about the world, made from the tables of facts."""

from . import facts as f
from .topics import topic
from .words import Random, Turn, a, ask, cap, join, plural


@topic(5)
def capital(r: Random) -> list[Turn]:
    def answer(country: str) -> str:
        city, continent, language = f.COUNTRIES[country]
        more = r.choice(["", "", f" {country} is a country in {continent}.", f" People there speak {language}."])
        return f"The capital of {country} is {city}.{more}"

    country, other = r.sample(list(f.COUNTRIES), 2)
    turns = [(ask(r, ["What is the capital of {c}?", "What's the capital of {c}?", "capital of {c}",
        "Which city is the capital of {c}?",
                      "Name the capital of {c}.", "Tell me the capital of {c}.", "What is {c}'s capital?",
                          "What is the capital city of {c}?",
                      "Do you know the capital of {c}?", "The capital of {c} is?", "Can you name the capital of {c}?",
                      "Which city is {c}'s capital?", "What city is the capital of {c}?",
                          "Can you tell me the capital of {c}?"],
                  c=country), answer(country))]
    if r.random() < 0.3:
        turns.append((ask(r, ["And of {c}?", "What about {c}?", "And {c}?", "And the capital of {c}?",
            "How about {c}?"], c=other), answer(other)))
    return turns


@topic(3)
def country(r: Random) -> list[Turn]:
    name = r.choice(list(f.COUNTRIES))
    city, continent, language = f.COUNTRIES[name]
    place = f"{name} is in {continent}." if name != "Australia" else "Australia is a continent of its own."
    kind = r.randrange(4)
    if kind == 0:
        return [(ask(r, ["Where is {c}?", "On which continent is {c}?", "Which continent is {c} in?",
            "Where can I find {c}?"], c=name), f"{place} Its capital is {city}.")]
    if kind == 1:
        return [(ask(r, ["What language do people speak in {c}?", "Which language is spoken in {c}?",
            "What do people speak in {c}?",
                         "What is the language of {c}?"], c=name), f"People in {name} speak {language}.")]
    if kind == 2:
        return [(ask(r, ["{x} is the capital of which country?", "Which country has the capital {x}?",
            "In which country is {x}?", "Where is {x}?",
                         "What country is {x} in?"], x=city), f"{city} is the capital of {name}.")]
    return [(ask(r, ["Tell me about {c}.", "What do you know about {c}?", "Describe {c}.",
        "Tell me something about {c}.", "Give me some facts about {c}."], c=name),
             f"{name} is a country{' in ' + continent if name != 'Australia' else ' and a continent'}. Its capital "
                 f"is {city}, and most people there speak {language}.")]


@topic(8)
def animal(r: Random) -> list[Turn]:
    name = r.choice(list(f.ANIMALS))
    young, sound, home, legs, food, _, extra = f.ANIMALS[name]
    many, one = cap(plural(name)), a(name)
    leg_words = f"{cap(one)} has {f.NUMBERS[legs]} legs." if legs else f"{cap(one)} has no legs."
    young_words = f"A young {name} is called {a(young)}."
    slots = {"n": name, "a": one, "s": plural(name)}
    kind = r.randrange(7)
    if kind == 0:
        return [(ask(r, ["What is a baby {n} called?", "What do you call a young {n}?",
            "What is the young of {a} called?", "What is a young {n} called?",
                         "How do you call a baby {n}?", "What's the name for a baby {n}?", "baby {n} name"], **slots),
                             young_words)]
    if kind == 1:
        return [(ask(r, ["What sound does {a} make?", "What noise do {s} make?", "What does {a} say?",
            "How do {s} sound?", "Which sound do {s} make?",
                         "What sound do {s} make?"], **slots), f"{many} {sound}.")]
    if kind == 2:
        return [(ask(r, ["Where do {s} live?", "Where does {a} live?", "What is the home of {a}?",
            "Where can I find {s}?", "In what place do {s} live?"], **slots),
                 f"{many} live {home}.")]
    if kind == 3:
        return [(ask(r, ["How many legs does {a} have?", "How many legs do {s} have?", "Number of legs of {a}?",
            "How many legs has {a}?"], **slots), leg_words)]
    if kind == 4:
        return [(ask(r, ["What do {s} eat?", "What does {a} eat?", "What is the food of {s}?",
            "What do {s} like to eat?", "What should I feed {a}?"], **slots),
                 f"{many} eat {food}.")]
    if kind == 5:
        return [(ask(r, ["Is {a} an animal?", "Are {s} animals?"], **slots), f"Yes, {one} is an animal. {extra}")]
    parts = [f"{cap(one)} lives {home} and eats {food}.", extra, young_words if r.random() < 0.5 else leg_words]
    return [(ask(r, ["Tell me about {s}.", "What do you know about {s}?", "Describe {a}.", "What is {a}?",
        "Tell me something about {s}.", "Tell me a fact about {s}.",
                     "Explain what {a} is.", "Give me some facts about {s}."], **slots), " ".join(parts))]


@topic(3)
def compare(r: Random) -> list[Turn]:
    one, two = r.sample(list(f.ANIMALS), 2)
    size = {n: f.ANIMALS[n][5] for n in (one, two)}
    while size[one] == size[two]:
        two = r.choice(list(f.ANIMALS))
        size[two] = f.ANIMALS[two][5]
    big, small = (one, two) if size[one] > size[two] else (two, one)
    if r.random() < 0.6:
        return [(ask(r, ["Which is bigger, {x} or {y}?", "What is bigger, {x} or {y}?",
            "Which animal is larger: {x} or {y}?", "Who is bigger, {x} or {y}?"], x=a(one), y=a(two)),
                 f"{cap(a(big))} is bigger than {a(small)}.")]
    yes = big == one
    return [(ask(r, ["Is {x} bigger than {y}?", "Is {x} larger than {y}?"], x=a(one), y=a(two)),
             f"{'Yes' if yes else 'No'}, {a(one)} is {'bigger' if yes else 'smaller'} than {a(two)}.")]


@topic(4)
def colour(r: Random) -> list[Turn]:
    if r.random() < 0.2:
        (x, y), z = r.choice(list(f.MIXES.items()))
        if r.random() < 0.5:
            x, y = y, x
        return [(ask(r, ["What do you get when you mix {x} and {y}?", "What colour do {x} and {y} make?",
            "Mix {x} and {y}.", "What happens if I mix {x} with {y}?",
                         "What color do {x} and {y} make together?"], x=x, y=y), f"{cap(x)} and {y} make {z}.")]
    thing, shade = r.choice(list(f.COLOURS.items()))
    return [(ask(r, ["What colour is {t}?", "What color is {t}?", "Which colour does {t} have?",
        "What is the colour of {t}?", "What is the color of {t}?",
                     "Tell me the colour of {t}.", "Which color is {t}?", "What colour does {t} have?"], t=thing),
                         f"{cap(thing)} is {shade}.")]


@topic(5)
def calendar(r: Random) -> list[Turn]:
    kind = r.randrange(6)
    names, what = (f.DAYS, "day") if r.random() < 0.5 else (f.MONTHS, "month")
    i = r.randrange(len(names))
    if kind <= 1:
        return [(ask(r, ["What {w} comes after {x}?", "Which {w} comes after {x}?", "What comes after {x}?",
            "Which {w} follows {x}?", "What {w} is after {x}?",
                         "Which is the next {w} after {x}?", "If today is {x}, what is tomorrow?" if what == "day"
                             else "What is the {w} after {x}?"], w=what, x=names[i]),
                 f"The {what} after {names[i]} is {names[(i + 1) % len(names)]}.")]
    if kind == 2:
        return [(ask(r, ["What {w} comes before {x}?", "Which {w} comes before {x}?", "What comes before {x}?",
            "What is the {w} before {x}?"], w=what, x=names[i]),
                 f"The {what} before {names[i]} is {names[i - 1]}.")]
    if kind == 3:
        month = r.choice(f.MONTHS)
        return [(ask(r, ["How many days does {m} have?", "How many days are in {m}?", "How long is {m}?",
            "How many days has {m}?"], m=month),
                 f"{month} has {f.MONTH_LENGTHS[month]} days.")]
    if kind == 4:
        season = r.choice(list(f.SEASONS))
        return [(ask(r, ["What happens in {s}?", "Tell me about {s}.", "What is {s} like?", "Describe {s}.",
            "What is {s}?"], s=season),
                 f"{cap(season)} is one of the four seasons. In {season}, {f.SEASONS[season]}.")]
    return [r.choice([
        (ask(r, ["What are the days of the week?", "List the days of the week.", "Name the days of the week.",
            "Name all the days of the week."]),
         f"The days of the week are {join(f.DAYS)}."),
        (ask(r, ["What are the months of the year?", "List the months.", "Name the twelve months.",
            "Name all months of the year."]),
         f"The months of the year are {join(f.MONTHS)}."),
        (ask(r, ["What are the four seasons?", "Name the seasons.", "List the seasons of the year.",
            "Which seasons are there?"]),
         "The four seasons are spring, summer, autumn and winter."),
    ])]


@topic(3)
def amount(r: Random) -> list[Turn]:
    (part, whole), number = r.choice(list(f.AMOUNTS.items()))
    return [(ask(r, ["How many {p} are in {w}?", "How many {p} are there in {w}?", "How many {p} does {w} have?",
        "{w} has how many {p}?", "How many {p} in {w}?",
                     "Number of {p} in {w}?"], p=part, w=whole), f"There are {number} {part} in {whole}.")]


@topic(3)
def planet(r: Random) -> list[Turn]:
    i = r.randrange(8)
    name, extra = f.PLANETS[i]
    order = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"][i]
    if r.random() < 0.3:
        return [(ask(r, ["Which is the {o} planet from the Sun?", "What is the {o} planet?", "Name the {o} planet."],
            o=order), f"The {order} planet from the Sun is {name}.")]
    return [(ask(r, ["Tell me about {n}.", "What is {n}?", "What do you know about {n}?", "Describe the planet {n}.",
        "Tell me about the planet {n}."], n=name),
             f"{name} is the {order} planet from the Sun. {extra}")]


@topic(4)
def superlative(r: Random) -> list[Turn]:
    what, which = r.choice(list(f.SUPERLATIVES.items()))
    return [(ask(r, ["What is {w}?", "Which is {w}?", "What's {w}?", "Tell me {w}.", "Do you know {w}?", "Name {w}.",
        "Which one is {w}?", "Can you name {w}?"], w=what),
             f"{cap(which)} is {what}.")]


@topic(3)
def person(r: Random) -> list[Turn]:
    what, who, more = r.choice(f.PERSON_FACTS)
    return [(ask(r, ["Who {w}?", "Do you know who {w}?", "Tell me who {w}.",
        "What is the name of the person who {w}?", "Can you tell me who {w}?"], w=what), f"{who} {what}. {more}")]


@topic(3)
def job(r: Random) -> list[Turn]:
    name, does = r.choice(list(f.JOBS.items()))
    if r.random() < 0.4:
        return [(ask(r, ["Who {d}?", "What do you call a person who {d}?", "What is the job of someone who {d}?",
            "Which job is it when somebody {d}?"], d=does), f"{cap(a(name))} {does}.")]
    return [(ask(r, ["What does {n} do?", "What is {n}?", "What is the job of {n}?", "Explain what {n} does.",
        "What is the work of {n}?"], n=a(name)), f"{cap(a(name))} {does}.")]


@topic(4)
def use(r: Random) -> list[Turn]:
    thing, (purpose, material) = r.choice(list(f.USES.items()))
    many = thing == "scissors"
    if r.random() < 0.3:
        return [(ask(r, ["What are {t} made of?"] if many else ["What is {t} made of?",
            "Which material is {t} made of?", "What are most of them made of: {t}?"], t=thing),
                 f"{cap(thing)} {'are' if many else 'is'} usually made of {material}.")]
    if r.random() < 0.3:
        return [(ask(r, ["What do I need for {p}?", "What can I use for {p}?", "Which thing is used for {p}?"],
            p=purpose), f"You can use {thing} for {purpose}.")]
    return [(ask(r, ["What are {t} used for?", "What do you do with {t}?"] if many else ["What is {t} used for?",
        "What do you use {t} for?", "What do you do with {t}?", "What is {t} for?",
                     "Why do people need {t}?"], t=thing),
                         f"{cap(thing)} {'are' if many else 'is'} used for {purpose}.")]


@topic(3)
def source(r: Random) -> list[Turn]:
    product, origin = r.choice(list(f.SOURCES.items()))
    verb = "come" if product in ("eggs", "raisins") else "comes"
    return [(ask(r, ["Where does {p} come from?", "What is {p} made from?", "What is the source of {p}?",
        "Where do we get {p} from?", "How do we get {p}?"], p=product),
             f"{cap(product)} {verb} from {origin}." if origin not in ("flour", "milk", "grapes", "wood", "sand",
                 "cocoa beans", "tomatoes", "wheat")
             else f"{cap(product)} {'are' if product == 'raisins' else 'is'} made from {origin}.")]


@topic(2)
def true_or_false(r: Random) -> list[Turn]:
    country, other = r.sample(list(f.COUNTRIES), 2)
    right = f.COUNTRIES[country][0]
    city = right if r.random() < 0.5 else f.COUNTRIES[other][0]
    answer = f"No, the capital of {country} is {right}."
    if city == right:
        answer = f"Yes, {right} is the capital of {country}."
    if r.random() < 0.6:
        return [(ask(r, ["Is {x} the capital of {c}?", "Is it true that {x} is the capital of {c}?",
            "Is the capital of {c} {x}?"], x=city, c=country), answer)]
    thing, shade = r.choice(list(f.COLOURS.items()))
    asked = shade if r.random() < 0.5 else r.choice(["blue", "green", "red", "yellow", "black", "white"])
    return [(ask(r, ["Is {t} {s}?"], t=thing, s=asked), f"Yes, {thing} is {shade}." if asked == shade
        else f"No, {thing} is {shade}.")]


_WHICH_ANIMAL = {"makes honey": "bee", "gives us milk": "cow", "gives us wool": "sheep", "lays eggs": "hen",
    "spins a web": "spider", "has a long trunk": "elephant", "hunts at night": "owl",
                 "has black stripes": "tiger", "has a very long neck": "giraffe",
                     "carries its young in a pouch": "kangaroo", "hides nuts for the winter": "squirrel",
                     "cannot fly but swims well": "penguin",
                 "barks": "dog", "meows": "cat", "moos": "cow", "neighs": "horse", "quacks": "duck", "croaks": "frog",
                     "roars": "lion", "howls": "wolf", "hoots": "owl", "hisses": "snake", "oinks": "pig",
                 "is called the king of the animals": "lion", "lives in a hive": "bee", "has eight legs": "spider"}


@topic(2)
def which_animal(r: Random) -> list[Turn]:
    does, name = r.choice(list(_WHICH_ANIMAL.items()))
    return [(ask(r, ["Which animal {d}?", "What animal {d}?", "Name an animal that {d}.",
        "Which animal is it that {d}?", "I am looking for an animal that {d}."], d=does), f"{cap(a(name))} {does}.")]
