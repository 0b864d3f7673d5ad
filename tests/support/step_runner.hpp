// Drives a Backend by hand, without a scheduler: tests decide which tokens of which sequence go into which
// step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine_worker/backend/backend.hpp"

namespace llm::testing {

using engine::Backend;
using engine::SampleParams;
using engine::Step;
using engine::StepResult;

// A sequence's tokens so far and the slots of those computed.
struct Sequence {
    std::vector<int32_t> tokens;
    std::vector<int32_t> slots;
    size_t computed() const { return slots.size(); }
};

// Tokens of one sequence to compute in one step, from where it stands.
struct Feed {
    Sequence* sequence = nullptr;
    size_t count = 0;
    bool all_logits = false;  // else of the last token only
    SampleParams sampling = {};
};

class StepRunner {
  public:
    // Slots are handed out in a scattered order: nothing may rely on runs of them.
    explicit StepRunner(Backend& backend, int64_t most_slots = 4096) : backend_(backend) {
        const int64_t slots = std::min<int64_t>(backend.info().kv_slots, most_slots);
        for (int64_t i = 0; i < slots; i++) {
            free_.push_back(static_cast<int32_t>(i * 1237 % slots));
        }
        std::sort(free_.begin(), free_.end());
        free_.erase(std::unique(free_.begin(), free_.end()), free_.end());
        for (size_t i = 0; i < free_.size(); i++) {
            std::swap(free_[i], free_[i * 7919 % free_.size()]);
        }
    }

    // Gives the sequence's slots back: its next step computes it anew.
    void release(Sequence& sequence) {
        free_.insert(free_.begin(), sequence.slots.begin(), sequence.slots.end());
        sequence.slots.clear();
    }

    // One step. Rows of the result follow the order of `feeds`.
    StepResult run(std::vector<Feed> feeds, bool want_logits = true) {
        Step step;
        std::vector<int32_t> tok, pos, slot, q_start{0}, ctx_len, rows;
        std::vector<SampleParams> sampling;
        for (Feed& feed : feeds) {
            Sequence& sequence = *feed.sequence;
            for (size_t i = 0; i < feed.count; i++) {
                if (free_.empty()) {
                    throw std::runtime_error("out of slots");
                }
                const size_t position = sequence.slots.size();
                tok.push_back(sequence.tokens.at(position));
                pos.push_back(static_cast<int32_t>(position));
                sequence.slots.push_back(free_.back());
                slot.push_back(free_.back());
                free_.pop_back();
                if (feed.all_logits || i + 1 == feed.count) {
                    rows.push_back(static_cast<int32_t>(tok.size()) - 1);
                    sampling.push_back(feed.sampling);
                }
            }
            q_start.push_back(static_cast<int32_t>(tok.size()));
            ctx_len.push_back(static_cast<int32_t>(sequence.slots.size()));
        }
        const int32_t table_ld = ctx_len.empty() ? 0 : *std::max_element(ctx_len.begin(), ctx_len.end());
        std::vector<int32_t> table(feeds.size() * static_cast<size_t>(table_ld), -1);
        for (size_t i = 0; i < feeds.size(); i++) {
            std::copy(feeds[i].sequence->slots.begin(), feeds[i].sequence->slots.end(),
                      table.begin() + static_cast<std::ptrdiff_t>(i * static_cast<size_t>(table_ld)));
        }
        step.n_tok = static_cast<int32_t>(tok.size());
        step.n_seq = static_cast<int32_t>(feeds.size());
        step.tok = tok.data();
        step.pos = pos.data();
        step.slot = slot.data();
        step.q_start = q_start.data();
        step.ctx_len = ctx_len.data();
        step.table = table.data();
        step.table_ld = table_ld;
        while (step.n_decode < step.n_seq && feeds[static_cast<size_t>(step.n_decode)].count == 1) {
            step.n_decode++;
        }
        step.n_logit = static_cast<int32_t>(rows.size());
        step.logit_row = rows.data();
        step.sampling = sampling.data();
        step.want_logits = want_logits;
        backend_.launch(step);
        StepResult result;
        backend_.wait(result);
        return result;
    }

    // Greedy (or as `sampling` says) continuation by `count` tokens, the prompt in one step.
    void generate(Sequence& sequence, size_t count, SampleParams sampling = greedy()) {
        for (size_t i = 0; i < count; i++) {
            sampling.position = static_cast<uint32_t>(sequence.tokens.size());
            const StepResult result =
                run({{&sequence, sequence.tokens.size() - sequence.computed(), false, sampling}}, false);
            sequence.tokens.push_back(result.token.at(0));
        }
    }

    static SampleParams greedy() {
        SampleParams params;
        params.temperature = 0;
        return params;
    }

  private:
    Backend& backend_;
    std::vector<int32_t> free_;
};

}  // namespace llm::testing
