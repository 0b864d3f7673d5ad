"""What the demo model knows: plain tables, written for this project and free to reuse (CC0)."""

# country: capital, continent, language
COUNTRIES = {
    "France": ("Paris", "Europe", "French"), "Germany": ("Berlin", "Europe", "German"),
    "Italy": ("Rome", "Europe", "Italian"), "Spain": ("Madrid", "Europe", "Spanish"),
    "Portugal": ("Lisbon", "Europe", "Portuguese"), "England": ("London", "Europe", "English"),
    "Ireland": ("Dublin", "Europe", "English"), "Austria": ("Vienna", "Europe", "German"),
    "Greece": ("Athens", "Europe", "Greek"), "Poland": ("Warsaw", "Europe", "Polish"),
    "Sweden": ("Stockholm", "Europe", "Swedish"), "Norway": ("Oslo", "Europe", "Norwegian"),
    "Finland": ("Helsinki", "Europe", "Finnish"), "Denmark": ("Copenhagen", "Europe", "Danish"),
    "Hungary": ("Budapest", "Europe", "Hungarian"), "Ukraine": ("Kyiv", "Europe", "Ukrainian"),
    "Russia": ("Moscow", "Europe", "Russian"), "Turkey": ("Ankara", "Asia", "Turkish"),
    "Japan": ("Tokyo", "Asia", "Japanese"), "China": ("Beijing", "Asia", "Chinese"),
    "India": ("New Delhi", "Asia", "Hindi"), "Thailand": ("Bangkok", "Asia", "Thai"),
    "Vietnam": ("Hanoi", "Asia", "Vietnamese"), "Egypt": ("Cairo", "Africa", "Arabic"),
    "Kenya": ("Nairobi", "Africa", "Swahili"), "Morocco": ("Rabat", "Africa", "Arabic"),
    "Canada": ("Ottawa", "North America", "English"), "Mexico": ("Mexico City", "North America", "Spanish"),
    "Cuba": ("Havana", "North America", "Spanish"), "Brazil": ("Brasilia", "South America", "Portuguese"),
    "Argentina": ("Buenos Aires", "South America", "Spanish"), "Peru": ("Lima", "South America", "Spanish"),
    "Chile": ("Santiago", "South America", "Spanish"), "Australia": ("Canberra", "Australia", "English"),
}

# animal: young, sound (verb), home, legs, food, size rank (1 smallest), one more thing
ANIMALS = {
    "dog": ("puppy", "bark", "with people in houses", 4, "meat", 5, "It is a loyal friend and loves to play."),
    "cat": ("kitten", "meow", "with people in houses", 4, "fish and mice", 4, "It sleeps a lot and likes to climb."),
    "cow": ("calf", "moo", "on farms", 4, "grass", 8, "It gives us milk."),
    "horse": ("foal", "neigh", "on farms", 4, "grass and hay", 8, "It can run fast and carry people."),
    "sheep": ("lamb", "bleat", "on farms", 4, "grass", 6, "It gives us wool."),
    "pig": ("piglet", "oink", "on farms", 4, "almost anything", 6, "It is clever and likes mud."),
    "goat": ("kid", "bleat", "on farms and in mountains", 4, "leaves and grass", 6, "It climbs very well."),
    "duck": ("duckling", "quack", "on ponds and lakes", 2, "plants and small insects", 3, "It swims and flies."),
    "hen": ("chick", "cluck", "on farms", 2, "seeds and worms", 3, "It lays eggs."),
    "frog": ("tadpole", "croak", "in ponds", 4, "flies", 2, "It jumps far with its long legs."),
    "bee": ("larva", "buzz", "in hives", 6, "nectar", 1, "It makes honey."),
    "ant": ("larva", "make almost no sound", "in ant hills", 6, "leaves and seeds", 1,
        "It is very strong for its size."),
    "spider": ("spiderling", "make almost no sound", "in webs", 8, "insects", 1, "It spins a web of silk."),
    "lion": ("cub", "roar", "in the savanna of Africa", 4, "meat", 8, "It is called the king of the animals."),
    "tiger": ("cub", "roar", "in the forests of Asia", 4, "meat", 8, "It has orange fur with black stripes."),
    "bear": ("cub", "growl", "in forests", 4, "berries, fish and honey", 8, "It sleeps through the winter."),
    "wolf": ("pup", "howl", "in forests", 4, "meat", 6, "It lives in a group called a pack."),
    "fox": ("cub", "bark", "in dens in the forest", 4, "mice and berries", 5, "It has red fur and a bushy tail."),
    "elephant": ("calf", "trumpet", "in Africa and Asia", 4, "leaves and grass", 9,
        "It has a long trunk and big ears."),
    "mouse": ("pup", "squeak", "in small holes", 4, "seeds and cheese", 2, "It is small, quick and shy."),
    "owl": ("owlet", "hoot", "in trees", 2, "mice", 3, "It hunts at night."),
    "bird": ("chick", "sing", "in nests", 2, "seeds and worms", 2, "It has wings and feathers."),
    "fish": ("fry", "make almost no sound", "in water", 0, "plants and small animals", 2, "It breathes with gills."),
    "whale": ("calf", "sing", "in the ocean", 0, "tiny sea animals", 10, "It is the largest animal of all."),
    "shark": ("pup", "make almost no sound", "in the ocean", 0, "fish", 8, "It has many sharp teeth."),
    "penguin": ("chick", "squawk", "on the ice of Antarctica", 2, "fish", 4,
        "It cannot fly, but it swims very well."),
    "rabbit": ("kit", "make almost no sound", "in burrows", 4, "carrots and grass", 3, "It has long ears."),
    "squirrel": ("kit", "chatter", "in trees", 4, "nuts", 2, "It hides nuts for the winter."),
    "monkey": ("baby", "chatter", "in the jungle", 4, "fruit", 5, "It swings from tree to tree."),
    "kangaroo": ("joey", "make almost no sound", "in Australia", 4, "grass", 7, "It carries its young in a pouch."),
    "camel": ("calf", "grunt", "in the desert", 4, "dry plants", 8, "It can go many days without water."),
    "snake": ("snakelet", "hiss", "in grass and among rocks", 0, "mice and eggs", 4, "It has no legs."),
    "giraffe": ("calf", "hum", "in the savanna of Africa", 4, "leaves", 9, "It has a very long neck."),
}

COLOURS = {  # what each thing looks like
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "a lemon": "yellow", "blood": "red",
    "a strawberry": "red", "coal": "black", "milk": "white", "an orange": "orange", "a carrot": "orange",
    "the sun": "yellow", "a tomato": "red", "a leaf": "green", "chocolate": "brown", "the sea": "blue",
    "a frog": "green", "a flamingo": "pink", "a cherry": "red", "the night sky": "black", "a cloud": "white",
    "gold": "yellow", "an elephant": "grey", "a polar bear": "white", "a lime": "green", "a plum": "purple",
    "lavender": "purple", "an emerald": "green", "a ruby": "red", "wood": "brown", "ketchup": "red", "salt": "white",
}
MIXES = {("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple",
         ("black", "white"): "grey", ("red", "white"): "pink"}

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("happy", "sad"), ("fast", "slow"), ("day", "night"),
    ("open", "closed"), ("full", "empty"), ("light", "dark"), ("heavy", "light"), ("high", "low"), ("old", "young"),
    ("new", "old"), ("wet", "dry"), ("hard", "soft"), ("loud", "quiet"), ("early", "late"), ("rich", "poor"),
    ("strong", "weak"), ("left", "right"), ("good", "bad"), ("true", "false"), ("near", "far"), ("first", "last"),
    ("clean", "dirty"), ("long", "short"), ("tall", "short"), ("thick", "thin"), ("wide", "narrow"),
    ("sweet", "sour"), ("yes", "no"), ("inside", "outside"), ("above", "below"), ("before", "after"),
    ("begin", "end"), ("start", "stop"), ("buy", "sell"), ("push", "pull"), ("win", "lose"), ("love", "hate"),
    ("always", "never"), ("easy", "difficult"), ("cheap", "expensive"), ("brave", "afraid"), ("busy", "idle"),
]
ONE_WAY = {"dark", "light", "old", "short"}  # words with two opposites are asked for from one side only

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
SEASONS = {"spring": "flowers begin to bloom and the days get longer", "summer": "it is warm and the days are long",
           "autumn": "the leaves turn red and yellow and fall from the trees",
           "winter": "it is cold and sometimes it snows"}
MONTH_LENGTHS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)))

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

AMOUNTS = {  # how many X are there in Y
    ("days", "a week"): "seven", ("hours", "a day"): "24", ("minutes", "an hour"): "60", ("seconds",
        "a minute"): "60",
    ("months", "a year"): "twelve", ("days", "a year"): "365", ("seasons", "a year"): "four",
    ("weeks", "a year"): "52", ("metres", "a kilometre"): "1000", ("grams", "a kilogram"): "1000",
    ("centimetres", "a metre"): "100", ("millimetres", "a centimetre"): "ten", ("years", "a century"): "100",
    ("years", "a decade"): "ten", ("bits", "a byte"): "eight", ("sides", "a triangle"): "three",
    ("sides", "a square"): "four", ("eggs", "a dozen"): "twelve", ("planets", "the solar system"): "eight",
    ("letters", "the English alphabet"): "26", ("colours", "a rainbow"): "seven", ("wheels", "a car"): "four",
    ("wheels", "a bicycle"): "two", ("fingers", "one hand"): "five", ("strings", "a violin"): "four",
}

PLANETS = [
    ("Mercury", "It is the smallest planet and the closest one to the Sun."),
    ("Venus", "It is the hottest planet, wrapped in thick clouds."),
    ("Earth", "It is our home, the only planet known to have life."),
    ("Mars", "It is called the red planet, because its dust is full of rust."),
    ("Jupiter", "It is the largest planet of the solar system."),
    ("Saturn", "It is famous for its bright rings of ice and rock."),
    ("Uranus", "It is a cold planet that lies on its side."),
    ("Neptune", "It is the planet farthest from the Sun, blue and windy."),
]

JOBS = {
    "teacher": "teaches children in a school", "doctor": "helps people who are ill", "baker": "bakes bread and cakes",
    "farmer": "grows food and looks after animals", "pilot": "flies aeroplanes", "cook": "prepares meals",
    "nurse": "cares for patients in a hospital", "firefighter": "puts out fires", "carpenter": "makes things of wood",
    "gardener": "looks after plants", "painter": "paints pictures or walls", "sailor": "works on a ship",
    "tailor": "makes clothes", "writer": "writes books", "musician": "makes music", "dentist": "looks after teeth",
    "librarian": "looks after books in a library", "programmer": "writes software for computers",
    "astronaut": "travels into space", "mechanic": "repairs cars and machines", "fisherman": "catches fish",
    "shepherd": "looks after sheep", "postman": "brings letters and parcels", "judge": "decides in a court of law",
}

USES = {  # tool: what it is used for, what it is usually made of
    "a knife": ("cutting things", "steel"), "a spoon": ("eating soup", "metal"), "a pen": ("writing", "plastic"),
    "a hammer": ("hitting nails", "wood and steel"), "a chair": ("sitting", "wood"), "a bed": ("sleeping", "wood"),
    "an umbrella": ("staying dry in the rain", "cloth and metal"), "a clock": ("telling the time", "metal and glass"),
    "a window": ("letting light into a room", "glass"), "a key": ("opening locks", "metal"),
    "a broom": ("sweeping the floor", "wood and straw"), "a candle": ("giving light", "wax"),
    "a cup": ("drinking", "clay"), "a ladder": ("climbing up to high places", "wood"),
    "a book": ("reading", "paper"), "a bicycle": ("riding from place to place", "metal and rubber"),
    "a fridge": ("keeping food cold", "metal and plastic"), "an oven": ("baking bread", "metal"),
    "a telescope": ("looking at the stars", "metal and glass"), "a compass": ("finding north", "metal"),
    "a bottle": ("holding water", "glass"), "a tyre": ("rolling on the road", "rubber"),
    "a coat": ("keeping warm", "wool"), "a mirror": ("seeing yourself", "glass"), "a bridge": ("crossing a river",
        "stone"),
    "a saw": ("cutting wood", "steel"), "a needle": ("sewing", "steel"), "a pillow": ("resting your head",
        "feathers"),
    "a ruler": ("measuring how long things are", "wood"), "scissors": ("cutting paper", "steel"),
}

SOURCES = {  # product: where it comes from
    "honey": "bees", "milk": "cows", "wool": "sheep", "eggs": "hens", "bread": "flour", "cheese": "milk",
    "butter": "milk", "wine": "grapes", "paper": "wood", "glass": "sand", "chocolate": "cocoa beans",
    "silk": "silkworms", "ketchup": "tomatoes", "flour": "wheat", "leather": "the skin of animals",
        "raisins": "grapes",
}

LISTS = {  # plural: members
    "fruits": ["apple", "banana", "pear", "cherry", "plum", "orange", "lemon", "grape", "mango", "peach", "kiwi"],
    "vegetables": ["carrot", "potato", "onion", "cabbage", "pea", "bean", "tomato", "pumpkin", "spinach"],
    "animals": ["dog", "cat", "horse", "lion", "elephant", "rabbit", "owl", "whale", "bear", "fox", "penguin"],
    "colours": ["red", "blue", "green", "yellow", "orange", "purple", "black", "white", "pink", "brown"],
    "birds": ["owl", "sparrow", "eagle", "robin", "duck", "swan", "penguin", "parrot"],
    "countries": ["France", "Japan", "Brazil", "Egypt", "Canada", "India", "Italy", "Kenya", "Norway", "Peru"],
    "planets": ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"],
    "cities": ["Paris", "London", "Rome", "Tokyo", "Cairo", "Berlin", "Madrid", "Lima", "Oslo"],
    "instruments": ["piano", "guitar", "violin", "flute", "drum", "trumpet", "harp"],
    "sports": ["football", "tennis", "swimming", "running", "basketball", "skiing", "rowing"],
    "drinks": ["water", "tea", "coffee", "milk", "juice", "lemonade"],
    "flowers": ["rose", "tulip", "daisy", "lily", "sunflower", "violet"],
    "trees": ["oak", "pine", "birch", "maple", "willow", "apple tree"],
    "tools": ["hammer", "saw", "screwdriver", "knife", "ladder", "drill"],
    "languages": ["English", "French", "Spanish", "German", "Italian", "Japanese", "Chinese", "Arabic"],
    "clothes": ["shirt", "coat", "hat", "scarf", "skirt", "jacket", "sock"],
    "metals": ["iron", "gold", "silver", "copper", "tin", "lead"],
    "insects": ["ant", "bee", "butterfly", "beetle", "fly", "wasp"],
}

TRANSLATIONS = {  # English: French, Spanish, German
    "hello": ("bonjour", "hola", "hallo"), "thank you": ("merci", "gracias", "danke"), "yes": ("oui", "sí", "ja"),
    "no": ("non", "no", "nein"), "water": ("eau", "agua", "Wasser"), "bread": ("pain", "pan", "Brot"),
    "house": ("maison", "casa", "Haus"), "dog": ("chien", "perro", "Hund"), "cat": ("chat", "gato", "Katze"),
    "book": ("livre", "libro", "Buch"), "friend": ("ami", "amigo", "Freund"), "sun": ("soleil", "sol", "Sonne"),
    "moon": ("lune", "luna", "Mond"), "love": ("amour", "amor", "Liebe"), "red": ("rouge", "rojo", "rot"),
    "good morning": ("bonjour", "buenos días", "guten Morgen"), "goodbye": ("au revoir", "adiós", "auf Wiedersehen"),
    "please": ("s'il vous plaît", "por favor", "bitte"), "apple": ("pomme", "manzana", "Apfel"),
    "milk": ("lait", "leche", "Milch"), "tree": ("arbre", "árbol", "Baum"), "night": ("nuit", "noche", "Nacht"),
}

PLURALS = {"mouse": "mice", "child": "children", "foot": "feet", "tooth": "teeth", "man": "men", "woman": "women",
           "goose": "geese", "sheep": "sheep", "fish": "fish", "leaf": "leaves", "knife": "knives", "wolf": "wolves",
           "city": "cities", "baby": "babies", "box": "boxes", "cat": "cats", "dog": "dogs", "tree": "trees",
           "house": "houses", "person": "people", "berry": "berries", "bus": "buses"}
PASTS = {"go": "went", "see": "saw", "eat": "ate", "run": "ran", "write": "wrote", "take": "took", "give": "gave",
         "come": "came", "sing": "sang", "drink": "drank", "swim": "swam", "buy": "bought", "think": "thought",
         "play": "played", "walk": "walked", "fly": "flew", "know": "knew", "make": "made", "sleep": "slept",
         "find": "found", "say": "said", "have": "had", "be": "was", "bring": "brought", "teach": "taught"}
RHYMES = {"cat": "hat", "moon": "spoon", "light": "night", "tree": "bee", "house": "mouse", "day": "play",
          "star": "car", "sun": "fun", "rain": "train", "king": "ring", "ball": "wall", "book": "cook",
          "snow": "slow", "dog": "fog", "fish": "dish", "sky": "fly", "sea": "key", "bread": "red"}

PERSON_FACTS = [  # question stem (who ...), answer subject, rest of the sentence
    ("wrote Romeo and Juliet", "William Shakespeare", "He was an English writer of plays and poems."),
    ("painted the Mona Lisa", "Leonardo da Vinci", "He was an Italian painter and inventor."),
    ("was the first person on the Moon", "Neil Armstrong", "He stepped onto the Moon in 1969."),
    ("wrote the first computer program", "Ada Lovelace", "She lived in England in the nineteenth century."),
    ("discovered gravity", "Isaac Newton", "People say that a falling apple gave him the idea."),
    ("developed the theory of relativity", "Albert Einstein", "He was a physicist who was born in Germany."),
    ("discovered radium", "Marie Curie", "She won the Nobel Prize twice."),
    ("composed the Ninth Symphony", "Ludwig van Beethoven", "He wrote it when he could no longer hear."),
    ("invented the telephone", "Alexander Graham Bell", "He made the first call in 1876."),
    ("started the Linux kernel", "Linus Torvalds", "He wrote it as a student in Finland."),
]

SUPERLATIVES = {
    "the largest ocean": "the Pacific Ocean", "the highest mountain": "Mount Everest",
        "the longest river": "the Nile",
    "the largest planet": "Jupiter", "the smallest planet": "Mercury", "the hottest planet": "Venus",
    "the largest animal": "the blue whale", "the fastest land animal": "the cheetah",
        "the tallest animal": "the giraffe",
    "the closest star": "the Sun", "the largest country": "Russia", "the largest continent": "Asia",
    "the smallest continent": "Australia", "the coldest continent": "Antarctica", "the largest desert": "Antarctica",
    "the hardest natural material": "diamond", "the red planet": "Mars", "the king of the animals": "the lion",
    "the first month of the year": "January", "the last month of the year": "December",
    "the shortest month of the year": "February", "the first day of the week": "Monday",
    "the freezing point of water": "zero degrees Celsius", "the boiling point of water": "100 degrees Celsius",
}
