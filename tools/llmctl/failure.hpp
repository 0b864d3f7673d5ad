// How a command of llmctl ends when it does not succeed.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace llm::ctl {

// The exit statuses that docs/llmctl.md promises.
enum class Exit : int {
    ok = 0,
    refused = 1,      // asked for, but it failed or was refused
    usage = 2,        // the command line is wrong
    not_found = 3,    // no such client, engine or request
    unreachable = 4,  // the database or the gateway cannot be reached
};

class Failure : public std::exception {
  public:
    Failure(Exit status, std::string message) : status_(status), message_(std::move(message)) {}
    const char* what() const noexcept override { return message_.c_str(); }
    Exit status() const { return status_; }

  private:
    Exit status_;
    std::string message_;
};

}  // namespace llm::ctl
