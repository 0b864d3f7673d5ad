#include "engine_worker/grammar/char_set.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <utility>

#include "shared/hex.hpp"

namespace llm::engine {
namespace {

constexpr uint32_t kMaxChar = 0x10ffff;
constexpr uint32_t kReplacement = 0xfffd;

int encode(uint32_t c, std::array<uint8_t, 4>& out) {
    if (c < 0x80) {
        out[0] = static_cast<uint8_t>(c);
        return 1;
    }
    const int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; --i) {
        out[static_cast<size_t>(i)] = static_cast<uint8_t>(0x80 | (c & 0x3f));
        c >>= 6;
    }
    constexpr std::array<uint8_t, 5> kLead = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = static_cast<uint8_t>(kLead[static_cast<size_t>(n)] | c);
    return n;
}

// Splits ranges until every byte position is a range of its own (the method of Russ Cox's RE2), sharing the
// nodes behind the lead bytes.
class Utf8Edges {
  public:
    Utf8Edges(GrammarBuilder& builder, int32_t from, int32_t to) : builder_(builder), from_(from), to_(to) {}

    void add(uint32_t low, uint32_t high) {
        constexpr std::array<uint32_t, 3> kLast = {0x7f, 0x7ff, 0xffff};
        for (const uint32_t last : kLast) {
            if (low <= last && high > last) {
                add(low, last);
                return add(last + 1, high);
            }
        }
        if (high < 0x80) {
            return builder_.byte(from_, static_cast<uint8_t>(low), static_cast<uint8_t>(high), to_);
        }
        for (int bits = 6; bits <= 18; bits += 6) {  // make the last bytes run through whole 80..bf
            const uint32_t mask = (1U << bits) - 1;
            if ((low & ~mask) != (high & ~mask)) {
                if ((low & mask) != 0) {
                    add(low, low | mask);
                    return add((low | mask) + 1, high);
                }
                if ((high & mask) != mask) {
                    add(low, (high & ~mask) - 1);
                    return add(high & ~mask, high);
                }
            }
        }
        std::array<uint8_t, 4> first{}, last{};
        const int n = encode(low, first);
        encode(high, last);
        int32_t target = to_;
        for (int i = n - 1; i > 0; --i) {
            target = tail(first[static_cast<size_t>(i)], last[static_cast<size_t>(i)], target);
        }
        builder_.byte(from_, first[0], last[0], target);
    }

  private:
    int32_t tail(uint8_t low, uint8_t high, int32_t target) {
        const auto [at, fresh] = tails_.try_emplace({low, high, target}, 0);
        if (fresh) {
            at->second = builder_.add_node(builder_.rule_of(from_));
            builder_.byte(at->second, low, high, target);
        }
        return at->second;
    }

    GrammarBuilder& builder_;
    int32_t from_, to_;
    std::map<std::tuple<uint8_t, uint8_t, int32_t>, int32_t> tails_;
};

const CharSet& needs_escape() {
    static const CharSet set = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
    return set;
}

std::string escaped(uint32_t c) {
    switch (c) {
        case '"':
            return "\\\"";
        case '\\':
            return "\\\\";
        case '\b':
            return "\\b";
        case '\f':
            return "\\f";
        case '\n':
            return "\\n";
        case '\r':
            return "\\r";
        case '\t':
            return "\\t";
        default:
            break;
    }
    return std::string("\\u00") + hex_digit(c >> 4) + hex_digit(c);
}

}  // namespace

CharSet::CharSet(std::initializer_list<CharRange> ranges) {
    for (const CharRange& range : ranges) {
        add(range.low, range.high);
    }
}

CharSet CharSet::all() {
    return {{0, 0xd7ff}, {0xe000, kMaxChar}};
}

void CharSet::add(uint32_t low, uint32_t high) {
    // Those that overlap the new one or touch it become one with it.
    const auto begin =
        std::lower_bound(ranges_.begin(), ranges_.end(), low,
                         [](const CharRange& range, uint32_t c) { return range.high + 1 < c; });
    auto end = begin;
    for (; end != ranges_.end() && end->low <= high + 1; ++end) {
        low = std::min(low, end->low);
        high = std::max(high, end->high);
    }
    if (begin == end) {
        ranges_.insert(begin, {low, high});
    } else {
        *begin = {low, high};
        ranges_.erase(begin + 1, end);
    }
}

void CharSet::add(const CharSet& other) {
    for (const CharRange& range : other.ranges_) {
        add(range.low, range.high);
    }
}

CharSet CharSet::complement() const {
    return all().without(*this);
}

CharSet CharSet::without(const CharSet& other) const {
    CharSet out;
    for (CharRange range : ranges_) {
        bool left = true;
        for (const CharRange& hole : other.ranges_) {
            if (hole.high < range.low || hole.low > range.high) {
                continue;
            }
            if (hole.low > range.low) {
                out.ranges_.push_back({range.low, hole.low - 1});
            }
            if (hole.high >= range.high) {
                left = false;
                break;
            }
            range.low = hole.high + 1;
        }
        if (left) {
            out.ranges_.push_back(range);
        }
    }
    return out;
}

bool CharSet::contains(uint32_t c) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [c](const CharRange& range) { return range.low <= c && c <= range.high; });
}

std::vector<uint32_t> code_points(std::string_view text) {
    std::vector<uint32_t> out;
    for (size_t i = 0; i < text.size();) {
        const auto lead = static_cast<uint8_t>(text[i]);
        const size_t n = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
        uint32_t c = n == 1 ? lead : lead & (0x7fU >> n);
        bool valid = n > 0 && i + n <= text.size();
        for (size_t k = 1; valid && k < n; ++k) {
            const auto tail = static_cast<uint8_t>(text[i + k]);
            valid = (tail & 0xc0) == 0x80;
            c = c << 6 | (tail & 0x3f);
        }
        std::array<uint8_t, 4> again{};
        valid =
            valid && c <= kMaxChar && (c < 0xd800 || c > 0xdfff) && encode(c, again) == static_cast<int>(n);
        out.push_back(valid ? c : kReplacement);
        i += valid ? n : 1;
    }
    return out;
}

void add_utf8(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to) {
    Utf8Edges edges(builder, from, to);
    for (const CharRange& range : set.ranges()) {
        edges.add(range.low, range.high);
    }
}

void add_json_char(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to) {
    const CharSet plain = set.without(needs_escape());
    add_utf8(builder, from, plain, to);
    int32_t escape = -1;
    for (const CharRange& special : needs_escape().ranges()) {
        for (uint32_t c = special.low; c <= special.high; ++c) {
            const std::string text = set.contains(c) ? escaped(c) : "";
            if (text.size() == 2) {
                if (escape < 0) {
                    escape = builder.literal(from, "\\");
                }
                builder.byte(escape, static_cast<uint8_t>(text[1]), static_cast<uint8_t>(text[1]), to);
            } else if (!text.empty() && plain.empty()) {
                // Rare control characters only where nothing else is meant: they would cost six states each
                // in every negated class.
                builder.epsilon(builder.literal(from, text), to);
            }
        }
    }
}

std::string json_quoted(std::string_view text) {
    std::string out = "\"";
    for (const uint32_t c : code_points(text)) {
        if (needs_escape().contains(c)) {
            out += escaped(c);
        } else {
            std::array<uint8_t, 4> bytes{};
            const int n = encode(c, bytes);
            out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(n));
        }
    }
    return out + '"';
}

}  // namespace llm::engine
