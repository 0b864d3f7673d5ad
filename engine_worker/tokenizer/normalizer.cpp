#include "engine_worker/tokenizer/normalizer.hpp"

namespace llm::engine {

SplitRegex load_pattern(const JsonPart& part) {
    if (part.is_string())
        return SplitRegex::literal(part.string());
    if (const JsonPart text = part.at("String"); !text.is_null())
        return SplitRegex::literal(text.string());
    const JsonPart regex = part.at("Regex");
    if (regex.is_null())
        part.fail("must hold \"String\" or \"Regex\"");
    try {
        return SplitRegex(regex.string());
    } catch (const std::runtime_error& error) {
        regex.fail(error.what());
    }
}

Normalizer Normalizer::load(const JsonPart& part) {
    Normalizer normalizer;
    if (!part.is_null())
        normalizer.add(part, 0);
    return normalizer;
}

void Normalizer::add(const JsonPart& part, int depth) {
    using unicode::NormalForm;
    const std::string type = part.type();
    if (type == "Sequence") {
        if (depth == kMaxSequenceDepth)
            part.fail("nested too deeply");
        const JsonPart list = part.at("normalizers");
        for (size_t i = 0; i < list.size(); ++i)
            add(list.at(i), depth + 1);
    } else if (type == "NFC") {
        steps_.push_back(NormalForm::kNfc);
    } else if (type == "NFD") {
        steps_.push_back(NormalForm::kNfd);
    } else if (type == "NFKC") {
        steps_.push_back(NormalForm::kNfkc);
    } else if (type == "NFKD") {
        steps_.push_back(NormalForm::kNfkd);
    } else if (type == "Lowercase") {
        steps_.push_back(Lowercase{});
    } else if (type == "Strip") {
        steps_.push_back(Strip{part.at("strip_left").boolean(true), part.at("strip_right").boolean(true)});
    } else if (type == "Prepend") {
        steps_.push_back(Prepend{part.at("prepend").string()});
    } else if (type == "Replace") {
        steps_.push_back(Replace{load_pattern(part.at("pattern")), part.at("content").string()});
    } else {
        part.at("type").fail("normalizer \"" + type + "\" is not supported");
    }
}

std::string Normalizer::apply(std::string_view input, RegexScratch& scratch) const {
    std::string text(input);
    for (const Step& step : steps_) {
        if (const auto* form = std::get_if<unicode::NormalForm>(&step)) {
            text = unicode::normalize(text, *form);
        } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
            if (!text.empty())
                text.insert(0, prepend->text);
        } else if (std::holds_alternative<Lowercase>(step)) {
            text = unicode::to_lower(text);
        } else if (const auto* strip = std::get_if<Strip>(&step)) {
            if (strip->right)
                text.erase(unicode::trailing_space_begin(text));
            if (strip->left)
                text.erase(0, unicode::leading_space_length(text));
        } else {
            const auto& replace = std::get<Replace>(step);
            std::string out;
            out.reserve(text.size() + text.size() / 4);
            SplitRegex::Match match;
            size_t done = 0;
            for (SplitRegex::Walk walk(replace.what, text, scratch); walk.next(match); done = match.end)
                out.append(text, done, match.begin - done).append(replace.with);
            text = out.append(text, done);
        }
    }
    return text;
}

}  // namespace llm::engine
