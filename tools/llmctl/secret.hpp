// New API tokens.
#pragma once

#include <string>

namespace llm::ctl {

// `prefix` and 43 letters and digits from the kernel's random generator: 256 bits. Throws a failure when
// there is no randomness.
std::string make_secret(const std::string& prefix);

// A line of standard input, without its end: a secret that somebody else has made. Throws a usage failure for
// one that could not stand in an Authorization header.
std::string read_secret();

}  // namespace llm::ctl
