#include "runtime/graph/graph_builder.h"

#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"

namespace echelon::graph {
namespace {

constexpr char kSetGrad[] = "torch.ops.higher_order.wrap_with_set_grad_enabled";
constexpr int kKeyword = 2;
constexpr char kHigherOrder[] = "torch.ops.higher_order.";

const Json& EmptyObject() {
  static const auto* const empty = new Json(Json::object());
  return *empty;
}

}  // namespace

GraphBuilder::Scope GraphBuilder::Describe(const Json& graph) {
  const auto table = [&](const char* key) {
    const Json* found = reader_.Find(graph, key);
    return found ? found : &EmptyObject();
  };
  return {table("tensor_values"),
          table("sym_int_values"),
          table("sym_float_values"),
          table("sym_bool_values"),
          {}};
}

std::optional<ValueId> GraphBuilder::AddPlaceholder(const Json& argument) {
  const auto [tag, value] = reader_.AsUnion(argument, "input");
  if (tag == "as_tensor") return Define(reader_.String(value, "name"), ValueType::kTensor, top_);
  if (tag == "as_sym_int" && reader_.Find(value, "as_name")) {
    return Define(reader_.String(value, "as_name"), ValueType::kInt, top_);
  }
  if (tag == "as_custom_obj") {
    reader_.Fail("custom objects are not supported; give the model tensors");
  }
  return std::nullopt;
}

void GraphBuilder::AddNodes(const Json& graph, Scope& scope) {
  for (const Json& node : reader_.Array(graph, "nodes")) {
    if (!reader_.ok()) return;
    AddNode(node, scope);
  }
}

void GraphBuilder::AddNode(const Json& json, Scope& scope) {
  const std::string& target = reader_.String(json, "target");
  const Json* name = reader_.Find(json, "name");
  reader_.set_subject(absl::StrCat(
      "node ", name && name->is_string() ? Quoted(name->get_ref<const std::string&>()) : "", " (",
      Quoted(target), ")"));
  if (target == kSetGrad) return Inline(json, scope);
  if (target.starts_with(kHigherOrder)) {
    return reader_.Fail("this higher-order operator is not supported; export the model without it");
  }
  Node node{.target = target};
  for (const Json& input : reader_.Array(json, "inputs")) {
    Argument argument = ReadArgument(reader_.At(input, "arg"), scope);
    if (!reader_.ok()) return;
    argument.name = reader_.String(input, "name");
    const Json* kind = reader_.Find(input, "kind");
    argument.keyword = kind && *kind == kKeyword;
    node.arguments.push_back(std::move(argument));
  }
  for (const Json& output : reader_.Array(json, "outputs")) {
    node.results.push_back(ReadResult(output, scope));
    if (!reader_.ok()) return;
  }
  if (const Json* metadata = reader_.Find(json, "metadata")) {
    if (const Json* stack = reader_.Find(*metadata, "nn_module_stack");
        stack && stack->is_string()) {
      node.module = InnermostModule(stack->get_ref<const std::string&>());
    }
  }
  graph_.nodes.push_back(std::move(node));
}

// wrap_with_set_grad_enabled(flag, subgraph, operands...) is, in inference, the nodes of its
// subgraph.
void GraphBuilder::Inline(const Json& json, Scope& scope) {
  const Json& inputs = reader_.Array(json, "inputs");
  if (inputs.size() < 2) return reader_.Fail("a flag and a subgraph are needed");
  const auto [tag, wrapped] = reader_.AsUnion(reader_.At(inputs[1], "arg"), "subgraph");
  if (tag != "as_graph") return reader_.Fail("its second argument is no graph");
  const Json& subgraph = reader_.Object(wrapped, "graph");
  Scope inner = Describe(subgraph);
  const Json& formals = reader_.Array(subgraph, "inputs");
  if (!reader_.ok()) return;
  if (formals.size() != inputs.size() - 2)
    return reader_.Fail("operands do not match its subgraph");
  for (size_t i = 0; i < formals.size() && reader_.ok(); ++i) {
    const auto [kind, formal] = reader_.AsUnion(formals[i], "subgraph input");
    const Argument operand = ReadArgument(reader_.At(inputs[i + 2], "arg"), scope);
    if (!reader_.ok()) return;
    const ValueRef* value =
        operand.is_list ? nullptr : std::get_if<ValueRef>(&operand.items.front());
    if (!value) return reader_.Fail("an operand of its subgraph is no value");
    inner.names[reader_.String(formal, kind == "as_tensor" ? "name" : "as_name")] = value->id;
  }
  AddNodes(subgraph, inner);

  std::vector<Item> made;
  for (const Json& output : reader_.Array(subgraph, "outputs")) {
    if (!reader_.ok()) return;
    const Argument results = ReadArgument(output, inner);
    made.insert(made.end(), results.items.begin(), results.items.end());
  }
  // The outer graph has its own names for them.
  size_t next = 0;
  for (const Json& output : reader_.Array(json, "outputs")) {
    if (!reader_.ok()) return;
    const auto [kind, value] = reader_.AsUnion(output, "output");
    const bool list = kind == "as_tensors";
    for (size_t i = 0; i < (list ? value.size() : 1); ++i) {
      const Json& one = list ? value[i] : value;
      if (next == made.size()) return reader_.Fail("outputs do not match its subgraph");
      const ValueRef* result = std::get_if<ValueRef>(&made[next++]);
      if (kind == "as_none" || !result) continue;
      const bool scalar = kind.starts_with("as_sym_");
      const std::string& name = reader_.String(one, scalar ? "as_name" : "name");
      if (!reader_.ok()) return;
      scope.names[name] = result->id;
    }
  }
}

Item GraphBuilder::Resolve(const Json& argument) {
  const Argument read = ReadArgument(argument, top_);
  if (!reader_.ok()) return None{};
  if (!read.is_list) return read.items.front();
  reader_.Fail("a list where one value is needed");
  return None{};
}

ValueId GraphBuilder::Find(const std::string& name) {
  const auto found = top_.names.find(name);
  if (found != top_.names.end()) return found->second;
  reader_.Fail(absl::StrCat("nothing before is named ", Quoted(name)));
  return -1;
}

Item GraphBuilder::Reference(const Json& name, const Scope& scope) {
  const auto found = scope.names.find(reader_.AsString(name, "name"));
  if (!reader_.ok()) return None{};
  if (found != scope.names.end()) return ValueRef{found->second};
  reader_.Fail(
      absl::StrCat("nothing before it is named ", Quoted(name.get_ref<const std::string&>())));
  return None{};
}

Argument GraphBuilder::ReadArgument(const Json& json, const Scope& scope) {
  const auto [tag, value] = reader_.AsUnion(json, "argument");
  Argument argument;
  static const auto* const lists = new std::set<std::string>{
      "as_tensors", "as_optional_tensors", "as_ints",      "as_floats",    "as_bools",
      "as_strings", "as_sym_ints",         "as_sym_bools", "as_sym_floats"};
  if (lists->contains(tag)) {
    argument.is_list = true;
    ReadList(tag, reader_.AsArray(value, tag), scope, &argument);
  } else {
    argument.items.push_back(ReadItem(tag, value, scope));
  }
  return argument;
}

Item GraphBuilder::ReadItem(const std::string& tag, const Json& value, const Scope& scope) {
  if (tag == "as_none") return None{};
  if (tag == "as_tensor") return Reference(reader_.At(value, "name"), scope);
  if (tag == "as_name") return Reference(value, scope);
  if (tag == "as_int") return reader_.AsInt(value, tag);
  if (tag == "as_bool") return reader_.AsBool(value, tag);
  if (tag == "as_float") return reader_.AsDouble(value, tag);
  if (tag == "as_string") return reader_.AsString(value, tag);
  if (tag == "as_scalar_type") return ReadDType(reader_, value);
  if (tag == "as_layout") return ReadLayout(reader_, value);
  if (tag == "as_memory_format") return ReadMemoryFormat(reader_, value);
  if (tag == "as_device") return ReadDevice(reader_, value);
  if (tag == "as_sym_int" || tag == "as_sym_float" || tag == "as_sym_bool" ||
      tag == "as_optional_tensor") {
    const auto [inner, inside] = reader_.AsUnion(value, tag);
    // One level is all the schema has; the check bounds the recursion.
    if (!inner.starts_with("as_sym") && inner != tag) return ReadItem(inner, inside, scope);
  }
  reader_.Fail(absl::StrCat("an argument of kind ", Quoted(tag), " is not supported"));
  return None{};
}

void GraphBuilder::ReadList(const std::string& tag, const Json& list, const Scope& scope,
                            Argument* argument) {
  argument->items.reserve(list.size());
  for (const Json& item : list) {
    if (!reader_.ok()) return;
    if (tag == "as_tensors") {
      argument->items.push_back(Reference(reader_.At(item, "name"), scope));
    } else if (tag == "as_ints") {
      argument->items.emplace_back(reader_.AsInt(item, tag));
    } else if (tag == "as_floats") {
      argument->items.emplace_back(reader_.AsDouble(item, tag));
    } else if (tag == "as_bools") {
      argument->items.emplace_back(reader_.AsBool(item, tag));
    } else if (tag == "as_strings") {
      argument->items.emplace_back(reader_.AsString(item, tag));
    } else {  // lists of unions
      const auto [inner, value] = reader_.AsUnion(item, tag);
      argument->items.push_back(ReadItem(inner, value, scope));
    }
  }
}

Result GraphBuilder::ReadResult(const Json& output, Scope& scope) {
  const auto [tag, value] = reader_.AsUnion(output, "output");
  Result result;
  const auto define = [&](const Json& holder, const char* key, ValueType type) {
    const std::string& name = reader_.String(holder, key);
    if (reader_.ok()) result.values.push_back(Define(name, type, scope));
  };
  if (tag == "as_tensor") {
    define(value, "name", ValueType::kTensor);
  } else if (tag == "as_none") {
    result.values.push_back(Define("", ValueType::kNone, scope));
  } else if (tag == "as_sym_int") {
    define(value, "as_name", ValueType::kInt);
  } else if (tag == "as_sym_float") {
    define(value, "as_name", ValueType::kFloat);
  } else if (tag == "as_sym_bool") {
    define(value, "as_name", ValueType::kBool);
  } else if (tag == "as_tensors") {
    result.is_list = true;
    for (const Json& tensor : reader_.AsArray(value, tag)) {
      if (reader_.ok()) define(tensor, "name", ValueType::kTensor);
    }
  } else {
    reader_.Fail(absl::StrCat("a result of kind ", Quoted(tag), " is not supported"));
  }
  return result;
}

ValueId GraphBuilder::Define(const std::string& name, ValueType type, Scope& scope) {
  const auto id = static_cast<ValueId>(graph_.values.size());
  Value value{.name = name, .type = type};
  // A result that nobody reads may have no name, and then no description.
  if (type == ValueType::kTensor && !name.empty()) DescribeTensor(name, scope, &value);
  if (type == ValueType::kInt) {
    if (const Json* size = reader_.Find(*scope.ints, name.c_str())) {
      Dim dim = dims_.Read(reader_, *size);
      value.hint = dim.hint;
      value.expr = std::move(dim.expr);
    }
  }
  graph_.values.push_back(std::move(value));
  if (!name.empty() && !scope.names.emplace(name, id).second) {
    reader_.Fail(absl::StrCat("two values are named ", Quoted(name)));
  }
  return id;
}

void GraphBuilder::DescribeTensor(const std::string& name, const Scope& scope, Value* value) {
  const Json* meta = reader_.Find(*scope.tensors, name.c_str());
  if (!meta) return reader_.Fail(absl::StrCat("tensor ", Quoted(name), " has no description"));
  TensorMeta read = ReadTensorMeta(reader_, dims_, *meta);
  value->dtype = read.dtype;
  value->shape = std::move(read.shape);
  value->strides = std::move(read.strides);
}

ValueId GraphBuilder::AddLike(ValueId value, const std::string& name) {
  Value copy = graph_.values[value];
  copy.name = name;
  copy.stored = -1;
  graph_.values.push_back(std::move(copy));
  return static_cast<ValueId>(graph_.values.size() - 1);
}

Graph GraphBuilder::Finish() {
  absl::flat_hash_set<std::string> taken;
  absl::flat_hash_map<std::string, int> next;  // keeps many equal names linear
  const auto unique = [&](const std::string& wanted) {
    const std::string base = wanted.empty() ? "unused" : wanted;
    std::string name = base;
    while (!taken.insert(name).second) name = absl::StrCat(base, "_", ++next[base]);
    return name;
  };
  for (Value& value : graph_.values) value.name = unique(value.name);
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    Node& node = graph_.nodes[i];
    ForEachResult(node, [&](ValueId id) {
      if (node.name.empty()) node.name = graph_.values[id].name;
    });
    if (node.name.empty()) node.name = unique(absl::StrCat(node.target, "_", i));
  }
  return std::move(graph_);
}

}  // namespace echelon::graph
