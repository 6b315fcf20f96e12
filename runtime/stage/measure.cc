#include "runtime/stage/measure.h"

#include <cstring>

#include "runtime/exec/stage_module.h"

namespace echelon::stage {
namespace {

constexpr int kRuns = 5;

// Zeros are legal for every dtype: indices point at the first row, floats are finite. Times of
// dense kernels do not depend on the numbers.
Tensor Zeros(const graph::Value& value) {
  std::vector<int64_t> shape;
  for (const graph::Dim& dim : value.shape) shape.push_back(dim.hint);
  Tensor tensor = Tensor::Empty(value.dtype, shape);
  // Flags are true: an attention mask of all false would leave nothing to attend to.
  std::memset(tensor.data, value.dtype == DType::kBool ? 1 : 0, tensor.nbytes);
  return tensor;
}

link::Frame MadeUpInputs(const graph::Graph& graph) {
  link::Frame frame;
  for (const graph::Input& input : graph.inputs) {
    const graph::Value& value = graph.values[input.value];
    const auto id = static_cast<uint32_t>(input.value);
    if (value.type == graph::ValueType::kTensor)
      frame.tensors.push_back({id, Zeros(value)});
    else
      frame.scalars.push_back({id, value.hint.value_or(1)});
  }
  return frame;
}
}  // namespace

absl::StatusOr<std::vector<int64_t>> MeasureNodes(const Model& model) {
  if (model.graph.text)
    return absl::UnimplementedError(
        "policy measured: language models cannot be measured yet; use balanced");
  const absl::StatusOr<plan::Plan> whole =
      plan::MakePlan(model.graph, model.schemas, {.stages = 1});
  if (!whole.ok()) return whole.status();
  std::vector<int64_t> times(model.graph.nodes.size());
  exec::LoadOptions options{.node_times_ns = &times};
  const std::unique_ptr<weights::WeightSource> source = weights::LocalFiles();
  const auto module = exec::LoadStage(model.graph, whole->stages[0], *source, options);
  if (!module.ok()) return module.status();
  for (int run = 0; run <= kRuns; ++run) {
    link::Frame frame = MadeUpInputs(model.graph);
    const absl::Status status = (*module)->Run(frame);
    if (!status.ok()) return status;
    if (run == 0) times.assign(times.size(), 0);  // the first warms up
  }
  for (int64_t& time : times) time /= kRuns;
  return times;
}

}  // namespace echelon::stage
