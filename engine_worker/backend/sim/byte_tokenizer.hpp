// A tokenizer without a file: one token per byte, and the four special tokens of ChatML. For the sim backend.
#pragma once

#include <memory>

#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

inline constexpr int32_t kByteVocabulary = 260;  // 256 bytes, then the special tokens

// Ids 0..255 are bytes; 256 <|endoftext|> (end of text), 257 <|im_start|>, 258 <|im_end|> (ends a turn), 259
// <|pad|>.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

}  // namespace llm::engine
