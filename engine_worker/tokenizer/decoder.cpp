#include "engine_worker/tokenizer/decoder.hpp"

#include "engine_worker/tokenizer/bpe.hpp"
#include "engine_worker/tokenizer/normalizer.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {
namespace {

// The byte of a token "<0xNN>", or -1. Two hexadecimal digits of either case, as Rust's from_str_radix takes
// them.
int fallback_byte(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>')
        return -1;
    int byte = 0;
    for (char c : token.substr(3, 2)) {
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        byte = byte * 16 + digit;
    }
    return byte;
}

// A token's characters as bytes, or its own spelling when one of them is not of the byte alphabet.
std::string byte_level_bytes(const std::string& token) {
    std::string bytes;
    return spelled_to_bytes(token, bytes) ? bytes : token;
}

std::string replace_metaspace(std::string_view token, const std::string& replacement, std::string_view with) {
    std::string out;
    size_t done = 0;
    for (size_t at; (at = token.find(replacement, done)) != std::string_view::npos;
         done = at + replacement.size())
        out.append(token, done, at - done).append(with);
    return out.append(token, done);
}

std::string replace_all(const SplitRegex& what, const std::string& with, const std::string& text,
                        RegexScratch& scratch) {
    std::string out;
    SplitRegex::Match match;
    size_t done = 0;
    for (SplitRegex::Walk walk(what, text, scratch); walk.next(match); done = match.end)
        out.append(text, done, match.begin - done).append(with);
    return out.append(text, done);
}

void strip_start(std::string& text, const std::string& content, int32_t times) {
    size_t cut = 0;
    for (int32_t i = 0; i < times && text.compare(cut, content.size(), content) == 0 && cut < text.size();
         ++i)
        cut += content.size();
    text.erase(0, cut);
}

void strip_end(std::string& text, const std::string& content, int32_t times) {
    for (int32_t i = 0; i < times && text.size() >= content.size() &&
                        text.compare(text.size() - content.size(), content.size(), content) == 0;
         ++i)
        text.erase(text.size() - content.size());
}

// Runs of byte tokens become their text, or one U+FFFD per byte when the run is not valid UTF-8.
void fuse_bytes(std::vector<std::string>& tokens) {
    std::vector<std::string> out;
    std::string run;
    auto flush = [&] {
        if (run.empty())
            return;
        if (unicode::is_valid_utf8(run))
            out.push_back(run);
        else
            out.insert(out.end(), run.size(), "\xEF\xBF\xBD");
        run.clear();
    };
    for (std::string& token : tokens) {
        if (const int byte = fallback_byte(token); byte >= 0) {
            run += static_cast<char>(byte);
        } else {
            flush();
            out.push_back(std::move(token));
        }
    }
    flush();
    tokens = std::move(out);
}

}  // namespace

Decoder Decoder::load(const JsonPart& part) {
    Decoder decoder;
    if (part.is_null())
        decoder.join_by_space_ = true;
    else
        decoder.add(part, 0);
    return decoder;
}

void Decoder::add(const JsonPart& part, int depth) {
    const std::string type = part.type();
    if (type == "Sequence") {
        if (depth == kMaxSequenceDepth)
            part.fail("nested too deeply");
        const JsonPart list = part.at("decoders");
        for (size_t i = 0; i < list.size(); ++i)
            add(list.at(i), depth + 1);
    } else if (type == "ByteLevel") {
        steps_.push_back(ByteLevel{});
    } else if (type == "ByteFallback") {
        steps_.push_back(ByteFallback{});
    } else if (type == "Fuse") {
        steps_.push_back(Fuse{});
    } else if (type == "Metaspace") {
        const JsonPart replacement = part.at("replacement");
        if (replacement.string().empty())
            replacement.fail("must be one character");
        const JsonPart scheme = part.at("prepend_scheme");
        const bool strip =
            scheme.is_null() ? part.at("add_prefix_space").boolean(true) : scheme.string() != "never";
        steps_.push_back(Metaspace{replacement.string(), strip});
    } else if (type == "Replace") {
        steps_.push_back(Replace{load_pattern(part.at("pattern")), part.at("content").string()});
    } else if (type == "Strip") {
        const JsonPart content = part.at("content");
        if (content.string().empty())
            content.fail("must be one character");
        steps_.push_back(Strip{content.string(), part.at("start").integer(kMaxTokenId),
                               part.at("stop").integer(kMaxTokenId)});
    } else {
        part.at("type").fail("decoder \"" + type + "\" is not supported");
    }
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens, RegexScratch& scratch) {
    auto join = [&] {
        std::string all;
        for (const std::string& token : tokens)
            all += token;
        return all;
    };
    if (std::holds_alternative<ByteLevel>(step)) {
        for (std::string& token : tokens)
            token = byte_level_bytes(token);
        tokens = {unicode::to_valid_utf8(join())};
    } else if (std::holds_alternative<ByteFallback>(step)) {
        fuse_bytes(tokens);
    } else if (std::holds_alternative<Fuse>(step)) {
        tokens = {join()};
    } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
        for (size_t i = 0; i < tokens.size(); ++i)
            tokens[i] = replace_metaspace(tokens[i], metaspace->replacement,
                                          i == 0 && metaspace->strip_first ? "" : " ");
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
        for (std::string& token : tokens)
            token = replace_all(replace->what, replace->with, token, scratch);
    } else {
        const auto& strip = std::get<Strip>(step);
        for (std::string& token : tokens) {
            strip_start(token, strip.content, strip.start);
            strip_end(token, strip.content, strip.stop);
        }
    }
}

std::string Decoder::decode(std::vector<std::string> tokens, RegexScratch& scratch) const {
    for (const Step& step : steps_)
        apply(step, tokens, scratch);
    std::string text;
    for (size_t i = 0; i < tokens.size(); ++i)
        text.append(join_by_space_ && i > 0 ? " " : "").append(tokens[i]);
    return text;
}

std::string Decoder::piece(std::string_view token, bool first, RegexScratch& scratch) const {
    std::string text(token);
    if (join_by_space_ && !first)
        text.insert(0, 1, ' ');
    bool fused = false;  // from here on the reference sees one text: what is said of its start holds once
    bool raw = false;    // already bytes, not to be read as a token
    for (const Step& step : steps_) {
        if (std::holds_alternative<ByteLevel>(step)) {
            text = byte_level_bytes(text);
            fused = raw = true;
        } else if (std::holds_alternative<ByteFallback>(step)) {
            if (const int byte = fallback_byte(text); byte >= 0 && !raw) {
                text.assign(1, static_cast<char>(byte));
                raw = true;
            }
        } else if (std::holds_alternative<Fuse>(step)) {
            fused = true;
        } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
            text =
                replace_metaspace(text, metaspace->replacement, first && metaspace->strip_first ? "" : " ");
        } else if (const auto* replace = std::get_if<Replace>(&step)) {
            if (!raw)
                text = replace_all(replace->what, replace->with, text, scratch);
        } else if (const auto& strip = std::get<Strip>(step); first || !fused) {
            strip_start(text, strip.content, strip.start);
            if (!fused)
                strip_end(text, strip.content, strip.stop);
        }
    }
    return text;
}

}  // namespace llm::engine
