#include "runtime/graph/pt2_reader.h"

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/archive.h"
#include "runtime/graph/digest.h"
#include "runtime/graph/expr.h"
#include "runtime/graph/graph_builder.h"
#include "runtime/graph/json_reader.h"
#include "runtime/graph/status_macros.h"
#include "runtime/graph/treespec.h"
#include "runtime/graph/weights_table.h"
#include "runtime/tensor/tensor.h"

namespace echelon::graph {
namespace {

constexpr int64_t kSchemaMajor = 8;

std::string Stem(const std::string& path) {
  std::string name = path.substr(path.rfind('/') + 1);
  const size_t point = name.rfind('.');
  return point == std::string::npos || point == 0 ? name : name.substr(0, point);
}

std::string DimsText(const std::vector<Dim>& dims) {
  return dims.empty() ? "scalar" : absl::StrJoin(dims, "x", [](std::string* out, const Dim& dim) {
    absl::StrAppend(out, dim.symbolic() ? dim.expr : absl::StrCat(dim.hint));
  });
}

class Pt2Reader {
 public:
  Pt2Reader(const Archive& archive, const WeightsTable& weights, const Json& program,
            const ReadOptions& options)
      : where_(absl::StrCat(archive.source().name(), ": models/", archive.model(), ".json")),
        reader_(where_),
        weights_(weights),
        program_(program),
        module_(reader_.Object(program, "graph_module")),
        graph_(reader_.Object(module_, "graph")),
        signature_(reader_.Object(module_, "signature")),
        builder_(reader_, graph_),
        options_(options),
        stem_(Stem(archive.source().name())) {}

  absl::StatusOr<Graph> Run() {
    CheckVersion();
    if (reader_.ok()) ECHELON_RETURN_IF_ERROR(AddInputs());
    if (reader_.ok()) builder_.AddNodes(graph_);
    if (reader_.ok()) ECHELON_RETURN_IF_ERROR(AddOutputs());
    if (reader_.ok()) AddRanges();
    if (!reader_.ok()) return reader_.status();
    Graph graph = builder_.Finish();
    for (Input& input : graph.inputs) input.name = graph.values[input.value].name;
    graph.name = stem_;
    Digest digest;
    AddGraph(graph, &digest);
    for (const Stored& stored : graph.stored) digest.Add(int64_t{stored.crc32});
    graph.digest = digest.Hex();
    return graph;
  }

 private:
  void CheckVersion() {
    reader_.set_subject("");
    const Json& version = reader_.Object(program_, "schema_version");
    const int64_t major = reader_.Int(version, "major");
    if (!reader_.ok() || major == kSchemaMajor) return;
    const Json* torch = reader_.Find(program_, "torch_version");
    reader_.Fail(absl::StrCat(
        "schema version ", major, " (torch ",
        torch && torch->is_string() ? Quoted(torch->get_ref<const std::string&>()) : "unknown",
        ") is not supported, only ", kSchemaMajor, "; export with another PyTorch"));
  }

  absl::Status AddInputs() {
    reader_.set_subject("inputs");
    const Json &inputs = reader_.Array(graph_, "inputs"),
               &specs = reader_.Array(signature_, "input_specs");
    if (inputs.size() != specs.size()) reader_.Fail("the graph and its signature differ in number");
    for (size_t i = 0; i < inputs.size() && reader_.ok(); ++i) {
      const auto [kind, spec] = reader_.AsUnion(specs[i], "input spec");
      if (kind == "constant_input") continue;
      if (kind == "parameter") {
        ECHELON_RETURN_IF_ERROR(AddStored(inputs[i], Stored::kParameter, spec, "parameter_name"));
      } else if (kind == "buffer") {
        ECHELON_RETURN_IF_ERROR(AddStored(inputs[i], Stored::kBuffer, spec, "buffer_name"));
      } else if (kind == "tensor_constant") {
        ECHELON_RETURN_IF_ERROR(
            AddStored(inputs[i], Stored::kConstant, spec, "tensor_constant_name"));
      } else if (kind == "user_input") {
        const std::optional<ValueId> value = builder_.AddPlaceholder(inputs[i]);
        if (value) builder_.graph().inputs.push_back({"", *value});
      } else {
        reader_.Fail(absl::StrCat("an input of kind ", Quoted(kind),
                                  " is not supported; give the model tensors alone"));
      }
    }
    return reader_.status();
  }

  absl::Status AddStored(const Json& input, Stored::Kind kind, const Json& spec, const char* key) {
    const std::string& name = reader_.String(spec, key);
    const std::optional<ValueId> id = builder_.AddPlaceholder(input);
    if (!reader_.ok()) return reader_.status();
    Graph& graph = builder_.graph();
    if (!id || graph.values[*id].type != ValueType::kTensor) {
      reader_.Fail(absl::StrCat(Quoted(name), " is no tensor"));
      return reader_.status();
    }
    ECHELON_ASSIGN_OR_RETURN(Stored stored, weights_.Find(name, options_.allow_empty_weights));
    stored.kind = kind;
    Value& value = graph.values[*id];
    bool same = value.dtype == stored.dtype && value.shape.size() == stored.shape.size();
    for (size_t i = 0; same && i < value.shape.size(); ++i) {
      same = !value.shape[i].symbolic() && value.shape[i].hint == stored.shape[i];
    }
    if (!same) {
      reader_.Fail(absl::StrCat("tensor ", Quoted(name), ": the graph states ",
                                std::string(Name(value.dtype)), " ", DimsText(value.shape),
                                ", its record ", std::string(Name(stored.dtype)), " ",
                                ShapeText(stored.shape)));
      return reader_.status();
    }
    value.stored = static_cast<int>(graph.stored.size());
    by_name_.emplace(name, *id);
    graph.stored.push_back(std::move(stored));
    return absl::OkStatus();
  }

  absl::Status AddOutputs() {
    reader_.set_subject("outputs");
    const Json &outputs = reader_.Array(graph_, "outputs"),
               &specs = reader_.Array(signature_, "output_specs");
    if (outputs.size() != specs.size())
      reader_.Fail("the graph and its signature differ in number");
    std::vector<Item> users;
    for (size_t i = 0; i < outputs.size() && reader_.ok(); ++i) {
      const auto [kind, spec] = reader_.AsUnion(specs[i], "output spec");
      const Item item = builder_.Resolve(outputs[i]);
      if (!reader_.ok()) break;
      if (kind == "user_output") {
        users.push_back(item);
      } else if (kind == "buffer_mutation") {
        AddWrite(reader_.String(spec, "buffer_name"), item);
      } else if (kind != "user_input_mutation") {  // a caller's own tensor is not ours to change
        reader_.Fail(absl::StrCat("an output of kind ", Quoted(kind),
                                  " is not supported; export the model for inference"));
      }
    }
    if (!reader_.ok()) return reader_.status();
    for (Node& write : writes_) builder_.Append(std::move(write));
    return NameOutputs(users);
  }

  // The export made the buffer's new value an output; here it is written to the buffer once more.
  // All reads of the old value stand before. A new value that is itself another stored tensor is
  // copied first, lest two writes swap.
  void AddWrite(const std::string& buffer, const Item& item) {
    const auto found = by_name_.find(buffer);
    const ValueRef* source = std::get_if<ValueRef>(&item);
    if (found == by_name_.end() || !source) {
      return reader_.Fail(
          absl::StrCat("the new value of buffer ", Quoted(buffer), " has no place"));
    }
    ValueId value = source->id;
    if (value == found->second) return;
    const std::string& name = builder_.graph().values[found->second].name;
    if (builder_.graph().values[value].stored >= 0) {
      const ValueId copy = builder_.AddLike(value, name + "_new");
      builder_.Append({.target = "torch.ops.aten.clone.default",
                       .arguments = {{.name = "self", .items = {ValueRef{value}}}},
                       .results = {{.values = {copy}}}});
      value = copy;
    }
    const ValueId written = builder_.AddLike(found->second, name + "_written");
    writes_.push_back({.target = "torch.ops.aten.copy_.default",
                       .arguments = {{.name = "self", .items = {ValueRef{found->second}}},
                                     {.name = "src", .items = {ValueRef{value}}}},
                       .results = {{.values = {written}}}});
  }

  absl::Status NameOutputs(const std::vector<Item>& users) {
    const Json& calls = reader_.Array(module_, "module_call_graph");
    reader_.set_subject("out_spec");
    const Json& top = calls.empty() ? calls : calls[0];
    const std::string& spec = reader_.String(reader_.Object(top, "signature"), "out_spec");
    if (!reader_.ok()) return reader_.status();
    const Json* namedtuples = reader_.Find(module_, "treespec_namedtuple_fields");
    ECHELON_ASSIGN_OR_RETURN(std::vector<std::string> names,
                             OutputNames(spec, namedtuples ? *namedtuples : Json(), where_));
    if (names.size() != users.size()) {
      reader_.Fail(
          absl::StrCat("it has ", names.size(), " leaves, the graph ", users.size(), " outputs"));
      return reader_.status();
    }
    for (size_t i = 0; i < users.size(); ++i) {
      const bool kept = std::visit([](const auto& item) { return IsOutput(item); }, users[i]);
      if (kept) builder_.graph().outputs.push_back({std::move(names[i]), users[i]});
    }
    return absl::OkStatus();
  }

  template <class T>
  static bool IsOutput(const T&) {
    return std::is_same_v<T, ValueRef> || std::is_arithmetic_v<T>;
  }

  // Keys that are no plain symbol (derived dimensions) follow from those that are.
  void AddRanges() {
    const Json* ranges = reader_.Find(program_, "range_constraints");
    if (!ranges || !ranges->is_object()) return;
    for (auto entry = ranges->begin(); entry != ranges->end() && reader_.ok(); ++entry) {
      reader_.set_subject(absl::StrCat("range of ", Quoted(entry.key())));
      const absl::StatusOr<Expr> symbol = Expr::Parse(entry.key());
      if (!symbol.ok() || !symbol->IsSymbol()) continue;
      Range range;
      if (const Json* least = reader_.Find(entry.value(), "min_val")) {
        range.min = std::max<int64_t>(0, reader_.AsInt(*least, "min_val"));
      }
      if (const Json* most = reader_.Find(entry.value(), "max_val")) {
        range.max = reader_.AsInt(*most, "max_val");
      }
      builder_.graph().symbols[symbol->ToString()] = range;
    }
  }

  const std::string where_;
  JsonReader reader_;
  const WeightsTable& weights_;
  const Json &program_, &module_, &graph_, &signature_;
  GraphBuilder builder_;
  const ReadOptions options_;
  const std::string stem_;
  absl::flat_hash_map<std::string, ValueId> by_name_;  // of stored tensors
  std::vector<Node> writes_;
};

}  // namespace

absl::StatusOr<Graph> ReadPt2(const ByteSource& source, const ReadOptions& options) {
  ECHELON_ASSIGN_OR_RETURN(const Archive archive, Archive::Open(source));
  ECHELON_ASSIGN_OR_RETURN(const WeightsTable weights, WeightsTable::Read(archive));
  ECHELON_ASSIGN_OR_RETURN(const Json program,
                           archive.Document(absl::StrCat("models/", archive.model(), ".json")));
  return Pt2Reader(archive, weights, program, options).Run();
}

absl::StatusOr<Graph> ReadPt2(const std::string& path, const ReadOptions& options) {
  ECHELON_ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenFile(path));
  return ReadPt2(*source, options);
}

}  // namespace echelon::graph
