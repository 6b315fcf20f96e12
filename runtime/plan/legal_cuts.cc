#include "runtime/plan/legal_cuts.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "runtime/graph/alias.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/recompute.h"

namespace echelon::plan {
namespace {

using graph::Aliases;
using graph::Graph;
using graph::Node;
using graph::ValueId;

// "torch.ops.aten.reshape.default" -> "reshape".
std::string OperatorName(const std::string& target) {
  constexpr std::string_view kPrefix = "torch.ops.";
  if (!target.starts_with(kPrefix)) return "";
  const size_t library = target.find('.', kPrefix.size());
  if (library == std::string::npos) return "";
  return target.substr(library + 1, target.find('.', library + 1) - library - 1);
}

// Sees the storage itself: offsets and strides that a copy would not have.
bool ReadsStorage(const Node& node) {
  static const auto* const names = new std::set<std::string>{
      "as_strided",         "as_strided_",    "_reshape_alias", "sym_stride", "stride",
      "sym_storage_offset", "storage_offset", "set_",           "resize_",    "is_contiguous"};
  return names->contains(OperatorName(node.target));
}

// Gives a view or a copy, as the strides of its argument allow.
bool CopiesByStrides(const Node& node) {
  static const auto* const names = new std::set<std::string>{
      "reshape", "reshape_as", "flatten", "contiguous", "ravel", "to", "type_as", "view_as"};
  return names->contains(OperatorName(node.target));
}

// What is known of one class of values.
struct ClassInfo {
  int first = INT32_MAX, last = -1;  // nodes that touch it; the number of nodes counts for outputs
  int born = INT32_MAX;              // its first member, inputs at -1
  int last_write = -1;
  int last_storage_read = -1;
  int last_stride_copy = -1;
  bool stored = false;
  std::vector<ValueId> members;
};

class CutFinder {
 public:
  CutFinder(const Graph& graph, const graph::SchemaLookup& schemas)
      : graph_(graph),
        count_(static_cast<int>(graph.nodes.size())),
        aliases_(graph, schemas),
        spans_(Spans(graph)),
        classes_(aliases_.classes()),
        illegal_(count_ + 2) {}

  std::vector<int> Run() {
    Collect();
    for (const ClassInfo& info : classes_) {
      Forbid(info.born, info.last_storage_read);
      if (info.last_write < 0) continue;
      if (info.stored) Forbid(info.first, std::min(info.last, count_ - 1));
      Forbid(info.born, std::min(info.last_write, info.last_stride_copy));
      ForbidTwoNames(info);
    }
    std::vector<int> cuts;
    int depth = 0;
    for (int k = 0; k < count_; ++k) {
      depth += illegal_[k];
      if (k > 0 && depth == 0) cuts.push_back(k);
    }
    return cuts;
  }

 private:
  // Cuts k with after < k <= upto.
  void Forbid(int after, int upto) {
    if (after >= upto) return;
    ++illegal_[std::max(after + 1, 0)];
    --illegal_[upto + 1];
  }

  void Collect() {
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      ClassInfo& info = ClassOf(static_cast<ValueId>(id));
      info.members.push_back(static_cast<ValueId>(id));
      info.stored |= graph_.values[id].stored >= 0;
      if (graph_.values[id].stored < 0) info.born = std::min(info.born, spans_[id].born);
    }
    for (int i = 0; i < count_; ++i) CollectNode(i);
    for (const graph::Output& output : graph_.outputs) {
      const auto* ref = std::get_if<graph::ValueRef>(&output.item);
      // Only the stored tensor itself is read where outputs are gathered; a view of it has been
      // sent there.
      if (ref && graph_.values[ref->id].stored >= 0) ClassOf(ref->id).last = count_;
    }
  }

  void CollectNode(int index) {
    const Node& node = graph_.nodes[index];
    const bool storage = ReadsStorage(node), strides = CopiesByStrides(node);
    const auto touch = [&](ValueId id) {
      ClassInfo& info = ClassOf(id);
      info.first = std::min(info.first, index);
      info.last = std::max(info.last, index);
    };
    graph::ForEachUse(node, [&](ValueId id) {
      touch(id);
      if (storage) ClassOf(id).last_storage_read = index;
      if (strides) ClassOf(id).last_stride_copy = index;
    });
    graph::ForEachResult(node, touch);
    for (const ValueId id : aliases_.WritesOf(index)) ClassOf(id).last_write = index;
  }

  // Cuts up to the last write that two members or more cross.
  void ForbidTwoNames(const ClassInfo& info) {
    std::vector<std::pair<int, int>> edges;  // (cut, +1 or -1)
    for (const ValueId id : info.members) {
      const Span& span = spans_[id];
      const int upto = std::min(span.last, info.last_write);
      if (span.born == Span::kStored || upto <= span.born) continue;
      edges.emplace_back(span.born + 1, 1);
      edges.emplace_back(upto + 1, -1);
    }
    std::sort(edges.begin(), edges.end());
    int names = 0;
    for (size_t i = 0; i < edges.size(); ++i) {
      names += edges[i].second;
      if (names >= 2) Forbid(edges[i].first - 1, edges[i + 1].first - 1);
    }
  }

  ClassInfo& ClassOf(ValueId id) { return classes_[aliases_.ClassOf(id)]; }

  const Graph& graph_;
  const int count_;
  const Aliases aliases_;
  const std::vector<Span> spans_;
  std::vector<ClassInfo> classes_;
  std::vector<int> illegal_;  // differences: the sum up to k counts the reasons against cut k
};

}  // namespace

std::vector<Span> Spans(const graph::Graph& graph) {
  std::vector<Span> spans(graph.values.size());
  for (size_t id = 0; id < spans.size(); ++id) {
    if (graph.values[id].stored >= 0) spans[id].born = Span::kStored;
  }
  const int count = static_cast<int>(graph.nodes.size());
  for (int i = 0; i < count; ++i) {
    graph::ForEachUse(graph.nodes[i], [&](ValueId id) { spans[id].last = i; });
    graph::ForEachResult(graph.nodes[i], [&](ValueId id) { spans[id].born = i; });
  }
  for (const graph::Output& output : graph.outputs) {
    if (const auto* ref = std::get_if<graph::ValueRef>(&output.item)) spans[ref->id].last = count;
  }
  const Recomputed recomputed(graph);
  for (size_t id = 0; id < spans.size(); ++id) {
    if (!recomputed.Contains(static_cast<ValueId>(id)) || spans[id].last == count) continue;
    Span& positions = spans[recomputed.positions()];
    positions.last = std::max(positions.last, spans[id].last);
    spans[id].born = Span::kRecomputed;
  }
  return spans;
}

std::vector<int> LegalCuts(const graph::Graph& graph, const graph::SchemaLookup& schemas) {
  return CutFinder(graph, schemas).Run();
}

}  // namespace echelon::plan
