// Writes Hugging Face model directories for tests: small, exact, and without a download.
//
//   write_random_model  weights from a counter-based generator that tools/tiny_model.py computes alike,
//                       so that only the expected logits need to be stored
//   write_lookup_model  each token is followed by a chosen one, in any precision
//   write_copy_model    each token is the one a fixed number of positions back: a wrong slot,
//                       position or stale block changes the text
//   write_byte_tokenizer  tokenizer.json whose token ids are the bytes, plus three special tokens
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine_worker/model/config.hpp"
#include "engine_worker/model/dtype.hpp"

namespace llm::testing {

using engine::DType;
using engine::ModelConfig;

// A directory that disappears with the object.
class TempDir {
  public:
    TempDir() {
        std::string pattern = (std::filesystem::temp_directory_path() / "llm-test-XXXXXX").string();
        if (mkdtemp(pattern.data()) == nullptr) {
            throw std::runtime_error("mkdtemp failed");
        }
        path_ = pattern;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

void write_text(const std::string& path, const std::string& text);

struct NamedTensor {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> values;
};

// `type` is kF32, kF16 or kBf16.
std::string safetensors_bytes(const std::vector<NamedTensor>& tensors, DType type);

// One file, or with `shards` > 1 that many and their index.
void write_safetensors(const std::string& dir, const std::vector<NamedTensor>& tensors, DType type,
                       size_t shards = 1);

// Name and shape of every tensor that `config` asks for.
std::vector<std::pair<std::string, std::vector<int64_t>>> tensor_shapes(const ModelConfig& config);

// Element `index` of the random tensor `name`: uniform in [-1, 1), a pure function of its arguments (FNV-1a
// of the name, splitmix64 of the counter, 24 bits of it).
class CounterRandom {
  public:
    CounterRandom(uint64_t seed, const std::string& name) {
        uint64_t hash = 0xcbf29ce484222325u;
        for (const char c : name) {
            hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
        }
        key_ = hash ^ (seed * 0xd1342543de82ef95u);
    }
    float operator()(uint64_t index) const {
        uint64_t z = key_ + (index + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
    }

  private:
    uint64_t key_;
};

// Scaled so that every layer keeps the variance and logits have a deviation of about 3.
NamedTensor random_tensor(const ModelConfig& config, uint64_t seed, const std::string& name,
                          const std::vector<int64_t>& shape);

// config.json as given, random weights beside it.
void write_random_model(const std::string& dir, const std::string& config_json, uint64_t seed,
                        DType type, size_t shards = 1);

// Every tensor zero but norms, which are one, and those in `values`.
void write_constructed_model(const std::string& dir, const std::string& config_json,
                             const std::map<std::string, std::vector<float>>& values, DType type);

// Rows of +-1, the same for the same arguments: nearly orthogonal to each other.
std::vector<float> sign_rows(size_t rows, size_t dim);

struct ConstructedOptions {
    int32_t max_context = 4096;
    std::vector<int32_t> eos_ids;
    DType type = DType::kBf16;
};

// After token t, greedy decoding gives next[t]. `next.size()` is the size of the vocabulary. Throws when the
// rows of signs happen to be too alike for that to hold with a margin (many tokens that share one successor).
void write_lookup_model(const std::string& dir, const std::vector<int32_t>& next,
                        const ConstructedOptions& options = {});

// After the tokens t[0..p], greedy decoding gives t[p - distance]: with distance n - 1 a prompt of n tokens
// is repeated for ever. The prompt needs at least distance + 1 tokens; what follows a shorter one is not
// defined. One attention head per 64 dimensions copies the embedding found `distance` positions back (query
// and key are constants, given by biases; the rotation alone makes their product largest at that offset) into
// dimensions that only lm_head reads.
void write_copy_model(const std::string& dir, int32_t vocab_size, int32_t distance,
                      const ConstructedOptions& options = {});

// Ids of the special tokens that write_byte_tokenizer adds to the 256 bytes; the vocabulary has 259.
inline constexpr int32_t kImStart = 256;
inline constexpr int32_t kImEnd = 257;
inline constexpr int32_t kEndOfText = 258;
inline constexpr int32_t kByteVocab = 259;

// tokenizer.json and tokenizer_config.json (ChatML) of a byte-level BPE without merges: one token per byte,
// whose id is the byte.
void write_byte_tokenizer(const std::string& dir);

}  // namespace llm::testing
