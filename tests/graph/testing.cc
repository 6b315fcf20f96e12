#include "tests/graph/testing.h"

#include <cstring>

namespace echelon::graph::testing {

using nlohmann::json;

Dim D(int64_t size) { return {size, ""}; }
Dim D(const char* expr, int64_t hint) { return {hint, expr}; }
Item V(ValueId id) { return ValueRef{id}; }

namespace {

// "self! -> a" style table: arguments as "name", "name:a" (alias set a) or "name:a!" (written);
// results likewise.
struct Row {
  const char* target;
  std::vector<const char*> arguments, results;
  bool may_alias_any = false;
};

const std::vector<Row>& Rows() {
  static const auto* const rows = new std::vector<Row>{
      {"torch.ops.aten.linear.default", {"input", "weight", "bias"}, {""}},
      {"torch.ops.aten.relu.default", {"self"}, {""}},
      {"torch.ops.aten.relu_.default", {"self:a!"}, {":a!"}},
      {"torch.ops.aten.add.Tensor", {"self", "other"}, {""}},
      {"torch.ops.aten.add_.Tensor", {"self:a!", "other"}, {":a!"}},
      {"torch.ops.aten.mul.Tensor", {"self", "other"}, {""}},
      {"torch.ops.aten.copy_.default", {"self:a!", "src"}, {":a!"}},
      {"torch.ops.aten.clone.default", {"self"}, {""}},
      {"torch.ops.aten.view.default", {"self:a", "size"}, {":a"}},
      {"torch.ops.aten.reshape.default", {"self:a", "shape"}, {":a"}},
      {"torch.ops.aten.as_strided.default", {"self:a", "size", "stride", "storage_offset"}, {":a"}},
      {"torch.ops.aten.split.Tensor", {"self:a", "split_size", "dim"}, {":a"}},
      {"torch.ops.aten.topk.default", {"self", "k"}, {"", ""}},
      {"torch.ops.aten.dropout.default", {"input", "p", "train"}, {""}, true},
      {"torch.ops.aten.batch_norm.default",
       {"input", "weight", "bias", "running_mean", "running_var", "training"},
       {""}},
      {"torch.ops.aten.embedding.default", {"weight", "indices"}, {""}},
      {"torch.ops.aten.softmax.int", {"self", "dim"}, {""}},
      {"torch.ops.aten.mean.dim", {"self", "dim", "keepdim"}, {""}},
      {"torch.ops.aten.matmul.default", {"self", "other"}, {""}},
      {"torch.ops.aten.transpose.int", {"self:a", "dim0", "dim1"}, {":a"}},
      {"torch.ops.aten.cat.default", {"tensors", "dim"}, {""}},
      {"torch.ops.aten.arange.default", {"end"}, {""}},
      {"torch.ops.aten.sym_size.int", {"self", "dim"}, {""}},
      {"torch.ops.aten._assert_scalar.default", {"self", "assert_msg"}, {}},
      {"_operator.mul", {"a", "b"}, {""}},
      {"_operator.add", {"a", "b"}, {""}}};
  return *rows;
}

Formal ParseFormal(const std::string& text) {
  Formal formal{.name = text.substr(0, text.find(':'))};
  const size_t colon = text.find(':');
  if (colon == text.npos) return formal;
  formal.alias_set = text[colon + 1] - 'a';
  formal.writes = text.ends_with('!');
  return formal;
}

std::map<std::string, OperatorSchema>* MakeSchemas() {
  auto* schemas = new std::map<std::string, OperatorSchema>;
  for (const Row& row : Rows()) {
    OperatorSchema& schema = (*schemas)[row.target];
    for (const char* text : row.arguments) {
      schema.arguments.push_back(ParseFormal(text));
      schema.is_mutable |= schema.arguments.back().writes;
    }
    for (const char* text : row.results) schema.results.push_back(ParseFormal(text));
    schema.may_alias_any = row.may_alias_any;
  }
  return schemas;
}

const OperatorSchema* Lookup(const std::string& target) {
  static const auto* const schemas = MakeSchemas();
  const auto found = schemas->find(target);
  return found == schemas->end() ? nullptr : &found->second;
}

}  // namespace

SchemaLookup Schemas() { return Lookup; }

std::string GraphMaker::FullTarget(const std::string& target) const {
  if (target.starts_with("torch.") || target.starts_with("_operator.")) return target;
  return "torch.ops.aten." + target + (target.find('.') == target.npos ? ".default" : "");
}

ValueId GraphMaker::AddValue(Value value) {
  const auto id = static_cast<ValueId>(graph_.values.size());
  if (value.name.empty()) value.name = "v" + std::to_string(id);
  graph_.values.push_back(std::move(value));
  return id;
}

ValueId GraphMaker::Input(const std::string& name, std::vector<Dim> shape, DType dtype) {
  const ValueId id = AddValue({.name = name, .dtype = dtype, .shape = std::move(shape)});
  graph_.inputs.push_back({name, id});
  return id;
}

ValueId GraphMaker::Stored(const std::string& name, std::vector<int64_t> shape, Stored::Kind kind,
                           const std::string& record) {
  Value value{.name = "p_" + name, .stored = static_cast<int>(graph_.stored.size())};
  struct Stored stored {
    .kind = kind, .name = name, .record = record.empty() ? name : record
  };
  stored.shape = shape;
  stored.nbytes = 4;
  for (const int64_t size : shape) {
    value.shape.push_back(D(size));
    stored.nbytes *= static_cast<uint64_t>(size);
  }
  graph_.stored.push_back(stored);
  return AddValue(value);
}

std::vector<ValueId> GraphMaker::NodeOf(const std::string& target, std::vector<Item> arguments,
                                        int results, bool list, std::vector<Dim> shape,
                                        const std::string& module) {
  struct Node node {
    .target = FullTarget(target), .module = module
  };
  const OperatorSchema* schema = Lookup(node.target);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool known = schema && i < schema->arguments.size();
    node.arguments.push_back(
        {.name = known ? schema->arguments[i].name : "", .items = {arguments[i]}});
  }
  std::vector<ValueId> ids;
  ids.reserve(results);
  for (int i = 0; i < results; ++i) ids.push_back(AddValue({.shape = shape}));
  if (list) {
    node.results.push_back({true, ids});
  } else {
    for (const ValueId id : ids) node.results.push_back({false, {id}});
  }
  node.name =
      ids.empty() ? target + std::to_string(graph_.nodes.size()) : graph_.values[ids[0]].name;
  graph_.nodes.push_back(std::move(node));
  return ids;
}

ValueId GraphMaker::Node(const std::string& target, std::vector<Item> arguments,
                         std::vector<Dim> shape, const std::string& module) {
  return NodeOf(target, std::move(arguments), 1, false, std::move(shape), module)[0];
}

ValueId GraphMaker::Scalar(const std::string& target, std::vector<Item> arguments, int64_t hint,
                           const std::string& expr) {
  const ValueId id = Node(target, std::move(arguments), {});
  graph_.values[id].type = ValueType::kInt;
  graph_.values[id].hint = hint;
  graph_.values[id].expr = expr;
  return id;
}

Graph Net() {
  GraphMaker make;
  const ValueId w1 = make.Stored("net1.weight", {128, 128}), b1 = make.Stored("net1.bias", {128});
  const ValueId w2 = make.Stored("net2.weight", {8, 128}), b2 = make.Stored("net2.bias", {8});
  const ValueId x = make.Input("x", {D("s0"), D(128)});
  const ValueId linear = make.Node("linear", {V(x), V(w1), V(b1)}, {D("s0"), D(128)}, "net1");
  const ValueId relu = make.Node("relu", {V(linear)}, {D("s0"), D(128)}, "relu");
  const ValueId out = make.Node("linear", {V(relu), V(w2), V(b2)}, {D("s0"), D(8)}, "net2");
  Graph& graph = make.graph();
  graph.values[linear].name = graph.nodes[0].name = "linear";
  graph.values[relu].name = graph.nodes[1].name = "relu";
  graph.values[out].name = graph.nodes[2].name = "linear_1";
  graph.name = "net";
  graph.symbols["s0"] = {1, 64};
  make.Output("output", V(out));
  return graph;
}

namespace {

template <class T>
void Put(std::string* out, T value, size_t bytes) {
  uint64_t rest = value;
  for (size_t i = 0; i < bytes; ++i, rest >>= 8) out->push_back(static_cast<char>(rest));
}

}  // namespace

std::string MakeZip(const Entries& entries, bool zip64) {
  std::string out, directory;
  for (const auto& [name, bytes] : entries) {
    const size_t header = out.size();
    out += "PK\3\4";
    Put(&out, 0, 22);  // torch leaves sizes to the directory
    Put(&out, name.size(), 2);
    Put(&out, 3, 2);  // an extra field: padding
    out.append(name).append("pad").append(bytes);
    directory += "PK\1\2";
    Put(&directory, 0, 4);
    Put(&directory, 0x0808, 2);
    Put(&directory, 0, 6);
    Put(&directory, 0x1234 + bytes.size(), 4);  // crc
    Put(&directory, bytes.size(), 4);
    Put(&directory, bytes.size(), 4);
    Put(&directory, name.size(), 2);
    Put(&directory, 0, 12);
    Put(&directory, header, 4);
    directory += name;
  }
  const size_t start = out.size();
  out += directory;
  if (zip64) {
    const size_t end = out.size();
    out += "PK\6\6";
    Put(&out, 44, 8);
    Put(&out, 0, 12);
    Put(&out, entries.size(), 8);
    Put(&out, entries.size(), 8);
    Put(&out, directory.size(), 8);
    Put(&out, start, 8);
    out += "PK\6\7";
    Put(&out, 0, 4);
    Put(&out, end, 8);
    Put(&out, 1, 4);
  }
  out += "PK\5\6";
  Put(&out, 0, 4);
  Put(&out, entries.size(), 2);
  Put(&out, entries.size(), 2);
  Put(&out, directory.size(), 4);
  Put(&out, start, 4);
  Put(&out, 0, 2);
  return out;
}

json TensorArg(const std::string& name) { return {{"as_tensor", {{"name", name}}}}; }

json SymbolJson(const std::string& name, int64_t hint) {
  return {{"as_expr",
           {{"expr_str", "Symbol('" + name + "', positive=True, integer=True)"},
            {"hint", {{"as_int", hint}}}}}};
}

json TensorMetaJson(int dtype, const std::vector<json>& sizes, const std::vector<int64_t>& strides,
                    int64_t offset) {
  json meta{{"dtype", dtype},
            {"sizes", json::array()},
            {"strides", json::array()},
            {"storage_offset", {{"as_int", offset}}},
            {"requires_grad", false},
            {"device", {{"type", "cpu"}, {"index", nullptr}}},
            {"layout", 7}};
  for (const json& size : sizes) {
    meta["sizes"].push_back(size.is_number() ? json{{"as_int", size}} : size);
  }
  for (const int64_t stride : strides) meta["strides"].push_back({{"as_int", stride}});
  return meta;
}

json UserOutput(const json& argument) { return {{"user_output", {{"arg", argument}}}}; }

json NodeJson(const std::string& target, const Arguments& inputs, const std::vector<json>& outputs,
              const std::string& module) {
  json node{{"target", target}, {"inputs", json::array()}, {"outputs", outputs}};
  for (const auto& [name, argument] : inputs) {
    node["inputs"].push_back({{"name", name}, {"arg", argument}, {"kind", 1}});
  }
  node["metadata"] = {
      {"nn_module_stack", "L__self__,,m.Net;L__self__" + module + "," + module + ",m.Layer"}};
  return node;
}

Pt2::Pt2() {
  const json weight = TensorMetaJson(7, {2, 3}, {3, 1}), bias = TensorMetaJson(7, {2}, {1});
  program = {{"schema_version", {{"major", 8}, {"minor", 17}}},
             {"torch_version", "2.11.0"},
             {"range_constraints", {{"s0", {{"min_val", 1}, {"max_val", 64}}}}},
             {"graph_module", json::object()}};
  graph() = {{"inputs", {TensorArg("p_weight"), TensorArg("p_bias"), TensorArg("x")}},
             {"outputs", json::array({TensorArg("linear")})},
             {"nodes", json::array({NodeJson("torch.ops.aten.linear.default",
                                             {{"input", TensorArg("x")},
                                              {"weight", TensorArg("p_weight")},
                                              {"bias", TensorArg("p_bias")}},
                                             {TensorArg("linear")}, "fc")})},
             {"tensor_values",
              {{"p_weight", weight},
               {"p_bias", bias},
               {"x", TensorMetaJson(7, {SymbolJson("s0", 4), 3}, {3, 1})},
               {"linear", TensorMetaJson(7, {SymbolJson("s0", 4), 2}, {2, 1})}}},
             {"sym_int_values", json::object()}};
  signature() = {
      {"input_specs",
       {{{"parameter", {{"arg", {{"name", "p_weight"}}}, {"parameter_name", "fc.weight"}}}},
        {{"parameter", {{"arg", {{"name", "p_bias"}}}, {"parameter_name", "fc.bias"}}}},
        {{"user_input", {{"arg", TensorArg("x")}}}}}},
      {"output_specs", json::array({UserOutput(TensorArg("linear"))})}};
  const auto payload = [](const char* path, const json& meta) {
    return json{
        {"path_name", path}, {"is_param", true}, {"use_pickle", false}, {"tensor_meta", meta}};
  };
  weights = {{"config", json{{"fc.weight", payload("weight_0", weight)},
                             {"fc.bias", payload("weight_1", bias)}}}};
  constants = {{"config", json::object()}};
  records = {{"data/weights/weight_0", std::string(24, 'w')},
             {"data/weights/weight_1", std::string(8, 'b')}};
  SetOutSpec({{"type", nullptr}, {"context", nullptr}, {"children_spec", json::array()}});
}

void Pt2::SetOutSpec(const json& spec) {
  program["graph_module"]["module_call_graph"] = {
      {{"fqn", ""}, {"signature", {{"in_spec", ""}, {"out_spec", json{1, spec}.dump()}}}}};
}

Entries Pt2::Files() const {
  Entries files;
  for (const auto& [name, bytes] : records) files.emplace_back(root + "/" + name, bytes);
  files.emplace_back(root + "/data/weights/model_weights_config.json", weights.dump());
  files.emplace_back(root + "/data/constants/model_constants_config.json", constants.dump());
  files.emplace_back(root + "/models/model.json", program.dump());
  files.emplace_back(root + "/byteorder", "little");
  return files;
}

}  // namespace echelon::graph::testing
