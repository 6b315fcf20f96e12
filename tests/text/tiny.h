// Tokenizers small enough to read: every id can be told by hand.
#ifndef ECHELON_TESTS_TEXT_TINY_H_
#define ECHELON_TESTS_TEXT_TINY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/tokenizer.h"

namespace echelon {

// Byte-level: id b is byte b; 256 is the special token "<end>", 257 the plain added token "<note>".
std::string ByteLevelJson();
// SentencePiece's kind: <unk> 0, <s> 1, </s> 2 (special), byte b is 3 + b, then the words below. A
// text gets a space at its beginning, and loses it when decoded; <s> is added in front.
std::string ByteFallbackJson();
inline constexpr int64_t kFirstByte = 3;
inline constexpr int64_t kFirstWord = 259;  // "▁", "▁a", "▁b", "a", "b"

std::shared_ptr<const Tokenizer> ByteLevel();
std::shared_ptr<const Tokenizer> ByteFallback();

// A text's bytes as ids, the first byte being `first`.
std::vector<int64_t> BytesOf(std::string_view text, int64_t first);

}  // namespace echelon

#endif  // ECHELON_TESTS_TEXT_TINY_H_
