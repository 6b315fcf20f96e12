// A Hugging Face checkpoint: safetensors files in a directory, one or sharded with an index. Its
// headers are read, its tensors stay where they are until a rank wants them.
#ifndef ECHELON_RUNTIME_WEIGHTS_CHECKPOINT_H_
#define ECHELON_RUNTIME_WEIGHTS_CHECKPOINT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/recipe.h"
#include "runtime/tensor/dtype.h"
#include "runtime/weights/loader.h"

namespace echelon::weights {

// What a recipe comes to. The values lie as they are in byte ranges of files, in order, row-major;
// or they are computed: a transpose, a cast, or a join of such.
struct Source {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  bool is_computed = false;
  std::vector<Range> ranges;                      // unless computed; none where there is no element
  graph::Recipe::Op op = graph::Recipe::kTensor;  // when computed: of the parts `of`
  int64_t dim = 0, other = 0, start = 0, length = 0;
  std::vector<Source> of;
};

class Checkpoint {
 public:
  // Reads the header of DIR/model.safetensors or, where there is none, of every file that
  // DIR/model.safetensors.index.json names; tensors that the index does not name are there too.
  // Errors name the file and the tensor: no such file, a shard outside the
  // directory, a tensor that is in no shard or in two, everything a header can have wrong.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  // Errors name the tensor: missing (and what to do), of a shape that the recipe does not fit.
  absl::StatusOr<Source> Resolve(const graph::Recipe& recipe) const;

 private:
  struct Tensor {
    DType dtype;
    std::vector<int64_t> shape;
    Range range;
  };
  absl::Status AddFile(const std::string& path);
  absl::StatusOr<Source> Apply(const graph::Recipe& recipe, std::vector<Source> of) const;

  std::string directory_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace echelon::weights

#endif  // ECHELON_RUNTIME_WEIGHTS_CHECKPOINT_H_
