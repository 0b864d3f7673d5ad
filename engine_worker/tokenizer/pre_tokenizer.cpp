#include "engine_worker/tokenizer/pre_tokenizer.hpp"

#include <algorithm>

#include "engine_worker/tokenizer/normalizer.hpp"

namespace llm::engine {
namespace {

// The split pattern that ByteLevel has built in (GPT-2, OpenAI's encoder.py).
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Whitespace: runs of \w as Rust's regex crate has it (UTS #18), or of what is neither that nor white space.
constexpr const char* kWordPattern =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|[^\s\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+)";
constexpr const char* kPunctuationPattern = R"([\p{P}!-/:-@\[-`{-~])";  // category P and ASCII punctuation

}  // namespace

PreTokenizer PreTokenizer::load(const JsonPart& part) {
    PreTokenizer pre;
    if (!part.is_null())
        pre.add(part, 0);
    return pre;
}

PreTokenizer::Behavior PreTokenizer::load_behavior(const JsonPart& part) {
    const std::string& name = part.string();
    if (name == "Removed")
        return Behavior::kRemoved;
    if (name == "Isolated")
        return Behavior::kIsolated;
    if (name == "MergedWithPrevious")
        return Behavior::kMergedWithPrevious;
    if (name == "MergedWithNext")
        return Behavior::kMergedWithNext;
    if (name == "Contiguous")
        return Behavior::kContiguous;
    part.fail("behavior \"" + name + "\" is not supported");
}

void PreTokenizer::add(const JsonPart& part, int depth) {
    const std::string type = part.type();
    if (byte_level_)
        part.fail("a pre-tokenizer after ByteLevel is not supported");
    Step step;
    if (type == "Sequence") {
        if (depth == kMaxSequenceDepth)
            part.fail("nested too deeply");
        const JsonPart list = part.at("pretokenizers");
        for (size_t i = 0; i < list.size(); ++i)
            add(list.at(i), depth + 1);
        return;
    }
    if (type == "ByteLevel") {
        byte_level_ = true;
        if (part.at("add_prefix_space").boolean(true)) {
            step.prefix = Prefix::kAlways;
            step.prefix_text.assign(1, ' ');
        }
        if (part.at("use_regex").boolean(true))
            step.regex.emplace(kGpt2Pattern);
        if (step.prefix == Prefix::kNever && !step.regex)
            return;
    } else if (type == "Split") {
        step.regex = load_pattern(part.at("pattern"));
        step.behavior = load_behavior(part.at("behavior"));
        step.invert = part.at("invert").boolean(false);
    } else if (type == "Metaspace") {
        step.replace_space = part.at("replacement").string();
        if (step.replace_space.empty())
            part.at("replacement").fail("must be one character");
        const JsonPart scheme = part.at("prepend_scheme");
        if (scheme.is_null())  // files older than prepend_scheme
            step.prefix = part.at("add_prefix_space").boolean(true) ? Prefix::kAlways : Prefix::kNever;
        else if (scheme.string() == "always")
            step.prefix = Prefix::kAlways;
        else if (scheme.string() == "first")
            step.prefix = Prefix::kFirst;
        else if (scheme.string() != "never")
            scheme.fail("prepend_scheme \"" + scheme.string() + "\" is not supported");
        step.prefix_text = step.replace_space;
        if (part.at("split").boolean(true)) {
            step.regex = SplitRegex::literal(step.replace_space);
            step.behavior = Behavior::kMergedWithNext;
        }
    } else if (type == "Digits") {
        step.regex.emplace("\\p{N}");
        step.behavior =
            part.at("individual_digits").boolean(false) ? Behavior::kIsolated : Behavior::kContiguous;
    } else if (type == "Whitespace") {
        step.regex.emplace(kWordPattern);
        step.behavior = Behavior::kRemoved;
        step.invert = true;
    } else if (type == "WhitespaceSplit") {
        step.regex.emplace(R"(\s)");
        step.behavior = Behavior::kRemoved;
    } else if (type == "Punctuation") {
        step.regex.emplace(kPunctuationPattern);
        const JsonPart behavior = part.at("behavior");
        step.behavior = behavior.is_null() ? Behavior::kIsolated : load_behavior(behavior);
    } else {
        part.at("type").fail("pre_tokenizer \"" + type + "\" is not supported");
    }
    steps_.push_back(std::move(step));
}

bool PreTokenizer::keeps_everything() const {
    return std::none_of(steps_.begin(), steps_.end(),
                        [](const Step& step) { return step.regex && step.behavior == Behavior::kRemoved; });
}

void PreTokenizer::split(std::string_view text, bool at_start, Scratch& scratch) const {
    scratch.texts.clear();
    scratch.pieces.clear();
    if (!text.empty())
        scratch.pieces.push_back({text, at_start});
    for (const Step& step : steps_) {
        scratch.next.clear();
        for (const Piece& piece : scratch.pieces) {
            const Piece rewritten{rewrite(step, piece, scratch), piece.at_start};
            if (step.regex)
                cut(step, rewritten, scratch, scratch.next);
            else
                scratch.next.push_back(rewritten);
        }
        std::swap(scratch.pieces, scratch.next);
    }
}

std::string_view PreTokenizer::rewrite(const Step& step, const Piece& piece, Scratch& scratch) {
    const bool spaces = !step.replace_space.empty() && piece.text.find(' ') != std::string_view::npos;
    const std::string_view first = spaces && piece.text[0] == ' ' ? step.replace_space : piece.text;
    const bool wanted = step.prefix == Prefix::kAlways || (step.prefix == Prefix::kFirst && piece.at_start);
    const bool prefix = wanted && first.substr(0, step.prefix_text.size()) != step.prefix_text;
    if (!spaces && !prefix)
        return piece.text;
    std::string& out = scratch.texts.emplace_back(prefix ? step.prefix_text : "");
    out.reserve(piece.text.size() + (spaces ? piece.text.size() / 2 : 0) + step.prefix_text.size());
    if (!spaces)
        return out.append(piece.text);
    for (char c : piece.text) {
        if (c == ' ')
            out += step.replace_space;
        else
            out += c;
    }
    return out;
}

void PreTokenizer::cut(const Step& step, Piece piece, Scratch& scratch, std::vector<Piece>& out) {
    const std::string_view text = piece.text;
    auto emit = [&](size_t begin, size_t end) {
        if (begin < end)
            out.push_back({text.substr(begin, end - begin), piece.at_start && begin == 0});
    };
    SplitRegex::Match match;
    SplitRegex::Walk walk(*step.regex, text, scratch.regex);
    size_t done = 0;
    if (step.behavior == Behavior::kIsolated) {  // the common case needs no list of spans
        while (walk.next(match)) {
            emit(done, match.begin);
            emit(match.begin, match.end);
            done = match.end;
        }
        return emit(done, text.size());
    }

    auto& spans = scratch.spans;
    spans.clear();
    while (walk.next(match)) {
        if (done != match.begin)
            spans.push_back({done, match.begin, step.invert});
        spans.push_back({match.begin, match.end, !step.invert});
        done = match.end;
    }
    if (done != text.size())
        spans.push_back({done, text.size(), step.invert});

    // The three merging rules are one walk over the spans: `join` says that span i goes with the one before
    // it.
    size_t begin = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
        if (step.behavior == Behavior::kRemoved) {
            if (!spans[i].match)
                emit(spans[i].begin, spans[i].end);
            continue;
        }
        bool join = false;
        if (i > 0) {
            const bool before = spans[i - 1].match, here = spans[i].match;
            join = step.behavior == Behavior::kContiguous           ? before == here
                   : step.behavior == Behavior::kMergedWithPrevious ? here && !before
                                                                    : before && !here;
        }
        if (!join && i > 0)
            emit(begin, spans[i - 1].end);
        if (!join)
            begin = spans[i].begin;
    }
    if (step.behavior != Behavior::kRemoved && !spans.empty())
        emit(begin, spans.back().end);
}

}  // namespace llm::engine
