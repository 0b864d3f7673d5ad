"""Explanations, small talk, and answers that depend on what the user said before."""

from . import facts as f
from . import knowledge as k
from .topics import make_turns, topic
from .words import Random, Turn, a, any_name, ask, cap, expand, invented_name


def _bare(term: str) -> str:
    return term.split(" ", 1)[1] if term.startswith(("a ", "an ", "the ")) else term


@topic(14)
def definition(r: Random) -> list[Turn]:
    term, text = r.choice(list(k.DEFINITIONS.items()))
    question = ask(r, ["What is {t}?", "What's {t}?", "Explain what {t} is.", "Can you explain what {t} is?",
        "Define {b}.", "What does {b} mean?", "What does the word {b} mean?",
                       "Explain {t}.", "Tell me about {t}.", "Tell me what {t} is.", "Explain {t} to me.",
                           "I do not know what {t} is. Can you explain it?", "Do you know what {t} is?",
                       "What do you mean by {b}?", "Please explain the word {b}.", "Describe {t} in simple words.",
                           "What exactly is {t}?", "{b}", "{b}?", "What is the meaning of {b}?",
                       "Give me a definition of {b}.", "Explain {t} like I am five.", "What is meant by {b}?"],
                           t=term, b=_bare(term))
    if r.random() < 0.08:
        return [(ask(r, ["Explain {t} in one sentence.", "What is {t}, in one sentence?",
            "In one sentence, what is {t}?"], t=term), text.split(". ")[0].rstrip(".") + ".")]
    return [(question, text)]


@topic(11)
def explanation(r: Random) -> list[Turn]:
    question, text = r.choice(list(k.EXPLANATIONS.items()))
    question = question.replace(" i ", " I ").replace("cpu", "CPU").replace("gpus", "GPUs").replace("gpu",
        "GPU").replace("english", "English")
    wordings = ["{q}?", "{q}?", "Can you explain to me: {q}?", "My child asks: {q}?",
        "{q}? Explain it in simple words.", "I wonder, {q}?", "Explain this: {q}?", "Tell me: {q}?"]
    for old, new in (("how do I make", ["How can I make", "How to make", "Tell me how to make", "I want to make",
        "Give me a recipe for", "What is the best way to make"]),
                     ("how can I", ["How do I", "How to", "I want to", "What can I do to",
                         "Give me some advice: how can I", "Tell me how to", "Any tips on how to"]),
                     ("why do", ["What is the reason that", "Tell me why"])):
        if question.startswith(old) and (old != "why do" or question.startswith("why do ")):
            wordings += ["{" + "q" + "}?"] + [n + question[len(old):].replace("{", "") + ("?" if n.startswith(("How",
                "What", "Any")) else ".") for n in new]
    return [(ask(r, wordings, q=question), text)]


@topic(3)
def joke(r: Random) -> list[Turn]:
    first, second = r.sample(k.JOKES, 2)
    turns = [(ask(r, ["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.",
        "Can you tell me a joke?", "I want to hear a joke.", "A joke, please!", "Know any jokes?"]), first)]
    if r.random() < 0.4:
        turns.append((ask(r, ["Another one!", "One more, please.", "Tell me another joke.", "Another one, please.",
            "Haha, one more!", "More!"]), second))
    return turns


@topic(6)
def identity(r: Random) -> list[Turn]:
    questions, text = r.choice(k.IDENTITY)
    return [(ask(r, questions), text)]


@topic(3)
def unknown(r: Random) -> list[Turn]:
    """What a small model should not pretend to know: news, prices, and words that nobody has heard of."""
    if r.random() < 0.5:
        name = invented_name(r)
        question = ask(r, ["Who is {n}?", "What is {n}?", "What is a {l}?", "What is the capital of {n}?",
            "Where is {n}?", "Tell me about {n}.", "What does {l} mean?", "Who was {n}?", "Explain {l}.",
            "What do you know about {n}?",
                           "What colour is a {l}?", "How do you say {l} in French?", "When was {n} born?",
                               "Who is {n} {m}?", "What does a {l} do?"], n=name, l=name.lower(), m=invented_name(r))
        return [(question, k.UNKNOWN_WORD)]
    return [(ask(r, [r.choice(k.UNKNOWN).replace("{}", r.choice(k.UNKNOWN_TOPICS))]), k.UNKNOWN_NEWS)]


@topic(6)
def manners(r: Random) -> list[Turn]:
    return [r.choice([
        (ask(r, ["Hello!", "Hi!", "Hey!", "Hello there.", "Hi there!", "Good day!", "Hello", "Greetings!"]),
            "Hello! How can I help you today?"),
        (ask(r, ["Good morning!", "Good evening!", "Good afternoon!"]), "Hello and welcome! What can I do for you?"),
        (ask(r, ["How are you?", "How are you today?", "How do you feel?", "How is it going?", "What's up?",
            "How are you doing?"]), "I am doing well, thank you! What would you like to talk about?"),
        (ask(r, ["Thank you!", "Thanks!", "Thanks a lot.", "Thank you very much!", "That was helpful.",
            "Great, thanks!", "Thx", "Cool, thank you."]), "You are welcome! I am glad that I could help."),
        (ask(r, ["Goodbye!", "Bye!", "See you later.", "I have to go now.", "Good night!", "Bye bye!"]),
            "Goodbye! It was nice to talk to you."),
        (ask(r, ["You are great!", "Good job!", "Well done!", "You are so smart.", "I like you.", "Nice!",
            "That is great."]), "Thank you, that is kind of you!"),
        (ask(r, ["I am sad.", "I feel sad today.", "I had a bad day.", "I am unhappy.", "I feel lonely."]),
            "I am sorry to hear that. A walk, some music or a talk with a friend may help you to feel better."),
        (ask(r, ["I am happy.", "I had a great day!", "I feel good today.", "I am so happy!"]),
            "That is wonderful! I am glad to hear that."),
        (ask(r, ["I am bored.", "I have nothing to do.", "What can I do? I am bored."]),
            "You could read a book, go for a walk or bake a cake. Or I can tell you a story!"),
        (ask(r, ["I am tired.", "I am so tired today.", "I need some rest."]),
            "Then take a break, drink some water and go to bed early tonight."),
        (ask(r, ["I am hungry.", "I am so hungry!", "I want to eat something."]),
            "How about a sandwich or some fruit? Pasta with tomato sauce is quick, too."),
        (ask(r, ["No.", "No, thanks.", "Nothing.", "Never mind."]), "All right. Just ask me if you need anything."),
        (ask(r, ["Yes.", "Okay.", "Ok", "Sure.", "Fine."]), "Good! What would you like to know?"),
        (ask(r, ["Test", "test", "Testing.", "This is a test.", "Is this working?", "Are you there?", "Ping"]),
            "Yes, I am here and ready. Ask me a question or let me tell you a story."),
        (ask(r, ["Sorry!", "I am sorry.", "Oh, sorry."]), "No problem at all!"),
    ])]


FAVOURITES = {"colour": f.LISTS["colours"], "animal": f.LISTS["animals"], "fruit": f.LISTS["fruits"],
    "sport": f.LISTS["sports"],
              "drink": f.LISTS["drinks"], "flower": f.LISTS["flowers"], "city": f.LISTS["cities"],
                  "instrument": f.LISTS["instruments"]}


@topic(6)
def memory(r: Random) -> list[Turn]:
    """The user says something about themselves and asks for it later: answered only from the conversation."""
    kind = r.randrange(3)
    if kind == 0:
        name = any_name(r)
        told = (ask(r, ["My name is {n}.", "I am {n}.", "Hi, I'm {n}.", "Hello, my name is {n}.",
            "You can call me {n}.", "I am called {n}.", "Hello! I am {n}."], n=name).replace(name.lower(), name),
                f"Nice to meet you, {name}! How can I help you?")
        recall = (ask(r, ["What is my name?", "Do you remember my name?", "Who am I?", "What's my name?",
            "Do you know my name?"]), f"Your name is {name}.")
    elif kind == 1:
        what = r.choice(list(FAVOURITES))
        value = r.choice(FAVOURITES[what])
        told = (ask(r, ["My favourite {w} is {v}.", "I like {v} best of all. It is my favourite {w}.",
            "{v} is my favourite {w}."], w=what, v=value),
            f"That is a good choice! I will remember that your favourite {what} is {value}.")
        recall = (ask(r, ["What is my favourite {w}?", "Do you remember my favourite {w}?",
            "Which {w} do I like best?"], w=what), f"Your favourite {what} is {value}.")
    else:
        pet, name = r.choice(["dog", "cat", "rabbit", "horse", "bird", "fish"]), any_name(r)
        told = (ask(r, ["I have a {p} called {n}.", "My {p} is called {n}.", "My {p}'s name is {n}.",
            "I have a {p}. Its name is {n}."], p=pet, n=name).replace(name.lower(), name),
                f"{name} is a lovely name for a {pet}!")
        recall = (ask(r, ["What is the name of my {p}?", "What is my {p} called?",
            "Do you remember the name of my {p}?", "What is my {p}'s name?"], p=pet), f"Your {pet} is called {name}.")
    if r.random() < 0.3:
        return [told]
    between = make_turns(r, exclude=memory) if r.random() < 0.5 else []
    return [told, *between, recall]


@topic(3)
def copying(r: Random) -> list[Turn]:
    thing = expand(r, r.choice(["{x} and {y}", "the {x} is [big|small|old|red|green|happy]", "{x}, {y}",
        "I like the {x}", "{n} likes the {x}", "{x}"]),
                   x=r.choice(list(f.ANIMALS)), y=r.choice(r.choice(list(f.LISTS.values()))), n=any_name(r))
    kind = r.randrange(4)
    if kind == 0:
        say = r.choice(["Repeat after me", "Say", "Repeat", "Please say", "Repeat this"])
        return [(f"{say}: {thing}", cap(thing) + ".")]
    name = any_name(r)
    if kind == 1:
        greet = r.choice(["Say hello to", "Please greet", "Greet", "Say hi to"])
        return [(f"{greet} {name}.", f"Hello, {name}! It is nice to meet you.")]
    if kind == 2:
        wish = r.choice(["Write a birthday card for", "Wish a happy birthday to", "Write birthday wishes for"])
        return [(f"{wish} {name}.",
                 f"Dear {name}, happy birthday! I wish you a wonderful day with cake, friends and a lot of joy.")]
    word = r.choice(list(f.ANIMALS) + [n.split(" ", 1)[-1] for n in f.USES] + [_bare(d) for d in k.DEFINITIONS][:30])
    return [(ask(r, ["Make a sentence with the word {w}.", "Use the word {w} in a sentence.",
        "Write a sentence with {w}."], w=word),
             expand(r, "[Yesterday I saw|My friend told me about|Everybody talked about|I read a book about|She "
                 "dreamed of] the {w} [and smiled|in the evening|at school|on the way home|near the river].",
                 w=word))]


@topic(5)
def reading(r: Random) -> list[Turn]:
    """A few facts of the user's own and a question about them."""
    people: list[str] = []
    while len(people) < r.choice((2, 2, 3)):
        if (name := any_name(r)) not in people:
            people.append(name)
    i = r.randrange(len(people))
    kind = r.randrange(4)
    if kind == 0:
        things = [expand(r, "[red|blue|green|small|big|new|old] " + t) for t in r.sample(["ball", "kite", "book",
            "hat", "car", "cup", "bag", "bicycle", "coat", "pen"], len(people))]
        told = " ".join(f"{p} has {a(t)}." for p, t in zip(people, things))
        if r.random() < 0.5:
            return [(f"{told} Who has the {things[i]}?", f"{people[i]} has the {things[i]}.")]
        return [(f"{told} What does {people[i]} have?", f"{people[i]} has {a(things[i])}.")]
    if kind == 1:
        places = r.sample(["the garden", "the kitchen", "the school", "the park", "the library", "the market",
            "the office", "the station", "the forest"], len(people))
        told = " ".join(f"{p} is in {t}." for p, t in zip(people, places))
        if r.random() < 0.5:
            return [(f"{told} Where is {people[i]}?", f"{people[i]} is in {places[i]}.")]
        return [(f"{told} Who is in {places[i]}?", f"{people[i]} is in {places[i]}.")]
    if kind == 2:
        likes = [r.choice(f.LISTS[c]) for c in r.sample(["colours", "drinks", "instruments", "sports", "languages"],
            len(people))]
        told = " ".join(f"{p} likes {t}." for p, t in zip(people, likes))
        if r.random() < 0.5:
            return [(f"{told} What does {people[i]} like?", f"{people[i]} likes {likes[i]}.")]
        return [(f"{told} Who likes {likes[i]}?", f"{people[i]} likes {likes[i]}.")]
    ages = sorted(r.sample(range(3, 40), len(people)))
    order = list(zip(people, ages))
    r.shuffle(order)
    told = " ".join(f"{p} is {n} years old." for p, n in order)
    return [(f"{told} How old is {people[i]}?", f"{people[i]} is {ages[i]} years old.")]


_DESCRIPTIONS = {
    "the beach": ["The sand is warm and the waves are [soft and blue|high and wild]",
        "Children [build castles of sand|run after a ball|look for shells]",
        "[A small boat|A white sail] moves slowly along the horizon",
        "[The air smells of salt|Sea birds cry above the water]"],
    "a forest": ["[Tall trees stand close together|The ground is soft with moss]",
        "[A bird sings in the branches|A squirrel runs up a trunk]",
        "[The light is green and quiet|Sunlight falls through the leaves]",
        "[It smells of wood and rain|Somewhere, a small stream is running]"],
    "a market": ["[Farmers sell apples, bread and cheese|The tables are full of fruit and flowers]",
        "[Everybody talks at the same time|People laugh and call out their prices]",
        "[A musician plays the violin|A dog sleeps under a table]",
        "[It smells of coffee and fresh bread|Children eat sweet cherries]"],
    "a winter morning": ["[Snow lies on the roofs|The windows are covered with ice]",
        "[The air is cold and clear|It is so quiet that you can hear the snow fall]",
        "[Children build a snowman|Smoke rises from the chimneys]",
        "[A robin hops over the white garden|Inside, a pot of tea is waiting]"],
    "a big city": ["[Tall houses reach into the sky|The streets are full of cars and bicycles]",
        "[People hurry to work|Shop windows shine in every colour]",
        "[A train rolls over a bridge|Music comes from an open window]",
        "[At night, a thousand lights are shining|In the parks, people rest under the trees]"],
    "a server room": ["[Rows of machines hum quietly|Small lights blink on every machine]",
        "[The air is cool and dry|Fans keep the processors cool]",
        "[Cables run along the walls like roots|Thousands of requests arrive every second]",
        "[No person is there, and yet it never sleeps|Behind a glass door, an engineer watches the numbers]"],
    "a sunset": ["[The sun sinks slowly into the sea|The sky turns orange and pink]",
        "[The clouds glow like fire|The shadows grow long]", "[The birds fly home|The first star appears]",
        "[Everything becomes quiet|A cool wind begins to blow]"],
    "a farm": ["[Cows stand in the green field|Hens run across the yard]",
        "[A farmer drives an old tractor|The barn is full of hay]",
        "[A cat sleeps in the sun|A horse looks over the fence]",
        "[It smells of grass and fresh milk|In the evening, the animals come home]"],
}


@topic(2.5)
def description(r: Random) -> list[Turn]:
    what, sentences = r.choice(list(_DESCRIPTIONS.items()))
    text = " ".join(expand(r, sentence) + "." for sentence in r.sample(sentences, r.choice((3, 4))))
    return [(ask(r, ["Describe {w}.", "Write a few sentences about {w}.", "Can you describe {w}?",
        "What does {w} look like?", "Write a short description of {w}.", "Paint a picture of {w} with words.",
        "Describe {w} for me, please."], w=what), text)]


@topic(2)
def letter(r: Random) -> list[Turn]:
    name = any_name(r)
    reason, text = r.choice([
        ("to thank {n} for a present", "thank you so much for the [lovely|wonderful|beautiful] present! [I was so "
            "surprised|It made me very happy|I use it every day]. [You know exactly what I like|It was so kind of "
            "you]."),
        ("to invite {n} to a party", "I am giving a [small|little|big] party on [Saturday|Friday|Sunday] and would "
            "be glad if you could come. [There will be cake and music|We will eat, dance and play games]. [Please "
            "bring your friends|You do not have to bring anything]."),
        ("to say sorry to {n}", "I am sorry for [what I said|what happened|being late] yesterday. [It was not kind "
            "of me|You were right and I was wrong]. [I hope that we are still friends|Can you forgive me]."),
        ("to ask {n} for help", "I have a [small|big] problem and need your help. [My computer does not start any "
            "more|I have to move to a new house]. [Could you come on Saturday|Do you have an hour for me this week]?"),
        ("to tell {n} about a holiday", "I am writing to you from [the sea|the mountains|a small island]. [The sun "
            "shines every day|The weather is fine and the food is good]. [I swim in the morning and read in the "
            "evening|Yesterday I walked for five hours]."),
    ])
    text = expand(r, text).replace("forgive me.", "forgive me?")
    question = ask(r, ["Write a letter " + reason + ".", "Write an email " + reason + ".",
        "Write a short message " + reason + ".", "Help me to write a letter " + reason + "."],
        n=name).replace(name.lower(), name)
    wishes = r.choice(["Best wishes", "With love", "See you soon"])
    return [(question, f"Dear {name},\n\n{text}\n\n{wishes},\nYour friend")]
