#include "engine_worker/backend/sim/byte_tokenizer.hpp"

#include <array>
#include <string>

namespace llm::engine {
namespace {

constexpr int32_t kBytes = 256;
constexpr std::array<std::string_view, 4> kSpecial = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                                      "<|pad|>"};
static_assert(kBytes + kSpecial.size() == kByteVocabulary);

// All 256 one-byte strings, so that id_to_token() has something to point to.
const std::array<char, kBytes>& all_bytes() {
    static const auto bytes = [] {
        std::array<char, kBytes> out{};
        for (int i = 0; i < kBytes; ++i) {
            out[i] = static_cast<char>(i);
        }
        return out;
    }();
    return bytes;
}

class ByteTokenizer : public Tokenizer {
  public:
    std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
        std::vector<int32_t> ids;
        ids.reserve(text.size());
        for (size_t at = 0; at < text.size();) {
            const int32_t special = options.parse_special ? special_at(text.substr(at)) : -1;
            if (special >= 0) {
                ids.push_back(kBytes + special);
                at += kSpecial[special].size();
            } else {
                ids.push_back(static_cast<unsigned char>(text[at++]));
            }
        }
        return ids;
    }

    std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override {
        std::string text;
        for (const int32_t id : ids) {
            text += token_bytes(id, false, skip_special);
        }
        return text;
    }

    std::string token_bytes(int32_t id, bool, bool skip_special) const override {
        if (is_special(id)) {
            return skip_special ? std::string() : std::string(kSpecial[id - kBytes]);
        }
        return id >= 0 && id < kBytes ? std::string(1, static_cast<char>(id)) : std::string();
    }

    int32_t vocab_size() const override { return kByteVocabulary; }

    int32_t token_to_id(std::string_view token) const override {
        for (size_t i = 0; i < kSpecial.size(); ++i) {
            if (token == kSpecial[i]) {
                return kBytes + static_cast<int32_t>(i);
            }
        }
        return token.size() == 1 ? static_cast<unsigned char>(token[0]) : -1;
    }

    std::string_view id_to_token(int32_t id) const override {
        if (is_special(id)) {
            return kSpecial[id - kBytes];
        }
        return id >= 0 && id < kBytes ? std::string_view(all_bytes().data() + id, 1) : std::string_view();
    }

    bool is_special(int32_t id) const override { return id >= kBytes && id < kByteVocabulary; }
    int32_t bos_id() const override { return -1; }
    int32_t eos_id() const override { return kBytes; }

  private:
    static int32_t special_at(std::string_view text) {
        if (text.front() != '<') {
            return -1;
        }
        for (size_t i = 0; i < kSpecial.size(); ++i) {
            if (text.substr(0, kSpecial[i].size()) == kSpecial[i]) {
                return static_cast<int32_t>(i);
            }
        }
        return -1;
    }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() {
    return std::make_unique<ByteTokenizer>();
}

}  // namespace llm::engine
