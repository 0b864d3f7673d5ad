"""Short stories from a grammar: who, where, what happens and how it ends are drawn, and every sentence has several
wordings, so that the same story practically never comes twice. Names, pronouns and things stay consistent."""

from .words import BOYS, GIRLS, Random, Turn, a, ask, cap, expand, invented_name

PEOPLE = {"girl": "she", "boy": "he", "princess": "she", "prince": "he", "king": "he", "queen": "she", "witch": "she",
    "wizard": "he", "knight": "he",
          "pirate": "he", "baker": "he", "teacher": "she", "farmer": "he", "fisherman": "he", "gardener": "she",
              "painter": "she", "sailor": "he",
          "astronaut": "she", "grandmother": "she", "grandfather": "he", "shepherd": "he", "musician": "she",
              "programmer": "she", "doctor": "she",
          "clown": "he", "giant": "he", "fairy": "she", "child": "he", "old man": "he", "old woman": "she",
              "cook": "he", "pilot": "she", "librarian": "she"}
BEASTS = ["dog", "cat", "fox", "rabbit", "bear", "owl", "mouse", "frog", "duck", "squirrel", "hedgehog", "wolf",
    "lion", "elephant", "penguin", "turtle", "monkey",
          "horse", "bird", "bee", "dragon", "unicorn", "robot", "snail", "sheep", "pig", "goat", "tiger", "whale",
              "fish", "deer", "beaver", "crab", "hen", "parrot",
          "snowman", "cow", "ant", "spider", "butterfly", "camel", "giraffe", "kitten", "puppy", "ghost", "computer",
              "little train", "monster", "dinosaur"]
BEAST_NAMES = {"Pip": "he", "Milo": "he", "Luna": "she", "Bella": "she", "Rusty": "he", "Coco": "she", "Daisy": "she",
    "Bruno": "he", "Nala": "she", "Otto": "he", "Ruby": "she", "Felix": "he",
               "Poppy": "she", "Charlie": "he", "Willow": "she", "Hazel": "she", "Biscuit": "he", "Pepper": "he",
                   "Teddy": "he", "Olive": "she"}
GOOD = ["brave", "kind", "curious", "clever", "cheerful", "gentle", "friendly", "patient", "young", "little",
    "lonely", "shy", "funny", "hungry", "lazy", "sleepy"]
PLACES = {  # place, with its preposition: something to see there
    "in a quiet village": "small houses with red roofs", "in a deep forest": "tall trees and soft moss",
        "by the sea": "white sand and blue waves",
    "on a small farm": "green fields and an old barn", "in the mountains": "steep rocks and cold streams",
        "in a big city": "bright lights and busy streets",
    "near a lake": "clear water and tall grass", "on a little island": "palm trees and round shells",
        "in an old castle": "long halls and high towers",
    "in a sunny valley": "flowers of every colour", "at the edge of a desert": "golden sand and a wide sky",
        "in a snowy land": "white hills and frozen lakes",
    "next to a river": "smooth stones and a wooden bridge", "in a beautiful garden": "roses and apple trees"}
SPOTS = ["under the old bridge", "behind the big oak tree", "in the tall grass", "near the well",
    "beside the garden gate", "at the top of the hill", "in a hollow log",
         "between two grey stones", "under a wooden bench", "at the bottom of the stairs", "next to the stream",
             "in an empty nest", "behind the bakery", "on a flat rock"]
TREASURES = ["red ball", "golden key", "blue scarf", "silver ring", "small drum", "wooden flute", "music box",
    "green hat", "favourite book", "shiny coin", "paper kite",
             "warm blanket", "little lantern", "glass marble", "old map", "striped umbrella", "tiny bell", "compass"]
FINDS = {"a strange key": "a small door in the hill", "an old map": "a cave behind the waterfall",
    "a glowing stone": "a hidden garden", "a bottle with a letter in it": "a lonely island",
         "a silver feather": "the nest of a giant bird", "a locked box": "a room full of music",
             "a tiny lantern": "a secret path", "a golden egg": "a very worried dragon",
         "a magic book": "a library under the ground", "a wooden whistle": "a herd of wild horses"}
SKILLS = {"swim": "jumped into the cool water", "sing": "sang a song in front of everybody",
    "bake bread": "put a perfect loaf on the table", "fly a kite": "let the kite climb above the clouds",
          "read": "read a whole page without help", "play the flute": "played a soft melody",
              "dance": "danced across the market square", "climb trees": "climbed to the top of the tallest tree",
          "paint": "painted a sunset in orange and pink", "ride a bicycle": "rode all the way around the pond",
              "cook soup": "served hot soup to every neighbour", "skate": "skated over the ice in a big circle",
          "juggle": "kept five apples in the air", "whistle": "whistled louder than the wind",
              "write poems": "read a new poem to everybody"}
FEARS = {"the dark": "the night is full of stars that you can only see when it is dark",
    "thunder": "thunder is only the sound of the sky clearing its throat",
         "deep water": "water carries those who lie still and breathe",
             "high places": "you only need to look at the next step", "strangers": "every friend was a stranger once",
         "the cold wind": "the wind only wants to play",
             "loud noises": "a noise cannot hurt those who know where it comes from",
             "being alone": "a friend who is far away still thinks of you"}
GOALS = ["see the sea", "climb the highest mountain", "find the end of the rainbow", "visit the moon",
    "find the oldest tree of the forest", "see the northern lights", "meet the wise owl",
         "find a flower that blooms only once a year", "bring a letter to the king", "see snow for the first time"]
FOODS = ["apple pie", "honey cake", "warm soup", "fresh bread", "pancakes", "strawberry jam", "chocolate cookies",
    "nuts and berries", "cheese sandwiches", "hot chocolate"]

OPENINGS = [
    "[Once upon a time,|Long ago,|Many years ago,|Once] there [was|lived] {a_hero} [named|called] {name}, who lived "
        "{place}.",
    "[Once upon a time,|A long time ago,|One spring,] {a_hero} [named|called] {name} lived {place}.",
    "{Place}, [there lived|there once lived] {a_hero} [named|called] {name}.",
    "{name} was {a_hero} who lived {place}.",
]
SCENES = [
    "[There were|All around there were|From the window {he} could see|Everywhere there were] {sight}.",
    "Every morning, {name} [looked at|walked past|greeted] {sight}.",
    "It was a place of {sight}, and {name} [loved it|knew every corner of it|would not have lived anywhere else].",
    "{name} [loved|was very fond of|could never get enough of] {food} and [long walks|good stories|bright "
        "mornings|quiet evenings].",
    "[Everybody|The whole village|Every neighbour] knew {name}, because {he} [always had time for a chat|laughed so "
        "often|was so kind|always helped others].",
]
TIMES = ["One morning,", "One day,", "One evening,", "On a rainy day,", "On a bright summer day,",
    "One cold winter morning,", "Early one morning,", "One windy afternoon,"]
ENDINGS = [
    "[From that day on,|After that,|From then on,] {name} and {friend} [were best friends|met every day|did "
        "everything together|were never far apart].",
    "That [evening|night], {name} [fell asleep with a smile|went to bed happy and tired|dreamed of new "
        "adventures|looked at the stars and smiled].",
    "[In the end,|At last,] they [sat by the fire and shared|had a small feast with|celebrated with] {food}, and "
        "[everybody was happy|they laughed until late at night|nobody wanted to go home].",
    "And if you [ever pass by|go there today], you can [still hear them laugh|still see them together].",
]
MORALS = {
    "lost": "{name} had learned that [a good friend is worth more than any treasure|those who help others are never "
        "alone|it is easier to search together].",
    "friend": "{name} had learned that [it takes only one kind word to make a friend|a friend can look very "
        "different from you|being shy is no reason to be lonely].",
    "storm": "{name} had learned that [courage means helping even when you are afraid|together they were stronger "
        "than any storm|even the small can save the big].",
    "skill": "{name} had learned that [practice makes perfect|mistakes are only steps on the way|it is never too "
        "late to learn something new].",
    "find": "{name} had learned that [curious minds find the best treasures|the best secrets are those you "
        "share|every door is worth a knock].",
    "race": "{name} had learned that [winning is not everything|a race is more fun with a friend|kindness is the "
        "best prize].",
    "journey": "{name} had learned that [the way is as beautiful as the goal|a long road is short with a friend|big "
        "journeys begin with small steps].",
    "wish": "{name} had learned that [the best wishes are those for others|happiness grows when you share it|a small "
        "kindness comes back].",
    "fear": "{name} had learned that [being brave does not mean having no fear|things look smaller when you know "
        "them|it helps to talk about a fear].",
    "party": "{name} had learned that [a party needs friends and not much else|a surprise may go wrong and still be "
        "wonderful|the best gifts come from the heart].",
    "queue": "{name} had learned that [patience makes everything easier|a fair queue makes everybody happy|nobody "
        "has to do everything at once].",
}
PLOTS = {
    "lost": [
        "{time} {name} [noticed that {his} {treasure} was gone|could not find {his} {treasure} anywhere|lost {his} "
            "{treasure}].",
        '["Where can it be?" {he} [asked|cried|wondered].|"I had it only yesterday," {he} said sadly.|"Oh no," {he} '
            'said, "I must find it!"]',
        "{He} looked {spot1}, [but there was nothing|but found only dry leaves|but it was not there]. Then {he} "
            "searched {spot2}, [without any luck|but found nothing either].",
        "On the way {he} met {a_friend} named {friend}. [\"Why are you so sad?\" asked {friend}.|\"Can I help you?\" "
            "asked {friend}.|\"You look worried,\" said {friend}.]",
        '"[I have lost my {treasure}|My {treasure} is gone]," {name} [answered|said|replied]. "[Do not worry|Do not '
            'cry|Cheer up]," said {friend}, "[we will look for it together|four eyes see more than two|I am good at '
            'finding things]."',
        "They [searched for a long time|walked from place to place|asked everybody they met]. [When the sun was "
            "low|Just when they wanted to give up|After an hour], {friend} saw something {spot3}.",
        "It was the {treasure}! {name} [jumped for joy|could hardly believe it|hugged {his} new friend] and [thanked "
            "{friend} with all {his} heart|said thank you three times|laughed out loud].",
    ],
    "friend": [
        "[But {name} was often alone|But {name} had nobody to play with|{name} wished for nothing more than a "
            "friend]. {time} {he} [heard a soft voice|saw somebody|heard a strange noise] {spot1}.",
        "It was {a_friend}. [\"My name is {friend},\" said the stranger.|\"Hello, I am {friend},\" said the "
            "newcomer, a little afraid.|\"Please do not run away,\" the stranger said, \"I am {friend}.\"]",
        '["Nice to meet you," said {name}. "[Do you want to play with me|Would you like some {food}|Are you new '
            'here]?"|{name} did not know what to say at first, but then {he} [smiled|waved] and said hello.]',
        "[At first they were both shy|They were very different|They had never met anybody like each other], but soon "
            "they [talked about everything|laughed at the same jokes|forgot the time].",
        "They [built a small house|played hide and seek|told each other stories|collected shiny stones] {spot2} and "
            "[shared {food}|watched the clouds|sang funny songs].",
        "[When it got dark|When the sun went down|In the evening], {friend} asked, \"[Will you come back "
            "tomorrow|Shall we meet again|Are we friends now]?\" \"[Of course|Yes, I promise|Nothing could stop "
            "me]!\" said {name}.",
    ],
    "storm": [
        "{time} [dark clouds came up|the sky turned black|a strong wind began to blow], and [soon it rained very "
            "hard|a terrible storm broke loose|thunder rolled over the land].",
        "{name} [ran home|wanted to hide|closed the door], but then {he} heard [a cry for help|somebody calling|a "
            "weak voice] {spot1}.",
        "It was {a_friend} named {friend}, who [was caught under a fallen branch|could not get out of a deep "
            "hole|held on to a rock in the rising water].",
        '"[Help me, please|I cannot get out|I am so cold]!" {friend} cried. {name} was [afraid|frightened], but {he} '
            '[did not run away|took a deep breath|knew what to do].',
        "{He} [fetched a long rope|found a strong branch|called the neighbours] and [pulled with all {his} "
            "might|worked until {his} arms hurt|did not give up]. [Little by little|At the third try|Finally], "
            "{friend} was free.",
        "[They ran through the rain|Wet and tired, they went|Hand in hand they hurried] to {name}'s home, where [it "
            "was warm and dry|a fire was burning|a pot of tea was waiting].",
        '"[You saved my life|You are the bravest of all|I will never forget this]," said {friend}. {name} '
            '[blushed|smiled] and [gave {friend} some {food}|put a warm blanket around {friend}].',
    ],
    "skill": [
        "{name} had a dream: {he} wanted to [learn how to|learn to|be able to] {skill}. But [nobody had ever shown "
            "{him} how|it was harder than it looked|every try went wrong].",
        "{time} {he} tried it {spot1}, [but it was a disaster|and everybody laughed|but nothing worked]. [\"I will "
            "never learn it,\" {he} said.|\"It is too difficult for me,\" {he} sighed.|{He} wanted to give up.]",
        "An old {fkind} named {friend} [had watched {him}|came by|heard this]. \"[Nobody is born a master|I could "
            "not do it either at first|I failed many times, too],\" {friend} said. \"[Come, I will show you|Try it "
            "once more|Take it slowly].\"",
        "So {name} practised [every day|every morning|day after day], [in sun and rain|before breakfast|until the "
            "stars came out]. [Slowly, it became easier|Each time it went a little better|After a week, {he} made "
            "{his} first small step].",
        "[Then came the day of the big festival|One Sunday, all the neighbours came together|Weeks later, the whole "
            "village met]. {name}'s heart [beat fast|was beating like a drum], but {he} [closed {his} eyes|thought "
            "of {friend}|smiled] and {skill_done}.",
        '[Everybody clapped|The crowd cheered|Nobody could believe it]. "[I knew you could do it|I am proud of '
            'you|Well done]," said {friend}. "[Thank you for believing in me|I could not have done it without you]," '
            '{name} [answered|said].',
    ],
    "find": [
        "{time} {name} found {find} {spot1}. [{He} had never seen anything like it|It was covered with dust|It "
            "sparkled in the light]. \"[What could it be for|Who may have lost it|What does it mean]?\" {he} "
            "wondered.",
        "{He} showed it to {his} friend {friend}, {a_friend} who [knew a lot about such things|was always ready for "
            "an adventure|had read many books]. \"[Let us find out|I think it is very old|We must follow the "
            "signs]!\" said {friend}.",
        "[So they set off|They packed some {food} and left|The next day they started]. They [crossed a stream|walked "
            "through thick fog|climbed over fallen trees] and [passed a sleeping bear|followed small lights|counted "
            "their steps], until they came to {found}.",
        "[It was very quiet there|They held their breath|Their hearts beat fast]. [Inside|There] they discovered [a "
            "chest full of old stories|a family of tiny creatures who needed help|a spring with water as clear as "
            "glass|a garden where it was always summer].",
        '"[We could keep it secret|Nobody else knows about this place]," said {friend}. {name} thought about it and '
            'said, "[No, we should show it to everybody|It will be even nicer if we share it|A secret is too heavy '
            'for two]."',
        "[So they told the others|The next morning they brought everybody there|Soon the whole village heard of it], "
            "and [people came from far away|there was a great feast|even the old ones danced].",
    ],
    "race": [
        "[Every year there was a big race|The king announced a great race|A race was planned for the summer], and "
            "the prize was [a golden cup|a basket full of {food}|a silver medal]. {name} [trained hard|wanted to win "
            "more than anything|ran up the hill every morning].",
        "[But {friend}, {a_friend} from the next village, was very fast|There was also {friend}, {a_friend} who had "
            "never lost|{friend}, {a_friend} with strong legs, laughed at {him}]. \"[You will never beat me|I am the "
            "fastest of all|Try to catch me]!\" {friend} [said|called].",
        "{time} the race began. They ran [past the mill|through the fields|along the river] and [over the bridge|up "
            "the hill|around the lake]. [At first {friend} was far ahead|They ran side by side|{name} was slow at "
            "the start].",
        "[Then|Suddenly|Near the end], {friend} [stumbled and fell|hurt a foot|slipped on a wet stone]. {name} "
            "[could see the finish|could have won now|ran past], but {he} [stopped|turned around|looked back].",
        '"[Come on, lean on me|Give me your hand|We will finish together]," {he} said. {friend} [was surprised|could '
            'not believe it] and asked, "[Why do you help me|Do you not want to win]?" "[Because it is right|Because '
            'you would be sad alone|Winning alone is no fun]," said {name}.',
        "[Arm in arm|Slowly|Step by step] they crossed the line, and [everybody cheered louder than ever before|the "
            "crowd threw flowers|people had tears in their eyes]. [The prize was shared between them|Both of them "
            "got a prize|They shared the prize].",
    ],
    "journey": [
        "{name} had one great wish: to {goal}. {time} {he} packed [a small bag|some {food}|a warm coat] and [set "
            "off|said goodbye|left home] [before sunrise|with a light heart|all alone].",
        "After [two days|a long walk|many hours] {he} met {a_friend} named {friend}. \"[Where are you going|What are "
            "you looking for]?\" asked {friend}. \"I want to {goal},\" said {name}. \"[May I come with you|Then we "
            "have the same way|I know the path]!\"",
        "[So they went on together|From then on they walked side by side]. They [slept under the stars|crossed a "
            "wide river on a raft|walked through a dark valley], and [when one was tired, the other sang|they told "
            "each other stories|{friend} knew which berries were sweet].",
        "[Once they lost their way|One night it was bitterly cold|Once the path just ended], and {name} [wanted to "
            "turn back|almost lost hope|sat down on a stone]. \"[Only one more hill|We have come so far|Look at the "
            "stars, they show the way],\" said {friend}.",
        "[And then, one morning, they were there|At last they reached the end of the road|The next day, they saw "
            "it]. {name} [stood still and said nothing|cried for joy|had never seen anything so beautiful]. It was "
            "[even better than in {his} dreams|worth every step].",
        "[On the way home they laughed and sang|They stayed for three days|They took a small stone home as a memory] "
            "and [told everybody about it|planned the next journey|promised to come back].",
    ],
    "wish": [
        "{time} {name} helped [an old woman carry her wood|a small bird with a broken wing|a fish that lay on the "
            "dry sand]. \"[You have a good heart|Nobody else has stopped|I am more than I seem],\" a voice said, "
            "\"[so you may have one wish|I will grant you a wish].\"",
        "{name} [thought and thought|did not know what to choose]. {He} could wish for [a house of gold|a mountain "
            "of {food}|wings to fly], or for [a new {treasure}|a crown|endless summer].",
        "[Then {he} saw {friend}, {a_friend} who was ill and sad|On the way home {he} met {friend}, {a_friend} who "
            "had nothing to eat|{He} thought of {his} neighbour {friend}, {a_friend} who could not walk any more]. "
            "[{name} did not have to think any longer|Suddenly the choice was easy].",
        '"I wish that {friend} [is well again|will be happy|never has to worry again]," {name} [said softly|said '
            'with a clear voice|whispered]. [There was a flash of light|A warm wind blew|For a moment all bells '
            'rang], and the wish came true.',
        "{friend} [danced through the streets|laughed for the first time in years|came running] and [asked who had "
            "done this|wanted to thank everybody]. {name} only [smiled|winked].",
        "But [the next morning|a few days later], there was [a basket of {food}|a small golden star|a bunch of "
            "flowers] at {name}'s door, [with a note that said \"Thank you\"|and nobody knew where it came from].",
    ],
    "fear": [
        "There was only one thing: {name} was afraid of {fear}. [{He} told nobody about it|The others laughed about "
            "it|{He} was ashamed of it].",
        "{time} {his} friend {friend}, {a_friend} [with a warm voice|who was never afraid|from next door], asked, "
            "\"[Will you come with me|Shall we go out together|Why do you stay at home]?\" {name} [shook {his} "
            "head|looked at the ground] and [told the truth at last.|said, \"I am afraid of {fear}.\"]",
        "{friend} did not laugh. \"[I was afraid of it, too|Everybody is afraid of something|That is nothing to be "
            "ashamed of],\" {friend} said. \"[My mother once told me that|Let me tell you a secret: I learned "
            "that|Remember that] {fear_answer}.\"",
        "[They took one small step|They went outside together|So they tried it], hand in hand. {name} "
            "[trembled|counted to ten|held {his} breath], [but nothing bad happened|and the fear became smaller and "
            "smaller|and then opened {his} eyes].",
        "[The next day they tried it again|They did it again the day after|Each day they went a little farther], and "
            "[after a week|soon], {name} [could do it alone|even laughed about it|was the first to go].",
        '"[Look at me|I am not afraid any more|I did it]!" {he} [shouted|called|said proudly]. {friend} '
            '[clapped|cheered|laughed], and they celebrated with {food}.',
    ],
    "party": [
        "[Soon it was the birthday of {friend}, {a_friend} who lived next door|{friend}, {a_friend} and {name}'s "
            "best friend, had a birthday|{friend}, {a_friend} from next door, had been sad for weeks]. {name} "
            "[planned a big surprise|wanted to give a party|had an idea].",
        "{He} [baked a cake|made {food}|wrote invitations], [hung up lanterns|picked flowers|blew up balloons] and "
            "hid the [gift|present], {a_treasure}, {spot1}. [Everything had to be perfect|Nobody was allowed to "
            "know|It took the whole day].",
        "But then [it began to rain|the cake fell to the floor|a goat ate the flowers|the wind blew the lanterns "
            "away]. \"[Everything is ruined|Now it is all over|Nothing is left]!\" cried {name}.",
        "[The neighbours heard it|The other guests came early|Some children saw it]. \"[We will help you|Do not "
            "worry|It is not so bad],\" they said. [One brought candles, another brought {food}|They moved "
            "everything into the barn|Everybody brought something from home], and [soon there was music|in an hour "
            "all was ready].",
        "When {friend} [opened the door|came home|arrived], everybody [shouted \"Surprise!\"|began to sing]. "
            "{friend} [could not say a word|laughed and cried at the same time|hugged them all].",
        '"[This is the best day of my life|I thought that nobody remembered me|I will never forget this day]," said '
            '{friend}. [They danced until midnight|They ate, sang and played games|Even the rain seemed to join in '
            'with the music].',
    ],
    "queue": [
        "{name} worked in [a small shop|an office full of machines|a house where letters were answered], and "
            "everybody came to {him} with questions. {time} [hundreds came at once|more visitors came than ever "
            "before|the door did not stand still].",
        "[They pushed and shouted|Everybody wanted to be first|There was a terrible noise]. \"[Me first|I was here "
            "before you|Hurry up]!\" they cried. {name} [did not know where to begin|wanted to run away|tried to "
            "answer all of them at once], [and nothing was done|but that made it even slower].",
        "Then {friend}, {a_friend}, had an idea. \"[Let them stand in a queue|Give everybody a number|Make a "
            "line],\" {friend} said. \"[One after another is faster than all at once|Everybody will have a turn].\"",
        "So [they drew a line on the floor|each visitor got a small ticket|{friend} showed everybody a place]. "
            "[Those who were ill could go first|The very old were allowed to the front|Whoever had an urgent "
            "question got a red ticket], and [nobody had to wait for too long|the others did not mind].",
        "{name} [answered one question after the other|worked calmly and well|had time for each of them]. [By "
            "evening, the room was empty|Before sunset, everybody had an answer], and [even those who had come last "
            "were content|nobody had been forgotten].",
        '"[How simple it was|I should have thought of that|You saved my day]," said {name}. "[A queue is only a '
            'promise that your turn will come|Good order is half the work]," {friend} [answered|replied with a '
            'smile].',
    ],
}
THEMES = {"lost": ["a lost {treasure}", "somebody who loses {a_treasure}"], "friend": ["friendship", "a new friend"],
    "storm": ["a storm", "courage"],
          "skill": ["learning to {skill}", "somebody who wants to {skill}"], "find": ["{find}", "a secret",
              "a treasure"], "race": ["a race", "a competition"],
          "journey": ["a long journey", "an adventure"], "wish": ["a wish", "magic"],
              "fear": ["being afraid of {fear}", "fear"], "party": ["a party", "a birthday", "a surprise"],
          "queue": ["a queue", "patience", "waiting in line"]}


def _slots(r: Random) -> dict[str, str]:
    def someone() -> tuple[str, str, str]:
        if r.random() < 0.4:
            kind, he = r.choice(list(PEOPLE.items()))
            name = r.choice(GIRLS if he == "she" else BOYS)
        else:
            kind = r.choice(BEASTS)
            name, he = r.choice(list(BEAST_NAMES.items()))
        return kind, he, invented_name(r) if r.random() < 0.15 else name

    kind, he, name = someone()
    friend_kind, _, friend = someone()
    while friend == name:
        friend = r.choice(list(BEAST_NAMES))
    place, sight = r.choice(list(PLACES.items()))
    spots = r.sample(SPOTS, 3)
    find, found = r.choice(list(FINDS.items()))
    skill, skill_done = r.choice(list(SKILLS.items()))
    fear, fear_answer = r.choice(list(FEARS.items()))
    treasure = r.choice(TREASURES)
    hero = f"{r.choice(GOOD)} {kind}" if r.random() < 0.6 else kind
    return {"hero": hero, "a_hero": a(hero), "kind": kind, "name": name, "he": he, "He": cap(he), "him": {"he": "him",
        "she": "her"}[he],
            "his": {"he": "his", "she": "her"}[he], "fkind": friend_kind, "a_friend": a(friend_kind),
                "friend": friend, "place": place, "Place": cap(place),
            "sight": sight, "spot1": spots[0], "spot2": spots[1], "spot3": spots[2], "treasure": treasure,
                "a_treasure": a(treasure), "find": find, "found": found,
            "skill": skill, "skill_done": skill_done, "fear": fear, "fear_answer": fear_answer,
                "goal": r.choice(GOALS), "food": r.choice(FOODS), "time": r.choice(TIMES)}


def _request(r: Random, plot: str, s: dict[str, str]) -> str:
    tell = r.choice(["Tell me a story", "Tell me a story", "Write a story", "Write a short story",
        "Tell me a short story", "Please tell me a story", "Can you tell me a story", "I want to hear a story",
                     "Make up a story", "Tell a story", "A story", "Write me a story", "Tell me a bedtime story",
                         "Tell me a fairy tale", "Could you write a story", "story"])
    about = r.choice(["", " about {a_hero}", " about {a_hero}", " about {a_kind}", " about {a_kind}",
        " about {a_hero} named {name}", " about {a_kind} called {name}", " about {a_kind} and {a_friend}",
                      " about {a_hero} who lives {place}", " that takes place {place}",
                          " about " + r.choice(THEMES[plot]), " about " + r.choice(THEMES[plot]),
                      " about {a_kind} and " + r.choice(THEMES[plot]), " with {a_kind} in it",
                          " about {name}, {a_hero}", " for my child", " about {a_kind} who lives {place}"])
    text = tell + about
    return ask(r, [text + ("?" if tell.startswith(("Can", "Could")) else ".")], **s, a_kind=a(s["kind"]))


def _tell(r: Random, plot: str, s: dict[str, str]) -> str:
    sentences = [r.choice(OPENINGS)]
    sentences += [r.choice(SCENES[:3])] if r.random() < 0.75 else []
    sentences += [r.choice(SCENES[3:])] if r.random() < 0.65 else []
    lead = len(sentences)
    sentences += PLOTS[plot] + [r.choice(ENDINGS[:3])]
    if r.random() < 0.5:
        sentences.append(MORALS[plot])
    elif r.random() < 0.2:
        sentences.append(ENDINGS[3])
    told = [cap(expand(r, sentence, **s)) for sentence in sentences]
    if r.random() < 0.5:
        return " ".join(told)
    middle = lead + len(PLOTS[plot]) - 1
    return "\n\n".join(" ".join(part) for part in (told[:lead], told[lead:middle], told[middle:]))


def story(r: Random) -> Turn:
    """A request for a story and the story, some 120 to 300 tokens long."""
    plot, s = r.choice(list(PLOTS)), _slots(r)
    return _request(r, plot, s), _tell(r, plot, s)


def told_story(r: Random) -> list[Turn]:
    """A story, at times followed by questions that only its text can answer."""
    plot, s = r.choice(list(PLOTS)), _slots(r)
    turns = [(_request(r, plot, s), _tell(r, plot, s))]
    questions = [
        (["What was the name of the {k}?", "What was the {k} called?", "Who was the hero of the story?",
            "What is the name of the {k} in the story?"], f"The {s['kind']} was called {s['name']}."),
        (["Where did {n} live?", "Where does the story take place?", "Where did the {k} live?"],
            f"{s['name']} lived {s['place']}."),
        (["Who was {f}?", "What was {f}?"], f"{s['friend']} was {s['a_friend']}, a friend of {s['name']}."),
        (["Who was the friend of {n}?", "Who became a friend of {n}?", "What was the friend of {n} called?"],
            f"The friend of {s['name']} was {s['friend']}, {s['a_friend']}."),
    ]
    if r.random() < 0.25:
        for wordings, answer in r.sample(questions, r.choice((1, 2))):
            turns.append((ask(r, wordings, k=s["kind"], n=s["name"], f=s["friend"]), answer))
    elif r.random() < 0.15:
        other, s = r.choice(list(PLOTS)), _slots(r)
        turns.append((ask(r, ["Another story, please.", "Tell me another one.", "One more story!",
            "Another one, please!", "That was nice. Tell me another story."]), _tell(r, other, s)))
    elif r.random() < 0.1:
        turns.append((ask(r, ["Thank you!", "That was a nice story.", "I liked that story.",
            "What a beautiful story!"]), expand(r,
            "I am glad that you liked the story about {n}! Would you like to hear another one?", n=s["name"])))
    return turns


# Poems: rhymed couplets about anything.
COUPLETS = [
    "The [morning|evening] comes with [golden|silver] light,\nand {topic} [makes the whole world bright|is such a "
        "lovely sight].",
    "I [walked|went] along the road today\nand {topic} [took my fears away|was with me all the way].",
    "Oh {topic}, [how I think of you|I sing this song for you],\nwhen all the sky is [clear and blue|wide and blue].",
    "When [days are|nights are] long and winds are cold,\nthen {topic} [is worth more than gold|has stories to be "
        "told].",
    "The world is [big|wide], the hills are high,\nand {topic} [watches from the sky|makes me laugh and makes me "
        "sigh].",
    "In [spring|summer] when the flowers grow,\nI think of {topic}, [sweet and slow|don't you know].",
    "The [river|rain] sings a gentle tune\nfor {topic} [underneath the moon|all through the month of June].",
]
CLOSINGS = [
    "And when the day has found its end,\n{topic} [will always be my friend|is still a faithful friend].",
    "So let us [dance|sing] and let us play\nfor {topic}, [each and every day|today and every day].",
    "Now close your eyes and dream with me\nof {topic} and [the deep blue sea|the old green tree].",
]
POEM_TOPICS = ["the moon", "the sun", "the sea", "winter", "spring", "summer", "autumn", "love", "friendship",
    "a cat", "a dog", "the rain", "a flower", "the night", "music", "my mother", "a tree",
               "snow", "the wind", "a bird", "coffee", "a computer", "the river", "hope", "time", "a rose", "a horse",
                   "a train", "my home", "the forest", "a token", "a queue", "a robot", "the city", "tea", "a fox"]


def poem(r: Random) -> Turn:
    topic = r.choice(POEM_TOPICS) if r.random() < 0.7 else a(r.choice(BEASTS + list(PEOPLE)))
    subject = "the " + topic.split(" ", 1)[1] if topic.startswith(("a ", "an ")) else topic
    lines = [expand(r, c, topic=subject) for c in r.sample(COUPLETS, r.choice((1, 2, 2, 3)))] + [expand(r,
        r.choice(CLOSINGS), topic=subject)]
    question = ask(r, ["Write a poem about {t}.", "Write a short poem about {t}.", "Can you write a poem about {t}?",
        "A poem about {t}, please.", "Make a poem about {t}.", "Poem about {t}", "Compose a poem about {t}.",
                       "I would like a poem about {t}.", "Tell me a poem about {t}."], t=topic)
    return question, "\n".join("\n".join(cap(line) for line in couplet.split("\n")) for couplet in lines)
