// Tokens per second of the CPU backend against what memory allows: the read bandwidth is measured in the same
// run, around every figure, because machines shared with others are not the same from one minute to the next.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
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
    std::string model;        // empty: random weights in the shape of Qwen2.5-0.5B
    std::string write_shape;  // a directory: only write a model there
    std::string shape = "qwen2.5-0.5b";
    std::string dtype = "bf16";
    std::string kernels = "auto";
    int32_t threads = 2;
    int32_t prompt = 512;
    int32_t generate = 128;  // of --on-demand
    int32_t steps = 8;
    int32_t rounds = 3;
    bool profile = false;
    bool on_demand = false;
    bool load = false;
};

// Of the whole process, all threads.
double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Tokens per second, and per second of processor time: where other programs take turns on the processors,
// only the latter says something.
struct Rate {
    double wall = 0;
    double processor = 0;
};

class Stopwatch {
  public:
    double wall() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    double processor() const { return processor_seconds() - processor_; }
    Rate rate(double tokens) const { return {tokens / wall(), tokens / processor()}; }

  private:
    Clock::time_point start_ = Clock::now();
    double processor_ = processor_seconds();
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

Rate median(const std::vector<Rate>& rates) {
    std::vector<double> wall, processor;
    for (const Rate& rate : rates) {
        wall.push_back(rate.wall);
        processor.push_back(rate.processor);
    }
    return {median(wall), median(processor)};
}

// Multiplications and additions per second of processor time of one thread that executes nothing but the
// product instruction of int8 or bf16: what no kernel can exceed.
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bf16,avx512vnni"))) double product_peak(bool int8) {
    using Wide = int32_t __attribute__((vector_size(64)));
    constexpr int kSums = 16;  // more than the instruction's latency
    constexpr int kTurns = 1 << 20;
    Wide sums[kSums] = {};
    const Wide input = Wide{} + (int8 ? 0x01010101 : 0x3f803f80);
    const Stopwatch watch;
    for (int turn = 0; turn < kTurns; turn++) {
#pragma GCC unroll 16
        for (Wide& sum : sums) {
            if (int8) {
                asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(input));
            } else {
                asm volatile("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(input));
            }
        }
    }
    return (int8 ? 128.0 : 64.0) * kSums * kTurns / watch.processor();
}
#endif

// Reads `region` once with all threads; bytes per second.
double read_once(ThreadPool& pool, const Region& region) {
    constexpr size_t kChunk = size_t{1} << 20;
    using Wide = uint64_t __attribute__((vector_size(64)));
    std::vector<uint64_t> sums(region.size() / kChunk);
    const Stopwatch watch;
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
    const double rate = static_cast<double>(region.size()) / watch.wall();
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
        backend.kv_tokens = std::max(4096, kSequences * (options.prompt + options.generate + 1));
        backend_ = std::make_unique<CpuBackend>(backend, options.kernels.c_str());
        runner_ = std::make_unique<StepRunner>(*backend_, backend.kv_tokens);
    }

    void run() {
        const auto weights = static_cast<double>(backend_->model().weight_bytes());
        std::printf("kernels %s, dtype %s, %d threads, %.0f MB of weights per step\n",
                    backend_->kernels().name, options_.dtype.c_str(), backend_->pool().size(), weights / 1e6);
        std::vector<double> bandwidth;
        std::vector<Rate> one, eight, prefill;
        for (int32_t round = 0; round < options_.rounds; round++) {
            bandwidth.push_back(read_once(backend_->pool(), region_));
            one.push_back(decode(1));
            bandwidth.push_back(read_once(backend_->pool(), region_));
            eight.push_back(decode(kSequences));
            prefill.push_back(prompt());
        }
        const double rate = median(bandwidth);
        const double floor = rate / weights;
        const Rate decode_one = median(one);
        const Rate decode_eight = median(eight);
        const Rate prefill_rate = median(prefill);
        std::printf("read bandwidth    %8.2f GB/s (%.2f..%.2f)\n", rate / 1e9,
                    *std::min_element(bandwidth.begin(), bandwidth.end()) / 1e9,
                    *std::max_element(bandwidth.begin(), bandwidth.end()) / 1e9);
        std::printf(
            "decode, batch 1   %8.2f tokens/s, %.2f of what the bandwidth allows (%.2f)   [aim 0.75]\n",
            decode_one.wall, decode_one.wall / floor, floor);
        std::printf(
            "decode, batch 8   %8.2f tokens/s, %.2f times batch 1; %.2f by processor time   [aim 5]\n",
            decode_eight.wall, decode_eight.wall / decode_one.wall,
            decode_eight.processor / decode_one.processor);
        std::printf(
            "prefill of %-4d   %8.2f tokens/s, %.2f times batch 1; %.2f by processor time   [aim 12]\n",
            options_.prompt, prefill_rate.wall, prefill_rate.wall / decode_one.wall,
            prefill_rate.processor / decode_one.processor);
        print_share_of_peak(prefill_rate);
        if (options_.profile) {
            profile("decode, batch 1", rate, [&] { decode(1); });
            profile("decode, batch 8", rate, [&] { decode(kSequences); });
            profile("prefill", rate, [&] { prompt(); });
        }
    }

    // Measures once for every line read, for a caller that measures others in between. Prints "ready", then
    // tokens per second of a prompt, of the generation that begins with an empty context, and of eight
    // sequences that go on from a prompt each.
    void answer() {
        std::printf("ready\n");
        std::fflush(stdout);
        for (std::string line; std::getline(std::cin, line);) {
            const double prefill = prompt().wall;
            const double one = generate(1, 1).wall;
            const double eight = generate(kSequences, options_.prompt).wall;
            std::printf("%.3f %.3f %.3f\n", prefill, one, eight);
            std::fflush(stdout);
        }
    }

  private:
    static constexpr int32_t kSequences = 8;

    void print_share_of_peak([[maybe_unused]] const Rate& prefill) {
#if defined(__x86_64__)
        const WeightType type = backend_->model().type;
        if (&backend_->kernels() != &kKernelsAvx512Bf16 || type == WeightType::kF32) {
            return;
        }
        double products =
            0;  // of one token, without the last product: that is done for one token of the prompt
        for (const CpuLayer& layer : backend_->model().layers) {
            for (const Matrix* matrix : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
                products += static_cast<double>(matrix->packed.n) * matrix->packed.k;
            }
        }
        std::vector<double> peaks;
        for (int32_t i = 0; i < 5; i++) {
            peaks.push_back(product_peak(type == WeightType::kInt8));
        }
        std::printf(
            "its products      %8.0f GFLOP/s of one thread's time, %.2f of the %.0f of the bare "
            "instruction\n",
            2 * products * prefill.processor / 1e9, 2 * products * prefill.processor / median(peaks),
            median(peaks) / 1e9);
#endif
    }

    // `batch` sequences with a short context; the median step counts.
    Rate decode(int32_t batch) {
        std::vector<Sequence> sequences(static_cast<size_t>(batch));
        std::vector<llm::testing::Feed> feeds;
        for (Sequence& sequence : sequences) {
            sequence.tokens.assign(static_cast<size_t>(16 + options_.steps + 1), 1234);
            feeds.push_back({&sequence, 1, false, StepRunner::greedy()});
        }
        runner_->run(feeds, false);
        std::vector<Rate> rates;
        for (int32_t step = 0; step < options_.steps; step++) {
            const Stopwatch watch;
            runner_->run(feeds, false);
            rates.push_back(watch.rate(batch));
        }
        release(sequences);
        return median(rates);
    }

    Rate prompt() {
        std::vector<Sequence> sequences{sequence_of(options_.prompt)};
        const Stopwatch watch;
        feed(sequences[0]);
        const Rate rate = watch.rate(options_.prompt);
        release(sequences);
        return rate;
    }

    // All tokens of `batch` sequences after `context` tokens each.
    Rate generate(int32_t batch, int32_t context) {
        std::vector<Sequence> sequences;
        for (int32_t i = 0; i < batch; i++) {
            sequences.push_back(sequence_of(context + options_.generate));
        }
        std::vector<llm::testing::Feed> feeds;
        for (Sequence& sequence : sequences) {
            runner_->run({{&sequence, static_cast<size_t>(context), false, StepRunner::greedy()}}, false);
            feeds.push_back({&sequence, 1, false, StepRunner::greedy()});
        }
        const Stopwatch watch;
        for (int32_t i = 0; i < options_.generate; i++) {
            runner_->run(feeds, false);
        }
        const Rate rate = watch.rate(static_cast<double>(batch) * options_.generate);
        release(sequences);
        return rate;
    }

    static Sequence sequence_of(int32_t tokens) {
        Sequence sequence;
        for (int32_t i = 0; i < tokens; i++) {
            sequence.tokens.push_back(i % 100);
        }
        return sequence;
    }

    void feed(Sequence& sequence) {
        runner_->run({{&sequence, sequence.tokens.size(), false, StepRunner::greedy()}}, false);
    }

    void release(std::vector<Sequence>& sequences) {
        for (Sequence& sequence : sequences) {
            runner_->release(sequence);
        }
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
};

// Twice: the first time brings the file into the page cache and the process's memory from the system.
void measure_load(const Options& options, const std::string& dir) {
    ThreadPool pool(options.threads);
    const ModelConfig config = load_model_config(dir);
    for (const char* which : {"first", "second"}) {
        const Stopwatch watch;
        const CpuModel model = load_cpu_model(config, options.dtype, pool);
        std::printf(
            "loading as %s, %d threads, %s time: %.2f GB ready after %.2f s (%.2f s of processor time)   "
            "[aim 10]\n",
            options.dtype.c_str(), pool.size(), which, static_cast<double>(model.weight_bytes()) / 1e9,
            watch.wall(), watch.processor());
        std::fflush(stdout);
    }
}

void run(const Options& options, const std::string& dir) {
    if (options.load) {
        measure_load(options, dir);
    } else if (options.on_demand) {
        Bench(options, dir).answer();
    } else {
        Bench(options, dir).run();
    }
}

int usage() {
    std::fprintf(
        stderr,
        "usage: engine_cpu_bench [--model DIR] [--shape NAME] [--dtype f32|bf16|int8] [--threads N] "
        "[--kernels NAME]\n"
        "                        [--prompt TOKENS] [--steps N] [--rounds N] [--profile]\n"
        "       engine_cpu_bench --load …           only loads the model, twice\n"
        "       engine_cpu_bench --on-demand …      measures prompt, generation and 8 sequences for each "
        "line it reads\n"
        "                        [--prompt TOKENS] [--generate TOKENS]\n"
        "       engine_cpu_bench --write-shape DIR [--shape NAME]\n"
        "Without --model: random weights in the shape --shape (qwen2.5-0.5b), in a temporary directory.\n");
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string_view name = argv[i];
        if (name == "--profile" || name == "--load" || name == "--on-demand") {
            (name == "--profile" ? options.profile
             : name == "--load"  ? options.load
                                 : options.on_demand) = true;
            continue;
        }
        if (i + 1 == argc) {
            return usage();
        }
        const std::string value = argv[++i];
        const auto number = [&](int most) { return std::clamp(std::atoi(value.c_str()), 1, most); };
        if (name == "--model") {
            options.model = value;
        } else if (name == "--write-shape") {
            options.write_shape = value;
        } else if (name == "--shape") {
            options.shape = value;
        } else if (name == "--dtype") {
            options.dtype = value;
        } else if (name == "--kernels") {
            options.kernels = value;
        } else if (name == "--threads") {
            options.threads = std::atoi(value.c_str());
        } else if (name == "--prompt") {
            options.prompt = number(512);
        } else if (name == "--generate") {
            options.generate = number(4096);
        } else if (name == "--steps") {
            options.steps = number(1000);
        } else if (name == "--rounds") {
            options.rounds = number(1000);
        } else {
            return usage();
        }
    }
    try {
        const char* config = llm::bench::shape_config(options.shape);
        if (!options.write_shape.empty()) {
            llm::bench::write_shape(options.write_shape, config);
            return 0;
        }
        if (!options.model.empty()) {
            run(options, options.model);
            return 0;
        }
        const llm::testing::TempDir dir;
        llm::bench::write_shape(dir.path(), config);
        run(options, dir.path());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "engine_cpu_bench: %s\n", error.what());
        return 1;
    }
    return 0;
}
