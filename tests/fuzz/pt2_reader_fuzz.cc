// Whatever bytes come: the reader answers with a graph or an error, and a graph it gives out holds
// what its header promises, so that all that is done with one without torch is safe.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/graph/batch.h"
#include "runtime/graph/printer.h"
#include "runtime/graph/pt2_reader.h"
#include "runtime/graph/signature.h"
#include "runtime/passes/passes.h"
#include "runtime/plan/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace echelon;  // NOLINT: a fuzz target has no other names
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto graph =
      graph::ReadPt2(*graph::FromMemory(bytes, "fuzz.pt2"), {.allow_empty_weights = size % 2 == 0});
  if (!graph.ok()) {
    // One line, whatever names the file holds.
    if (graph.status().message().find('\n') != absl::string_view::npos) __builtin_trap();
    return 0;
  }
  graph::PrintGraph(*graph);
  graph::BindInputs(*graph, {}, nullptr).IgnoreError();
  graph::BatchSymbol(*graph, nullptr);
  passes::RunAll(&*graph, nullptr);
  const auto plan = plan::MakePlan(*graph, nullptr, {.stages = 2, .policy = "equal-size"});
  if (plan.ok() && !plan::FromJson(plan::ToJson(*plan, *graph), *graph).ok()) __builtin_trap();
  plan::MakePlan(*graph, nullptr, {.stages = 2}).IgnoreError();
  return 0;
}
