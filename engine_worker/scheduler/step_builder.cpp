#include "engine_worker/scheduler/step_builder.hpp"

#include <algorithm>
#include <bit>

namespace llm::engine {
namespace {

constexpr int32_t kBlock = BlockManager::kBlockSize;

int32_t slot_of(const Sequence& sequence, int32_t position) {
    return sequence.blocks[position / kBlock] * kBlock + position % kBlock;
}

}  // namespace

const Step& StepBuilder::build(const Plan& plan) {
    tok_.clear();
    pos_.clear();
    slot_.clear();
    q_start_.clear();
    ctx_len_.clear();
    logit_row_.clear();
    hidden_row_.clear();
    sampling_.clear();

    int32_t longest = 0;
    size_t scoring = 0;
    for (const PlannedRow& row : plan.rows) {
        longest = std::max(longest, row.end());
        scoring += static_cast<size_t>(row.sequence->n_scoring(row.first, row.end()));
    }
    forced_.clear();
    forced_.reserve(scoring);  // rows keep pointers
    grow_table(plan.rows.size(), longest);

    for (size_t i = 0; i < plan.rows.size(); ++i) {
        const PlannedRow& row = plan.rows[i];
        Sequence& s = *row.sequence;
        q_start_.push_back(static_cast<int32_t>(tok_.size()));
        for (int32_t p = row.first; p < row.end(); ++p) {
            tok_.push_back(row.sampled_by >= 0 ? -1 - row.sampled_by : s.tokens[p]);
            pos_.push_back(p);
            slot_.push_back(slot_of(s, p));
        }
        ctx_len_.push_back(row.end());
        fill_table(i, s, row.end());
        if (s.task != Task::generate) {
            const auto last = static_cast<int32_t>(tok_.size()) - 1;
            const int32_t wanted = s.task == Task::embed_mean ? row.n_tokens : row.sample ? 1 : 0;
            for (int32_t at = last - wanted + 1; at <= last; ++at) {
                hidden_row_.push_back(at);
            }
        } else {
            add_scoring(row);
            if (row.sample) {
                logit_row_.push_back(static_cast<int32_t>(tok_.size()) - 1);
                sampling_.push_back(sample_params(s));
            }
        }
    }
    q_start_.push_back(static_cast<int32_t>(tok_.size()));

    step_.n_tok = static_cast<int32_t>(tok_.size());
    step_.n_seq = static_cast<int32_t>(plan.rows.size());
    step_.tok = tok_.data();
    step_.pos = pos_.data();
    step_.slot = slot_.data();
    step_.q_start = q_start_.data();
    step_.ctx_len = ctx_len_.data();
    step_.table = table_.data();
    step_.table_ld = table_ld_;
    step_.n_decode = plan.n_decode;
    step_.n_logit = static_cast<int32_t>(logit_row_.size());
    step_.logit_row = logit_row_.data();
    step_.sampling = sampling_.data();
    step_.n_hidden = static_cast<int32_t>(hidden_row_.size());
    step_.hidden_row = hidden_row_.data();
    return step_;
}

// Log probabilities are the raw logits', so a row that may only draw the prompt's next token tells that token's.
void StepBuilder::add_scoring(const PlannedRow& row) {
    constexpr float kCertain = 1e9f;
    const Sequence& s = *row.sequence;
    const int32_t begin = static_cast<int32_t>(tok_.size()) - row.n_tokens;
    for (int32_t i = 0, n = s.n_scoring(row.first, row.end()); i < n; ++i) {
        forced_.emplace_back(s.tokens[row.first + i + 1], kCertain);
        SampleParams params;
        params.temperature = 0;
        params.position = static_cast<uint32_t>(row.first + i + 1);
        params.logit_bias = &forced_.back();
        params.n_logit_bias = 1;
        params.n_logprobs = s.sampling->n_logprobs;
        logit_row_.push_back(begin + i);
        sampling_.push_back(params);
    }
}

void StepBuilder::grow_table(size_t rows, int32_t length) {
    if (length > table_ld_ || rows > table_rows_.size()) {
        table_ld_ = std::max<int32_t>(table_ld_, std::bit_ceil(static_cast<uint32_t>(std::max(length, 256))));
        const size_t n_rows = std::max(table_rows_.size(), std::bit_ceil(rows));
        table_.assign(n_rows * static_cast<size_t>(table_ld_), 0);
        table_rows_.assign(n_rows, {});
    }
}

void StepBuilder::fill_table(size_t row, const Sequence& sequence, int32_t length) {
    TableRow& known = table_rows_[row];
    if (known.sequence != sequence.id || known.epoch != sequence.table_epoch) {
        known = {sequence.id, sequence.table_epoch, 0};
    }
    int32_t* slots = table_.data() + row * static_cast<size_t>(table_ld_);
    for (int32_t p = known.length; p < length; ++p) {
        slots[p] = slot_of(sequence, p);
    }
    known.length = std::max(known.length, length);
}

SampleParams StepBuilder::sample_params(Sequence& s) {
    const Sampling& asked = *s.sampling;
    SampleParams out;
    out.temperature = asked.temperature;
    out.top_p = asked.top_p;
    out.top_k = asked.top_k;
    out.min_p = asked.min_p;
    out.repetition_penalty = asked.repetition_penalty;
    out.presence_penalty = asked.presence_penalty;
    out.frequency_penalty = asked.frequency_penalty;
    out.seed = s.seed;
    out.position = static_cast<uint32_t>(s.n_tokens());
    out.tokens = s.tokens.data();
    out.n_prompt = s.n_prompt;
    out.n_tokens = s.n_tokens();
    const auto& bias = s.n_generated() >= asked.min_tokens ? s.bias : s.bias_no_end;
    out.logit_bias = bias.data();
    out.n_logit_bias = static_cast<int32_t>(bias.size());
    out.n_logprobs = asked.n_logprobs;
    if (s.grammar != nullptr && !s.grammar->mask().empty()) {
        out.mask = s.grammar->mask().data();
    }
    return out;
}

}  // namespace llm::engine
