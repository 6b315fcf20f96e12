// Token ids to text as they come.
#ifndef ECHELON_RUNTIME_TEXT_DECODE_STREAM_H_
#define ECHELON_RUNTIME_TEXT_DECODE_STREAM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/text/tokenizer.h"

struct EchelonDecodeStream;  // the C ABI's, behind this class

namespace echelon {

// The pieces, joined, are Tokenizer::Decode of all ids, but for a character at the very end that
// was cut short, which is left out. Each piece is complete UTF-8 and never changes later: bytes of
// a character wait for its last one, and a run of byte tokens (<0xE4>, SentencePiece's fallback)
// for its end, since a decoder takes it whole or not at all. One exception: a decoder that mixes
// byte-level tokens with byte fallback, which no known model does, may join otherwise. The cost of
// a token does not grow with the text. One thread at a time.
class DecodeStream {
 public:
  explicit DecodeStream(std::shared_ptr<const Tokenizer> tokenizer,
                        bool skip_special_tokens = true);

  // The text that these ids complete; often empty. Ids that the vocabulary lacks give none.
  absl::StatusOr<std::string> Append(absl::Span<const int64_t> ids);
  // What was held back. The stream is then at its beginning again.
  absl::StatusOr<std::string> Flush();

 private:
  struct Free {
    void operator()(EchelonDecodeStream* stream) const;
  };

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<EchelonDecodeStream, Free> stream_;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_DECODE_STREAM_H_
