#include "engine_worker/grammar/decimal_range.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>
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
                   bool fraction, int32_t to)
        : builder_(builder), low_(low), high_(high), fraction_(fraction), to_(to) {}

    void add(int32_t from) {
        const size_t shortest = low_ ? low_->value.integer.size() : 1;
        size_t longest = kMaxIntegerDigits;
        bool open = true;
        if (high_ && high_->value.integer.size() <= longest) {
            longest = high_->value.integer.size();
            open = false;
        }
        for (size_t n = shortest; n <= longest; ++n) {
            length_ = n;
            nodes_.clear();
            const bool at_low = low_ && n == low_->value.integer.size();
            const bool at_high = !open && n == high_->value.integer.size();
            integer(from, 0, at_low, at_high);
        }
    }

  private:
    static int digit(const std::string& text, size_t i) { return i < text.size() ? text[i] - '0' : 0; }

    // What was read equals the bound's beginning (`at_low`, `at_high`) or is safely inside.
    bool may_end(bool at_low, bool at_high, size_t fraction_digits) const {
        const auto rest = [&](const Bound& bound) { return bound.value.fraction.size() > fraction_digits; };
        const bool low_ok = !at_low || (!rest(*low_) && !low_->exclusive);
        const bool high_ok = !at_high || rest(*high_) || !high_->exclusive;
        return low_ok && high_ok;
    }

    int32_t node_of(int phase, size_t at, bool at_low, bool at_high, bool& fresh, int32_t from) {
        const auto [found, inserted] = nodes_.try_emplace({phase, at, at_low, at_high}, -1);
        if (inserted) {
            found->second = builder_.add_node(builder_.rule_of(from));
        }
        fresh = inserted;
        return found->second;
    }

    void integer(int32_t from, size_t at, bool at_low, bool at_high) {
        if (at == length_) {
            if (may_end(at_low, at_high, 0)) {
                builder_.epsilon(from, to_);
            }
            if (fraction_) {
                bool fresh = false;
                const int32_t point = node_of(1, 0, at_low, at_high, fresh, from);
                builder_.byte(from, '.', '.', point);
                if (fresh) {
                    decimals(point, 0, at_low, at_high);
                }
            }
            return;
        }
        const int first = at == 0 && length_ > 1 ? 1 : 0;
        for (int d = first; d <= 9; ++d) {
            const int low = at_low ? digit(low_->value.integer, at) : 0;
            const int high = at_high ? digit(high_->value.integer, at) : 9;
            if (d >= low && d <= high) {
                step(from, 0, at, d, at_low && d == low, at_high && d == high);
            }
        }
    }

    void decimals(int32_t from, size_t at, bool at_low, bool at_high) {
        if (at > 0 && may_end(at_low, at_high, at)) {
            builder_.epsilon(from, to_);
        }
        if (at == kMaxFractionDigits) {
            return;
        }
        for (int d = 0; d <= 9; ++d) {
            const int low = at_low ? digit(low_->value.fraction, at) : 0;
            const int high = at_high ? digit(high_->value.fraction, at) : 9;
            if (d >= low && d <= high) {
                step(from, 1, at, d, at_low && d == low, at_high && d == high);
            }
        }
    }

    void step(int32_t from, int phase, size_t at, int d, bool at_low, bool at_high) {
        bool fresh = false;
        const int32_t to = node_of(phase, at + 1, at_low, at_high, fresh, from);
        const auto c = static_cast<uint8_t>('0' + d);
        builder_.byte(from, c, c, to);
        if (fresh) {
            phase == 0 ? integer(to, at + 1, at_low, at_high) : decimals(to, at + 1, at_low, at_high);
        }
    }

    GrammarBuilder& builder_;
    const std::optional<Bound>& low_;
    const std::optional<Bound>& high_;
    bool fraction_;
    int32_t to_;
    size_t length_ = 0;
    std::map<std::tuple<int, size_t, bool, bool>, int32_t> nodes_;
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

bool less(const Decimal& a, const Decimal& b) {
    if (a.negative != b.negative) {
        return a.negative;
    }
    return a.negative ? less_magnitude(b, a) : less_magnitude(a, b);
}

void add_decimal_range(GrammarBuilder& builder, int32_t from, const std::optional<Bound>& low,
                       const std::optional<Bound>& high, bool fraction, int32_t to) {
    const std::optional<Bound> zero = Bound{{false, "0", ""}, false};
    if (!high || !high->value.negative) {
        const bool from_zero = !low || low->value.negative;
        const std::optional<Bound>& from_bound = from_zero ? zero : low;
        MagnitudeRange(builder, from_bound, high, fraction, to).add(from);
    }
    if (!low || low->value.negative) {
        // Mirrored: the higher bound is the smaller magnitude. Above zero it is "more than nothing": no -0.
        const std::optional<Bound> smallest =
            high && high->value.negative ? magnitude(*high) : Bound{{false, "0", ""}, true};
        std::optional<Bound> largest;
        if (low) {
            largest = magnitude(*low);
        }
        MagnitudeRange(builder, smallest, largest, fraction, to).add(builder.literal(from, "-"));
    }
}

}  // namespace llm::engine
