// Models with eager PyTorch's answers (tests/oracle/make_models.py), and stages chained in one
// process as if each stood alone: every hop goes through the wire's bytes, so nothing is shared.
#ifndef ECHELON_TESTS_EXEC_ORACLE_H_
#define ECHELON_TESTS_EXEC_ORACLE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/exec/stage_module.h"
#include "runtime/graph/graph.h"
#include "runtime/link/frame.h"
#include "runtime/plan/plan.h"
#include "runtime/tensor/tensor.h"

namespace echelon::oracle {

using Tensors = std::map<std::string, Tensor>;  // by the name of the input or output

struct Run {
  Tensors inputs, outputs;
};

struct Case {
  std::string name;
  std::string model;  // path of the .pt2
  bool exact = false, stateful = false, chunkable = false;
  double tolerance = 0;
  std::vector<Run> runs;
};

// All cases but `big`, which has a test of its own; those of $ECHELON_CASES ("net,tied") where it
// is set. Fails the test when there are none.
std::vector<Case> Cases();

// Reads one case by its name; kNotFound when it was not made.
absl::StatusOr<Case> ReadCase(const std::string& name);

// "" when the outputs agree: to the last bit (any NaN is as good as another) where `exact`, else
// within tolerance x (1 + |wanted|). Otherwise the output and the largest difference. Outputs that
// the file lacks are not compared.
std::string Difference(const Tensors& wanted, const Tensors& got, bool exact, double tolerance);

// A step's frame from inputs (copied: a stage may write to them), and the outputs in a frame.
link::Frame Feed(const graph::Graph& graph, const Tensors& inputs);
Tensors Outputs(const graph::Graph& graph, const link::Frame& frame);

// The frame as the next rank receives it: serialised, parsed, in memory of its own.
absl::StatusOr<link::Frame> Cross(const link::Frame& frame);

class Pipeline {
 public:
  // Fresh modules with fresh weights. The graph must outlive the pipeline.
  static absl::StatusOr<Pipeline> Load(const graph::Graph& graph,
                                       const std::vector<plan::Stage>& stages,
                                       const exec::LoadOptions& options = {.threads = 1,
                                                                           .exact = true});
  // rows: the step of a language model.
  absl::StatusOr<Tensors> Run(const Tensors& inputs, const std::string& rows = "");

 private:
  explicit Pipeline(const graph::Graph& graph) : graph_(&graph) {}
  const graph::Graph* graph_;
  std::vector<std::unique_ptr<exec::StageModule>> modules_;
};

// Whether all that passes between stages keeps its strides on the wire. A view with gaps arrives
// without them, and an operator may take another path through the same sum: its answer is then
// within tolerance, not the same to the last bit.
bool KeepsStrides(const graph::Graph& graph, const std::vector<plan::Stage>& stages);

// Stages between bounds 0 < ... < nodes.
std::vector<plan::Stage> StagesOf(const graph::Graph& graph, const std::vector<int>& bounds);

// Runs the case, exactly where it is exact and KeepsStrides (its first `runs` runs, unless it is
// stateful) through fresh stages; "" or what went wrong, where.
std::string Check(const Case& item, const graph::Graph& graph,
                  const std::vector<plan::Stage>& stages, size_t runs);

}  // namespace echelon::oracle

#endif  // ECHELON_TESTS_EXEC_ORACLE_H_
