// A model argument that is a Hugging Face directory: its graph, exported once and kept.
#ifndef ECHELON_RUNTIME_CLI_MODEL_DIR_H_
#define ECHELON_RUNTIME_CLI_MODEL_DIR_H_

#include <string>

#include "absl/status/statusor.h"

namespace echelon {

struct ExportFlags {
  std::string dtype;      // "bf16" or "f32"; empty: the checkpoint's
  int max_model_len = 0;  // tokens; 0: what the config says
};

template <class App>
void AddExportFlags(App& app, ExportFlags* flags) {
  app.add_option("--dtype", flags->dtype,
                 "of a Hugging Face directory: compute in bf16 or f32; as its weights otherwise");
  app.add_option("--max-model-len", flags->max_model_len,
                 "of a Hugging Face directory: tokens of prompt and answer together; the config's "
                 "otherwise");
}

// kInvalidArgument, for a file that is exported already, when a flag would change the export.
absl::Status CheckExported(const std::string& file, const ExportFlags& flags);

bool IsModelDirectory(const std::string& path);

// The .pt2 of a directory: from the cache ($ECHELON_CACHE, $XDG_CACHE_HOME/echelon or
// ~/.cache/echelon), or written there by echelon-export, whose progress goes to stderr. The
// exporter is $ECHELON_EXPORT, else beside this program, in PATH, or in the checkout's .deps, else
// what python3 in PATH has installed. It ends when this process does.
// Errors say how to get it where it is missing; what it refuses it says itself. It has 30 minutes.
absl::StatusOr<std::string> ExportedModel(const std::string& directory, const ExportFlags& flags);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_MODEL_DIR_H_
