// What schemas announce is what operators do: no result shares memory with an argument, and no
// argument changes, unless the planner knows. Legal cuts, micro-batches and dead nodes rest on it.
#include "runtime/graph/alias.h"

#include <gtest/gtest.h>

#include <functional>
#include <string_view>

#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

using graph::ValueId;
using Bytes = absl::Span<const std::byte>;

size_t Hash(Bytes bytes) {
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

bool Overlap(Bytes a, Bytes b) {
  return !a.empty() && !b.empty() && a.data() < b.data() + b.size() &&
         b.data() < a.data() + a.size();
}

class Watcher {
 public:
  explicit Watcher(const stage::Model& model)
      : graph_(model.graph), aliases_(model.graph, model.schemas) {}

  // What a new run feeds is new memory; what is stored stays.
  void Begin(const link::Frame& frame) {
    std::erase_if(seen_, [&](const auto& entry) { return graph_.values[entry.first].stored < 0; });
    for (const auto& value : frame.tensors)
      seen_[static_cast<ValueId>(value.value)] = Hash({value.tensor.data, value.tensor.nbytes});
  }

  void After(int index, const exec::LoadOptions::StorageOf& storage_of) {
    const graph::Node& node = graph_.nodes[index];
    SCOPED_TRACE(node.name + " (" + node.target + ")");
    for (const ValueId written : aliases_.WritesOf(index)) ForgetClass(written);
    std::vector<ValueId> values;
    graph::ForEachUse(node, [&](ValueId id) { values.push_back(id); });
    const size_t arguments = values.size();
    graph::ForEachResult(node, [&](ValueId id) { values.push_back(id); });
    for (size_t r = arguments; r < values.size(); ++r)
      for (size_t v = 0; v < r; ++v) {
        if (!Overlap(storage_of(values[r]), storage_of(values[v]))) continue;
        EXPECT_EQ(aliases_.ClassOf(values[r]), aliases_.ClassOf(values[v]))
            << graph_.values[values[r]].name << " shares memory with "
            << graph_.values[values[v]].name;
      }
    for (const ValueId id : values) {
      const auto [entry, is_new] = seen_.try_emplace(id, Hash(storage_of(id)));
      if (is_new) continue;
      EXPECT_EQ(entry->second, Hash(storage_of(id))) << graph_.values[id].name << " has changed";
    }
  }

 private:
  void ForgetClass(ValueId written) {
    std::erase_if(seen_, [&](const auto& entry) {
      return aliases_.ClassOf(entry.first) == aliases_.ClassOf(written);
    });
  }

  const graph::Graph& graph_;
  const graph::Aliases aliases_;
  std::map<ValueId, size_t> seen_;  // what each value's storage held when it was last looked at
};

TEST(Aliases, AreAllAnnounced) {
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const auto model = stage::OpenModel(item.model);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) continue;
    const graph::Graph& graph = model->graph;
    Watcher watcher(*model);
    exec::LoadOptions options{.threads = 1};
    options.observe = [&](int node, const exec::LoadOptions::StorageOf& of) {
      watcher.After(node, of);
    };
    const auto source = weights::LocalFiles();
    const auto whole = StagesOf(graph, {0, static_cast<int>(graph.nodes.size())});
    auto module = exec::LoadStage(graph, whole[0], *source, options);
    EXPECT_TRUE(module.ok()) << module.status();
    if (!module.ok()) continue;
    for (const auto& run : item.runs) {
      link::Frame frame = Feed(graph, run.inputs);
      watcher.Begin(frame);
      const absl::Status status = (*module)->Run(frame);
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

}  // namespace
}  // namespace echelon::oracle
