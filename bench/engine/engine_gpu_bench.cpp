// Tokens per second of the CUDA backend, beside what the GPU's memory and matrix units allow: both ceilings are measured
// first, in the same run. bench/engine-gpu runs this.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "bench/engine/gpu_products.hpp"
#include "bench/engine/model_shapes.hpp"
#include "bench/engine/read_bandwidth.hpp"
#include "engine_worker/backend/cuda/cuda_backend.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "tests/support/gpu_array.hpp"

namespace {

using namespace llm::engine;
using namespace llm::engine::cuda;
using Clock = std::chrono::steady_clock;
using llm::testing::GpuArray;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// `count` random bf16 values; a million different ones, over and over.
std::vector<uint16_t> random_bf16(size_t count, uint64_t seed) {
    const std::vector<uint16_t> some = llm::testing::as_bf16(llm::testing::random_values(size_t{1} << 20, seed));
    std::vector<uint16_t> out;
    out.reserve(count);
    while (out.size() < count) {
        out.insert(out.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), count - out.size())));
    }
    return out;
}

struct Ceilings {
    double bytes_per_second = 0;
    double flops = 0;
};

Ceilings measure_ceilings(const DeviceInfo& device) {
    const Stream stream;
    Ceilings out;
    Event start(true), end(true);
    {
        const DeviceMemory data(std::min<size_t>(size_t{4} << 30, device.free_memory / 4));
        const DeviceMemory sink(4);
        stream.zero(data.data(), data.size());
        std::vector<double> rates;
        for (int round = 0; round < 12; round++) {
            start.record(stream);
            launch_read(data.data(), data.size(), reinterpret_cast<unsigned*>(sink.data()), device.multiprocessors,
                        stream.get());
            end.record(stream);
            end.synchronize();
            rates.push_back(static_cast<double>(data.size()) / (static_cast<double>(Event::elapsed(start, end)) * 1e-3));
        }
        out.bytes_per_second = *std::max_element(rates.begin() + 2, rates.end());
    }
    {
        constexpr int kSize = 8192;
        const auto count = static_cast<size_t>(kSize) * kSize;
        const GpuArray<uint16_t> w(random_bf16(count, 1));
        const GpuArray<uint16_t> x(random_bf16(count, 2));
        const GpuArray<uint16_t> y(count);
        const DeviceMemory workspace(Gemm::kWorkspace);
        Gemm gemm(stream, workspace.data(), device.name, "");
        GemmCall call;
        call.w = w.get();
        call.x = x.get();
        call.y = y.get();
        call.n = call.k = call.rows = call.y_stride = kSize;
        call.bf16_out = true;
        gemm.tune(call);
        std::vector<double> rates;
        for (int round = 0; round < 12; round++) {
            start.record(stream);
            gemm.run(call);
            end.record(stream);
            end.synchronize();
            rates.push_back(2.0 * kSize * kSize * kSize / (static_cast<double>(Event::elapsed(start, end)) * 1e-3));
        }
        out.flops = median({rates.begin() + 2, rates.end()});
    }
    return out;
}

long anonymous_megabytes() {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line)) {
        if (line.rfind("RssAnon:", 0) == 0) {
            return std::strtol(line.c_str() + 8, nullptr, 10) / 1024;
        }
    }
    return -1;
}

class ModelBench {
  public:
    ModelBench(const std::string& dir, const std::string& name, const Ceilings& ceilings, int context,
               const CudaOptions& cuda = {})
        : name_(name), ceilings_(ceilings), context_(context) {
        BackendOptions options;
        options.model_dir = dir;
        options.max_step_seqs = 256;
        options.max_step_tokens = 8192;
        options.max_context = std::min(8192, load_model_config(dir).max_context);
        options.kv_tokens = int64_t{256} * (context + 256);
        const auto start = Clock::now();
        backend_ = std::make_unique<CudaBackend>(options, cuda);
        std::printf("%-14s ready after %.1f s with %ld MB of anonymous host memory (algorithms timed or from the file)\n",
                    name.c_str(), seconds_since(start), anonymous_megabytes());
    }

    // As the engine does it: each step is launched while the one before it runs, with the tokens that that one samples.
    void decode(int batch, int steps) {
        Batch b(batch, context_, backend_->info().vocab_size);
        std::vector<double> times, launches;
        StepResult result;
        backend_->launch(b.next(false));
        auto before = Clock::now();
        for (int i = 0; i < steps + 5; i++) {
            const auto start = Clock::now();
            backend_->launch(b.next(true));
            const double launch = seconds_since(start);
            backend_->wait(result);
            const auto now = Clock::now();
            if (i >= 5) {
                times.push_back(std::chrono::duration<double>(now - before).count());
                launches.push_back(launch);
            }
            before = now;
        }
        backend_->wait(result);
        const ModelConfig& config = backend_->model().config;
        const auto weights = static_cast<double>(backend_->model().bytes_per_step());
        const double kv = static_cast<double>(kv_bytes_per_token(config)) * batch * context_;
        const double floor = std::max(weights / ceilings_.bytes_per_second, weights * batch / ceilings_.flops) +
                             kv / ceilings_.bytes_per_second;
        const double time = median(times);
        std::printf("%-14s decode %-4d %10.3f ms %12.0f tok/s   floor %8.3f ms   %5.1f %% of it   launch %4.0f us\n",
                    name_.c_str(), batch, time * 1e3, batch / time, floor * 1e3, 100 * floor / time, median(launches) * 1e6);
    }

    void prefill(int tokens) {
        std::vector<double> times;
        for (int i = 0; i < 7; i++) {
            Batch b(1, tokens, backend_->info().vocab_size);
            const auto start = Clock::now();
            StepResult result;
            backend_->launch(b.prompt(tokens));
            backend_->wait(result);
            if (i >= 2) {
                times.push_back(seconds_since(start));
            }
        }
        const ModelConfig& config = backend_->model().config;
        const auto blocks = static_cast<double>(backend_->model().bytes_per_step() - backend_->model().lm_head.bytes());
        const double attention = 2.0 * config.n_layers * config.n_heads * config.head_dim * tokens * tokens;
        const double floor = (blocks * tokens + attention) / ceilings_.flops;
        const double time = median(times);
        std::printf("%-14s prefill %-5d %8.3f ms %12.0f tok/s   floor %8.3f ms   %5.1f %% of it\n", name_.c_str(), tokens,
                    time * 1e3, tokens / time, floor * 1e3, 100 * floor / time);
    }

    // What each stage of one step takes, and what it reads or computes per second. The stages are launched one by one with an event
    // between them, so that nothing overlaps: their sum is more than a step of a graph takes.
    void decode_stages(int batch) {
        Batch b(batch, context_, backend_->info().vocab_size);
        stages("decode", batch, [&]() -> const Step& { return b.next(false); });
    }
    void prefill_stages(int tokens) {
        Batch b(1, tokens, backend_->info().vocab_size);
        stages("prefill", tokens, [&]() -> const Step& { return b.prompt(tokens); });
    }

    double weights() const { return static_cast<double>(backend_->model().bytes_per_step()); }

  private:
    struct Batch;

    template <typename MakeStep>
    void stages(const char* kind, int rows, MakeStep make) {
        const DeviceMemory busy(size_t{256} << 20);
        const DeviceMemory sink(4);
        std::vector<std::pair<std::string, std::unique_ptr<Event>>> marks;
        backend_->watch([&](const char* stage, const Stream& stream) {
            if (marks.empty()) {  // the GPU is kept busy until all is launched
                for (int i = 0; i < 150; i++) {
                    launch_read(busy.data(), busy.size(), reinterpret_cast<unsigned*>(sink.data()),
                                backend_->device().multiprocessors, stream.get());
                }
            }
            marks.emplace_back(stage, std::make_unique<Event>(true));
            marks.back().second->record(stream);
        });
        std::map<std::string, double> sums;
        std::vector<std::string> order;
        for (int round = 0; round < 2; round++) {  // the first warms up
            marks.clear();
            StepResult result;
            backend_->launch(make());
            backend_->wait(result);
        }
        backend_->watch(nullptr);
        double total = 0;
        for (size_t i = 1; i < marks.size(); i++) {
            const double ms = static_cast<double>(Event::elapsed(*marks[i - 1].second, *marks[i].second));
            if (!sums.contains(marks[i].first)) {
                order.push_back(marks[i].first);
            }
            sums[marks[i].first] += ms;
            total += ms;
        }
        std::printf("%-14s %s %d by stage, nothing overlapping: %.3f ms\n", name_.c_str(), kind, rows, total);
        const GpuModel& model = backend_->model();
        const ModelConfig& config = model.config;
        const bool decode = kind[0] == 'd';
        const GpuLayer& layer = model.layers.front();
        const std::map<std::string, const GpuMatrix*> matrices = {{"qkv", &layer.qkv},
                                                                  {"o", &layer.o},
                                                                  {"gate_up", &layer.gate_up},
                                                                  {"down", &layer.down},
                                                                  {"lm_head", &model.lm_head}};
        for (const std::string& stage : order) {
            const double ms = sums[stage];
            std::printf("    %-10s %9.3f ms %5.1f %%", stage.c_str(), ms, 100 * ms / total);
            if (const auto found = matrices.find(stage); found != matrices.end()) {
                const GpuMatrix& m = *found->second;
                const double times = stage == "lm_head" ? 1 : config.n_layers;
                const double products = stage == "lm_head" && !decode ? 1 : rows;
                std::printf("  %6.0f GB/s of weights  %6.1f TFLOP/s", times * static_cast<double>(m.bytes()) / ms * 1e-6,
                            2.0 * times * m.n * m.k * products / ms * 1e-9);
            } else if (stage == "attention" && decode) {
                std::printf("  %6.0f GB/s of keys and values",
                            static_cast<double>(kv_bytes_per_token(config)) * rows * context_ / ms * 1e-6);
            } else if (stage == "attention") {
                std::printf("  %29.1f TFLOP/s",
                            2.0 * config.n_layers * config.n_heads * config.head_dim * rows * rows / ms * 1e-9);
            }
            std::printf("\n");
        }
    }

    // Sequences at `context` tokens whose keys are whatever is in the cache: only the time is looked at.
    struct Batch {
        Batch(int n, int context, int vocab) : vocab_(vocab), room_(context + 256) {
            for (int i = 0; i < n; i++) {
                tok_.push_back(i * 131 % vocab);
                pos_.push_back(context - 1);
                slot_.push_back(i * room_ + context - 1);
                q_start_.push_back(i);
                ctx_.push_back(context);
                rows_.push_back(i);
            }
            q_start_.push_back(n);
            table_.resize(static_cast<size_t>(n) * static_cast<size_t>(room_));
            std::iota(table_.begin(), table_.end(), 0);
            params_.resize(static_cast<size_t>(n));
            for (size_t i = 0; i < params_.size(); i++) {
                params_[i].temperature = 0.8f;
                params_[i].top_p = 0.95f;
                params_[i].seed = i;
            }
        }
        // One token on; `ahead`: with the tokens that the step before samples.
        const Step& next(bool ahead) {
            for (size_t i = 0; i < tok_.size(); i++) {
                tok_[i] = ahead ? -1 - static_cast<int32_t>(i) : static_cast<int32_t>(i) * 131 % vocab_;
                pos_[i]++;
                slot_[i]++;
                ctx_[i]++;
                params_[i].position++;
            }
            return fill(static_cast<int>(tok_.size()), static_cast<int>(tok_.size()));
        }
        const Step& prompt(int tokens) {
            tok_.clear(), pos_.clear(), slot_.clear();
            for (int i = 0; i < tokens; i++) {
                tok_.push_back(i * 131 % vocab_);
                pos_.push_back(i);
                slot_.push_back(i);
            }
            q_start_ = {0, tokens};
            ctx_ = {tokens};
            rows_ = {tokens - 1};
            return fill(1, 0);
        }
        const Step& fill(int sequences, int decodes) {
            step_.n_tok = static_cast<int>(tok_.size());
            step_.n_seq = sequences;
            step_.n_decode = decodes;
            step_.tok = tok_.data();
            step_.pos = pos_.data();
            step_.slot = slot_.data();
            step_.q_start = q_start_.data();
            step_.ctx_len = ctx_.data();
            step_.table = table_.data();
            step_.table_ld = room_;
            step_.n_logit = sequences;
            step_.logit_row = rows_.data();
            step_.sampling = params_.data();
            return step_;
        }
        int vocab_, room_;
        Step step_;
        std::vector<int32_t> tok_, pos_, slot_, q_start_, ctx_, rows_, table_;
        std::vector<SampleParams> params_;
    };

    std::string name_;
    Ceilings ceilings_;
    int context_;
    std::unique_ptr<CudaBackend> backend_;
};

int run(int argc, char** argv) {
    if (argc == 4 && std::string(argv[1]) == "--write") {
        llm::bench::write_shape(argv[3], llm::bench::shape_config(argv[2]));
        return 0;
    }
    const DeviceInfo device = open_device();
    prepare_kernels(device.major >= 9);
    const Ceilings ceilings = measure_ceilings(device);
    std::printf("%s, compute capability %d.%d, %d multiprocessors, %s\n", device.name.c_str(), device.major, device.minor,
                device.multiprocessors, memory_text(device.total_memory).c_str());
    std::printf("ceiling: memory read        %8.0f GB/s\n", ceilings.bytes_per_second / 1e9);
    std::printf("ceiling: bf16 products      %8.0f TFLOP/s (8192 x 8192 x 8192, random data)\n", ceilings.flops / 1e12);
    if (argc == 2 && std::string(argv[1]) == "--products") {
        llm::bench::print_products(device, ceilings.bytes_per_second);
        return 0;
    }
    for (int i = 1; i + 1 < argc; i += 2) {  // NAME DIR ...
        auto own = std::make_unique<ModelBench>(argv[i + 1], argv[i], ceilings, 1024);
        ModelBench& bench = *own;
        for (const int batch : {1, 8, 32, 128, 256}) {
            bench.decode(batch, batch == 1 ? 100 : 50);
        }
        for (const int tokens : {512, 2048, 8192}) {
            bench.prefill(tokens);
        }
        for (const int batch : {1, 32, 256}) {
            bench.decode_stages(batch);
        }
        bench.prefill_stages(8192);
        if (bench.weights() < 2e9) {  // quickly loaded again: what overlapping launches and graphs are worth
            own.reset();
            CudaOptions without;
            without.overlap = false;
            ModelBench(argv[i + 1], "  no overlap", ceilings, 1024, without).decode(1, 100);
            without.graphs = false;
            ModelBench(argv[i + 1], "  nor graphs", ceilings, 1024, without).decode(1, 100);
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was measured is seen even if the rest fails
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "engine_gpu_bench: %s\n", error.what());
        return 1;
    }
}
