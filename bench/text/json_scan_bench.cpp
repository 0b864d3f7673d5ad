// What the text layer costs per request and per streamed chunk, beside memchr and nlohmann-json in the same
// run. Figures: bytes per second, or ns per item; "instructions" per iteration where the kernel lets us count
// them.
#include <benchmark/benchmark.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>

#include "ngx_module/core/text/bearer.hpp"
#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/multipart.hpp"
#include "ngx_module/core/text/sse_scan.hpp"
#include "ngx_module/core/text/string_skip.hpp"
#include "shared/json.hpp"

namespace llm::core {
namespace {

// User instructions of this thread; -1 where perf events are not available (virtual machines, containers).
class InstructionCounter {
  public:
    InstructionCounter() {
        perf_event_attr attributes{};
        attributes.size = sizeof(attributes);
        attributes.type = PERF_TYPE_HARDWARE;
        attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
        attributes.exclude_kernel = 1;
        attributes.exclude_hv = 1;
        file_ = static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
    }
    ~InstructionCounter() {
        if (file_ >= 0) {
            close(file_);
        }
    }
    InstructionCounter(const InstructionCounter&) = delete;
    InstructionCounter& operator=(const InstructionCounter&) = delete;

    int64_t read() const {
        int64_t count = -1;
        return file_ >= 0 && ::read(file_, &count, sizeof(count)) == sizeof(count) ? count : -1;
    }

  private:
    int file_;
};

template <typename Work>
void measure(benchmark::State& state, size_t bytes, Work work) {
    const InstructionCounter counter;
    const int64_t before = counter.read();
    for (auto _ : state) {
        work();
    }
    if (before >= 0) {
        state.counters["instructions"] = benchmark::Counter(static_cast<double>(counter.read() - before),
                                                            benchmark::Counter::kAvgIterations);
    }
    state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
}

std::string repeated(std::string_view piece, size_t size) {
    std::string text;
    while (text.size() < size) {
        text += piece;
    }
    return text;
}

constexpr std::string_view kAscii = "The quick brown fox jumps over the lazy dog, and nobody minds. ";
constexpr std::string_view kFrench =
    "D\u00e8s No\u00ebl, o\u00f9 un z\u00e9phyr ha\u00ef me v\u00eat de gla\u00e7ons. ";
constexpr std::string_view kChinese =
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65\u5427\u3002";
constexpr std::string_view kCode = "for (int i = 0; i < n; ++i) {\\n    sum += \\\"x\\\"[i];\\n}\\n";

std::string one_string(std::string_view piece, size_t size) {
    return R"({"model":"m","messages":[{"role":"user","content":")" + repeated(piece, size) + "\"}]}";
}

// About 1 KB: a system prompt and a short conversation, as the official client sends it.
std::string chat_body() {
    std::string body = R"({"messages":[{"role":"system","content":")" + repeated(kAscii, 300) + "\"}";
    for (int turn = 0; turn < 3; ++turn) {
        body += R"(,{"role":"user","content":"What is the capital of France, and why is it so?\n"})";
        body += R"(,{"role":"assistant","content":"Paris: it has been the seat of kings."})";
    }
    return body + R"(],"model":"llama-3.1-8b","max_tokens":256,"temperature":0.7,"top_p":0.95,"stream":true,)"
                  R"("stream_options":{"include_usage":true},"user":"u-1234"})";
}

void scan_json(benchmark::State& state, const std::string& body, size_t piece) {
    measure(state, body.size(), [&] {
        JsonScan scan;
        for (size_t at = 0; at < body.size(); at += piece) {
            scan.feed(std::string_view(body).substr(at, piece));
        }
        bool ok = scan.finish();
        benchmark::DoNotOptimize(ok);
        if (!ok) {
            state.SkipWithError("the body was refused");
        }
    });
}

void parse_json(benchmark::State& state, const std::string& body) {
    measure(state, body.size(), [&] {
        auto parsed = nlohmann::json::parse(body, nullptr, false);
        benchmark::DoNotOptimize(parsed);
    });
}

const std::string kBodyAscii = one_string(kAscii, 1 << 20);
const std::string kBodyFrench = one_string(kFrench, 1 << 20);
const std::string kBodyChinese = one_string(kChinese, 1 << 20);
const std::string kBodyCode = one_string(kCode, 1 << 20);
const std::string kBody16 = one_string(kAscii, 16 << 10);
const std::string kBodyChat = chat_body();

BENCHMARK_CAPTURE(scan_json, string_1m_ascii, kBodyAscii, 1 << 30);
BENCHMARK_CAPTURE(scan_json, string_1m_french, kBodyFrench, 1 << 30);
BENCHMARK_CAPTURE(scan_json, string_1m_chinese, kBodyChinese, 1 << 30);
BENCHMARK_CAPTURE(scan_json, string_1m_escapes, kBodyCode, 1 << 30);
BENCHMARK_CAPTURE(scan_json, string_16k_ascii, kBody16, 1 << 30);
BENCHMARK_CAPTURE(scan_json, chat_1k, kBodyChat, 1 << 30);
BENCHMARK_CAPTURE(scan_json, chat_1k_in_64_byte_pieces, kBodyChat, 64);
BENCHMARK_CAPTURE(scan_json, chat_1k_bytewise, kBodyChat, 1);
BENCHMARK_CAPTURE(parse_json, nlohmann_string_1m_ascii, kBodyAscii);
BENCHMARK_CAPTURE(parse_json, nlohmann_chat_1k, kBodyChat);

// Ceiling: the fastest search for one byte that the C library has.
void memchr_1m(benchmark::State& state) {
    const std::string text = repeated(kAscii, 1 << 20);
    measure(state, text.size(), [&] {
        const void* found = std::memchr(text.data(), '"', text.size());
        benchmark::DoNotOptimize(found);
    });
}
BENCHMARK(memchr_1m);

void skip_kernel(benchmark::State& state, SkipKernel kernel, std::string_view piece) {
    const std::string text = repeated(piece, 1 << 20);
    SkippedText result{};
    if (!skip_text_with(kernel, text.data(), text.data() + text.size(), result)) {
        state.SkipWithError("the CPU lacks it");
        return;
    }
    measure(state, text.size(), [&] {
        skip_text_with(kernel, text.data(), text.data() + text.size(), result);
        benchmark::DoNotOptimize(result);
    });
}
BENCHMARK_CAPTURE(skip_kernel, scalar_ascii, SkipKernel::scalar, kAscii);
BENCHMARK_CAPTURE(skip_kernel, baseline_ascii, SkipKernel::baseline, kAscii);
BENCHMARK_CAPTURE(skip_kernel, avx2_ascii, SkipKernel::avx2, kAscii);
BENCHMARK_CAPTURE(skip_kernel, scalar_chinese, SkipKernel::scalar, kChinese);
BENCHMARK_CAPTURE(skip_kernel, baseline_chinese, SkipKernel::baseline, kChinese);
BENCHMARK_CAPTURE(skip_kernel, avx2_chinese, SkipKernel::avx2, kChinese);

constexpr std::string_view kChunk =
    R"(data: {"id":"chatcmpl-7f3a","object":"chat.completion.chunk","created":1763700000,"model":"llama-3.1-8b",)"
    R"("choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]})"
    "\n\n";

void sse_chunk(benchmark::State& state) {
    UsageScan scan;
    measure(state, kChunk.size(), [&] { scan.feed(kChunk); });
    if (scan.content_events() != static_cast<uint64_t>(state.iterations())) {
        state.SkipWithError("miscounted");
    }
    state.counters["chunk_bytes"] = static_cast<double>(kChunk.size());
}
BENCHMARK(sse_chunk);

void sse_chunk_in_two(benchmark::State& state) {
    UsageScan scan;
    measure(state, kChunk.size(), [&] {
        scan.feed(kChunk.substr(0, 101));
        scan.feed(kChunk.substr(101));
    });
}
BENCHMARK(sse_chunk_in_two);

void sse_long_event(benchmark::State& state) {
    const std::string event =
        "data: {\"choices\":[{\"delta\":{\"content\":\"" + repeated(kAscii, 64 << 10) + "\"}}]}\n\n";
    UsageScan scan;
    measure(state, event.size(), [&] { scan.feed(event); });
}
BENCHMARK(sse_long_event);

void json_answer_embeddings(benchmark::State& state) {
    const std::string answer = R"({"data":[{"embedding":[)" + repeated("-0.012345678,", 64 << 10) +
                               R"(0]}],"usage":{"prompt_tokens":7}})";
    measure(state, answer.size(), [&] {
        UsageScan scan(UsageScan::Framing::json);
        scan.feed(answer);
        bool found = scan.usage().has_value();
        benchmark::DoNotOptimize(found);
    });
}
BENCHMARK(json_answer_embeddings);

void bearer_header(benchmark::State& state) {
    const std::string header = "Bearer sk-0123456789abcdef0123456789abcdef0123456789abcdef";
    measure(state, header.size(), [&] {
        Bearer bearer = parse_bearer(header);
        benchmark::DoNotOptimize(bearer);
    });
}
BENCHMARK(bearer_header);

void multipart_upload(benchmark::State& state) {
    std::string body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    uint32_t random = 1;
    for (int i = 0; i < 1 << 20; ++i) {
        random = random * 1664525u + 1013904223u;
        body += static_cast<char>(random >> 24);
    }
    body += "\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n";
    measure(state, body.size(), [&] {
        MultipartScan scan;
        scan.begin("multipart/form-data; boundary=b");
        scan.feed(body);
        if (!scan.finish()) {
            state.SkipWithError("the upload was refused");
        }
    });
}
BENCHMARK(multipart_upload);

}  // namespace
}  // namespace llm::core
