#include "engine_worker/backend/cuda/algorithm_cache.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace llm::engine::cuda {
namespace {

constexpr const char* kFirstLine = "llm-engine gemm algorithms 4";

}  // namespace

// Lines: the format, the owner, then per shape n k rows kind and eight words in hexadecimal. A file that is not of
// this form counts as absent: everything in it can be found again.
AlgorithmCache::AlgorithmCache(std::string file, std::string owner) : file_(std::move(file)), owner_(std::move(owner)) {
    std::ifstream in(file_);
    std::string line;
    if (file_.empty() || !std::getline(in, line) || line != kFirstLine || !std::getline(in, line) || line != owner_) {
        return;
    }
    std::map<GemmShape, AlgorithmBytes> read;
    while (std::getline(in, line)) {
        std::istringstream words(line);
        GemmShape shape;
        AlgorithmBytes algorithm{};
        words >> shape.n >> shape.k >> shape.rows >> shape.kind >> std::hex;
        for (uint64_t& word : algorithm) {
            words >> word;
        }
        std::string rest;
        if (!words || words >> rest) {
            return;
        }
        read[shape] = algorithm;
    }
    entries_ = std::move(read);
}

const AlgorithmBytes* AlgorithmCache::find(const GemmShape& shape) const {
    const auto it = entries_.find(shape);
    return it == entries_.end() ? nullptr : &it->second;
}

int AlgorithmCache::own_choice(const GemmShape& shape, int most_rows, int otherwise) const {
    const GemmShape first{shape.n, shape.k, shape.rows, 0};
    for (auto it = entries_.lower_bound(first); it != entries_.end(); ++it) {
        const GemmShape& known = it->first;
        if (known.n != shape.n || known.k != shape.k || known.rows > most_rows) {
            break;
        }
        if (known.kind == shape.kind) {
            return cuda::own_choice(it->second);
        }
    }
    return otherwise;
}

void AlgorithmCache::put(const GemmShape& shape, const AlgorithmBytes& algorithm) {
    entries_[shape] = algorithm;
}

bool AlgorithmCache::save() const {
    if (file_.empty()) {
        return false;
    }
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(file_).parent_path(), error);
    const std::string temporary = file_ + "." + std::to_string(getpid());
    {
        std::ofstream out(temporary);
        out << kFirstLine << '\n' << owner_ << '\n';
        for (const auto& [shape, algorithm] : entries_) {
            out << std::dec << shape.n << ' ' << shape.k << ' ' << shape.rows << ' ' << shape.kind << std::hex;
            for (const uint64_t word : algorithm) {
                out << ' ' << word;
            }
            out << '\n';
        }
        if (!out.flush()) {
            out.close();
            std::filesystem::remove(temporary, error);
            return false;
        }
    }
    std::filesystem::rename(temporary, file_, error);
    return !error;
}

std::string default_algorithm_file() {
    const auto set = [](const char* name) -> std::string {
        const char* value = std::getenv(name);
        return value != nullptr ? value : "";
    };
    if (const std::string dir = set("LLM_ENGINE_CACHE"); !dir.empty()) {
        return dir + "/gemm-algorithms";
    }
    if (const std::string dir = set("XDG_CACHE_HOME"); !dir.empty()) {
        return dir + "/llm-engine/gemm-algorithms";
    }
    if (const std::string dir = set("HOME"); !dir.empty()) {
        return dir + "/.cache/llm-engine/gemm-algorithms";
    }
    return "";
}

}  // namespace llm::engine::cuda
