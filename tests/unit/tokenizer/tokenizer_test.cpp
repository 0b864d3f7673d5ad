// What the goldens cannot show: errors by name, user text that spells special tokens, streams cut anywhere,
// threads.
#include "engine_worker/tokenizer/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <atomic>
#include <random>
#include <thread>

#include "engine_worker/tokenizer/split_regex.hpp"
#include "engine_worker/tokenizer/unicode.hpp"
#include "engine_worker/tokenizer/vocabulary_file.hpp"
#include "shared/json.hpp"

namespace llm::engine {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kRoot = LLM_GOLDEN_DIR "/tokenizer/";

json small() {
    return json::parse(R"({
        "added_tokens": [{"id": 5, "content": "<s>", "special": true, "normalized": false}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}})");
}

std::string failure(const json& file) {
    try {
        Tokenizer::parse(file.dump());
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "";
}

TEST(StringArena, KeepsShortLongAndEmptyTexts) {
    llm::engine::StringArena arena;
    EXPECT_EQ(arena.keep(""), "");  // before there is any block
    const std::string large(100'000, 'x');
    const std::string_view kept = arena.keep(large);
    EXPECT_EQ(arena.keep(""), "");
    const std::string_view small = arena.keep("ab");
    EXPECT_EQ(kept, large);
    EXPECT_EQ(small, "ab");
}

TEST(TokenizerErrors, NameThePartThatIsNotSupported) {
    EXPECT_EQ(failure(small()), "");
    const std::vector<std::tuple<json::json_pointer, json, std::string>> changes = {
        {"/model/type"_json_pointer, "Unigram", "model.type: model \"Unigram\" is not supported"},
        {"/model/type"_json_pointer, "WordPiece", "model.type: model \"WordPiece\""},
        {"/normalizer"_json_pointer,
         {{"type", "Precompiled"}},
         "normalizer.type: normalizer \"Precompiled\""},
        {"/pre_tokenizer"_json_pointer,
         {{"type", "BertPreTokenizer"}},
         "pre_tokenizer.type: pre_tokenizer \"Bert"},
        {"/decoder"_json_pointer, {{"type", "CTC"}}, "decoder.type: decoder \"CTC\""},
        {"/post_processor"_json_pointer, {{"type", "Nope"}}, "post_processor.type"},
        {"/model/dropout"_json_pointer, 0.1, "model.dropout"},
        {"/model/continuing_subword_prefix"_json_pointer, "##", "model.continuing_subword_prefix"},
        {"/model/unk_token"_json_pointer, "zz", "model.unk_token: \"zz\" is not in model.vocab"},
        {"/model/merges"_json_pointer, {"a z"}, "model.merges: [0] needs \"z\""},
        {"/model/merges"_json_pointer, {"a b c"}, "model.merges[0]: must be two tokens"},
        {"/model/merges"_json_pointer, {{"a"}}, "model.merges[0]: must be two tokens"},
        {"/model/vocab"_json_pointer, 3, "model.vocab"},
        {"/model/vocab/a"_json_pointer, "x", "model.vocab: the id of \"a\""},
        {"/model/vocab/a"_json_pointer, 99999999, "model.vocab: the id of \"a\" is too large"},
        {"/added_tokens/0/id"_json_pointer, -1, "added_tokens[0].id"},
        {"/added_tokens/0/content"_json_pointer, 7, "added_tokens[0].content: must be a string"},
    };
    for (const auto& [where, value, words] : changes) {
        json file = small();
        file[where] = value;
        const std::string what = failure(file);
        EXPECT_THAT(what, HasSubstr("tokenizer.json: "));
        EXPECT_THAT(what, HasSubstr(words)) << where;
    }
    json nested = small();
    nested["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Nmt"}}}}};
    EXPECT_THAT(failure(nested), HasSubstr("normalizer.normalizers[1].type"));
    nested = small();
    nested["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
    EXPECT_THAT(failure(nested), HasSubstr("pre_tokenizer.pattern.Regex"));
    EXPECT_THROW(Tokenizer::parse("{"), std::runtime_error);
    EXPECT_THROW(Tokenizer::parse("[]"), std::runtime_error);
    EXPECT_THROW(Tokenizer::load("/nonexistent"), std::runtime_error);
}

TEST(Tokenizer, KnowsItsNamedTokens) {
    const auto tokenizer = Tokenizer::load(kRoot + "llama3");
    const int32_t bos = tokenizer->token_to_id("<|begin_of_text|>"),
                  eos = tokenizer->token_to_id("<|eot_id|>");
    EXPECT_EQ(tokenizer->bos_id(), bos);
    EXPECT_EQ(tokenizer->eos_id(), eos);
    EXPECT_TRUE(tokenizer->is_special(bos));
    EXPECT_FALSE(tokenizer->is_special(0));
    EXPECT_EQ(tokenizer->id_to_token(eos), "<|eot_id|>");
    EXPECT_EQ(tokenizer->token_to_id("no such token"), -1);
    EXPECT_EQ(tokenizer->id_to_token(-1), "");
    EXPECT_EQ(tokenizer->id_to_token(tokenizer->vocab_size()), "");
    EXPECT_EQ(tokenizer->decode({-5, 1 << 30}), "");
    EXPECT_EQ(Tokenizer::load(kRoot + "qwen2")->bos_id(), -1);
}

TEST(Tokenizer, TakesSpecialTokensInUserTextAsText) {
    for (const char* family : {"qwen2", "llama2"}) {
        const auto tokenizer = Tokenizer::load(kRoot + family);
        const std::string special(tokenizer->id_to_token(tokenizer->eos_id()));
        const std::string text = "a" + special + "b";
        const auto parsed = tokenizer->encode(text, {.add_special = false, .parse_special = true});
        const auto plain = tokenizer->encode(text, {.add_special = false, .parse_special = false});
        EXPECT_THAT(parsed, testing::Contains(tokenizer->eos_id()));
        for (const int32_t id : plain)
            EXPECT_FALSE(tokenizer->is_special(id)) << family;
        EXPECT_EQ(tokenizer->decode(plain), text) << family;
    }
}

// The white space behind a token that swallows it is no token of its own, nor is what is left of one.
TEST(Tokenizer, GivesNoTokenForSwallowedSpace) {
    json file = small();
    for (const char* content : {"<x>", "  "})
        file["added_tokens"].push_back({{"id", content[0] == ' ' ? 7 : 6},
                                        {"content", content},
                                        {"special", true},
                                        {"lstrip", true},
                                        {"rstrip", true}});
    const auto tokenizer = Tokenizer::parse(file.dump());
    EXPECT_EQ(tokenizer->encode("a<x>    b", {}), (std::vector<int32_t>{0, 6, 1}));
    EXPECT_EQ(tokenizer->encode("a    b", {}), (std::vector<int32_t>{0, 7, 1}));
}

std::string random_text(std::mt19937& random, size_t length) {
    std::string text;
    while (text.size() < length) {
        const uint32_t kind = random() % 4;
        const char32_t c = kind == 0   ? random() % 0x80
                           : kind == 1 ? random() % 0x800
                           : kind == 2 ? random() % 0x10000
                                       : random() % 0x110000;
        unicode::append_utf8(text, c >= 0xD800 && c < 0xE000 ? U'x' : c);
    }
    return text;
}

TEST(Tokenizer, GivesBackAnyUnicodeText) {
    std::mt19937 random(20261121);
    for (const char* family : {"llama3", "gpt2", "tekken", "deepseek", "llama2", "metaspace"}) {
        const auto tokenizer = Tokenizer::load(kRoot + family);
        for (int i = 0; i < 200; ++i) {
            const std::string text = random_text(random, 1 + random() % 60);
            // U+2581 is a space to sentencepiece.
            if (text.find("\xE2\x96\x81") != std::string::npos)
                continue;
            const auto ids = tokenizer->encode(text, {.add_special = true, .parse_special = false});
            EXPECT_EQ(tokenizer->decode(ids), text) << family;
            StreamDecoder stream(*tokenizer);
            std::string streamed;
            for (const int32_t id : ids) {
                const std::string piece = stream.push(id);
                EXPECT_TRUE(unicode::is_valid_utf8(piece));
                streamed += piece;
            }
            EXPECT_EQ(streamed, text) << family;
            EXPECT_EQ(stream.flush(), "");
        }
    }
}

TEST(Tokenizer, RepairsInvalidUtf8) {
    const auto tokenizer = Tokenizer::load(kRoot + "gpt2");
    const auto ids = tokenizer->encode("a\xC3(\xFF", {});
    EXPECT_EQ(ids, tokenizer->encode("a\uFFFD(\uFFFD", {}));
}

TEST(StreamDecoder, HoldsBackAnIncompleteCharacter) {
    const auto tokenizer = Tokenizer::load(kRoot + "gpt2");
    // The four bytes of U+1F600 as the four tokens of the byte alphabet.
    const std::vector<std::string> spelled = {"\u00F0", "\u0141", "\u013A", "\u0122"};
    StreamDecoder stream(*tokenizer);
    std::string text;
    for (const std::string& token : spelled) {
        EXPECT_EQ(text, "");
        const int32_t id = tokenizer->token_to_id(token);
        ASSERT_GE(id, 0) << token;
        text += stream.push(id);
    }
    EXPECT_EQ(text, "\U0001F600");
    EXPECT_EQ(stream.push(tokenizer->token_to_id(spelled[0])), "");
    EXPECT_EQ(stream.flush(), "\uFFFD");
}

// What it adds to a text: the text of both, less that of the first.
TEST(StreamDecoder, GoesOnBehindOtherTokens) {
    for (const char* family : {"llama3", "gpt2", "tekken", "llama2", "metaspace"}) {
        const auto tokenizer = Tokenizer::load(kRoot + family);
        const std::string text = "The capital of France is Paris.";
        const auto ids = tokenizer->encode(text, {});
        for (size_t cut = 0; cut <= ids.size(); ++cut) {
            const std::vector<int32_t> before(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(cut));
            StreamDecoder stream(*tokenizer, before);
            std::string streamed = tokenizer->decode(before);
            for (size_t i = cut; i < ids.size(); ++i)
                streamed += stream.push(ids[i]);
            EXPECT_EQ(streamed + stream.flush(), text) << family << ", " << cut;
        }
    }
}

TEST(Tokenizer, EncodesTheSameFromManyThreads) {
    const auto tokenizer = Tokenizer::load(kRoot + "llama3");
    std::mt19937 random(7);
    std::vector<std::string> texts;
    std::vector<std::vector<int32_t>> expected;
    for (int i = 0; i < 100; ++i) {
        texts.push_back(random_text(random, 200));
        expected.push_back(tokenizer->encode(texts.back(), {}));
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (size_t i = 0; i < texts.size(); ++i)
                wrong += tokenizer->encode(texts[i], {}) != expected[i];
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, StopsEarlyOnlyWhereThereAreMoreIdsThanAsked) {
    std::mt19937 random(11);
    for (const char* family : {"gpt2", "llama2", "llama3", "qwen2"}) {
        const auto tokenizer = Tokenizer::load(kRoot + family);
        std::string longest;
        for (int32_t id = 0; id < tokenizer->vocab_size(); ++id)
            if (!tokenizer->is_special(id) && tokenizer->decode({id}).size() > longest.size())
                longest = tokenizer->decode({id});
        std::vector<std::string> texts = {"", std::string(5000, ' '), std::string(5000, 'a')};
        for (int i = 0; i < 20; ++i)
            texts.push_back(random_text(random, 100));
        texts.emplace_back();  // nearly as few ids as its length allows
        for (int i = 0; i < 200; ++i)
            texts.back() += longest;
        for (const std::string& text : texts) {
            const auto whole = tokenizer->encode(text, {});
            for (const size_t most :
                 {size_t{0}, whole.size() / 2, whole.size() - 1, whole.size(), whole.size() + 1}) {
                const auto ids = tokenizer->encode(text, {.most = most});
                if (whole.size() <= most || most == SIZE_MAX)
                    EXPECT_EQ(ids, whole) << family;
                else
                    EXPECT_GT(ids.size(), most) << family;
            }
        }
    }
}

TEST(Tokenizer, MergesALongWordAsFastAsItsLengthAsks) {
    const auto tokenizer = Tokenizer::load(kRoot + "gpt2");
    const std::string word(200000, 'a');  // one piece: a quadratic merge would take minutes
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(word, {})), word);
}

TEST(SplitRegex, TranslatesWhatPcre2ReadsOtherwise) {
    EXPECT_EQ(to_pcre2_syntax(R"(\s+(?!\S)|[^\s\p{L}])"),
              R"(\p{White_Space}+(?!\P{White_Space})|[^\p{White_Space}\p{L}])");
    EXPECT_EQ(to_pcre2_syntax(R"(\u4e00\h\\s)"), R"(\x{4e00}[0-9A-Fa-f]\\s)");
    EXPECT_EQ(to_pcre2_syntax(R"([]a]\x{1F})"), R"([\]a]\x{1F})");
    const auto of_words = [](std::string_view pattern, std::string_view text) {
        RegexScratch scratch;
        SplitRegex::Match match;
        const SplitRegex regex(pattern);
        return SplitRegex::Walk(regex, text, scratch).next(match);
    };
    for (const char* text : {"\u00B2", "\u00B9", "\u00BD"}) {  // as the reference has it
        EXPECT_TRUE(of_words(R"(\w)", text)) << text;
        EXPECT_FALSE(of_words(R"([\w'])", text)) << text;
        EXPECT_TRUE(of_words(R"([^\w'])", text)) << text;
        EXPECT_FALSE(of_words(R"(\W)", text)) << text;
    }
    // A class inside a class adds its members: the pattern of Bloom and of what was trained in its manner.
    EXPECT_EQ(to_pcre2_syntax(R"( ?[^(\s|[.,!?])]+[a])"), R"( ?[^(\p{White_Space}|.,!?)]+[a])");
    EXPECT_EQ(to_pcre2_syntax(R"([a[-b]c[d-]-[[e]]f]g])"), R"([a\-bcd\-\-ef]g])");
    EXPECT_EQ(to_pcre2_syntax(R"([+-[a]])"), R"([+\-a])");
    EXPECT_EQ(to_pcre2_syntax(R"([!-/\[-`\]-a])"), R"([!-/\[-`\]-a])");
    EXPECT_THROW(to_pcre2_syntax(R"([a[^b]])"), std::runtime_error);
    EXPECT_THROW(to_pcre2_syntax(R"([a&&b])"), std::runtime_error);
    EXPECT_THROW(to_pcre2_syntax(R"(\p{N}{1,3}+)"), std::runtime_error);
    EXPECT_THROW(to_pcre2_syntax(R"([\W])"), std::runtime_error);
}

std::string utf8(const std::u32string& text) {
    std::string out;
    for (const char32_t c : text)
        unicode::append_utf8(out, c);
    return out;
}

// Marks above and below a letter may stand in any order, which normalising settles: one after the other it
// took eight minutes for two megabytes of them.
TEST(Unicode, OrdersManyMarksAsFastAsTheirNumberAsks) {
    using unicode::NormalForm;
    // Below, and above: U+0344 is two marks, U+FF9E one that only the compatibility forms see.
    const std::u32string below = U"\u0323\u0331\u0323", above = U"\u0301\u0344\u0300";
    for (const int count : {2, 10, 30, 200'000}) {
        std::u32string mixed = U"\u00EA", sorted = mixed, last;
        for (int i = 0; i < count; ++i) {
            mixed += {above[static_cast<size_t>(i % 3)], below[static_cast<size_t>(i % 3)]};
            sorted += below[static_cast<size_t>(i % 3)];
            last += above[static_cast<size_t>(i % 3)];
        }
        sorted += last;
        for (const NormalForm form :
             {NormalForm::kNfc, NormalForm::kNfd, NormalForm::kNfkc, NormalForm::kNfkd})
            EXPECT_TRUE(unicode::normalize(utf8(mixed + U"b"), form) ==
                        unicode::normalize(utf8(sorted + U"b"), form))
                << count;
        std::u32string halfwidth = U"a", full = U"a";
        for (int i = 0; i < count; ++i)
            halfwidth += U"\u0301\uFF9E", full += U"\u3099";
        full += std::u32string(static_cast<size_t>(count), U'\u0301');
        EXPECT_TRUE(unicode::normalize(utf8(halfwidth), NormalForm::kNfkc) ==
                    unicode::normalize(utf8(full), NormalForm::kNfkc))
            << count;
    }
    EXPECT_EQ(
        unicode::normalize(utf8(U"a" + std::u32string(100, U'\u0323') + U"\u0302\u0323"), NormalForm::kNfc),
        utf8(U"\u1EAD" + std::u32string(100, U'\u0323')));
}

TEST(Unicode, FindsTheIncompleteTail) {
    EXPECT_EQ(unicode::incomplete_tail("a"), 0u);
    EXPECT_EQ(unicode::incomplete_tail("a\xC3"), 1u);
    EXPECT_EQ(unicode::incomplete_tail("\xF0\x9F\x98"), 3u);
    EXPECT_EQ(unicode::incomplete_tail("\xF0\x9F\x98\x80"), 0u);
    EXPECT_EQ(unicode::incomplete_tail("\xE0\x80"), 0u);  // no such character: nothing to wait for
    EXPECT_EQ(unicode::incomplete_tail("\x80\x80"), 0u);
    EXPECT_EQ(unicode::to_valid_utf8("\xE2\x82"
                                     "A\xED\xA0\x80"),
              "\uFFFDA\uFFFD\uFFFD\uFFFD");
}

}  // namespace
}  // namespace llm::engine
