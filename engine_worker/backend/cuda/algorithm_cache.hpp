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

// cublasLtMatmulAlgo_t, opaque, or kOwnKernel: not cuBLASLt at all.
using AlgorithmBytes = std::array<uint64_t, 8>;
constexpr uint64_t kNoAlgorithm = ~uint64_t{0};
inline constexpr AlgorithmBytes kOwnKernel = {kNoAlgorithm, kNoAlgorithm, kNoAlgorithm, kNoAlgorithm,
                                              kNoAlgorithm, kNoAlgorithm, kNoAlgorithm, kNoAlgorithm};

class AlgorithmCache {
  public:
    // `owner` names GPU and library; entries of another owner are not taken over.
    AlgorithmCache(std::string file, std::string owner);

    const AlgorithmBytes* find(const GemmShape& shape) const;
    // Whether kOwnKernel is the choice for this shape, or for the same with the next larger number of rows up to `most_rows`;
    // true if none of them has one.
    bool own_is_faster(const GemmShape& shape, int most_rows) const;
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
