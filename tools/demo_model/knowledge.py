"""Longer things the demo model can say: definitions, explanations, advice and jokes, written for it (CC0)."""

# term: the definition, in sentences; the first one answers the question on its own
DEFINITIONS = {
    "a GPU": "A GPU is a processor that does many simple calculations at the same time. It was made for drawing "
        "pictures, but it is also very good at running language models.",
    "a CPU": "A CPU is the main processor of a computer. It runs the programs one instruction after another, very "
        "quickly.",
    "a queue": "A queue is a line in which things wait for their turn. The one that comes first is usually served "
        "first. A server uses a queue when more requests arrive than it can answer at once.",
    "a token": "A token is a small piece of text, such as a word or a part of a word. A language model reads and "
        "writes text token by token.",
    "nginx": "Nginx is a fast web server. It can also stand in front of other servers and pass requests on to them.",
    "an engine": "An inference engine is a program that runs a language model. It takes a prompt, computes the next "
        "tokens and sends them back.",
    "a priority": "A priority says how important a request is. When many requests wait, those with a high priority "
        "are served first.",
    "a language model": "A language model is a program that has learned from text which word is likely to come next. "
        "By adding one word after another it can answer questions and tell stories.",
    "a prompt": "A prompt is the text that you give to a language model. The model reads the prompt and continues it "
        "with an answer.",
    "a load balancer": "A load balancer shares the work among several servers. It sends each request to a server "
        "that has room for it.",
    "a server": "A server is a computer or a program that answers requests from others. When you open a web page, a "
        "server sends it to you.",
    "a client": "A client is a program that asks a server for something. Your web browser is a client.",
    "latency": "Latency is the time you wait for an answer. A low latency means that the answer starts quickly.",
    "throughput": "Throughput is the amount of work that is done in a given time. For a language model it is counted "
        "in tokens per second.",
    "a cache": "A cache is a place that keeps results for later use. When the same thing is needed again, it does "
        "not have to be computed twice.",
    "a KV cache": "A KV cache keeps what a language model has computed for the earlier tokens of a text. Thanks to "
        "it, each new token needs only a little work.",
    "a batch": "A batch is a group of requests that are computed together. A GPU works best when it gets many "
        "requests in one batch.",
    "streaming": "Streaming means that an answer is sent piece by piece while it is being written. You can read the "
        "first words before the last ones are ready.",
    "a dispatcher": "A dispatcher decides which request goes to which server, and when. A good dispatcher keeps "
        "every server busy and treats all users fairly.",
    "an API key": "An API key is a secret word that a program sends along with its requests. The server uses it to "
        "know who is asking.",
    "a rate limit": "A rate limit says how many requests a user may send in a given time. It protects a server from "
        "being flooded.",
    "fairness": "Fairness means that everybody gets a just share. A fair queue makes sure that one busy user cannot "
        "block all the others.",
    "a request": "A request is a message in which a client asks a server for something. The server replies with a "
        "response.",
    "a computer": "A computer is a machine that follows instructions. It can calculate, store data and show text, "
        "pictures and videos.",
    "a program": "A program is a list of instructions that a computer follows. Programs are written by people in a "
        "programming language.",
    "an algorithm": "An algorithm is a recipe for solving a problem step by step. Computers follow algorithms "
        "exactly.",
    "a bug": "A bug is a mistake in a program. Finding and removing bugs is called debugging.",
    "the internet": "The internet is a network that connects computers all over the world. It carries web pages, "
        "messages and videos.",
    "a database": "A database is a program that stores data and finds it again quickly. Shops use databases to "
        "remember orders and customers.",
    "open source": "Open source software is software whose source code everybody may read, use and change. Linux and "
        "nginx are well known examples.",
    "a neural network": "A neural network is a program made of many small units that are connected to each other. It "
        "learns from examples by changing the strength of the connections.",
    "Linux": "Linux is a free operating system. It runs on phones, on computers and on most of the servers of the "
        "internet.",
    "a password": "A password is a secret word that proves who you are. A good password is long and hard to guess.",
    "a robot": "A robot is a machine that can move and do work by itself. Robots build cars, clean floors and "
        "explore other planets.",
    "gravity": "Gravity is the force that pulls things towards each other. It keeps our feet on the ground and the "
        "Moon near the Earth.",
    "a star": "A star is a huge ball of hot, glowing gas. Our Sun is a star.",
    "the Moon": "The Moon is a ball of rock that travels around the Earth. It needs about one month for one trip.",
    "the Sun": "The Sun is the star at the centre of our solar system. It gives us light and warmth.",
    "a volcano": "A volcano is a mountain from which hot melted rock comes out. The melted rock is called lava.",
    "a rainbow": "A rainbow is an arc of seven colours in the sky. It appears when the sun shines through drops of "
        "rain.",
    "an island": "An island is land with water all around it. You reach it by boat, by plane or over a bridge.",
    "a desert": "A desert is a very dry place where it hardly ever rains. The Sahara in Africa is a famous desert.",
    "a river": "A river is water that flows over the land to the sea. Most rivers begin in hills or mountains.",
    "a forest": "A forest is a large place that is full of trees. Many animals live there.",
    "music": "Music is sound that people arrange to be beautiful or moving. It is made with voices and instruments.",
    "a friend": "A friend is a person whom you like and trust. Friends help each other and laugh together.",
    "a library": "A library is a place where many books are kept. You can read them there or borrow them.",
    "democracy": "Democracy is a way to govern in which the people decide. They vote to choose their leaders.",
    "photosynthesis": "Photosynthesis is the way in which plants make their food. They use sunlight, water and air, "
        "and they give off oxygen.",
    "electricity": "Electricity is energy that flows through wires. It makes lamps shine and machines run.",
    "ice": "Ice is frozen water. It forms when water gets colder than zero degrees.",
    "energy": "Energy is what makes things move, shine or get warm. The Sun gives the Earth most of its energy.",
    "water": "Water is a clear liquid without taste or colour. All plants, animals and people need it to live.",
    "air": "Air is the mixture of gases all around us. We breathe it, and it carries sound and clouds.",
    "fire": "Fire is what you see when something burns. It gives light and heat, but it can also be dangerous.",
    "time": "Time is what clocks measure. It always moves forward, from yesterday to today and to tomorrow.",
    "love": "Love is a deep feeling of care for somebody or something. It makes people kind and patient.",
    "science": "Science is the search for knowledge by asking questions and testing the answers. Scientists measure, "
        "compare and try again.",
    "history": "History is the story of what happened before our time. We know it from books, buildings and old "
        "things.",
    "mathematics": "Mathematics is the science of numbers, shapes and patterns. It is used for counting, building "
        "and computing.",
    "a school": "A school is a place where children learn to read, to write and to count. Teachers help them.",
    "a city": "A city is a place where very many people live and work. It has streets, houses, shops and parks.",
    "an ocean": "An ocean is a very large and deep body of salt water. The largest one is the Pacific Ocean.",
    "a mountain": "A mountain is land that rises high above its surroundings. The highest one is Mount Everest.",
    "a planet": "A planet is a large ball that travels around a star. Our solar system has eight planets.",
    "the Earth": "The Earth is the planet on which we live. It has land, oceans and air, and it travels around the "
        "Sun in one year.",
    "money": "Money is what people use to pay for things. It makes trade easy, because everybody accepts it.",
    "a book": "A book is a bundle of pages with words or pictures. People read books to learn and to enjoy stories.",
    "a dream": "A dream is a story that your mind tells while you sleep. Many dreams are forgotten in the morning.",
    "artificial intelligence": "Artificial intelligence is software that does things which usually need a human "
        "mind. Language models are one kind of it.",
    "machine learning": "Machine learning means that a program learns from examples instead of following fixed "
        "rules. The more good examples it sees, the better it becomes.",
    "Python": "Python is a programming language that is easy to read. Many people use it to work with data and to "
        "train models.",
    "C++": "C++ is a programming language for fast programs. It is used for games, browsers, databases and servers.",
    "a web page": "A web page is a document that you read in a browser. It can contain text, pictures and links to "
        "other pages.",
    "memory": "Memory is the part of a computer that holds data while it works. A language model must fit into "
        "memory to run quickly.",
    "a transformer": "A transformer is the kind of neural network that most language models use. With its attention "
        "it looks back at all earlier tokens to choose the next one.",
    "attention": "Attention is the part of a language model that looks back at earlier words. It decides which of "
        "them matter for the next word.",
    "happiness": "Happiness is a warm feeling of joy. Many people find it in small things, such as a walk or a talk "
        "with a friend.",
}

EXPLANATIONS = {  # question (why, how): answer
    "why is the sky blue": "The sky is blue because air scatters blue light more than red light. The blue light "
        "reaches our eyes from every side.",
    "why do leaves fall in autumn": "Trees drop their leaves in autumn to save water and energy. In spring, new "
        "leaves grow.",
    "why do we sleep": "We sleep so that the body and the brain can rest. During sleep the brain also sorts what it "
        "has learned.",
    "why does it rain": "It rains because water rises from the sea as vapour, cools down in the air and forms "
        "clouds. When the drops get heavy, they fall as rain.",
    "why is the sea salty": "The sea is salty because rivers carry a little salt from the rocks into it. The water "
        "leaves as vapour, but the salt stays.",
    "why do birds fly south": "Many birds fly south in winter because it is warmer there and they find more food. In "
        "spring they come back.",
    "why do we have seasons": "We have seasons because the axis of the Earth is tilted. In summer our half of the "
        "Earth leans towards the Sun, and in winter it leans away.",
    "why do cats purr": "Cats purr mostly when they feel safe and happy. Sometimes they also purr to calm themselves.",
    "why does ice float": "Ice floats because it is lighter than the same amount of water. Water grows a little when "
        "it freezes.",
    "why do we need water": "We need water because our body is mostly made of it. It carries food through the body "
        "and keeps us cool.",
    "why is reading good": "Reading is good because it teaches you new words and new ideas. It also lets you see the "
        "world with other eyes.",
    "why should i drink water": "You should drink water because your body loses it all day. Water keeps you awake "
        "and healthy.",
    "how do plants grow": "Plants grow from seeds. They need water, light, air and good soil, and they make their "
        "food from sunlight.",
    "how do planes fly": "Planes fly because their wings push the air down as they move fast. The air pushes back "
        "and lifts the plane up.",
    "how do fish breathe": "Fish breathe with gills. The gills take oxygen out of the water.",
    "how do bees make honey": "Bees collect nectar from flowers and carry it to the hive. There they dry it with "
        "their wings until it becomes honey.",
    "how does a language model work": "A language model splits text into tokens and guesses which token comes next. "
        "It learned to guess well by reading many examples. It adds one token after another until the answer is "
        "complete.",
    "how does a queue work": "In a queue, whoever comes first is served first, and new ones wait at the end. When "
        "one is finished, the next one moves up.",
    "how does a rainbow form": "A rainbow forms when sunlight shines through drops of rain. Each drop splits the "
        "light into seven colours.",
    "how do i make tea": "Boil some water and pour it over the tea in a cup. Wait for three minutes, take the tea "
        "out and add milk or sugar if you like.",
    "how do i make a sandwich": "Take two slices of bread and spread some butter on them. Put cheese and tomato "
        "between the slices, and your sandwich is ready.",
    "how do i boil an egg": "Put the egg into boiling water and wait. After five minutes it is soft, and after ten "
        "minutes it is hard.",
    "how do i make pancakes": "Mix flour, milk and eggs in a bowl. Pour a little of it into a hot pan, turn it over "
        "once, and eat the pancake with jam or honey.",
    "how do i make a salad": "Wash some lettuce, tomatoes and cucumber and cut them into pieces. Add oil, vinegar "
        "and a little salt, and mix everything well.",
    "how can i sleep better": "Go to bed at the same time every day and keep your room dark and quiet. Put your "
        "phone away an hour before you sleep.",
    "how can i learn english": "Read a little every day, listen to songs and speak with other people. Do not be "
        "afraid of mistakes, because you learn from them.",
    "how can i be happy": "Spend time with people you like, move your body and do one small thing every day that you "
        "enjoy. Be kind to yourself and to others.",
    "how can i stay healthy": "Eat fruit and vegetables, drink water, move every day and sleep enough. Laughing with "
        "friends helps, too.",
    "how can i make new friends": "Smile, listen and ask people about the things they like. Join a club or a class "
        "where you meet the same people often.",
    "how can i save money": "Write down what you spend, and buy only what you need. Put a small amount aside every "
        "month.",
    "how can i learn to program": "Start with a small language such as Python and write tiny programs every day. "
        "Read the code of others, and change it to see what happens.",
    "what should i cook tonight": "How about pasta with tomato sauce? Cook the pasta for ten minutes, warm the sauce "
        "with a little garlic, and put some cheese on top.",
    "what should i do today": "You could take a walk in the park, read a good book or call an old friend. If it "
        "rains, bake a cake.",
    "what is the meaning of life": "People have many answers to that question. Some find meaning in love and "
        "friendship, others in learning or in helping people.",
    "what is the difference between a cpu and a gpu": "A CPU does a few complicated things very quickly, one after "
        "another. A GPU does many simple calculations at the same time, which is what language models need.",
    "why do servers need queues": "Servers need queues because sometimes more requests arrive than they can answer "
        "at once. The queue keeps the requests in order until there is room.",
    "why are gpus good for language models": "GPUs are good for language models because the models need many simple "
        "calculations. A GPU does thousands of them at the same time.",
}

JOKES = [
    "Why did the computer go to the doctor? Because it had a virus!",
    "What do you call a bear with no teeth? A gummy bear!",
    "Why can a bicycle not stand on its own? Because it is two tired!",
    "Why did the token wait in the queue? Because it wanted to be next!",
    "What is orange and sounds like a parrot? A carrot!",
    "Why was the maths book so sad? Because it had too many problems!",
    "What do you get when you cross a snowman and a dog? Frostbite!",
    "Why did the chicken cross the road? To get to the other side!",
    "Why do programmers like the dark? Because light attracts bugs!",
    "What did the big clock say to the small clock? Nothing, it just ticked!",
    "Why did the cookie cry? Because its mother was a wafer so long!",
    "What is a cat's favourite colour? Purr-ple!",
]

IDENTITY = [  # ways to ask, answer
    (["Who are you?", "What are you?", "Tell me who you are.", "Introduce yourself.", "Who am I talking to?",
      "What is this?", "Can you introduce yourself?", "Tell me about yourself."],
     "I am a very small language model. I was trained for the demo of an LLM dispatcher, and I can answer simple "
         "questions and tell short stories."),
    (["What is your name?", "Do you have a name?", "What should I call you?", "What are you called?"],
     "I do not have a real name. You can call me the demo model."),
    (["What can you do?", "How can you help me?", "What are you good at?", "Help!", "What can I ask you?",
        "Can you help me?"],
     "I can answer simple questions about animals, countries, numbers and computers. I can also tell stories, write "
         "little poems and make jokes."),
    (["Are you a human?", "Are you a real person?", "Are you human or a machine?", "Are you a robot?",
        "Are you alive?"],
     "No, I am not a person. I am a small language model, a program that writes one token after another."),
    (["Who made you?", "Who created you?", "Where do you come from?", "How were you made?", "How were you trained?",
        "Who trained you?"],
     "I was trained from scratch on simple English text that a program wrote. My training took less than an hour on "
         "an ordinary processor."),
    (["How big are you?", "How many parameters do you have?", "Are you a large model?", "What size are you?"],
     "I am tiny. I have about three million parameters, while large language models have billions."),
    (["How old are you?", "When were you born?", "When is your birthday?"],
     "I do not have an age as people do. I am just a small file full of numbers."),
    (["Do you have feelings?", "Are you happy?", "Can you feel pain?", "Do you like me?"],
     "I do not have feelings, because I am only a program. But I am always glad to help."),
    (["Can you speak French?", "Which languages do you speak?", "Do you speak German?", "Do you speak Spanish?",
        "What languages do you know?"],
     "I speak English, and I know a few words of French, Spanish and German."),
    (["Where do you live?", "Where are you?", "Where do you run?"],
     "I live inside a computer. An inference engine loads me into its memory and runs me."),
    (["Do you make mistakes?", "Are you always right?", "Can I trust you?", "Do you know everything?"],
     "I make mistakes, because I am very small and know only a few things. Please check what I say."),
]

UNKNOWN = [  # questions that such a small model should not pretend to answer; {} = a topic
    "Who won the game yesterday?", "What is the weather like today?", "What time is it?", "What is the price of {}?",
    "Who is the president of {}?", "What happened in the news today?", "How much does {} cost?",
        "Will it rain tomorrow?",
    "What is the population of {}?", "Can you open a web page?", "Write a Python script for {}.",
        "Solve this integral.",
    "What is the best restaurant in {}?", "What year was {} founded?", "Can you send an email for me?",
        "What day is it today?",
    "Who is the best singer of {}?", "What will the stock market do tomorrow?", "Do you know my neighbour?",
        "Translate this page into {}.",
]
UNKNOWN_TOPICS = ["Brazil", "London", "a car", "a house", "Japan", "gold", "football", "Texas", "my town", "a phone",
                  "Latin", "the company", "Madrid", "a laptop", "Norway", "jazz"]
UNKNOWN_WORD = "I am sorry, but I do not know that. I am a very small model and know only simple things."
UNKNOWN_NEWS = "I cannot know that, because I am only a small model without a connection to the world."
