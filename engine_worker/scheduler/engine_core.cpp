#include "engine_worker/scheduler/engine_core.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace llm::engine {
namespace {

constexpr int32_t kMinChunk = 32;
constexpr double kLongWait = 1.0;  // seconds in line that a report counts as waiting

int32_t seats(const BackendInfo& info, int32_t wanted) {
    return std::max(1, std::min({wanted, info.max_step_seqs, info.max_step_tokens - kMinChunk}));
}

SchedulerOptions scheduler_options(const BackendInfo& info, const EngineOptions& options) {
    SchedulerOptions out;
    out.max_running = seats(info, options.max_running);
    out.max_step_tokens = info.max_step_tokens;
    out.n_blocks = static_cast<int32_t>(
        std::min<int64_t>(info.kv_slots / BlockManager::kBlockSize,
                          std::numeric_limits<int32_t>::max() / BlockManager::kBlockSize));
    out.min_chunk = std::min(kMinChunk, info.max_step_tokens);
    out.step_target_ms = options.step_target_ms;
    out.hash_key = options.hash_key;
    return out;
}

bool contains(const std::vector<int32_t>& list, int32_t token) {
    return std::find(list.begin(), list.end(), token) != list.end();
}

// Choices of one request differ by their seed; the first keeps the client's.
uint64_t seed_of(uint64_t seed, int32_t choice) {
    return seed + 0x9e3779b97f4a7c15ULL * static_cast<uint64_t>(choice);
}

// Of the token that row `index` sampled, then of the best ones that were asked for.
std::vector<TokenLogprob> logprobs_of(const StepResult& result, size_t index) {
    std::vector<TokenLogprob> out = {{result.token[index], result.logprob[index]}};
    out.insert(out.end(), result.top[index].begin(), result.top[index].end());
    return out;
}

}  // namespace

EngineCore::EngineCore(std::unique_ptr<Backend> backend, const Tokenizer& tokenizer,
                       const EngineOptions& options, Clock clock)
    : backend_(std::move(backend)),
      tokenizer_(tokenizer),
      options_(options),
      clock_(std::move(clock)),
      max_running_(seats(backend_->info(), options.max_running)),
      max_context_(0),
      scheduler_(scheduler_options(backend_->info(), options)) {
    max_context_ =
        static_cast<int32_t>(std::min<int64_t>(backend_->info().max_context, scheduler_.max_slots()));
}

void EngineCore::add(Request request) {
    const double now = clock_();
    Pending& pending = requests_[request.id];
    pending.arrived = now;
    pending.counted.resize(request.prompts.size());
    const auto sampling = std::make_shared<const Sampling>(std::move(request.sampling));
    const uint64_t root = scheduler_.blocks().root(request.salt);
    using Bias = std::vector<std::pair<int32_t, float>>;
    const auto without = [](Bias bias, const std::vector<int32_t>& tokens) {
        for (const int32_t token : tokens) {
            std::erase_if(bias, [token](const auto& one) { return one.first == token; });
            bias.emplace_back(token, -std::numeric_limits<float>::infinity());
        }
        return bias;
    };
    const Bias no_eos = without(sampling->logit_bias, options_.end_tokens);
    const Bias no_end = without(no_eos, sampling->stop_tokens);
    for (size_t p = 0; p < request.prompts.size(); ++p) {
        for (int32_t c = 0; c < request.n; ++c) {
            auto s = std::make_unique<Sequence>();
            s->id = next_sequence_++;
            s->request = request.id;
            s->choice = static_cast<int32_t>(p) * request.n + c;
            s->prompt_index = static_cast<int32_t>(p);
            s->priority_class = request.priority_class;
            s->tokens = request.prompts[p];
            s->n_prompt = s->n_tokens();
            s->task = request.task;
            s->max_tokens = std::min(sampling->max_tokens, max_context_ - s->n_prompt);
            s->sampling = sampling;
            s->seed = seed_of(sampling->seed, c);  // a prompt gets the same text alone and beside others
            s->root = root;
            s->arrived = s->waiting_since = now;
            s->text = std::make_unique<TextOutput>(tokenizer_, sampling->stop, sampling->include_stop,
                                                   sampling->min_tokens, s->tokens);
            if (request.grammar != nullptr) {
                s->grammar = std::make_unique<GrammarMatcher>(
                    request.grammar, sampling->ignore_eos ? std::vector<int32_t>() : options_.end_tokens);
            }
            s->bias = sampling->ignore_eos ? no_eos : sampling->logit_bias;
            s->bias_no_end = no_end;
            ++pending.open;
            pending.sequences.push_back(s->id);
            scheduler_.add(std::move(s));
        }
    }
}

void EngineCore::cancel(uint64_t request) {
    const auto found = requests_.find(request);
    if (found == requests_.end()) {
        return;
    }
    charge_users(clock_());
    std::erase_if(untold_, [request](const Untold& untold) { return untold.sequence->request == request; });
    for (const PlannedRow& row : current_.rows) {
        if (under_way_ && row.sequence->request == request && !std::exchange(row.sequence->ended, true)) {
            ended_.push_back(row.sequence->id);
        }
    }
    for (const uint64_t id : found->second.sequences) {
        if (!is_under_way(id)) {
            scheduler_.remove(id);
        }
    }
    requests_.erase(found);
    ++stats_.cancelled;
}

bool EngineCore::is_under_way(uint64_t sequence) const {
    return under_way_ && std::any_of(current_.rows.begin(), current_.rows.end(), [sequence](const PlannedRow& row) {
               return row.sequence->id == sequence;
           });
}

void EngineCore::launch(const Plan& plan) {
    for (const PlannedRow& row : plan.rows) {
        if (!std::exchange(row.sequence->queue_counted, true)) {
            stats_.queue_time.observe(step_began_ - row.sequence->arrived);
        }
    }
    backend_->launch(builder_.build(plan));
}

// Whether all that the step after `plan` needs of its tokens is their place in the batch.
bool EngineCore::can_plan_ahead(const Plan& plan) const {
    return backend_->info().pipelined &&
           std::all_of(plan.rows.begin(), plan.rows.end(), [](const PlannedRow& row) {
               const Sampling& asked = *row.sequence->sampling;
               return row.sample && row.sequence->task == Task::generate &&
                      row.sequence->n_scoring(row.first, row.end()) == 0 &&
                      row.sequence->grammar == nullptr && asked.repetition_penalty == 1 &&
                      asked.presence_penalty == 0 && asked.frequency_penalty == 0;
           });
}

bool EngineCore::step(std::vector<Event>& events, const std::function<void()>& while_computing) {
    broken_.clear();
    if (!under_way_) {
        current_ = scheduler_.plan(clock_());
        if (current_.rows.empty()) {
            const bool told = !untold_.empty();
            tell_all(events);
            remove_ended();
            return told;
        }
        step_began_ = clock_();
        launch(current_);
    }
    tell_all(events);
    if (while_computing && !events.empty()) {
        while_computing();
    }
    const bool ahead = can_plan_ahead(current_) && scheduler_.plan_ahead(current_, next_);
    if (ahead) {
        launch(next_);
    }
    backend_->wait(result_);
    const double now = clock_();
    scheduler_.cost().observe(current_.load, (now - step_began_) * 1e3);
    stats_.busy_seconds += now - step_began_;
    step_began_ = now;
    ++stats_.steps;

    charge_users(now);
    size_t sampled = 0;
    const float* hidden = result_.hidden.data();
    for (const PlannedRow& row : current_.rows) {
        const int32_t first = row.sequence->n_computed;
        scheduler_.commit(row);
        if (row.sequence->task != Task::generate) {
            hidden = embed(row, first, hidden, now, events);
        } else {
            sampled += take_scores(row, result_, sampled);
            if (row.sample) {
                accept(row, result_, sampled++, now, events);
            }
        }
    }
    std::swap(current_, next_);
    under_way_ = ahead;
    remove_ended();
    end_broken(events);
    return true;
}

// Those of the step that is under way stay until it has ended.
void EngineCore::remove_ended() {
    std::erase_if(ended_, [this](uint64_t id) {
        if (is_under_way(id)) {
            return false;
        }
        scheduler_.remove(id);
        return true;
    });
}

const float* EngineCore::embed(const PlannedRow& row, int32_t first, const float* hidden, double now,
                               std::vector<Event>& events) {
    Sequence& s = *row.sequence;
    const auto size = static_cast<size_t>(hidden_size());
    if (first == 0 || s.task == Task::embed_last) {
        s.hidden_sum.assign(size, 0);  // a preempted mean starts again
    }
    // In the order of the tokens and in double: the same whatever the chunks were.
    const int32_t n = s.task == Task::embed_mean ? row.n_tokens : row.sample ? 1 : 0;
    for (int32_t i = 0; i < n; ++i, hidden += size) {
        for (size_t k = 0; k < size; ++k) {
            s.hidden_sum[k] += static_cast<double>(hidden[k]);
        }
    }
    if (row.sample) {
        double square = 0;
        for (const double value : s.hidden_sum) {
            square += value * value;
        }
        Event event;
        event.request = s.request;
        event.choice = s.choice;
        event.cached_tokens = s.n_cached;
        event.finish = FinishReason::stop;
        for (const double value : s.hidden_sum) {
            event.embedding.push_back(static_cast<float>(square > 0 ? value / std::sqrt(square) : 0.0));
        }
        stats_.tokens_in += static_cast<uint64_t>(s.n_prompt);
        finish_sequence(s, now);
        events.push_back(std::move(event));
    }
    return hidden;
}

void EngineCore::end_broken(std::vector<Event>& events) {
    for (const uint64_t request : broken_) {
        if (requests_.contains(request)) {
            Event event;
            event.request = request;
            event.finish = FinishReason::failed;
            event.error =
                "The text cannot go on as its grammar asks: no token of this model fits, or it is too "
                "complex.";
            events.push_back(std::move(event));
            cancel(request);
        }
    }
}

// True: the token stands where the grammar allows it, and is taken unless it is an end. Where no token is allowed
// there was no mask: then an end is none either.
bool EngineCore::obeys_grammar(Sequence& s, int32_t token, bool end) {
    return s.grammar == nullptr || (!s.grammar->mask().empty() && (end || s.grammar->accept(token)));
}

void EngineCore::charge_users(double now) {
    for (const auto& s : scheduler_.running()) {
        if (s->first_token > 0 && !s->ended) {
            stats_.user_seconds += now - s->charged_until;
            s->charged_until = now;
        }
    }
}

void EngineCore::count_token(Sequence& s, double now) {
    ++stats_.tokens_out;
    if (s.first_token > 0) {
        ++stats_.decode_tokens;
        stats_.inter_token.observe(now - s.last_token);
    } else {
        s.first_token = now;
        s.charged_until = now;
        stats_.time_to_first_token.observe(now - s.arrived);
        Pending& pending = requests_[s.request];
        if (!pending.counted[s.prompt_index]) {
            pending.counted[s.prompt_index] = true;
            stats_.tokens_in += s.n_prompt;
        }
    }
    s.last_token = now;
}

size_t EngineCore::take_scores(const PlannedRow& row, const StepResult& result, size_t index) {
    Sequence& s = *row.sequence;
    const int32_t n = s.n_scoring(row.first, row.end());
    if (n > 0) {
        s.prompt_logprobs.resize(static_cast<size_t>(s.n_prompt) - 1);
    }
    for (int32_t i = 0; i < n; ++i, ++index) {
        s.prompt_logprobs[static_cast<size_t>(row.first + i)] = logprobs_of(result, index);
    }
    return static_cast<size_t>(n);
}

void EngineCore::accept(const PlannedRow& row, const StepResult& result, size_t index, double now,
                        std::vector<Event>& events) {
    Sequence& s = *row.sequence;
    if (s.ended) {
        return;  // its text had ended before this step was computed
    }
    const Sampling& asked = *s.sampling;
    s.take(result.token[index]);
    Untold untold{&s, result.token[index], false, s.n_generated() == 1, {}};
    count_token(s, now);
    untold.end = (!asked.ignore_eos && contains(options_.end_tokens, untold.token)) ||
                 contains(asked.stop_tokens, untold.token);
    if (!obeys_grammar(s, untold.token, untold.end)) {
        broken_.push_back(s.request);
        return;
    }
    if (asked.n_logprobs >= 0 && !untold.end) {
        untold.logprobs = logprobs_of(result, index);
    }
    if (!untold.end && can_be_told_later(s)) {
        untold_.push_back(std::move(untold));
    } else {
        tell(untold, now, events);
    }
}

// Whether the next step can be planned before the text of the last token is known.
bool EngineCore::can_be_told_later(const Sequence& s) const {
    return backend_->info().asynchronous && s.grammar == nullptr && s.n_generated() < s.max_tokens;
}

void EngineCore::tell_all(std::vector<Event>& events) {
    const double now = clock_();
    for (Untold& untold : untold_) {
        tell(untold, now, events);
    }
    untold_.clear();
}

// Makes the text of a token, which may end its sequence.
void EngineCore::tell(Untold& untold, double now, std::vector<Event>& events) {
    Sequence& s = *untold.sequence;
    Event event;
    event.request = s.request;
    event.choice = s.choice;
    event.completion_tokens = s.n_generated();
    event.cached_tokens = s.n_cached;
    if (untold.end) {
        s.text->finish(event.text);
        event.finish = FinishReason::stop;
    } else if (s.text->push(untold.token, event.text)) {
        event.finish = FinishReason::stop;
    } else if (s.grammar != nullptr && s.grammar->must_end()) {
        s.text->finish(event.text);  // nothing but an end-of-text token could follow: no step for that
        event.finish = FinishReason::stop;
    } else if (s.n_generated() >= s.max_tokens) {
        event.finish = s.text->finish(event.text) ? FinishReason::stop : FinishReason::length;
    }
    event.logprobs = std::move(untold.logprobs);
    if (untold.first && s.scores_prompt()) {
        event.prompt_logprobs = std::move(s.prompt_logprobs);
        s.scored = true;
    }
    if (event.finish != FinishReason::none) {
        end_sequence(s, event.finish, now);
    }
    if (untold.first || event.finish != FinishReason::none || !event.text.empty() ||
        !event.logprobs.empty()) {
        events.push_back(std::move(event));
    }
}

void EngineCore::end_sequence(Sequence& s, FinishReason reason, double now) {
    ++(reason == FinishReason::stop ? stats_.finished_stop : stats_.finished_length);
    scheduler_.record_output(s.n_generated());
    finish_sequence(s, now);
}

void EngineCore::finish_sequence(Sequence& s, double now) {
    s.ended = true;
    ended_.push_back(s.id);
    const auto found = requests_.find(s.request);
    if (--found->second.open == 0) {
        ++stats_.completed;
        stats_.request_duration.observe(now - found->second.arrived);
        requests_.erase(found);
    }
}

void EngineCore::fail(const std::string& why, std::vector<Event>& events) {
    untold_.clear();
    under_way_ = false;
    remove_ended();
    for (const auto& [id, pending] : requests_) {
        Event event;
        event.request = id;
        event.finish = FinishReason::failed;
        event.error = why;
        events.push_back(std::move(event));
        for (const uint64_t sequence : pending.sequences) {
            scheduler_.remove(sequence);
        }
    }
    requests_.clear();
}

const EngineStats& EngineCore::stats() {
    const double now = clock_();
    stats_.running = static_cast<uint32_t>(std::count_if(
        scheduler_.running().begin(), scheduler_.running().end(), [](const auto& s) { return !s->ended; }));
    stats_.waiting = static_cast<uint32_t>(scheduler_.waiting().size());
    stats_.waiting_long = 0;
    for (const auto& s : scheduler_.waiting()) {
        stats_.waiting_long += now - s->waiting_since > kLongWait ? 1 : 0;
    }
    const int32_t n_blocks = scheduler_.blocks().n_blocks();
    stats_.kv_usage = n_blocks > 0 ? static_cast<double>(scheduler_.blocks().n_live()) / n_blocks : 0;
    stats_.preemptions = scheduler_.preemptions();
    stats_.prefix_queries = scheduler_.prefix_queries();
    stats_.prefix_hits = scheduler_.prefix_hits();
    return stats_;
}

}  // namespace llm::engine
