// Turns a plan into the flat arrays of a Step. The arrays live here and are reused.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/scheduler/scheduler.hpp"

namespace llm::engine {

class StepBuilder {
  public:
    // Valid until the next build() and as long as the plan's sequences stay as they are. O(tokens of the
    // step), plus the whole context of sequences whose row moved.
    const Step& build(const Plan& plan);

  private:
    // Which sequence's slots a row of the table already holds, and how many of them. Most rows keep their
    // sequence from step to step; then only the newest slots are written.
    struct TableRow {
        uint64_t sequence = 0;
        uint32_t epoch = 0;
        int32_t length = 0;
    };

    void fill_table(size_t row, const Sequence& sequence, int32_t length);
    void add_scoring(const PlannedRow& row);
    void grow_table(size_t rows, int32_t length);
    static SampleParams sample_params(Sequence& sequence);

    Step step_;
    std::vector<int32_t> tok_, pos_, slot_, q_start_, ctx_len_, logit_row_, hidden_row_, table_;
    std::vector<SampleParams> sampling_;
    std::vector<std::pair<int32_t, float>> forced_;  // the tokens that scoring rows "sample"
    std::vector<TableRow> table_rows_;
    int32_t table_ld_ = 0;
};

}  // namespace llm::engine
