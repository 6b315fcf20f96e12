#include "runtime/text/decode_stream.h"

#include <limits>
#include <utility>
#include <vector>

#include "runtime/text/capi_status.h"

namespace echelon {

void DecodeStream::Free::operator()(EchelonDecodeStream* stream) const {
  echelon_decode_stream_free(stream);
}

DecodeStream::DecodeStream(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)),
      stream_(echelon_decode_stream_new(tokenizer_->tokenizer_.get(), skip_special_tokens)) {}

absl::StatusOr<std::string> DecodeStream::Append(absl::Span<const int64_t> ids) {
  std::vector<uint32_t> known;
  known.reserve(ids.size());
  for (int64_t id : ids) {
    if (id >= 0 && id <= std::numeric_limits<uint32_t>::max()) {
      known.push_back(static_cast<uint32_t>(id));
    }
  }
  EchelonTextString text;
  const EchelonTextCode code =
      echelon_decode_stream_push(stream_.get(), known.data(), known.size(), &text);
  return TakeResult(code, text);
}

absl::StatusOr<std::string> DecodeStream::Flush() {
  EchelonTextString text;
  const EchelonTextCode code = echelon_decode_stream_flush(stream_.get(), &text);
  return TakeResult(code, text);
}

}  // namespace echelon
