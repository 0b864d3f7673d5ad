#include "engine_worker/grammar/regex.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace llm::engine {
namespace {

constexpr size_t kMaxStates = 20'000;
constexpr size_t kMaxLength = 100'000;  // of a pattern, in characters
constexpr int kMaxDepth = 100;
constexpr int32_t kMaxCount = 10'000;  // of a quantifier

const CharSet kDigit = {{'0', '9'}};
const CharSet kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
// White_Space and line ends of ECMA-262.
const CharSet kSpace = {{0x09, 0x0d},     {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680},
                        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                        {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const CharSet kLineEnd = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

struct Term;
using TermPtr = std::unique_ptr<Term>;

struct Term {
    enum class Kind : uint8_t { chars, sequence, choice, repeat } kind = Kind::sequence;
    CharSet chars;
    std::vector<TermPtr> parts;  // sequence, choice; the body of repeat
    int32_t min = 0, max = 0;
};

TermPtr make_term(Term::Kind kind) {
    auto term = std::make_unique<Term>();
    term->kind = kind;
    return term;
}

TermPtr make_repeat(TermPtr body, int32_t min, int32_t max) {
    TermPtr term = make_term(Term::Kind::repeat);
    term->parts.push_back(std::move(body));
    term->min = min;
    term->max = max;
    return term;
}

class RegexParser {
  public:
    explicit RegexParser(std::string_view pattern) : text_(code_points(pattern)) {}

    TermPtr parse() {
        if (text_.size() > kMaxLength) {
            fail("it is longer than " + std::to_string(kMaxLength) + " characters");
        }
        TermPtr all = make_term(Term::Kind::choice);
        do {
            all->parts.push_back(top_alternative());
        } while (take('|'));
        if (!done()) {
            fail("there is a ')' too many");
        }
        return all;
    }

  private:
    [[noreturn]] static void fail(const std::string& why) { throw GrammarError("its pattern: " + why); }

    bool done() const { return at_ >= text_.size(); }
    uint32_t peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : 0; }
    bool is(uint32_t c) const { return !done() && peek() == c; }
    bool take(uint32_t c) {
        if (!is(c)) {
            return false;
        }
        ++at_;
        return true;
    }
    uint32_t next() {
        if (done()) {
            fail("it ends in the middle");
        }
        return text_[at_++];
    }

    static TermPtr anything() {
        TermPtr any = make_term(Term::Kind::chars);
        any->chars = CharSet::all();
        return make_repeat(std::move(any), 0, kUnbounded);
    }

    TermPtr top_alternative() {
        TermPtr out = make_term(Term::Kind::sequence);
        if (!take('^')) {
            out->parts.push_back(anything());
        }
        out->parts.push_back(sequence());
        if (!take('$')) {
            out->parts.push_back(anything());
        } else if (!done() && !is('|')) {
            fail("'$' is only supported at the end of the pattern or of a top-level alternative");
        }
        return out;
    }

    TermPtr choice() {
        if (++depth_ > kMaxDepth) {
            fail("groups are nested more than " + std::to_string(kMaxDepth) + " deep");
        }
        TermPtr all = make_term(Term::Kind::choice);
        do {
            all->parts.push_back(sequence());
            if (is('$')) {
                fail("'$' inside a group is not supported");
            }
        } while (take('|'));
        --depth_;
        return all;
    }

    TermPtr sequence() {
        TermPtr out = make_term(Term::Kind::sequence);
        while (!done() && !is('|') && !is(')') && !is('$')) {
            out->parts.push_back(quantified());
        }
        return out;
    }

    TermPtr quantified() {
        TermPtr term = atom();
        int32_t min = 1;
        int32_t max = 1;
        if (take('*')) {
            min = 0;
            max = kUnbounded;
        } else if (take('+')) {
            max = kUnbounded;
        } else if (take('?')) {
            min = 0;
        } else if (is('{') && counts(min, max)) {
        } else {
            return term;
        }
        take('?');  // lazy: the same strings
        if (is('*') || is('+') || is('?')) {
            fail("a quantifier follows a quantifier");
        }
        return make_repeat(std::move(term), min, max);
    }

    std::optional<int32_t> number() {
        if (done() || !kDigit.contains(peek())) {
            return std::nullopt;
        }
        int32_t value = 0;
        while (!done() && kDigit.contains(peek())) {
            value = value * 10 + static_cast<int32_t>(next() - '0');
            if (value > kMaxCount) {
                fail("a quantifier above " + std::to_string(kMaxCount) + " is not supported");
            }
        }
        return value;
    }

    bool counts(int32_t& min, int32_t& max) {
        ++at_;
        const auto low = number();
        if (!low.has_value()) {
            fail("'{' must be escaped where it is no quantifier");
        }
        min = max = *low;
        if (take(',')) {
            max = number().value_or(kUnbounded);
        }
        if (!take('}') || min > max) {
            fail("a quantifier is malformed");
        }
        return true;
    }

    TermPtr atom() {
        const uint32_t c = next();
        TermPtr term = make_term(Term::Kind::chars);
        switch (c) {
            case '(':
                return group();
            case '[':
                term->chars = char_class();
                return term;
            case '.':
                term->chars = kLineEnd.complement();
                return term;
            case '\\':
                term->chars = escape(false);
                return term;
            case '^':
                fail("'^' is only supported at the start of the pattern or of a top-level alternative");
            case '*':
            case '+':
            case '?':
            case '{':
                fail("there is nothing to repeat");
            default:
                term->chars.add(c, c);
                return term;
        }
    }

    TermPtr group() {
        if (take('?')) {
            const uint32_t kind = next();
            if (kind == '<' && peek() != '=' && peek() != '!') {
                while (next() != '>') {
                }
            } else if (kind != ':') {
                fail("look-ahead, look-behind and flags are not supported");
            }
        }
        TermPtr inner = choice();
        if (!take(')')) {
            fail("a group is not closed");
        }
        return inner;
    }

    uint32_t hex(int digits) {
        uint32_t value = 0;
        for (int i = 0; i < digits; ++i) {
            const uint32_t c = next();
            const uint32_t digit = kDigit.contains(c)                   ? c - '0'
                                   : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                                        : 16;
            if (digit > 15) {
                fail("an escape lacks hexadecimal digits");
            }
            value = value << 4 | digit;
        }
        return value;
    }

    uint32_t unicode_escape() {
        uint32_t value = 0;
        if (take('{')) {
            while (!take('}')) {
                value = value << 4 | hex(1);
                if (value > 0x10ffff) {
                    fail("an escape is above U+10FFFF");
                }
            }
        } else {
            value = hex(4);
            if (value >= 0xd800 && value < 0xdc00 && peek() == '\\' && peek(1) == 'u') {
                at_ += 2;
                value = 0x10000 + ((value - 0xd800) << 10) + (hex(4) - 0xdc00);
            }
        }
        if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
            fail("an escape is no character");
        }
        return value;
    }

    CharSet escape(bool in_class) {
        const uint32_t c = next();
        const auto one = [](uint32_t value) { return CharSet{{value, value}}; };
        switch (c) {
            case 'd':
                return kDigit;
            case 'D':
                return kDigit.complement();
            case 'w':
                return kWord;
            case 'W':
                return kWord.complement();
            case 's':
                return kSpace;
            case 'S':
                return kSpace.complement();
            case 't':
                return one('\t');
            case 'n':
                return one('\n');
            case 'r':
                return one('\r');
            case 'f':
                return one('\f');
            case 'v':
                return one('\v');
            case '0':
                return one(0);
            case 'x':
                return one(hex(2));
            case 'u':
                return one(unicode_escape());
            case 'b':
                if (in_class) {
                    return one('\b');
                }
                break;
            default:
                if (!kWord.contains(c)) {
                    return one(c);
                }
        }
        fail(std::string("'\\") + static_cast<char>(c < 0x80 ? c : '?') + "' is not supported");
    }

    CharSet char_class() {
        const bool negated = take('^');
        CharSet out;
        while (!take(']')) {
            const CharSet low = class_atom();
            if (is('-') && peek(1) != ']') {
                ++at_;
                const CharSet high = class_atom();
                const bool single = low.ranges().size() == 1 && high.ranges().size() == 1 &&
                                    low.ranges()[0].low == low.ranges()[0].high &&
                                    high.ranges()[0].low == high.ranges()[0].high;
                if (!single || low.ranges()[0].low > high.ranges()[0].low) {
                    fail("a range of a class is malformed");
                }
                out.add(low.ranges()[0].low, high.ranges()[0].low);
            } else {
                out.add(low);
            }
        }
        return negated ? out.complement() : out;
    }

    CharSet class_atom() {
        const uint32_t c = next();
        return c == '\\' ? escape(true) : CharSet{{c, c}};
    }

    std::vector<uint32_t> text_;
    size_t at_ = 0;
    int depth_ = 0;
};

// Thompson's construction.
class AutomatonBuilder {
  public:
    CharAutomaton build(const Term& term) {
        const int32_t start = add();
        const int32_t last = emit(term, start);
        out_.states[static_cast<size_t>(last)].end = true;
        return std::move(out_);
    }

  private:
    int32_t add() {
        if (out_.states.size() >= kMaxStates) {
            throw GrammarError("its pattern needs more than " + std::to_string(kMaxStates) + " states");
        }
        out_.states.emplace_back();
        return static_cast<int32_t>(out_.states.size()) - 1;
    }
    void epsilon(int32_t from, int32_t to) { out_.states[static_cast<size_t>(from)].epsilon.push_back(to); }

    int32_t emit(const Term& term, int32_t from) {
        switch (term.kind) {
            case Term::Kind::chars: {
                const int32_t to = add();
                out_.states[static_cast<size_t>(from)].edges.push_back({term.chars, to});
                return to;
            }
            case Term::Kind::sequence:
                for (const TermPtr& part : term.parts) {
                    from = emit(*part, from);
                }
                return from;
            case Term::Kind::choice: {
                if (term.parts.size() == 1) {
                    return emit(*term.parts[0], from);
                }
                const int32_t to = add();
                for (const TermPtr& part : term.parts) {
                    const int32_t begin = add();
                    epsilon(from, begin);
                    epsilon(emit(*part, begin), to);
                }
                return to;
            }
            case Term::Kind::repeat:
                return emit_repeat(term, from);
        }
        return from;
    }

    int32_t emit_repeat(const Term& term, int32_t from) {
        const Term& body = *term.parts[0];
        for (int32_t i = 0; i < term.min; ++i) {
            from = emit(body, from);
        }
        const int32_t to = add();
        if (term.max == kUnbounded) {
            const int32_t loop = add();
            epsilon(from, loop);
            epsilon(emit(body, loop), loop);
            epsilon(loop, to);
            return to;
        }
        for (int32_t i = term.min; i < term.max; ++i) {
            epsilon(from, to);
            from = emit(body, from);
        }
        epsilon(from, to);
        return to;
    }

    CharAutomaton out_;
};

}  // namespace

CharAutomaton parse_regex(std::string_view pattern) {
    return AutomatonBuilder().build(*RegexParser(pattern).parse());
}

void add_json_text(GrammarBuilder& builder, int32_t from, const CharAutomaton& automaton, int32_t min,
                   int32_t max, int32_t to) {
    const int32_t rule = builder.rule_of(from);
    // Characters are counted up to `top`; without a maximum they need not be told apart beyond `min`.
    const int32_t top = max == kUnbounded ? min : max;
    std::map<std::pair<int32_t, int32_t>, int32_t> nodes;  // (state, count) → node
    std::vector<std::pair<int32_t, int32_t>> todo;
    const auto node_of = [&](int32_t state, int32_t count) {
        const auto [at, fresh] = nodes.try_emplace({state, count}, -1);
        if (fresh) {
            at->second = builder.add_node(rule);
            todo.emplace_back(state, count);
        }
        return at->second;
    };
    builder.epsilon(from, node_of(0, 0));
    while (!todo.empty()) {
        const auto [state, count] = todo.back();
        todo.pop_back();
        const int32_t node = nodes.at({state, count});
        const auto& at = automaton.states[static_cast<size_t>(state)];
        if (at.end && count >= min) {
            builder.epsilon(node, to);
        }
        for (const int32_t target : at.epsilon) {
            builder.epsilon(node, node_of(target, count));
        }
        if (count == top && max != kUnbounded) {
            continue;
        }
        for (const auto& edge : at.edges) {
            add_json_char(builder, node, edge.on, node_of(edge.target, std::min(count + 1, top)));
        }
    }
}

}  // namespace llm::engine
