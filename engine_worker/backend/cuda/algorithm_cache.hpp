// Which matrix-product algorithm was fastest for a shape on this GPU with this library, kept between starts.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

namespace llm::engine::cuda {

struct GemmShape {
    int32_t n = 0, k = 0, rows = 0;
    int32_t kind = 0;  // output type and epilogue
    auto operator<=>(const GemmShape&) const = default;
};

// cublasLtMatmulAlgo_t, opaque, or own_kernel(): not cuBLASLt at all.
using AlgorithmBytes = std::array<uint64_t, 8>;
// The kernel of our own, cut in the way of this number.
constexpr AlgorithmBytes own_kernel(int choice) {
    constexpr uint64_t kNone = ~uint64_t{0};
    return {kNone, kNone, kNone, kNone, kNone, kNone, kNone, static_cast<uint64_t>(choice)};
}
inline constexpr int kLibrary = -1;
// That number, or kLibrary.
constexpr int own_choice(const AlgorithmBytes& algorithm) {
    constexpr uint64_t kMost = 1000;  // a file may say anything
    const int choice = static_cast<int>(algorithm[7] < kMost ? algorithm[7] : kMost);
    return algorithm == own_kernel(choice) ? choice : kLibrary;
}

class AlgorithmCache {
  public:
    // `owner` names GPU and library; entries of another owner are not taken over.
    AlgorithmCache(std::string file, std::string owner);

    const AlgorithmBytes* find(const GemmShape& shape) const;
    // own_choice() of what is known for this shape, or for the same with the next larger number of rows up to
    // `most_rows`; `otherwise` if nothing is.
    int own_choice(const GemmShape& shape, int most_rows, int otherwise) const;
    void put(const GemmShape& shape, const AlgorithmBytes& algorithm);
    size_t size() const { return entries_.size(); }
    // Replaces the file at once or not at all. False: it could not be written.
    bool save() const;

  private:
    std::string file_;
    std::string owner_;
    std::map<GemmShape, AlgorithmBytes> entries_;
};

// LLM_ENGINE_CACHE, or XDG_CACHE_HOME/llm-engine, or HOME/.cache/llm-engine, plus /gemm-algorithms; empty if none of
// them is set.
std::string default_algorithm_file();

}  // namespace llm::engine::cuda
