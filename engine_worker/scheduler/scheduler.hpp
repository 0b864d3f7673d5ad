// Who computes what in the next step: admit → plan → (run) → commit. With a pipelined backend the step after is planned
// ahead while one runs, as long as nothing but decodes follows.
//
// Order is (class, resumed before new, arrival); a lower class number is sooner. The rules:
//  * Every running sequence that has its prompt in memory decodes one token in every step. Prefill comes after,
//    in chunks that fit the step's time target, so that nobody's text stalls because somebody else's prompt is
//    long.
//  * The first in line starts when a seat is free and the memory that all will hold at the worst later moment
//    fits (admission.hpp). If not, running sequences of strictly lower classes that had their quantum of steps
//    make room. Equal classes never do: they would take turns throwing away each other's work.
//  * If the guess behind admission was wrong and memory runs out, the last in order gives up its blocks. The
//    first in order therefore always gets on, whatever the others do.
//  * A preempted sequence keeps its tokens; its full blocks stay findable until somebody needs them.
// One thread; nothing here knows a clock, the backend or the text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine_worker/scheduler/admission.hpp"
#include "engine_worker/scheduler/block_manager.hpp"
#include "engine_worker/scheduler/sequence.hpp"
#include "engine_worker/scheduler/step_cost.hpp"

namespace llm::engine {

struct SchedulerOptions {
    int32_t max_running = 64;       // seats
    int32_t max_step_tokens = 512;  // at least max_running + min_chunk
    int32_t n_blocks = 0;           // of BlockManager::kBlockSize slots
    int32_t min_chunk = 32;         // prefill tokens that a step takes however long decodes last; > 0
    int32_t quantum = 16;           // steps that an admitted sequence may keep its seat
    double step_target_ms = 0;      // longest step while somebody decodes; 0 = 1.5 times the decodes alone, 30 at least
    uint64_t hash_key = 0;          // see BlockManager
};

// One sequence's part of a step: its tokens [first, first + n_tokens).
struct PlannedRow {
    Sequence* sequence = nullptr;
    int32_t first = 0;
    int32_t n_tokens = 0;
    bool sample = false;      // the last of them is the sequence's last: its logits give the next token
    int32_t sampled_by = -1;  // planned ahead: the row of the step before whose token this one computes

    int32_t end() const { return first + n_tokens; }
};

struct Plan {
    std::vector<PlannedRow> rows;  // decodes first
    int32_t n_decode = 0;
    StepCost::Load load;
};

class Scheduler {
  public:
    explicit Scheduler(const SchedulerOptions& options);

    // Puts a sequence in line. Its prompt and max_tokens must fit max_slots(), else it could never run.
    void add(std::unique_ptr<Sequence> sequence);

    // Plans the next step; `now` only stamps sequences. No rows = nothing to do. The plan's pointers stay
    // valid until a sequence is removed or the next plan is made.
    const Plan& plan(double now);

    // Plans the step after `plan`, which is under way: every sequence of it that goes on decodes the token that `plan`
    // samples for it, and has that token's place. False, and nothing is changed: somebody who waits could start,
    // somebody computes a prompt, or memory would have to be taken from somebody; such a step is planned when the one
    // before is known.
    // Each row of `plan` must sample one token.
    bool plan_ahead(const Plan& plan, Plan& next);

    // The row's tokens are in memory now: full blocks become findable. Call it for every row of a completed
    // step, before a sampled token is appended.
    void commit(const PlannedRow& row);

    // Takes a finished or cancelled sequence out, wherever it is, and frees its memory. Null: no such
    // sequence.
    std::unique_ptr<Sequence> remove(uint64_t id);

    // A sequence ended by itself after n_tokens: feeds the guess of how long others will be.
    void record_output(int32_t n_tokens) { lengths_.record(n_tokens); }

    StepCost& cost() { return cost_; }
    const BlockManager& blocks() const { return blocks_; }
    int64_t max_slots() const { return static_cast<int64_t>(blocks_.n_blocks()) * BlockManager::kBlockSize; }
    const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }
    const std::vector<std::unique_ptr<Sequence>>& waiting() const { return waiting_; }  // in order
    uint64_t preemptions() const { return preemptions_; }
    uint64_t prefix_queries() const { return prefix_queries_; }  // prompt tokens looked up
    uint64_t prefix_hits() const { return prefix_hits_; }        // and found
    int64_t steps() const { return step_; }

    // Recounts memory and order. Empty, or the first contradiction. For tests and idle moments.
    std::string check() const;

  private:
    void admit(double now);
    bool blocked_by_sibling(const Sequence& candidate) const;
    bool fits_without_victims(const Sequence& candidate);
    bool fits_beside_all(const Sequence& candidate);
    Sequence* victim_for(const Sequence& candidate) const;
    bool may_make_room(const Sequence& running, const Sequence& candidate) const;
    void start(size_t waiting_index, double now);
    void preempt(Sequence& victim, double now);
    void give_up_memory(Sequence& victim, double now);  // as there is no more
    void enqueue(std::unique_ptr<Sequence> sequence);
    Footprint footprint(const Sequence& sequence) const;

    // Grows the sequence's blocks to cover `n_tokens`; makes room by preempting those behind it in order.
    // Returns the tokens that are covered (all, or fewer when nobody is behind it any more).
    int32_t reserve(Sequence& sequence, int32_t n_tokens, double now);
    void plan_decodes(double now);
    void plan_prefill(double now);
    void build_rows();
    void sort_running(bool decoding);
    void release(Sequence& sequence);

    SchedulerOptions options_;
    BlockManager blocks_;
    StepCost cost_;
    OutputLengths lengths_;
    std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission: rows of the step stay stable
    std::vector<std::unique_ptr<Sequence>> waiting_;  // sorted
    std::vector<Footprint> footprints_;               // scratch
    std::vector<Sequence*> order_;                    // scratch
    Plan plan_;
    int64_t step_ = 0;
    uint64_t preemptions_ = 0, prefix_queries_ = 0, prefix_hits_ = 0;
};

}  // namespace llm::engine
