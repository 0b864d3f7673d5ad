// The engine without threads: requests in, one step at a time, events out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/scheduler/engine_stats.hpp"
#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/scheduler/scheduler.hpp"
#include "engine_worker/scheduler/step_builder.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// Seconds of a clock that never goes back.
using Clock = std::function<double()>;

struct EngineOptions {
    int32_t max_running = 64;         // sequences; lowered to what the backend can take
    double step_target_ms = 0;        // SchedulerOptions::step_target_ms
    std::vector<int32_t> end_tokens;  // tokens that end the text
    uint64_t hash_key = 0;
};

class EngineCore {
  public:
    // `tokenizer` must outlive the core.
    EngineCore(std::unique_ptr<Backend> backend, const Tokenizer& tokenizer, const EngineOptions& options,
               Clock clock);

    // The most tokens that a prompt and its answer may have together.
    int32_t max_context() const { return max_context_; }
    int32_t max_running() const { return max_running_; }
    int32_t hidden_size() const { return backend_->info().hidden_size; }  // 0 = no embeddings

    // Every prompt must be shorter than max_context() (one that is embedded: not longer), request.id new.
    void add(Request request);

    // The request ends here and frees its memory, what a step computes at this moment when that has ended; no
    // further event names it. Unknown ids are ignored.
    void cancel(uint64_t request);

    // Runs one step and appends what it brought. False: there was nothing to do. Throws std::runtime_error
    // when the backend failed; the core is then only good for fail().
    //
    // With an asynchronous backend the text of tokens after which their sequence goes on is made while the
    // next step is computed. Then `while_computing` is called, so that those events can go their way before
    // the step ends; it may take them out of `events`.
    //
    // With a pipelined backend the next step is launched, where it can be planned, before this one is waited
    // for: then there is work left whatever this one brings.
    bool step(std::vector<Event>& events, const std::function<void()>& while_computing = {});

    // Ends every request with FinishReason::failed.
    void fail(const std::string& why, std::vector<Event>& events);

    bool has_work() const { return !scheduler_.running().empty() || !scheduler_.waiting().empty(); }
    const EngineStats& stats();
    const Scheduler& scheduler() const { return scheduler_; }

  private:
    struct Pending {
        int32_t open = 0;                 // choices that have not ended
        std::vector<uint64_t> sequences;  // all of them
        std::vector<bool> counted;        // per prompt: its tokens are in tokens_in
        double arrived = 0;
    };

    // A token that its sequence has got, whose text is not made yet.
    struct Untold {
        Sequence* sequence;
        int32_t token;
        bool end;  // it ends the text, and is no part of it
        bool first;
        std::vector<TokenLogprob> logprobs;
    };

    void launch(const Plan& plan);
    bool can_plan_ahead(const Plan& plan) const;
    bool is_under_way(uint64_t sequence) const;
    void accept(const PlannedRow& row, const StepResult& result, size_t index, double now,
                std::vector<Event>& events);
    // Takes up what the row scored, from result `index` on; returns how many that were.
    size_t take_scores(const PlannedRow& row, const StepResult& result, size_t index);
    void tell(Untold& untold, double now, std::vector<Event>& events);
    void tell_all(std::vector<Event>& events);
    bool can_be_told_later(const Sequence& sequence) const;
    // Takes up the hidden states of the row, from `hidden` on; returns where the next row's are.
    const float* embed(const PlannedRow& row, int32_t first, const float* hidden, double now,
                       std::vector<Event>& events);
    void remove_ended();
    void end_broken(std::vector<Event>& events);
    void count_token(Sequence& sequence, double now);
    void charge_users(double now);
    bool obeys_grammar(Sequence& sequence, int32_t token, bool end);
    void finish_sequence(Sequence& sequence, double now);
    void end_sequence(Sequence& sequence, FinishReason reason, double now);

    std::unique_ptr<Backend> backend_;
    const Tokenizer& tokenizer_;
    EngineOptions options_;
    Clock clock_;
    int32_t max_running_;
    int32_t max_context_;
    Scheduler scheduler_;
    StepBuilder builder_;
    StepResult result_;
    std::unordered_map<uint64_t, Pending> requests_;
    Plan current_;             // the step that is, or was last, computed
    Plan next_;                // the one after it, if that was launched already
    bool under_way_ = false;   // between two calls of step(): current_ was launched
    double step_began_ = 0;    // current_: launched, or the step before ended, whichever was later
    std::vector<Untold> untold_;    // of the last step
    std::vector<uint64_t> ended_;   // sequences that ended and are to be removed
    std::vector<uint64_t> broken_;  // requests whose grammar led nowhere in this step
    uint64_t next_sequence_ = 1;
    EngineStats stats_;
};

}  // namespace llm::engine
