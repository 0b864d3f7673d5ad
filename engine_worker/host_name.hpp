// The name by which other hosts know this one, of llm-engine and llm-reporter.
#pragma once

#include <unistd.h>

#include <string>

namespace llm {

// As gethostname(2) says it; "localhost" where it fails.
inline std::string host_name() {
    char name[256] = "localhost";  // a host's name has at most 64 bytes on Linux
    gethostname(name, sizeof name - 1);
    return name;
}

}  // namespace llm
