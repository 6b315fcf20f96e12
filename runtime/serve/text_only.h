// What the v2 doors say where a language model is served: that it lives, whether it is ready, and
// which door its texts come through.
#ifndef ECHELON_RUNTIME_SERVE_TEXT_ONLY_H_
#define ECHELON_RUNTIME_SERVE_TEXT_ONLY_H_

#include "runtime/serve/backend.h"
#include "runtime/serve/text_backend.h"

namespace echelon::serve {

class TextOnly final : public Backend {
 public:
  // `text` must outlive it.
  explicit TextOnly(const TextBackend* text) : text_(text), model_{.name = text->model().name} {}

  const ModelInfo& model() const override { return model_; }  // without inputs and outputs
  absl::Status Ready() const override { return text_->Ready(); }
  void Infer(InferRequest request, InferDone done) override;  // kFailedPrecondition

 private:
  const TextBackend* const text_;
  const ModelInfo model_;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_TEXT_ONLY_H_
