// Tokens per second of the CPU backend against what memory allows: the read bandwidth is measured in the same
// run, around every figure, because machines shared with others are not the same from one minute to the next.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "bench/engine/model_shapes.hpp"
#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"

namespace {

using namespace llm::engine;
using Clock = std::chrono::steady_clock;
using llm::testing::Sequence;
using llm::testing::StepRunner;

struct Options {
    std::string model;  // empty: random weights in the shape of Qwen2.5-0.5B
    std::string dtype = "bf16";
    std::string kernels = "auto";
    int32_t threads = 2;
    int32_t prompt = 256;
    int32_t steps = 8;
    int32_t rounds = 3;
    bool profile = false;
};

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Reads `region` once with all threads; bytes per second.
double read_once(ThreadPool& pool, const Region& region) {
    constexpr size_t kChunk = size_t{1} << 20;
    using Wide = uint64_t __attribute__((vector_size(64)));
    std::vector<uint64_t> sums(region.size() / kChunk);
    const auto start = Clock::now();
    pool.run(static_cast<int32_t>(sums.size()), [&](int32_t task, int32_t) {
        const auto* data = reinterpret_cast<const Wide*>(region.data() + static_cast<size_t>(task) * kChunk);
        Wide a{}, b{}, c{}, d{};
        for (size_t i = 0; i < kChunk / sizeof(Wide); i += 4) {
            a += data[i];
            b += data[i + 1];
            c += data[i + 2];
            d += data[i + 3];
        }
        const Wide sum = a + b + c + d;
        sums[static_cast<size_t>(task)] = sum[0] ^ sum[3] ^ sum[7];
    });
    const double rate = static_cast<double>(region.size()) / seconds_since(start);
    volatile uint64_t sink = 0;
    for (const uint64_t sum : sums) {
        sink = sink + sum;
    }
    return rate;
}

class Bench {
  public:
    Bench(const Options& options, const std::string& dir) : options_(options), region_(size_t{512} << 20) {
        std::memset(region_.data(), 1, region_.size());
        BackendOptions backend;
        backend.model_dir = dir;
        backend.dtype = options.dtype;
        backend.threads = options.threads;
        backend.kv_tokens = 4096;
        const auto start = Clock::now();
        backend_ = std::make_unique<CpuBackend>(backend, options.kernels.c_str());
        load_seconds_ = seconds_since(start);
        runner_ = std::make_unique<StepRunner>(*backend_);
    }

    void run() {
        const auto weights = static_cast<double>(backend_->model().weight_bytes());
        std::printf("kernels %s, dtype %s, %d threads, %.0f MB of weights per step, loaded in %.2f s\n",
                    backend_->kernels().name, options_.dtype.c_str(), backend_->pool().size(), weights / 1e6,
                    load_seconds_);
        std::vector<double> bandwidth, one, eight, prefill;
        for (int32_t round = 0; round < options_.rounds; round++) {
            bandwidth.push_back(read_once(backend_->pool(), region_));
            one.push_back(decode(1));
            bandwidth.push_back(read_once(backend_->pool(), region_));
            eight.push_back(decode(8));
            prefill.push_back(prompt());
        }
        const double rate = median(bandwidth);
        const double floor = rate / weights;
        const double decode_one = median(one);
        const double decode_eight = median(eight);
        const double prefill_rate = median(prefill);
        std::printf("read bandwidth    %8.2f GB/s (%.2f..%.2f)\n", rate / 1e9,
                    *std::min_element(bandwidth.begin(), bandwidth.end()) / 1e9,
                    *std::max_element(bandwidth.begin(), bandwidth.end()) / 1e9);
        std::printf(
            "decode, batch 1   %8.2f tokens/s, %.2f of what the bandwidth allows (%.2f)   [aim 0.75]\n",
            decode_one, decode_one / floor, floor);
        std::printf("decode, batch 8   %8.2f tokens/s, %.2f times batch 1                     [aim 5]\n",
                    decode_eight, decode_eight / decode_one);
        std::printf("prefill of %-4d   %8.2f tokens/s, %.2f times batch 1                    [aim 12]\n",
                    options_.prompt, prefill_rate, prefill_rate / decode_one);
        if (options_.profile) {
            profile("decode, batch 1", rate, [&] { decode(1); });
            profile("decode, batch 8", rate, [&] { decode(8); });
            profile("prefill", rate, [&] { prompt(); });
        }
    }

  private:
    // Tokens per second of `batch` sequences with a short context; the median step counts.
    double decode(int32_t batch) {
        std::vector<Sequence> sequences(static_cast<size_t>(batch));
        std::vector<llm::testing::Feed> feeds;
        for (Sequence& sequence : sequences) {
            sequence.tokens.assign(static_cast<size_t>(16 + options_.steps + 1), 1234);
            feeds.push_back({&sequence, 1, false, StepRunner::greedy()});
        }
        runner_->run(feeds, false);
        std::vector<double> times;
        for (int32_t step = 0; step < options_.steps; step++) {
            const auto start = Clock::now();
            runner_->run(feeds, false);
            times.push_back(seconds_since(start));
        }
        for (Sequence& sequence : sequences) {
            runner_->release(sequence);
        }
        return batch / median(times);
    }

    double prompt() {
        Sequence sequence;
        for (int32_t i = 0; i < options_.prompt; i++) {
            sequence.tokens.push_back(i % 100);
        }
        const auto start = Clock::now();
        runner_->run({{&sequence, sequence.tokens.size(), false, StepRunner::greedy()}}, false);
        const double seconds = seconds_since(start);
        runner_->release(sequence);
        return options_.prompt / seconds;
    }

    template <typename Function>
    void profile(const char* title, double floor, Function&& function) {
        Profile& profile = backend_->profile();
        profile.reset();
        profile.enabled = true;
        function();
        profile.enabled = false;
        std::printf("\n%s\n%s", title, profile.table(floor).c_str());
    }

    Options options_;
    Region region_;
    std::unique_ptr<CpuBackend> backend_;
    std::unique_ptr<StepRunner> runner_;
    double load_seconds_ = 0;
};

int usage() {
    std::fprintf(
        stderr,
        "usage: engine_cpu_bench [--model DIR] [--write-shape DIR] [--dtype f32|bf16|int8] [--threads N]\n"
        "                        [--prompt TOKENS] [--steps N] [--rounds N] [--kernels NAME] [--profile]\n"
        "Without --model: random weights in the shape of Qwen2.5-0.5B, in a temporary directory.\n");
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string_view name = argv[i];
        if (name == "--profile") {
            options.profile = true;
            continue;
        }
        if (i + 1 == argc) {
            return usage();
        }
        const std::string value = argv[++i];
        if (name == "--model") {
            options.model = value;
        } else if (name == "--write-shape") {
            llm::bench::write_shape(value, llm::bench::kQwen05Config);
            return 0;
        } else if (name == "--dtype") {
            options.dtype = value;
        } else if (name == "--kernels") {
            options.kernels = value;
        } else if (name == "--threads") {
            options.threads = std::atoi(value.c_str());
        } else if (name == "--prompt") {
            options.prompt = std::clamp(std::atoi(value.c_str()), 1, 512);
        } else if (name == "--steps") {
            options.steps = std::max(1, std::atoi(value.c_str()));
        } else if (name == "--rounds") {
            options.rounds = std::max(1, std::atoi(value.c_str()));
        } else {
            return usage();
        }
    }
    try {
        if (!options.model.empty()) {
            Bench(options, options.model).run();
            return 0;
        }
        const llm::testing::TempDir dir;
        llm::bench::write_shape(dir.path(), llm::bench::kQwen05Config);
        Bench(options, dir.path()).run();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "engine_cpu_bench: %s\n", error.what());
        return 1;
    }
    return 0;
}
