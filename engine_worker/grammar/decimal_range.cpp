#include "engine_worker/grammar/decimal_range.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <compare>
#include <map>
#include <utility>

namespace llm::engine {
namespace {

Decimal parse_decimal(std::string_view text) {
    Decimal out;
    if (text.starts_with('-')) {
        out.negative = true;
        text.remove_prefix(1);
    }
    const size_t point = std::min(text.find('.'), text.size());
    out.integer = text.substr(0, point);
    if (point < text.size()) {
        out.fraction = text.substr(point + 1);
        out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
    }
    if (out.integer == "0" && out.fraction.empty()) {
        out.negative = false;
    }
    return out;
}

bool less_magnitude(const Decimal& a, const Decimal& b) {
    if (a.integer.size() != b.integer.size()) {
        return a.integer.size() < b.integer.size();
    }
    return a.integer != b.integer ? a.integer < b.integer : a.fraction < b.fraction;
}

// Numbers without sign, from one bound's magnitude to the other's.
class MagnitudeRange {
  public:
    MagnitudeRange(GrammarBuilder& builder, const std::optional<Bound>& low, const std::optional<Bound>& high,
                   bool fraction, int32_t to, const std::optional<Multiple>& of)
        : builder_(builder),
          low_(low),
          high_(high),
          fraction_(fraction && (!of || of->digits > 0)),
          to_(to),
          of_(of) {}

    void add(int32_t from) {
        const size_t shortest = low_ ? low_->value.integer.size() : 1;
        size_t longest = kMaxIntegerDigits;
        bool open = true;
        if (high_ && high_->value.integer.size() <= longest) {
            longest = high_->value.integer.size();
            open = false;
        } else if (of_ && of_->unit > 1) {  // whose every digit is as many nodes as there are remainders
            longest = std::min(longest, std::max<size_t>(10, shortest + 1));
        }
        for (size_t n = shortest; n <= longest; ++n) {
            length_ = n;
            nodes_.clear();
            const bool at_low = low_ && n == low_->value.integer.size();
            const bool at_high = !open && n == high_->value.integer.size();
            integer(from, {0, at_low, at_high, 0});
        }
    }

  private:
    static int digit(const std::string& text, size_t i) { return i < text.size() ? text[i] - '0' : 0; }

    // What was read: so many digits of the part before the point, or of that behind it. They equal the
    // bound's beginning (`at_low`, `at_high`) or are safely inside; `rest` is what they leave when divided by
    // the unit.
    struct Read {
        size_t at;
        bool at_low, at_high;
        uint32_t rest;
        auto operator<=>(const Read&) const = default;
    };

    bool may_end(const Read& read, size_t fraction_digits) const {
        const auto rest = [&](const Bound& bound) { return bound.value.fraction.size() > fraction_digits; };
        const bool low_ok = !read.at_low || (!rest(*low_) && !low_->exclusive);
        const bool high_ok = !read.at_high || rest(*high_) || !high_->exclusive;
        return low_ok && high_ok && (!of_ || of_->holds(read.rest, fraction_digits));
    }

    int32_t node_of(int phase, const Read& read, bool& fresh, int32_t from) {
        const auto [found, inserted] = nodes_.try_emplace({phase, read}, -1);
        if (inserted) {
            found->second = builder_.add_node(builder_.rule_of(from));
        }
        fresh = inserted;
        return found->second;
    }

    void integer(int32_t from, const Read& read) {
        if (read.at == length_) {
            if (may_end(read, 0)) {
                builder_.epsilon(from, to_);
            }
            if (fraction_) {
                bool fresh = false;
                const Read none = {0, read.at_low, read.at_high, read.rest};
                const int32_t point = node_of(1, none, fresh, from);
                builder_.byte(from, '.', '.', point);
                if (fresh) {
                    decimals(point, none);
                }
            }
            return;
        }
        const int first = read.at == 0 && length_ > 1 ? 1 : 0;
        for (int d = first; d <= 9; ++d) {
            const int low = read.at_low ? digit(low_->value.integer, read.at) : 0;
            const int high = read.at_high ? digit(high_->value.integer, read.at) : 9;
            if (d >= low && d <= high) {
                step(from, 0, read, d, d == low, d == high);
            }
        }
    }

    void decimals(int32_t from, const Read& read) {
        if (read.at > 0 && may_end(read, read.at)) {
            builder_.epsilon(from, to_);
        }
        if (read.at == (of_ ? of_->digits : size_t{kMaxFractionDigits})) {
            return;
        }
        for (int d = 0; d <= 9; ++d) {
            const int low = read.at_low ? digit(low_->value.fraction, read.at) : 0;
            const int high = read.at_high ? digit(high_->value.fraction, read.at) : 9;
            if (d >= low && d <= high) {
                step(from, 1, read, d, d == low, d == high);
            }
        }
    }

    void step(int32_t from, int phase, const Read& read, int d, bool is_low, bool is_high) {
        bool fresh = false;
        const uint32_t rest = of_ ? (read.rest * 10 + static_cast<uint32_t>(d)) % of_->unit : 0;
        const Read next = {read.at + 1, read.at_low && is_low, read.at_high && is_high, rest};
        const int32_t to = node_of(phase, next, fresh, from);
        const auto c = static_cast<uint8_t>('0' + d);
        builder_.byte(from, c, c, to);
        if (fresh) {
            phase == 0 ? integer(to, next) : decimals(to, next);
        }
    }

    GrammarBuilder& builder_;
    const std::optional<Bound>& low_;
    const std::optional<Bound>& high_;
    bool fraction_;
    int32_t to_;
    const std::optional<Multiple>& of_;
    size_t length_ = 0;
    std::map<std::pair<int, Read>, int32_t> nodes_;
};

Bound magnitude(const Bound& bound) {
    Bound out = bound;
    out.value.negative = false;
    return out;
}

}  // namespace

std::optional<Decimal> to_decimal(double value) {
    std::array<char, 400> text;
    const auto [end, error] =
        std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    if (!std::isfinite(value) || error != std::errc()) {
        return std::nullopt;
    }
    return parse_decimal({text.data(), static_cast<size_t>(end - text.data())});
}

Decimal to_decimal(int64_t value) {
    return parse_decimal(std::to_string(value));
}

bool Multiple::holds(uint32_t rest, size_t fraction) const {
    for (; fraction < digits; ++fraction) {
        rest = rest * 10 % unit;
    }
    return fraction == digits && rest == 0;
}

std::optional<Multiple> to_multiple(const Decimal& value) {
    const std::string all = value.integer + value.fraction;
    if (value.negative || value.fraction.size() > Multiple::kMaxMultipleDigits || all.size() > 10) {
        return std::nullopt;
    }
    const uint64_t unit = std::stoull(all);
    if (unit == 0 || unit > Multiple::kMaxUnit) {
        return std::nullopt;
    }
    return Multiple{static_cast<uint32_t>(unit), value.fraction.size()};
}

bool is_multiple(const Decimal& value, const Multiple& of) {
    uint32_t rest = 0;
    for (const char c : value.integer + value.fraction) {
        rest = (rest * 10 + static_cast<uint32_t>(c - '0')) % of.unit;
    }
    return of.holds(rest, value.fraction.size());
}

bool less(const Decimal& a, const Decimal& b) {
    if (a.negative != b.negative) {
        return a.negative;
    }
    return a.negative ? less_magnitude(b, a) : less_magnitude(a, b);
}

void add_decimal_range(GrammarBuilder& builder, int32_t from, const std::optional<Bound>& low,
                       const std::optional<Bound>& high, bool fraction, int32_t to,
                       const std::optional<Multiple>& of) {
    const std::optional<Bound> zero = Bound{{false, "0", ""}, false};
    if (!high || !high->value.negative) {
        const bool from_zero = !low || low->value.negative;
        const std::optional<Bound>& from_bound = from_zero ? zero : low;
        MagnitudeRange(builder, from_bound, high, fraction, to, of).add(from);
    }
    if (!low || low->value.negative) {
        // Mirrored: the higher bound is the smaller magnitude. Above zero it is "more than nothing": no -0.
        const std::optional<Bound> smallest =
            high && high->value.negative ? magnitude(*high) : Bound{{false, "0", ""}, true};
        std::optional<Bound> largest;
        if (low) {
            largest = magnitude(*low);
        }
        MagnitudeRange(builder, smallest, largest, fraction, to, of).add(builder.literal(from, "-"));
    }
}

}  // namespace llm::engine
