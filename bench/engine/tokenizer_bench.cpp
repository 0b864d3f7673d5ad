// Speed of encoding and decoding on one file, one thread.
//
//     tokenizer_bench TOKENIZER_DIR TEXT_FILE [SECONDS]
//
// Encodes the file in pieces of 4 KiB, cut at line ends, over and over for the given time (2 s); prints MB
// per second of processor time, ids per second, and how long loading took. tokenizer_bench.py runs the
// reference library on the same pieces in the same minute.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

#include "engine_worker/tokenizer/tokenizer.hpp"

int main(int argc, char** argv) {
    // Processor time, not the clock on the wall: a busy machine should not count.
    auto now = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
    if (argc < 3) {
        std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER_DIR TEXT_FILE [SECONDS]\n");
        return 2;
    }
    const double limit = argc > 3 ? std::atof(argv[3]) : 2.0;
    std::ifstream in(argv[2], std::ios::binary);
    std::ostringstream all;
    all << in.rdbuf();
    const std::string text = all.str();
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
        size_t end = text.find('\n', std::min(at + 4096, text.size()));
        end = end == std::string::npos ? text.size() : end + 1;
        pieces.push_back(text.substr(at, end - at));
        at = end;
    }
    if (pieces.empty()) {
        std::fprintf(stderr, "%s: empty or not readable\n", argv[2]);
        return 2;
    }

    const double start = now();
    const auto tokenizer = llm::engine::Tokenizer::load(argv[1]);
    std::printf("load    %8.1f ms  %d tokens\n", (now() - start) * 1e3, tokenizer->vocab_size());

    const auto run = [&](const char* name, auto&& one) {
        size_t bytes = 0, ids = 0;
        const double begin = now();
        double spent = 0;
        for (size_t i = 0; (spent = now() - begin) < limit; i = (i + 1) % pieces.size()) {
            ids += one(i);
            bytes += pieces[i].size();
        }
        std::printf("%-7s %8.1f MB/s  %.2f M ids/s\n", name, static_cast<double>(bytes) / spent / 1e6,
                    static_cast<double>(ids) / spent / 1e6);
    };
    std::vector<std::vector<int32_t>> encoded;
    for (const std::string& piece : pieces)
        encoded.push_back(tokenizer->encode(piece, {}));
    run("encode", [&](size_t i) { return tokenizer->encode(pieces[i], {}).size(); });
    size_t decoded = 0;
    run("decode", [&](size_t i) {
        decoded += tokenizer->decode(encoded[i], true).size();
        return encoded[i].size();
    });
    run("stream", [&](size_t i) {
        llm::engine::StreamDecoder stream(*tokenizer);
        for (int32_t id : encoded[i])
            decoded += stream.push(id).size();
        return encoded[i].size();
    });
    return decoded > 0 ? 0 : 1;
}
