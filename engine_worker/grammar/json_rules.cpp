#include "engine_worker/grammar/json_rules.hpp"

#include <map>
#include <utility>

#include "engine_worker/grammar/decimal_range.hpp"

namespace llm::engine {
namespace {

constexpr int kMaxIndent = 20;
constexpr int kMaxExponentDigits = 2;

const CharSet kUnescaped = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0xd7ff}, {0xe000, 0x10ffff}};

// Names as a tree of characters, for other_name().
struct NameTree {
    std::map<uint32_t, NameTree> children;
    bool is_name = false;

    void add(const std::vector<uint32_t>& name) {
        NameTree* at = this;
        for (const uint32_t c : name) {
            at = &at->children[c];
        }
        at->is_name = true;
    }
};

}  // namespace

int32_t JsonRules::space() {
    if (space_ < 0) {
        space_ = builder_.add_rule();
        const int32_t start = builder_.start(space_);
        const int32_t done = builder_.add_node(space_);
        builder_.end(start);
        builder_.end(done);
        builder_.byte(start, ' ', ' ', done);
        int32_t at = builder_.literal(start, "\n");
        for (int i = 0; i < kMaxIndent; ++i) {
            builder_.end(at);
            const int32_t next = builder_.add_node(space_);
            builder_.byte(at, ' ', ' ', next);
            builder_.byte(at, '\t', '\t', next);
            at = next;
        }
        builder_.end(at);
    }
    return space_;
}

// \uD800 to \uDFFF only as a pair: a lone surrogate is no character.
void JsonRules::add_escapes(int32_t from, int32_t to) {
    const int32_t rule = builder_.rule_of(from);
    const int32_t escape = builder_.literal(from, "\\");
    for (const char c : std::string_view("\"\\/bfnrt")) {
        builder_.byte(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    }
    const auto hex = [&](int32_t at, std::string_view allowed, int32_t next) {
        for (const char c : allowed) {
            builder_.byte(at, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
        }
    };
    constexpr std::string_view kHex = "0123456789abcdefABCDEF";
    const int32_t last = builder_.add_node(rule);
    const int32_t third = builder_.add_node(rule);
    const int32_t second = builder_.add_node(rule);
    hex(last, kHex, to);
    hex(third, kHex, last);
    hex(second, kHex, third);
    const int32_t unicode = builder_.literal(escape, "u");
    hex(unicode, "0123456789abcefABCEF", second);
    const int32_t behind_d = builder_.add_node(rule);
    hex(unicode, "dD", behind_d);
    hex(behind_d, "01234567", third);
    const int32_t high1 = builder_.add_node(rule);
    const int32_t high2 = builder_.add_node(rule);
    const int32_t high3 = builder_.add_node(rule);
    hex(behind_d, "89abAB", high1);
    hex(high1, kHex, high2);
    hex(high2, kHex, high3);
    const int32_t low = builder_.literal(high3, "\\u");
    const int32_t low1 = builder_.add_node(rule);
    hex(low, "dD", low1);
    hex(low1, "cdefCDEF", third);
}

int32_t JsonRules::string_char() {
    if (string_char_ < 0) {
        string_char_ = builder_.add_rule();
        const int32_t start = builder_.start(string_char_);
        const int32_t done = builder_.add_node(string_char_);
        builder_.end(done);
        add_utf8(builder_, start, kUnescaped, done);
        add_escapes(start, done);
    }
    return string_char_;
}

int32_t JsonRules::string() {
    if (string_ < 0) {
        string_ = builder_.add_rule();
        const int32_t inside = builder_.literal(builder_.start(string_), "\"");
        add_utf8(builder_, inside, kUnescaped, inside);
        add_escapes(inside, inside);
        builder_.end(builder_.literal(inside, "\""));
    }
    return string_;
}

// One to `most` digits; every way leads to `done`.
void JsonRules::digits(int32_t from, int most, int32_t done) {
    int32_t at = from;
    for (int i = 0; i < most; ++i) {
        const int32_t next = builder_.add_node(builder_.rule_of(from));
        builder_.byte(at, '0', '9', next);
        builder_.epsilon(next, done);
        at = next;
    }
}

int32_t JsonRules::integer() {
    if (integer_ < 0) {
        integer_ = builder_.add_rule();
        const int32_t done = builder_.add_node(integer_);
        builder_.end(done);
        add_decimal_range(builder_, builder_.start(integer_), std::nullopt, std::nullopt, false, done);
    }
    return integer_;
}

int32_t JsonRules::number() {
    if (number_ < 0) {
        number_ = builder_.add_rule();
        const int32_t start = builder_.start(number_);
        const int32_t whole = builder_.add_node(number_);
        const int32_t scaled = builder_.add_node(number_);
        const int32_t done = builder_.add_node(number_);
        const int32_t unsigned_part = builder_.literal(start, "-");
        builder_.epsilon(start, unsigned_part);
        builder_.byte(unsigned_part, '0', '0', whole);
        const int32_t first = builder_.add_node(number_);
        builder_.byte(unsigned_part, '1', '9', first);
        builder_.epsilon(first, whole);
        digits(first, kMaxIntegerDigits - 1, whole);
        builder_.epsilon(whole, scaled);
        digits(builder_.literal(whole, "."), kMaxFractionDigits, scaled);
        builder_.epsilon(scaled, done);
        const int32_t exponent = builder_.add_node(number_);
        builder_.byte(scaled, 'e', 'e', exponent);
        builder_.byte(scaled, 'E', 'E', exponent);
        const int32_t power = builder_.add_node(number_);
        builder_.epsilon(exponent, power);
        builder_.byte(exponent, '+', '+', power);
        builder_.byte(exponent, '-', '-', power);
        digits(power, kMaxExponentDigits, done);
        builder_.end(done);
    }
    return number_;
}

int32_t JsonRules::boolean() {
    if (boolean_ < 0) {
        boolean_ = builder_.add_rule();
        builder_.end(builder_.literal(builder_.start(boolean_), "true"));
        builder_.end(builder_.literal(builder_.start(boolean_), "false"));
    }
    return boolean_;
}

int32_t JsonRules::null() {
    if (null_ < 0) {
        null_ = builder_.add_rule();
        builder_.end(builder_.literal(builder_.start(null_), "null"));
    }
    return null_;
}

int32_t JsonRules::any() {
    if (any_ < 0) {
        any_ = builder_.add_rule();
        const int32_t done = builder_.add_node(any_);
        builder_.end(done);
        for (const int32_t rule : {object(), array(), string(), number(), boolean(), null()}) {
            builder_.call(builder_.start(any_), rule, done);
        }
    }
    return any_;
}

// From behind the opening bracket: nothing, or members parted by commas; then the closing one.
int32_t JsonRules::members(int32_t from, int32_t member, char close) {
    const int32_t behind = builder_.then(builder_.then(from, space()), member);
    const int32_t next = builder_.then(builder_.literal(behind, ","), space());
    builder_.call(next, member, behind);
    const int32_t done = builder_.literal(builder_.then(behind, space()), std::string(1, close));
    builder_.byte(from, static_cast<uint8_t>(close), static_cast<uint8_t>(close), done);
    return done;
}

int32_t JsonRules::object() {
    if (object_ < 0) {
        object_ = builder_.add_rule();
        const int32_t member = builder_.add_rule();
        int32_t at = builder_.literal(builder_.then(builder_.start(member), string()), ":");
        at = builder_.then(at, space());
        builder_.end(builder_.then(at, any()));
        builder_.end(members(builder_.literal(builder_.start(object_), "{"), member, '}'));
    }
    return object_;
}

int32_t JsonRules::array() {
    if (array_ < 0) {
        array_ = builder_.add_rule();
        builder_.end(members(builder_.literal(builder_.start(array_), "["), any(), ']'));
    }
    return array_;
}

int32_t JsonRules::literal(int32_t from, const OrderedJson& value) {
    if (value.is_string()) {
        return builder_.literal(from, json_quoted(value.get_ref<const std::string&>()));
    }
    if (!value.is_structured()) {
        return builder_.literal(from, value.dump());
    }
    const char close = value.is_object() ? '}' : ']';
    from = builder_.literal(from, value.is_object() ? "{" : "[");
    bool first = true;
    for (const auto& [key, member] : value.items()) {
        from = builder_.then(first ? from : builder_.literal(from, ","), space());
        if (value.is_object()) {
            from = builder_.then(builder_.literal(from, json_quoted(key) + ":"), space());
        }
        from = literal(from, member);
        first = false;
    }
    return builder_.literal(first ? from : builder_.then(from, space()), std::string(1, close));
}

int32_t JsonRules::other_name(int32_t from, const std::set<std::string>& names) {
    const int32_t rule = builder_.rule_of(from);
    NameTree tree;
    for (const std::string& name : names) {
        tree.add(code_points(name));
    }
    const int32_t different = builder_.add_node(rule);  // what was read begins no name
    const int32_t done = builder_.literal(different, "\"");
    add_utf8(builder_, different, kUnescaped, different);
    std::vector<std::pair<const NameTree*, int32_t>> todo = {{&tree, builder_.literal(from, "\"")}};
    while (!todo.empty()) {
        const auto [at, node] = todo.back();
        todo.pop_back();
        CharSet branches;
        for (const auto& [c, child] : at->children) {
            const CharSet one = {{c, c}};
            if (!kUnescaped.contains(c)) {
                continue;  // it would need an escape
            }
            branches.add(one);
            const int32_t to = builder_.add_node(rule);
            add_utf8(builder_, node, one, to);
            todo.emplace_back(&child, to);
        }
        add_utf8(builder_, node, kUnescaped.without(branches), different);
        if (!at->is_name) {
            builder_.byte(node, '"', '"', done);
        }
    }
    return done;
}

}  // namespace llm::engine
