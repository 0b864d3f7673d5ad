// The dashboard: one self-contained page, embedded at build time from dashboard.html, its style and its
// scripts.
#pragma once

#include <string>

namespace llm::nginx::web {

struct Dashboard {
    std::string html;
    std::string
        policy;  // Content-Security-Policy: nothing runs but this page's own script, nothing is loaded
};

// Put together at the first call of a process.
const Dashboard& dashboard();

}  // namespace llm::nginx::web
