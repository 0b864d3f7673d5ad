// Counts how deep an evaluation is nested, so that no template can use up the stack.
#pragma once

#include "engine_worker/tokenizer/jinja/value.hpp"

namespace llm::engine::jinja {

class Nesting {
  public:
    Nesting(int& depth, int limit) : depth_(depth) {
        if (depth_ >= limit)
            throw ValueError("nested too deeply");
        ++depth_;
    }
    ~Nesting() { --depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

  private:
    int& depth_;
};

}  // namespace llm::engine::jinja
