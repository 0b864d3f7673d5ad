// Steps that are launched before the tokens of the one before are known, under the engine as it is.
#include <map>
#include <memory>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/scheduler/engine_core.hpp"
#include "tests/unit/cuda/backend_fixture.hpp"

namespace llm::engine::cuda {
namespace {

constexpr int32_t kVocabulary = 259;
constexpr int32_t kPeriod = 10;

// Passes everything on, and counts the steps that were launched while another was under way.
class Watched : public Backend {
  public:
    Watched(std::unique_ptr<Backend> backend, int& ahead) : backend_(std::move(backend)), ahead_(ahead) {}
    const BackendInfo& info() const override { return backend_->info(); }
    void launch(const Step& step) override {
        ahead_ += under_way_++;
        backend_->launch(step);
    }
    void wait(StepResult& result) override {
        under_way_--;
        backend_->wait(result);
    }

  private:
    std::unique_ptr<Backend> backend_;
    int& ahead_;
    int under_way_ = 0;
};

// Whose tokens the model repeats for ever; `id` makes them different.
std::vector<int32_t> period(uint64_t id) {
    std::vector<int32_t> out;
    for (int32_t i = 0; i < kPeriod; i++) {
        out.push_back((i * 41 + static_cast<int32_t>(id) * 17) % 256);
    }
    return out;
}

Request request(uint64_t id, int32_t max_tokens) {
    Request out;
    out.id = id;
    out.prompts = {period(id)};
    out.sampling.max_tokens = max_tokens;
    out.sampling.temperature = 0;
    out.sampling.n_logprobs = 0;
    out.sampling.score_prompts = id % 2 == 0;
    return out;
}

TEST_F(CudaBackendTest, StepsAheadSayTheSame) {
    const TempDir dir;
    llm::testing::write_copy_model(dir.path(), kVocabulary, kPeriod - 1);
    const auto tokenizer = make_byte_tokenizer();
    constexpr uint64_t kRequests = 9;
    for (const bool graphs : {true, false}) {
        int ahead = 0;
        EngineOptions engine;
        engine.max_running = 4;
        engine.end_tokens = {period(3)[7]};
        EngineCore core(std::make_unique<Watched>(
                            std::make_unique<CudaBackend>(options(dir.path()),
                                                          CudaOptions{.graphs = graphs, .tune = true, .overlap = true, .algorithm_file = ""}),
                            ahead),
                        *tokenizer, engine, [] { return 1.0; });
        std::map<uint64_t, std::vector<int32_t>> said;
        std::vector<engine::Event> events;
        uint64_t next = 1;
        for (int round = 0; next <= kRequests || core.has_work(); round++) {
            ASSERT_LT(round, 500);
            if (round % 7 == 0 && next <= kRequests) {
                core.add(request(next, 5 + static_cast<int32_t>(next) * 4));
                next++;
            }
            if (round == 30) {
                core.cancel(4);
            }
            events.clear();
            core.step(events);
            for (const engine::Event& event : events) {
                ASSERT_NE(event.finish, FinishReason::failed) << event.error;
                if (said[event.request].empty()) {
                    ASSERT_EQ(event.prompt_logprobs.size(), event.request % 2 == 0 ? size_t{kPeriod - 1} : 0);
                }
                for (size_t i = 0; i < event.prompt_logprobs.size(); i++) {
                    const TokenLogprob& token = event.prompt_logprobs[i].front();
                    ASSERT_EQ(token.token, period(event.request)[i + 1]);
                    ASSERT_LT(token.logprob, 0.0f);
                }
                for (const TokenLogprob& token : event.logprobs) {
                    said[event.request].push_back(token.token);
                }
            }
            ASSERT_EQ(core.scheduler().check(), "");
        }
        EXPECT_GT(ahead, 20);
        for (uint64_t id = 1; id <= kRequests; id++) {
            const std::vector<int32_t> expected = period(id);
            const std::vector<int32_t>& got = said[id];
            if (id == 3) {
                EXPECT_EQ(got.size(), 7u) << "the end token comes eighth, and is not shown";
            } else if (id != 4) {
                EXPECT_EQ(got.size(), 5 + id * 4);
            }
            for (size_t i = 0; i < got.size(); i++) {
                ASSERT_EQ(got[i], expected[i % expected.size()]) << "request " << id << ", token " << i;
            }
        }
    }
}

TEST_F(CudaBackendTest, TwoStepsMayBeUnderWay) {
    const TempDir dir;
    llm::testing::write_copy_model(dir.path(), kVocabulary, 0);  // every token is the one before
    CudaBackend backend(options(dir.path()));
    StepResult result;
    EXPECT_THROW(backend.wait(result), std::invalid_argument);
    std::vector<int32_t> tok{42}, pos{0}, slot{7}, q_start{0, 1}, ctx{1}, table{7, 8, 9}, rows{0};
    const SampleParams greedy = StepRunner::greedy();
    Step step;
    step.n_tok = step.n_seq = step.n_decode = step.n_logit = 1;
    step.tok = tok.data();
    step.pos = pos.data();
    step.slot = slot.data();
    step.q_start = q_start.data();
    step.ctx_len = ctx.data();
    step.table = table.data();
    step.table_ld = 3;
    step.logit_row = rows.data();
    step.sampling = &greedy;
    tok[0] = -1;
    EXPECT_THROW(backend.launch(step), std::invalid_argument) << "there was no step before";
    tok[0] = 42;
    backend.launch(step);
    tok[0] = -2;
    EXPECT_THROW(backend.launch(step), std::invalid_argument) << "the step before has one row";
    tok[0] = -1, pos[0] = 1, slot[0] = 8, ctx[0] = 2;
    backend.launch(step);
    EXPECT_THROW(backend.launch(step), std::invalid_argument) << "two are under way";
    backend.wait(result);
    EXPECT_EQ(result.token, std::vector<int32_t>{42});
    pos[0] = 2, slot[0] = 9, ctx[0] = 3;
    backend.launch(step);
    for (int i = 0; i < 2; i++) {
        backend.wait(result);
        EXPECT_EQ(result.token, std::vector<int32_t>{42});
    }
    EXPECT_THROW(backend.wait(result), std::invalid_argument);
}

}  // namespace
}  // namespace llm::engine::cuda
