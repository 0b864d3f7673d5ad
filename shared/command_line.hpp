// Passwords in the command line, which everybody on the machine can read (ps, /proc/PID/cmdline).
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>

namespace llm {

// Writes asterisks over the passwords in argv: of URLs (scheme://user:password@host), and behind "password=" in
// parameters of PostgreSQL. For the first lines of main(), after the arguments were copied: until then they can be seen.
inline void hide_passwords(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view text = argv[i];
        const auto cover = [&](size_t from, size_t to) { std::memset(argv[i] + from, '*', to - from); };
        if (const size_t scheme = text.find("://"); scheme != std::string_view::npos) {
            const size_t user = scheme + 3;
            const size_t path = std::min(text.find('/', user), text.size());
            const size_t at = text.substr(0, path).rfind('@');
            const size_t colon = text.find(':', user);
            if (at != std::string_view::npos && at > user && colon < at) {
                cover(colon + 1, at);
            }
        }
        constexpr std::string_view kWord = "password=";
        for (size_t word = text.find(kWord); word != std::string_view::npos; word = text.find(kWord, word + 1)) {
            const size_t from = word + kWord.size();
            cover(from, std::min(text.find_first_of("& ", from), text.size()));
        }
    }
}

}  // namespace llm
