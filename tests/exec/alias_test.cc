// What schemas announce is what operators do: no result shares memory with an argument, and no
// argument changes, unless the planner knows. Legal cuts, micro-batches and dead nodes rest on it.
#include "runtime/graph/alias.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "runtime/stage/model.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

using graph::ValueId;
using ::testing::IsEmpty;
using ::testing::Not;
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
  Watcher(const graph::Graph& graph, const graph::SchemaLookup& schemas)
      : graph_(graph), aliases_(graph, schemas) {}

  const std::vector<std::string>& faults() const { return faults_; }

  // What a new run feeds is new memory; what is stored stays.
  void Begin(const link::Frame& frame) {
    std::erase_if(seen_, [&](const auto& entry) { return graph_.values[entry.first].stored < 0; });
    for (const auto& value : frame.tensors)
      seen_[static_cast<ValueId>(value.value)] = Hash({value.tensor.data, value.tensor.nbytes});
  }

  void After(int index, const exec::LoadOptions::StorageOf& storage_of) {
    const graph::Node& node = graph_.nodes[index];
    for (const ValueId written : aliases_.WritesOf(index)) ForgetClass(written);
    std::vector<ValueId> values;
    graph::ForEachUse(node, [&](ValueId id) { values.push_back(id); });
    const size_t arguments = values.size();
    graph::ForEachResult(node, [&](ValueId id) { values.push_back(id); });
    const auto fault = [&](ValueId id, const std::string& what) {
      faults_.push_back(
          absl::StrCat(node.name, " (", node.target, "): ", graph_.values[id].name, what));
    };
    for (size_t r = arguments; r < values.size(); ++r) {
      for (size_t v = 0; v < r; ++v) {
        if (Overlap(storage_of(values[r]), storage_of(values[v])) &&
            aliases_.ClassOf(values[r]) != aliases_.ClassOf(values[v]))
          fault(values[r], " shares memory with " + graph_.values[values[v]].name);
      }
    }
    for (const ValueId id : values) {
      const auto [entry, is_new] = seen_.try_emplace(id, Hash(storage_of(id)));
      if (!is_new && entry->second != Hash(storage_of(id))) fault(id, " has changed");
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
  std::vector<std::string> faults_;
  std::map<ValueId, size_t> seen_;  // what each value's storage held when it was last looked at
};

// What an unsplit run of the case does that `schemas` do not announce.
std::vector<std::string> Faults(const Case& item, const graph::Graph& graph,
                                const graph::SchemaLookup& schemas) {
  Watcher watcher(graph, schemas);
  exec::LoadOptions options{.threads = 1, .exact = true};
  options.observe = [&](int node, const exec::LoadOptions::StorageOf& storage_of) {
    watcher.After(node, storage_of);
  };
  const auto source = weights::LocalFiles();
  const auto whole = StagesOf(graph, {0, static_cast<int>(graph.nodes.size())});
  auto module = exec::LoadStage(graph, whole[0], *source, options);
  if (!module.ok()) return {module.status().ToString()};
  for (const auto& run : item.runs) {
    link::Frame frame = Feed(graph, run.inputs);
    watcher.Begin(frame);
    const absl::Status status = (*module)->Run(frame);
    if (!status.ok()) return {status.ToString()};
  }
  return watcher.faults();
}

TEST(Aliases, AreAllAnnounced) {
  for (const Case& item : Cases()) {
    const auto model = stage::OpenModel(item.model);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_THAT(Faults(item, model->graph, model->schemas), IsEmpty()) << item.name;
  }
}

TEST(Aliases, AreSeenWhereNoSchemaAnnouncesThem) {
  static const graph::OperatorSchema kPure;
  const auto blind = [](const std::string&) { return &kPure; };
  for (const char* name : {"views", "lists", "inplace", "mutable_buffer", "batchnorm_training"}) {
    const auto item = ReadCase(name);
    ASSERT_TRUE(item.ok()) << item.status();
    const auto model = stage::OpenModel(item->model);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_THAT(Faults(*item, model->graph, blind), Not(IsEmpty())) << name;
  }
}

}  // namespace
}  // namespace echelon::oracle
