// A backend whose next token is a hash of everything that the sequence's memory holds: one wrong slot, one
// stale block, one token computed twice or not at all, and the text is another one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <stdexcept>
#include <vector>

#include "engine_worker/backend/backend.hpp"

namespace llm::engine::testing {

constexpr int32_t kVocabulary = 250;  // all of them single bytes for the byte tokenizer

// How a backend works beside the one that drives it.
enum class Overlap { synchronous, asynchronous, pipelined };

class HashBackend : public Backend {
  public:
    HashBackend(int64_t kv_slots, int32_t max_context, int32_t max_step_tokens = 128,
                int32_t max_step_seqs = 32, Overlap overlap = Overlap::synchronous)
        : slots_(static_cast<size_t>(kv_slots)) {
        info_ = {"hash", kVocabulary, max_context, kv_slots, max_step_tokens, max_step_seqs, 0,
                 overlap != Overlap::synchronous, overlap == Overlap::pipelined};
    }

    // Called with every step before it is computed.
    std::function<void(const Step&)> on_step;
    int64_t n_computed_tokens = 0;
    int n_steps = 0;
    int n_ahead = 0;  // of them, launched before the one before was waited for

    const BackendInfo& info() const override { return info_; }

    void launch(const Step& step) override {
        if (on_step) {
            on_step(step);
        }
        check(step);
        require(results_.size() <= (info_.pipelined ? 1 : 0), "a step is launched before its time");
        ++n_steps;
        n_ahead += static_cast<int>(results_.size());
        n_computed_tokens += step.n_tok;
        for (int32_t i = 0; i < step.n_tok; ++i) {
            require(step.tok[i] >= 0 || (!results_.empty() && -1 - step.tok[i] < static_cast<int32_t>(results_.back().size())),
                    "a token is of a step that was waited for, or of none");
            slots_[step.slot[i]] = {step.tok[i] >= 0 ? step.tok[i] : results_.back()[-1 - step.tok[i]], step.pos[i]};
        }
        std::vector<int32_t> tokens;
        for (int32_t i = 0; i < step.n_logit; ++i) {
            tokens.push_back(next(step, i));
        }
        results_.push_back(std::move(tokens));
    }

    void wait(StepResult& result) override {
        require(!results_.empty(), "there is no step to wait for");
        result.token = std::move(results_.front());
        results_.pop_front();
        result.logprob.assign(result.token.size(), -1.0f);
        result.top.assign(result.token.size(), {});
    }

  private:
    struct Slot {
        int32_t token = -1, position = -1;
    };

    static void require(bool condition, const char* what) {
        if (!condition) {
            throw std::logic_error(what);
        }
    }

    void check(const Step& step) const {
        require(step.n_tok > 0 && step.n_tok <= info_.max_step_tokens, "step has too many tokens or none");
        require(step.n_seq > 0 && step.n_seq <= info_.max_step_seqs, "step has too many sequences or none");
        require(step.q_start[0] == 0 && step.q_start[step.n_seq] == step.n_tok,
                "q_start does not span the step");
        std::vector<int32_t> written(step.slot, step.slot + step.n_tok);
        std::sort(written.begin(), written.end());
        require(std::adjacent_find(written.begin(), written.end()) == written.end(),
                "a slot is written twice");
        for (int32_t s = 0; s < step.n_seq; ++s) {
            const int32_t n = step.q_start[s + 1] - step.q_start[s];
            require(n > 0 && (s >= step.n_decode || n == 1), "a decode has other than one token");
            require(step.ctx_len[s] <= step.table_ld, "the table is too narrow");
            for (int32_t i = 0; i < n; ++i) {
                const int32_t at = step.q_start[s] + i;
                const int32_t position = step.ctx_len[s] - n + i;
                require(step.pos[at] == position, "positions are not consecutive");
                const int32_t* row = step.table + static_cast<size_t>(s) * static_cast<size_t>(step.table_ld);
                require(row[position] == step.slot[at], "table and slot differ");
            }
        }
    }

    int32_t next(const Step& step, int32_t logit) const {
        const int32_t at = step.logit_row[logit];
        require(logit == 0 || step.logit_row[logit - 1] < at, "rows of logits are out of order");
        const SampleParams& params = step.sampling[logit];
        if (params.n_logit_bias == 1 && params.logit_bias->second > 1e8f) {
            return params.logit_bias->first;  // the only one that may be drawn
        }
        int32_t s = 0;
        while (step.q_start[s + 1] <= at) {
            ++s;
        }
        require(at == step.q_start[s + 1] - 1, "logits of a token that is not a sequence's last");
        const int32_t* row = step.table + static_cast<size_t>(s) * static_cast<size_t>(step.table_ld);
        uint64_t hash = step.sampling[logit].seed;
        for (int32_t p = 0; p < step.ctx_len[s]; ++p) {
            const Slot& slot = slots_[row[p]];
            require(slot.position == p, "a slot holds another position");
            hash = (hash ^ static_cast<uint64_t>(slot.token)) * 0x100000001b3ULL + 1;
        }
        require(static_cast<int32_t>(step.sampling[logit].position) == step.ctx_len[s],
                "wrong sampling position");
        return static_cast<int32_t>((hash >> 17) % kVocabulary);
    }

    BackendInfo info_;
    std::vector<Slot> slots_;
    std::deque<std::vector<int32_t>> results_;  // of steps that were not waited for, oldest first
};

// What HashBackend answers to a prompt when nobody interferes.
inline std::vector<int32_t> expected_answer(const std::vector<int32_t>& prompt, uint64_t seed, int32_t n) {
    std::vector<int32_t> tokens = prompt;
    uint64_t hash = seed;
    for (const int32_t token : prompt) {
        hash = (hash ^ static_cast<uint64_t>(token)) * 0x100000001b3ULL + 1;
    }
    std::vector<int32_t> out;
    for (int32_t i = 0; i < n; ++i) {
        out.push_back(static_cast<int32_t>((hash >> 17) % kVocabulary));
        hash = (hash ^ static_cast<uint64_t>(out.back())) * 0x100000001b3ULL + 1;
    }
    return out;
}

}  // namespace llm::engine::testing
