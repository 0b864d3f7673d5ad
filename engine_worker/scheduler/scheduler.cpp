#include "engine_worker/scheduler/scheduler.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace llm::engine {
namespace {

constexpr int32_t kBlock = BlockManager::kBlockSize;
constexpr int32_t kScoredChunk = 64;  // tokens of a chunk that all need logits: those are large
// How long a step with prefill may take: this many times the decodes alone, and so many milliseconds in any case, which
// is 33 tokens per second for everybody. On a GPU whose decodes take 10 ms, half as long again would leave prompts a third
// of its time: prompts of 1,000 tokens with answers of 250 would halve its throughput.
constexpr double kStretch = 1.5;
constexpr double kPleasantMs = 30;

int32_t blocks_for(int32_t n_tokens) {
    return (n_tokens + kBlock - 1) / kBlock;
}

// Who keeps their memory when it runs out: the first of these.
bool before(const Sequence& a, const Sequence& b) {
    return a.priority_class != b.priority_class ? a.priority_class < b.priority_class : a.id < b.id;
}

// The waiting line.
bool waits_before(const Sequence& a, const Sequence& b) {
    if (a.priority_class != b.priority_class) {
        return a.priority_class < b.priority_class;
    }
    const bool a_resumes = a.n_cached >= 0;
    const bool b_resumes = b.n_cached >= 0;
    return a_resumes != b_resumes ? a_resumes : a.id < b.id;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), blocks_(options.n_blocks, options.hash_key) {}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
    sequence->chain = sequence->root;
    enqueue(std::move(sequence));
}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
    const auto at = std::upper_bound(waiting_.begin(), waiting_.end(), sequence,
                                     [](const auto& a, const auto& b) { return waits_before(*a, *b); });
    waiting_.insert(at, std::move(sequence));
}

const Plan& Scheduler::plan(double now) {
    ++step_;
    plan_.rows.clear();
    plan_.n_decode = 0;
    plan_.load = {};
    for (const auto& sequence : running_) {
        sequence->n_planned = 0;
    }
    admit(now);
    plan_decodes(now);
    plan_prefill(now);
    build_rows();
    return plan_;
}

// ---- admission --------------------------------------------------------------------------------------------

void Scheduler::admit(double now) {
    for (size_t i = 0; i < waiting_.size();) {
        const Sequence& candidate = *waiting_[i];
        if (blocked_by_sibling(candidate)) {
            ++i;
            continue;
        }
        const bool seat = running_.size() < static_cast<size_t>(options_.max_running);
        if (seat && fits_beside_all(candidate)) {
            start(i, now);
            continue;
        }
        Sequence* victim = victim_for(candidate);
        if (victim == nullptr || !fits_without_victims(candidate)) {
            return;  // nobody overtakes: a long prompt must not wait for ever behind a stream of short ones
        }
        preempt(*victim, now);  // it lines up behind the candidate: its class is lower
    }
}

// Choices of one prompt share its blocks: the others start when the first has computed them.
bool Scheduler::blocked_by_sibling(const Sequence& candidate) const {
    if (candidate.n_generated() > 0 || candidate.n_prompt <= kBlock) {
        return false;
    }
    return std::any_of(running_.begin(), running_.end(), [&](const auto& other) {
        return other->request == candidate.request && other->prompt_index == candidate.prompt_index &&
               other->n_generated() == 0;
    });
}

Footprint Scheduler::footprint(const Sequence& sequence) const {
    const int32_t so_far = sequence.n_generated();
    int32_t left = lengths_.remaining(so_far, sequence.max_tokens);
    if (sequence.shortages > 0) {
        // The guess was wrong: as many tokens again as it has, and twice that with every further time. So it happens a few
        // times to a long answer. Its whole limit, most often that of the context, would keep everybody else out.
        const int64_t more = static_cast<int64_t>(std::max(left, so_far)) << std::min(sequence.shortages - 1, 31);
        left = static_cast<int32_t>(std::min<int64_t>(more, sequence.max_tokens - so_far));
    }
    const int64_t used = static_cast<int64_t>(blocks_for(sequence.n_tokens())) * kBlock;
    return {used, static_cast<int64_t>(blocks_for(sequence.n_tokens() + left)) * kBlock - used};
}

bool Scheduler::fits_beside_all(const Sequence& candidate) {
    footprints_.assign(1, footprint(candidate));
    for (const auto& other : running_) {
        footprints_.push_back(footprint(*other));
    }
    return peak_slots(footprints_) <= max_slots();
}

bool Scheduler::fits_without_victims(const Sequence& candidate) {
    footprints_.assign(1, footprint(candidate));
    for (const auto& other : running_) {
        if (!may_make_room(*other, candidate)) {
            footprints_.push_back(footprint(*other));
        }
    }
    return footprints_.size() <= static_cast<size_t>(options_.max_running) &&
           peak_slots(footprints_) <= max_slots();
}

bool Scheduler::may_make_room(const Sequence& running, const Sequence& candidate) const {
    return running.priority_class > candidate.priority_class &&
           step_ - running.admitted_step >= options_.quantum;
}

// The lowest class; in it, who was disturbed least so far, and of those the youngest.
Sequence* Scheduler::victim_for(const Sequence& candidate) const {
    Sequence* victim = nullptr;
    for (const auto& other : running_) {
        if (!may_make_room(*other, candidate)) {
            continue;
        }
        if (victim == nullptr || other->priority_class > victim->priority_class ||
            (other->priority_class == victim->priority_class &&
             (other->preemptions != victim->preemptions ? other->preemptions < victim->preemptions
                                                        : other->id > victim->id))) {
            victim = other.get();
        }
    }
    return victim;
}

void Scheduler::start(size_t waiting_index, double now) {
    std::unique_ptr<Sequence> sequence = std::move(waiting_[waiting_index]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(waiting_index));
    Sequence& s = *sequence;
    // At least one token is left to compute: its logits are what the step is for.
    // A mean and a score need the state of every token, and memory holds none.
    const int32_t reusable = s.task == Task::embed_mean || s.scores_prompt() ? 0 : s.n_tokens() - 1;
    blocks_.match(s.tokens, reusable, s.blocks, s.chain);
    s.n_published = static_cast<int32_t>(s.blocks.size());
    s.n_computed = s.n_published * kBlock;
    if (s.n_cached < 0) {
        s.n_cached = s.n_computed;
        prefix_queries_ += s.n_prompt;
        prefix_hits_ += s.n_cached;
    }
    s.running = true;
    s.admitted_step = step_;
    ++s.table_epoch;
    s.charged_until = now;
    running_.push_back(std::move(sequence));
}

// ---- preemption and memory --------------------------------------------------------------------------------

void Scheduler::preempt(Sequence& victim, double now) {
    const auto at =
        std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.get() == &victim; });
    std::unique_ptr<Sequence> sequence = std::move(*at);
    running_.erase(at);
    release(*sequence);
    ++sequence->preemptions;
    ++preemptions_;
    sequence->waiting_since = now;
    enqueue(std::move(sequence));
}

void Scheduler::release(Sequence& sequence) {
    for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) {
        blocks_.release(*block);
    }
    sequence.blocks.clear();
    sequence.chain = sequence.root;
    sequence.n_published = 0;
    sequence.n_computed = 0;
    sequence.n_planned = 0;
    sequence.running = false;
}

void Scheduler::give_up_memory(Sequence& victim, double now) {
    ++victim.shortages;
    preempt(victim, now);
}

int32_t Scheduler::reserve(Sequence& sequence, int32_t n_tokens, double now) {
    const size_t needed = static_cast<size_t>(blocks_for(n_tokens));
    while (sequence.blocks.size() < needed) {
        const int32_t block = blocks_.allocate();
        if (block >= 0) {
            sequence.blocks.push_back(block);
            continue;
        }
        Sequence* last = nullptr;
        for (const auto& other : running_) {
            if (before(sequence, *other) && (last == nullptr || before(*last, *other))) {
                last = other.get();
            }
        }
        if (last == nullptr) {
            break;
        }
        give_up_memory(*last, now);
    }
    return std::min(n_tokens, static_cast<int32_t>(sequence.blocks.size()) * kBlock);
}

// ---- the step ---------------------------------------------------------------------------------------------

void Scheduler::sort_running(bool decoding) {
    order_.clear();
    for (const auto& sequence : running_) {
        if (sequence->decoding() == decoding) {
            order_.push_back(sequence.get());
        }
    }
    std::sort(order_.begin(), order_.end(),
              [](const Sequence* a, const Sequence* b) { return before(*a, *b); });
}

void Scheduler::plan_decodes(double now) {
    sort_running(true);
    for (Sequence* sequence : order_) {
        if (!sequence->running) {
            continue;  // made room for an earlier one
        }
        if (reserve(*sequence, sequence->n_tokens(), now) < sequence->n_tokens()) {
            give_up_memory(*sequence, now);
            continue;
        }
        sequence->n_planned = 1;
        ++plan_.load.decodes;
        plan_.load.context_tokens += sequence->n_tokens();
    }
}

void Scheduler::plan_prefill(double now) {
    int32_t room = options_.max_step_tokens;
    if (plan_.load.decodes > 0) {
        const double target =
            options_.step_target_ms > 0 ? options_.step_target_ms
                                        : std::max(kStretch * cost_.predict(plan_.load), kPleasantMs);
        room = std::max(cost_.prefill_room(plan_.load, target, 2 * options_.min_chunk), options_.min_chunk);
        room = std::min(room, options_.max_step_tokens - plan_.load.decodes);
    }
    sort_running(false);
    for (Sequence* sequence : order_) {
        if (room <= 0) {
            return;
        }
        if (!sequence->running) {
            continue;
        }
        int32_t wanted = std::min(room, sequence->n_tokens() - sequence->n_computed);
        if (sequence->scores_prompt()) {
            wanted = std::min(wanted, kScoredChunk);
        }
        const int32_t covered = reserve(*sequence, sequence->n_computed + wanted, now);
        sequence->n_planned = covered - sequence->n_computed;
        room -= sequence->n_planned;
    }
}

void Scheduler::build_rows() {
    plan_.load = {};
    for (const bool decoding : {true, false}) {
        for (const auto& sequence : running_) {
            const int32_t n = sequence->n_planned;
            if (n == 0 || sequence->decoding() != decoding) {
                continue;
            }
            const PlannedRow row{sequence.get(), sequence->n_computed, n, sequence->n_computed + n == sequence->n_tokens()};
            plan_.rows.push_back(row);
            plan_.load.context_tokens += row.end();
            (decoding ? plan_.load.decodes : plan_.load.prefill_tokens) += n;
        }
    }
    plan_.n_decode = plan_.load.decodes;
}

bool Scheduler::plan_ahead(const Plan& plan, Plan& next) {
    next.rows.clear();
    next.n_decode = 0;
    next.load = {};
    const auto running = std::count_if(running_.begin(), running_.end(), [](const auto& s) { return !s->ended; });
    int32_t new_blocks = 0;
    int32_t lowest = 0;  // class of those that go on
    std::ptrdiff_t planned = 0;
    for (size_t i = 0; i < plan.rows.size(); ++i) {
        Sequence& s = *plan.rows[i].sequence;
        if (s.ended) {
            continue;
        }
        ++planned;
        if (s.n_generated() + 1 < s.max_tokens) {
            next.rows.push_back({&s, s.n_tokens(), 1, true, static_cast<int32_t>(i)});
            new_blocks += blocks_for(s.n_tokens() + 1) - static_cast<int32_t>(s.blocks.size());
            lowest = std::max(lowest, s.priority_class);
        }
    }
    if (next.rows.empty() || planned < running || new_blocks > blocks_.n_available()) {
        return false;
    }
    const bool seat = next.rows.size() < static_cast<size_t>(options_.max_running);
    if (!waiting_.empty() &&
        (waiting_.front()->priority_class < lowest || (seat && fits_beside_all(*waiting_.front())))) {
        return false;
    }
    ++step_;
    for (const PlannedRow& row : next.rows) {
        row.sequence->expect_token();
        while (row.sequence->blocks.size() < static_cast<size_t>(blocks_for(row.end()))) {
            row.sequence->blocks.push_back(blocks_.allocate());
        }
        next.load.context_tokens += row.end();
    }
    next.n_decode = next.load.decodes = static_cast<int32_t>(next.rows.size());
    return true;
}

void Scheduler::commit(const PlannedRow& row) {
    Sequence& s = *row.sequence;
    s.n_computed += row.n_tokens;
    const std::span<const int32_t> tokens(s.tokens);
    while ((s.n_published + 1) * kBlock <= s.n_computed) {
        s.chain = blocks_.publish(s.blocks[s.n_published], s.chain,
                                  tokens.subspan(static_cast<size_t>(s.n_published) * kBlock, kBlock));
        ++s.n_published;
    }
}

std::unique_ptr<Sequence> Scheduler::remove(uint64_t id) {
    for (auto* list : {&running_, &waiting_}) {
        const auto at = std::find_if(list->begin(), list->end(), [id](const auto& s) { return s->id == id; });
        if (at != list->end()) {
            std::unique_ptr<Sequence> sequence = std::move(*at);
            list->erase(at);
            release(*sequence);
            return sequence;
        }
    }
    return nullptr;
}

std::string Scheduler::check() const {
    if (std::string fault = blocks_.check(); !fault.empty()) {
        return fault;
    }
    if (running_.size() > static_cast<size_t>(options_.max_running)) {
        return "more sequences run than there are seats";
    }
    std::vector<int32_t> held;
    for (const auto& s : running_) {
        if (!s->running || s->n_computed > static_cast<int32_t>(s->blocks.size()) * kBlock ||
            s->n_computed >= s->n_tokens()) {
            return "running sequence " + std::to_string(s->id) + " has no memory for what it computed";
        }
        held.insert(held.end(), s->blocks.begin(), s->blocks.end());
    }
    std::sort(held.begin(), held.end());
    held.erase(std::unique(held.begin(), held.end()), held.end());
    if (static_cast<int32_t>(held.size()) != blocks_.n_live()) {
        return "blocks are live that no running sequence holds";
    }
    for (size_t i = 0; i < waiting_.size(); ++i) {
        if (waiting_[i]->running || !waiting_[i]->blocks.empty()) {
            return "waiting sequence " + std::to_string(waiting_[i]->id) + " holds memory";
        }
        if (i > 0 && waits_before(*waiting_[i], *waiting_[i - 1])) {
            return "the waiting line is out of order";
        }
    }
    return "";
}

}  // namespace llm::engine
