// The building blocks of JSON as grammar rules, each made once and shared.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "engine_worker/grammar/char_set.hpp"
#include "engine_worker/grammar/grammar.hpp"
#include "shared/json.hpp"

namespace llm::engine {

// Key order is the order in which properties are written.
using OrderedJson = nlohmann::ordered_json;

// White space is bounded, else a model could go on with it for ever: after '{', '[', ',' and ':' and before
// '}' and ']' nothing, one space, or one line break and up to 20 spaces or tabs. Numbers have at most 18
// digits, 17 behind the point and an exponent of two.
class JsonRules {
  public:
    explicit JsonRules(GrammarBuilder& builder) : builder_(builder) {}

    int32_t space();   // may be empty
    int32_t string();  // any
    int32_t integer();
    int32_t number();
    int32_t boolean();
    int32_t null();
    int32_t any();     // any value
    int32_t object();  // any members
    int32_t array();   // any items

    // One character of a string, or an escape that stands for one.
    int32_t string_char();

    // The node behind one value, written with the white space above wherever it is structured.
    int32_t literal(int32_t from, const OrderedJson& value);

    // The node behind a string that equals none of `names`; without escapes, which could spell one.
    int32_t other_name(int32_t from, const std::set<std::string>& names);

  private:
    void add_escapes(int32_t from, int32_t to);
    void digits(int32_t from, int most, int32_t done);
    int32_t members(int32_t from, int32_t member, char close);

    GrammarBuilder& builder_;
    int32_t space_ = -1, string_ = -1, string_char_ = -1, integer_ = -1, number_ = -1, boolean_ = -1,
            null_ = -1, any_ = -1, object_ = -1, array_ = -1;
};

}  // namespace llm::engine
