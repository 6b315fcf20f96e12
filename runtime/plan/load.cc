#include "runtime/plan/load.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>

#include "runtime/plan/cost.h"
#include "runtime/plan/legal_cuts.h"
#include "runtime/plan/recompute.h"

namespace echelon::plan {
namespace {

using graph::Graph;
using graph::Stored;
using graph::ValueId;

// Gives equal keys equal numbers, in order of appearance.
template <class Key>
int NumberOf(std::map<Key, int>* numbers, const Key& key) {
  return numbers->emplace(key, static_cast<int>(numbers->size())).first->second;
}

// Over nodes [begin, end) and the `extra` ones.
int64_t SumOnce(const std::vector<std::vector<int>>& used, const std::vector<int64_t>& amount,
                int begin, int end, const std::vector<int>& extra) {
  std::set<int> seen;
  int64_t sum = 0;
  const auto add = [&](int node) {
    for (const int id : used[node]) {
      if (seen.insert(id).second) sum = SaturatingAdd(sum, amount[id]);
    }
  };
  for (int i = begin; i < end; ++i) add(i);
  for (const int node : extra) add(node);
  return sum;
}

// Calls visit with every path a module path lies in, itself included: "a.b" -> "a", "a.b".
template <class Visit>
void ForEachPrefix(const std::string& path, Visit visit) {
  if (path.empty()) return;
  for (size_t dot = path.find('.'); dot != path.npos; dot = path.find('.', dot + 1)) {
    visit(path.substr(0, dot));
  }
  visit(path);
}

std::vector<std::string> WholeModules(const Graph& graph, int begin, int end) {
  std::map<std::string, int> inside, total;
  std::vector<std::string> order;
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
    const bool in = i >= begin && i < end;
    ForEachPrefix(graph.nodes[i].module, [&](const std::string& path) {
      ++total[path];
      if (in && ++inside[path] == 1) order.push_back(path);
    });
  }
  const auto whole = [&](const std::string& path) {
    const auto found = inside.find(path);
    return found != inside.end() && found->second == total[path];
  };
  std::vector<std::string> modules;
  for (const std::string& path : order) {
    const size_t dot = path.rfind('.');
    if (whole(path) && (dot == path.npos || !whole(path.substr(0, dot)))) modules.push_back(path);
  }
  return modules;
}

std::vector<ValueId> CrossingValues(const std::vector<Span>& spans, int cut) {
  std::vector<ValueId> values;
  for (size_t id = 0; id < spans.size(); ++id) {
    if (spans[id].Crosses(cut)) values.push_back(static_cast<ValueId>(id));
  }
  return values;
}

std::vector<ValueId> Sorted(std::vector<ValueId> values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

std::vector<ValueId> InputValues(const Graph& graph) {
  std::vector<ValueId> values;
  for (const graph::Input& input : graph.inputs) values.push_back(input.value);
  return Sorted(std::move(values));
}

std::vector<ValueId> OutputValues(const Graph& graph) {
  std::vector<ValueId> values;
  for (const graph::Output& output : graph.outputs) {
    if (const auto* ref = std::get_if<graph::ValueRef>(&output.item)) values.push_back(ref->id);
  }
  return Sorted(std::move(values));
}

int64_t KvBytesPerToken(const Graph& graph, int begin, int end) {
  if (!graph.text) return 0;
  int64_t elements = 0;
  for (const graph::AttentionLayer& layer : graph::AttentionLayers(graph, begin, end))
    elements = SaturatingAdd(
        elements,
        SaturatingMultiply(layer.kv_heads, SaturatingAdd(layer.key_dim, layer.value_dim)));
  return SaturatingMultiply(elements, static_cast<int64_t>(ElementBytes(graph.text->dtype)));
}

}  // namespace

Load::Load(const Graph& graph)
    : nodes(static_cast<int>(graph.nodes.size())),
      records(nodes),
      parameters(nodes),
      send_bytes(nodes + 1) {
  std::map<std::string, int> record_numbers;
  std::map<std::tuple<std::string, int64_t, std::vector<int64_t>, std::vector<int64_t>>, int>
      parameter_numbers;
  const auto need = [&](int node, ValueId id) {
    if (node < 0 || graph.values[id].stored < 0) return;
    const Stored& stored = graph.stored[graph.values[id].stored];
    records[node].push_back(NumberOf(&record_numbers, stored.record));
    record_bytes.resize(record_numbers.size(),
                        static_cast<int64_t>(std::min<uint64_t>(stored.nbytes, kMost)));
    if (stored.kind != Stored::kParameter) return;
    const auto key = std::tuple(stored.record, stored.storage_offset, stored.shape, stored.strides);
    parameters[node].push_back(NumberOf(&parameter_numbers, key));
    parameter_elements.resize(parameter_numbers.size(), Elements(graph.values[id]));
  };
  for (int i = 0; i < nodes; ++i) {
    graph::ForEachUse(graph.nodes[i], [&](ValueId id) { need(i, id); });
  }
  for (const ValueId id : OutputValues(graph)) need(nodes - 1, id);

  const std::vector<Span> spans = Spans(graph);
  std::vector<int64_t> ends(nodes + 2);  // bytes that cease to cross at each cut
  int64_t crossing = 0;
  std::vector<std::vector<ValueId>> born(nodes + 1);
  for (size_t id = 0; id < spans.size(); ++id) {
    if (spans[id].born >= Span::kInput)
      born[spans[id].born + 1].push_back(static_cast<ValueId>(id));
  }
  for (int cut = 0; cut <= nodes; ++cut) {
    crossing -= ends[cut];
    for (const ValueId id : born[cut]) {
      if (!spans[id].Crosses(cut)) continue;
      const int64_t bytes = std::min(ValueBytes(graph.values[id]), kMost >> 20);
      crossing += bytes;
      ends[spans[id].last + 1] += bytes;
    }
    send_bytes[cut] = cut == 0 || cut == nodes ? 0 : crossing;
  }
}

int64_t Load::WeightBytes(int begin, int end, const std::vector<int>& extra) const {
  return SumOnce(records, record_bytes, begin, end, extra);
}

int64_t Load::Parameters(int begin, int end, const std::vector<int>& extra) const {
  return SumOnce(parameters, parameter_elements, begin, end, extra);
}

Stage DescribeStage(const Graph& graph, const Load& load, int rank, int stages, int begin,
                    int end) {
  const std::vector<Span> spans = Spans(graph);
  Stage stage{.rank = rank, .begin = begin, .end = end};
  stage.receives = rank == 0 ? InputValues(graph) : CrossingValues(spans, begin);
  stage.sends = rank + 1 == stages ? OutputValues(graph) : CrossingValues(spans, end);
  stage.modules = WholeModules(graph, begin, end);
  stage.recomputes = Recomputed(graph).NodesFor(begin, end);
  stage.parameters = load.Parameters(begin, end, stage.recomputes);
  stage.weight_bytes = load.WeightBytes(begin, end, stage.recomputes);
  stage.kv_bytes_per_token = KvBytesPerToken(graph, begin, end);
  stage.send_bytes = rank + 1 == stages ? 0 : load.send_bytes[end];
  return stage;
}

}  // namespace echelon::plan
