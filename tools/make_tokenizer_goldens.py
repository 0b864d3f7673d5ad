#!/usr/bin/env python3
"""Trains small tokenizers of every family the engine loads and records what the reference library makes of a
nasty corpus. Output: tests/golden/tokenizer/FAMILY/{tokenizer.json,tokenizer_config.json,golden.json}.

    python3 -m venv VENV && VENV/bin/pip install tokenizers==0.23.3
    VENV/bin/python tools/make_tokenizer_goldens.py [OUTPUT_DIRECTORY]

All text is made here; the random part comes from a fixed seed, so that a second run changes nothing.
"""
import collections
import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TRAINING = """
The dispatcher keeps a queue for every model and lets requests go when an engine has room for them.
It's measured, not guessed: we've counted tokens, they'll tell you what I'd say, and that's what you're paid for.
A request that waits knows its place; a request that runs knows its speed. Nobody's request starves.
La file d'attente est juste : chacun son tour, même l'été, où les élèves dorment à l'ombre d'un chêne.
Der Größte fällt über die Brücke, während zwölf Boxkämpfer Viktor quer über den großen Sylter Deich jagen.
El niño pequeño comió piñas en la mañana; después soñó con un pingüino.
Съешь же ещё этих мягких французских булок, да выпей чаю. Очередь движется быстро.
Γαζίες και μυρτιές δεν θα βρω πια στο χρυσαφί ξέφωτο.
日本語の文章はここにあります。順番を待つ人は静かに座っている。東京は大きい町です。
我们在等待机器完成工作。今天天气很好，大家都在学习。
안녕하세요 여러분, 오늘은 날씨가 좋습니다. 기다리는 사람이 많아요.
السلام عليكم ورحمة الله وبركاته. القائمة طويلة اليوم.
नमस्ते दुनिया, आज मौसम अच्छा है। ภาษาไทยไม่มีช่องว่างระหว่างคำ
def step(batch, limit=1024):
    for index in range(0, len(batch), 16):
        if batch[index].done and not batch[index].held:
            return {"index": index, "tokens": 12345, "speed": 67.89}
        batch[index].run()
\tfor (int i = 0; i < 100; i++) {\r\n\t\tsum += values[i] * 3.14159;\r\n\t}\r\n
https://example.org/a/b?c=d&e=f#g  user@example.org  2026-11-21T07:00:00Z  1,234,567.89  100%  $5  €7
""" * 3

NASTY = [
    "", " ", "  ", "   ", "\n", "\r\n", "\r\n\r\n", "\t", "\t\t  \t", " \n ", "a", " a", "a ", " a ", "  a  b   c    d",
    "Hello, world!", "Hello   world  \n\n  again \r\n end ", "It's they'll we've I'd I'm you're can't",
    "IT'S THEY'LL WE'VE I'D I'M YOU'RE CAN'T'S", "'s 'S 'ſ 'T 't 'rE 'Ll 'lL ''s", "don’t l’été",
    "0 1 12 123 1234 12345 123456789 3.14159 1,000,000 ½ ² Ⅷ ٣٤٥ १२३ ①②", "abc123def4567 v1.2.3-rc4",
    "a\u180eb \u180e c", "a\u00a0b\u00a0\u00a0c", "a\u0085b\u0085\u0085c", "a\u2028b\u2029c\u3000d\u200be\ufefff", "\x1c\x1d\x1e\x1f a \x0b \x0c b",
    "\x00\x01\x7f", "é e\u0301 ñ n\u0303 Å A\u030a \u212b ﬁ ﬀ Ⅳ", "q\u0323\u0307 q\u0307\u0323 \u0344 \u1e9b\u0323",
    "각 \u1100\u1161\u11a8 한국어 \u1112\u1161\u11ab", "क्षि हिन्दी नमस्ते", "ภาษาไทย กำ", "שָׁלוֹם עברית", "السَّلامُ عليكم",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇫🇷🇩🇪 ☺️ 🤷🏻‍♀️", "😀😃😄", "日本語テキスト、中文字符。한글", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈𐌰 𠜎𠜱", "\ud7ff\ue000\uffff\U0010ffff",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 4, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 80, "-" * 7 + ">" * 5 + "!" * 9, "!?!?...,,,;;;:::", " !?", "(a) [b] {c} <d> \"e\" 'f' `g` ~h ^i |j \\k /l",
    "def f(x):\n    return x + 1\n\n\n\tif x:\r\n\t\tpass   \n", "x" + " " * 50 + "y", "\n" * 20 + "z", " \n \n \n x", "a \n", "a  \n  b",
    "<s>", "</s>", "<s>a</s>", " <s> a </s> b", "<|im_start|>user\nHello<|im_end|>\n", "<|begin_of_text|>x<|eot_id|>", "a<|im_end|>b<|im_end|><|im_end|>",
    "<|im_start|", "<|im_start|><|im_star", "x<mask>y <mask> z  <mask>  .", "  <mask>", "<mask>  ", "<tool_call>{\"name\": \"f\"}</tool_call>",
    "<tool_call", "word<w>word <w> word <w>. <w>_ _<w> (<w>)", "É é <É> <e\u0301> <é>", "<|longer|> <|longer|more|> <|longer|mor", "<pad><unk><s></s>",
    "▁a▁▁b ▁ c▁", "▁", "▁▁▁", " ▁", "Ġa Ċ", "<0x41><0x0A><0xe9>", "Zażółć gęślą jaźń ŁÓDŹ", "ß ẞ SS İ ı i̇", "Ω Ω Å", "æ œ ĳ ŉ", "·•●— – ‘’“”…",
    "El Niño comió 3 piñas, ¿verdad? ¡Sí!", "Съешь ещё этих мягких французских булок", "https://example.org/a/b?c=d&e=f#g user@example.org",
    "the quick brown fox jumps over the lazy dog. " * 8, "我们在等待机器完成工作。今天天气很好" * 3,
]

POOLS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "     \n\n\r\t", ".,;:!?'\"()[]{}<>|/\\-_=+*&^%$#@~`",
    "éèàùçñöüßÉÀçøåæœŁżź", "абвгдежзийклмнопрстуфхцчшщъыьэюя", "日本語中文字今天天気東京我们在等待", "가나다라마바사아자차카타파하",
    "\u0300\u0301\u0302\u0303\u0308\u030a\u0323\u0327\u0345", "\u00a0\u0085\u180e\u2028\u2009\u3000\u200b\u200d\ufe0f", "😀👍🏽👩💻🏳🌈🇫🇷", "אבגדהםשرةلعلوم", "१२३४ٕ٤½²Ⅷ",
]


def random_texts(rng, count, specials, last=0x110000):
    texts = []
    for number in range(count):
        out = []
        for _ in range(rng.randrange(1, 12)):
            kind = rng.randrange(10)
            if kind < 6:
                pool = rng.choice(POOLS)
                out.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 9))))
            elif kind < 7:
                out.append(rng.choice([" the", " request", "'s", "'LL", " tokens", "été", "  ", "\r\n", " \n"]))
            elif kind < 8 and specials:
                out.append(rng.choice(specials))
            else:
                code = rng.randrange(1, last if number % 3 == 0 else min(last, 0x3000))
                out.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
        texts.append("".join(out))
    return texts


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def letters(count):
    """The commonest characters, ties by code point: the trainer's own choice differs from run to run."""
    seen = collections.Counter(TRAINING.replace(" ", "\u2581"))
    best = sorted(seen, key=lambda c: (-seen[c], c))[:count]
    return {"initial_alphabet": sorted(best), "limit_alphabet": len(best)}


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def train(tokenizer, size, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(TRAINING.splitlines(keepends=True), trainer)
    return tokenizer


def byte_level(pattern, size, normalizer=None, **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    return train(t, size, initial_alphabet=ALPHABET)


def llama3():
    t = byte_level(LLAMA3, 800, ignore_merges=True)
    t.add_special_tokens([special(s) for s in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|longer|>", "<|longer|more|>")])
    bos = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B:1", special_tokens=[("<|begin_of_text|>", bos)])])
    return t, {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>", "special": True}}


def llama3_whole_words():
    """ignore_merges with words in the vocabulary that no merge reaches."""
    t, config = llama3()
    data = json.loads(t.to_str())
    merges = data["model"]["merges"]
    kept = [m for i, m in enumerate(merges) if i % 3]
    data["model"]["merges"] = kept
    return Tokenizer.from_str(json.dumps(data)), config


def qwen2():
    t = byte_level(QWEN2, 800, normalizer=normalizers.NFC())
    t.add_special_tokens([special(s) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in ("<tool_call>", "</tool_call>", "<think>")])
    t.add_tokens([AddedToken("<\u00c9>", special=False, normalized=True), AddedToken("<e\u0301>", special=False, normalized=True)])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t, {"bos_token": None, "eos_token": "<|im_end|>"}


def tekken():
    t = byte_level(TEKKEN, 700)
    t.add_special_tokens([special(s) for s in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])
    return t, {"bos_token": "<s>", "eos_token": "</s>"}


def gpt2():
    t = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    train(t, 700, initial_alphabet=ALPHABET)
    t.add_special_tokens([special("<|endoftext|>")])
    return t, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def roberta():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    train(t, 600, initial_alphabet=ALPHABET)
    t.add_special_tokens([special("<s>"), special("</s>"), special("<mask>", lstrip=True, rstrip=True)])
    t.add_tokens([AddedToken("<w>", special=False, normalized=True, single_word=True), AddedToken("caf\u00e9 noir", special=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    return t, {"bos_token": "<s>", "eos_token": "</s>"}


def partial_bytes():
    """A byte alphabet with holes: unknown bytes become <unk>, fused."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    train(t, 300, special_tokens=[special("<unk>")], initial_alphabet=ALPHABET[:110], limit_alphabet=110)
    return t, {"eos_token": "<unk>"}


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def sentencepiece(size, alphabet, words=True, **model):
    """BPE trained over U+2581 words, with <unk>, <s>, </s> and the byte tokens in front as sentencepiece has them."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=words)
    head = ["<unk>", "<s>", "</s>"] + (BYTES if model.get("byte_fallback") else [])
    train(t, size, special_tokens=head, **letters(alphabet))
    data = json.loads(t.to_str())
    data["added_tokens"] = []
    data["pre_tokenizer"] = None
    data["model"].update(unk_token="<unk>", **model)
    t = Tokenizer.from_str(json.dumps(data))
    t.add_special_tokens([special("<unk>"), special("<s>"), special("</s>")])
    return t


def bos_template(t):
    return processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", t.token_to_id("<s>"))])


def llama2():
    t = sentencepiece(900, 150, byte_fallback=True, fuse_unk=True)
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = bos_template(t)
    return t, {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}}


def metaspace():
    """As newer Mistral and Llama-2 conversions: Metaspace before the first text only, no split."""
    t = sentencepiece(900, 150, byte_fallback=True, fuse_unk=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = bos_template(t)
    return t, {"bos_token": "<s>", "eos_token": "</s>"}


def metaspace_split():
    """Metaspace as pre-tokenizer and decoder, no byte fallback, unknown characters not fused."""
    t = sentencepiece(500, 90, fuse_unk=False)
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    t.add_tokens([AddedToken("<mask>", special=False, lstrip=True, normalized=True)])
    return t, {"bos_token": "<s>", "eos_token": "</s>"}


def gemma():
    """Spaces replaced, split behind each; merges may span words."""
    t = sentencepiece(900, 150, words=False, byte_fallback=True, fuse_unk=True)
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.post_processor = bos_template(t)
    return t, {"bos_token": "<s>", "eos_token": "</s>"}


def deepseek():
    """A chain of Split, Digits and ByteLevel."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{L}+"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{P}+"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥ࠀ-一가-퟿]+"), "isolated"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    train(t, 600, initial_alphabet=ALPHABET)
    t.add_tokens([AddedToken("<\uff5cUser\uff5c>", special=False, normalized=False)])
    t.add_special_tokens([special("<\uff5cend\u2581of\u2581sentence\uff5c>")])
    return t, {"eos_token": "<\uff5cend\u2581of\u2581sentence\uff5c>"}


def odds():
    """Parts that fit no family: other normalizers, every split behaviour, no decoder."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    t.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(r"\s{3,}"), "~~")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex("-+"), "merged_with_previous"),
        pre_tokenizers.Split(Regex("[<(\\[]"), "merged_with_next"),
        pre_tokenizers.Split(Regex("="), "contiguous"),
        pre_tokenizers.Split("~", "removed"),
        pre_tokenizers.Whitespace(),
        pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.Digits(individual_digits=False)])
    train(t, 400, special_tokens=[special("[UNK]")], **letters(120))
    return t, {}


def loose_space():
    """WhitespaceSplit and an empty-match pattern; NFD."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=False))
    t.normalizer = normalizers.NFD()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"(?=[A-Z])"), "isolated"),
        pre_tokenizers.Split(Regex(r"\w+"), "removed", invert=True)])
    t.decoder = decoders.Fuse()
    train(t, 400, special_tokens=[special("[UNK]")], **letters(120))
    return t, {}


FAMILIES = {
    "llama3": llama3, "llama3_whole_words": llama3_whole_words, "qwen2": qwen2, "tekken": tekken, "gpt2": gpt2, "roberta": roberta,
    "partial_bytes": partial_bytes, "llama2": llama2, "metaspace": metaspace, "metaspace_split": metaspace_split,
    "gemma": gemma, "deepseek": deepseek, "odds": odds, "loose_space": loose_space,
}


def golden(t, rng, last):
    specials = [token.content for token in t.get_added_tokens_decoder().values()][:12]
    cases = []
    for text in NASTY + random_texts(rng, 120, specials, last):
        t.encode_special_tokens = False
        ids = t.encode(text).ids
        bare = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = False
        case = {"text": text, "ids": ids}
        if bare != ids:
            case["bare"] = bare
        if plain != bare:
            case["plain"] = plain
        case["decoded"] = t.decode(bare, skip_special_tokens=True)
        whole = t.decode(ids, skip_special_tokens=False)
        if whole != case["decoded"]:
            case["whole"] = whole
        cases.append(case)
    size = t.get_vocab_size()
    streams = []
    for _ in range(60):  # any ids at all, so that characters break off
        ids = [rng.randrange(size) for _ in range(rng.randrange(1, 12))]
        streams.append({"ids": ids, "decoded": t.decode(ids, skip_special_tokens=True)})
    return {"made_by": f"tokenizers {tokenizers.__version__}", "cases": cases, "streams": streams}


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests/golden/tokenizer")
    for name, make in FAMILIES.items():
        t, config = make()
        data = json.loads(t.to_str())
        if name == "llama2":  # the older spelling of merges
            data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
        t = Tokenizer.from_str(json.dumps(data))
        where = root / name
        where.mkdir(parents=True, exist_ok=True)
        where.joinpath("tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
        dump(where / "tokenizer_config.json", config)
        # The reference's Punctuation knows no mark that is younger than Unicode 8; ours does.
        last = 0x250 if name == "odds" else 0x110000
        dump(where / "golden.json", golden(t, random.Random(f"{name} 20261121"), last))


if __name__ == "__main__":
    main()
