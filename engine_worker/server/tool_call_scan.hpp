// A model's call of a tool, read while it is being written: {"name":"f","arguments":{…}}, or with
// "parameters".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llm::engine {

// White space of JSON.
inline constexpr std::string_view kJsonSpace = " \t\r\n";

// What the beginning of a text says.
struct CallHead {
    enum class Is : uint8_t {
        call,     // a call with an object of arguments
        other,    // none, or one of another shape: only the whole text tells
        unknown,  // more text will
    };
    Is is = Is::unknown;
    std::string name = {};
    size_t size = 0;  // bytes before the brace that opens the arguments
};

// O(text), at most 4 KB of it.
CallHead read_call_head(std::string_view text);

// Passes an object of arguments on as it comes, from its opening to its closing brace.
class ArgumentsScan {
  public:
    // Appends what belongs to the object, without white space between its tokens; control characters inside
    // strings, which JSON forbids and models write, are escaped. Returns how many bytes it has used: fewer
    // than all when the object has ended, by its last brace or in front of what no JSON can hold (the tag
    // behind a brace too few).
    size_t push(std::string_view text, std::string& out);
    bool ended() const { return ended_; }

  private:
    size_t depth_ = 0;
    bool in_string_ = false;
    bool escaped_ = false;  // the next byte belongs to a backslash
    bool ended_ = false;
};

}  // namespace llm::engine
