#include "runtime/serve/text_only.h"

#include "absl/strings/str_cat.h"

namespace echelon::serve {

void TextOnly::Infer(InferRequest, InferDone done) {
  done(absl::FailedPreconditionError(
      absl::StrCat(model_.name,
                   " is a language model; its texts come over gRPC, by echelon.v1.Text/Generate: "
                   "try echelon generate HOST:PORT")));
}

}  // namespace echelon::serve
