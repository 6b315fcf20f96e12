// What a caller of the text doors asks for (proto/generate.proto), checked and in tokens.
#ifndef ECHELON_RUNTIME_SERVE_TEXT_REQUEST_H_
#define ECHELON_RUNTIME_SERVE_TEXT_REQUEST_H_

#include <memory>

#include "absl/status/statusor.h"
#include "proto/generate.pb.h"
#include "runtime/serve/text_backend.h"
#include "runtime/text/chat_template.h"
#include "runtime/text/tokenizer.h"

namespace echelon::serve {

// What stands between a model's text and its tokens.
struct TextFiles {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: the model has none
};

// tokenizer.json and what stands beside it; a directory may have no chat template.
absl::StatusOr<TextFiles> LoadTextFiles(const std::filesystem::path& directory);

// No request for this model is larger on the wire: refused unread, it costs neither memory nor
// time.
int64_t MaxRequestBytes(const TextModelInfo& model);

// Whether the prompt may fit the model, by its size alone; kInvalidArgument names the field.
absl::Status CheckPromptSize(const v1::GenerateRequest& request, const TextModelInfo& model);

// Everything but deadline and cancelled. sampling.seed is random where the request has none.
// kNotFound: another model is asked for; kInvalidArgument: names the field, its value and what it
// should be.
absl::StatusOr<TokenRequest> ReadTextRequest(const v1::GenerateRequest& request,
                                             const TextModelInfo& model, const TextFiles& files);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_TEXT_REQUEST_H_
