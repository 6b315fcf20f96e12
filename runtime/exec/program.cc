#include "runtime/exec/program.h"

#include <ATen/ScalarOps.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/exec/convert.h"
#include "runtime/exec/schema.h"

namespace echelon::exec {
namespace {

using c10::IValue;
using graph::Graph;
using graph::Item;
using graph::Node;
using graph::ValueId;

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;  // clang 14 does not deduce it

c10::MemoryFormat ToFormat(graph::MemoryFormat format) {
  switch (format) {
    case graph::MemoryFormat::kContiguous:
      return c10::MemoryFormat::Contiguous;
    case graph::MemoryFormat::kChannelsLast:
      return c10::MemoryFormat::ChannelsLast;
    case graph::MemoryFormat::kChannelsLast3d:
      return c10::MemoryFormat::ChannelsLast3d;
    case graph::MemoryFormat::kPreserve:
      break;
  }
  return c10::MemoryFormat::Preserve;
}

// Enumerations travel through boxed calls as integers; devices become this rank's own.
IValue Literal(const Item& item) {
  return std::visit(
      Overloaded{
          [](graph::None) { return IValue(); },
          [](const std::string& text) { return IValue(text); },
          [](DType dtype) { return IValue(static_cast<int64_t>(exec::ToTorch(dtype))); },
          [](graph::Layout) { return IValue(static_cast<int64_t>(c10::Layout::Strided)); },
          [](graph::MemoryFormat format) { return IValue(static_cast<int64_t>(ToFormat(format))); },
          [](const graph::Device&) { return IValue(c10::Device(c10::kCPU)); },
          [](graph::ValueRef) { return IValue(); }, [](auto number) { return IValue(number); }},
      item);
}

c10::TypePtr Unwrapped(c10::TypePtr type) {
  if (const auto optional = type->cast<c10::OptionalType>()) return optional->getElementType();
  return type;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

class Compiler {
 public:
  Compiler(const Graph& graph, const plan::Stage& stage) : graph_(graph), stage_(stage) {}

  absl::StatusOr<Program> Compile() {
    program_.stored_slots.assign(graph_.stored.size(), -1);
    for (const ValueId id : stage_.receives) Slot(id);
    for (const int i : stage_.recomputes) {
      const absl::Status status = TryCompileNode(graph_.nodes[i], i);
      if (!status.ok()) return status;
    }
    for (int i = stage_.begin; i < stage_.end; ++i) {
      const absl::Status status = TryCompileNode(graph_.nodes[i], i);
      if (!status.ok()) return status;
    }
    for (const ValueId id : stage_.sends) program_.sent_slots.push_back(Slot(id));
    PlanFrees();
    return std::move(program_);
  }

 private:
  int Slot(ValueId id) {
    const auto [entry, is_new] =
        program_.slots.try_emplace(id, static_cast<int>(program_.slots.size()));
    const int stored = graph_.values[id].stored;
    if (is_new && stored >= 0) {
      // Two values may be bound to one parameter's entry: they share its slot.
      int& slot = program_.stored_slots[stored];
      if (slot < 0) slot = entry->second;
      entry->second = slot;
    }
    return entry->second;
  }

  absl::Status TryCompileNode(const Node& node, int index) {
    try {
      return CompileNode(node, index);
    } catch (const c10::Error& error) {
      return absl::InvalidArgumentError(
          absl::StrCat("node ", node.name, ": ", node.target, " is given an argument of a ",
                       "wrong kind: ", FirstLine(error.what_without_backtrace())));
    }
  }

  absl::Status CompileNode(const Node& node, int index) {
    Instruction instruction{
        .node = &node, .index = index, .python = FindPythonOperator(node.target)};
    if (instruction.python) {
      for (const graph::Argument& argument : node.arguments)
        instruction.arguments.push_back(Template(argument, nullptr));
    } else {
      instruction.op = FindOperator(node.target);
      if (!instruction.op)
        return absl::UnimplementedError(
            absl::StrCat("node ", node.name, ": operator ", node.target,
                         " is not known to this build; export the model without it"));
      absl::Status status = BindArguments(node, instruction);
      if (!status.ok()) return status;
    }
    graph::ForEachResult(node, [&](ValueId id) { instruction.results.push_back(Slot(id)); });
    program_.instructions.push_back(std::move(instruction));
    return absl::OkStatus();
  }

  // The file leaves defaults out; boxed calls want every argument, in the schema's order.
  absl::Status BindArguments(const Node& node, Instruction& instruction) {
    size_t bound = 0;
    const auto& formals = instruction.op->schema().arguments();
    for (size_t i = 0; i < formals.size(); ++i) {
      const graph::Argument* given = nullptr;
      for (size_t k = 0; k < node.arguments.size(); ++k) {
        const std::string& name = node.arguments[k].name;
        if (name == formals[i].name() || (name.empty() && k == i)) given = &node.arguments[k];
      }
      if (given) {
        instruction.arguments.push_back(Template(*given, &formals[i]));
        ++bound;
      } else if (formals[i].default_value()) {
        instruction.arguments.push_back(
            {.operands = {{.literal = Coerce(*formals[i].default_value(), formals[i])}}});
      } else {
        return absl::InvalidArgumentError(absl::StrCat("node ", node.name, ": ", node.target,
                                                       " lacks its argument ", formals[i].name(),
                                                       "; the file was made by another version"));
      }
    }
    if (bound == node.arguments.size()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("node ", node.name, ": ", node.target, " is given an argument that ",
                     "its schema does not have: the file was made by another version"));
  }

  ArgumentTemplate Template(const graph::Argument& argument, const c10::Argument* formal) {
    ArgumentTemplate result;
    bool has_value = false;
    for (const Item& item : argument.items) {
      const auto* ref = std::get_if<graph::ValueRef>(&item);
      has_value |= ref != nullptr;
      result.operands.push_back(ref ? Operand{.slot = Slot(ref->id)}
                                    : Operand{.literal = Literal(item)});
    }
    if (!argument.is_list) {
      if (has_value)
        result.coerce = NeedsCoercion(argument, formal) ? formal : nullptr;
      else if (formal)
        result.operands[0].literal = Coerce(result.operands[0].literal, *formal);
      return result;
    }
    result.form = ListForm(argument, formal);
    if (!has_value &&
        (result.form == ArgumentTemplate::kInts || result.form == ArgumentTemplate::kFloats))
      result = {.operands = {{.literal = LiteralList(result)}}};
    return result;
  }

  // A tensor where a tensor is wanted needs none.
  bool NeedsCoercion(const graph::Argument& argument, const c10::Argument* formal) const {
    const auto& ref = std::get<graph::ValueRef>(argument.items[0]);
    return formal && graph_.values[ref.id].type != graph::ValueType::kTensor;
  }

  ArgumentTemplate::Form ListForm(const graph::Argument& argument,
                                  const c10::Argument* formal) const {
    const c10::TypePtr type = formal ? Unwrapped(formal->type()) : nullptr;
    const auto list = type ? type->cast<c10::ListType>() : nullptr;
    if (list) {
      const c10::TypePtr element = list->getElementType();
      if (element->kind() == c10::TypeKind::TensorType) return ArgumentTemplate::kTensors;
      if (element->cast<c10::OptionalType>()) return ArgumentTemplate::kOptionalTensors;
      return element->kind() == c10::TypeKind::FloatType ? ArgumentTemplate::kFloats
                                                         : ArgumentTemplate::kInts;
    }
    for (const Item& item : argument.items)
      if (std::holds_alternative<double>(item)) return ArgumentTemplate::kFloats;
    return ArgumentTemplate::kInts;
  }

  static IValue LiteralList(const ArgumentTemplate& list) {
    if (list.form == ArgumentTemplate::kFloats) {
      c10::List<double> values;
      for (const Operand& operand : list.operands)
        values.push_back(operand.literal.toScalar().toDouble());
      return values;
    }
    if (!list.operands.empty() && list.operands[0].literal.isBool()) {
      c10::List<bool> values;
      for (const Operand& operand : list.operands) values.push_back(operand.literal.toBool());
      return values;
    }
    c10::List<int64_t> values;
    for (const Operand& operand : list.operands)
      values.push_back(operand.literal.toScalar().toLong());
    return values;
  }

  // An instruction frees the values it is the last to use, and those of its results that nobody
  // uses.
  void PlanFrees() {
    std::set<int> later;
    for (const int slot : program_.stored_slots)
      if (slot >= 0) later.insert(slot);
    later.insert(program_.sent_slots.begin(), program_.sent_slots.end());
    for (auto it = program_.instructions.rbegin(); it != program_.instructions.rend(); ++it) {
      const auto visit = [&](int slot) {
        if (slot >= 0 && later.insert(slot).second) it->frees.push_back(slot);
      };
      for (const ArgumentTemplate& argument : it->arguments)
        for (const Operand& operand : argument.operands) visit(operand.slot);
      for (const int slot : it->results) visit(slot);
    }
  }

  const Graph& graph_;
  const plan::Stage& stage_;
  Program program_;
};

}  // namespace

c10::IValue Coerce(c10::IValue value, const c10::Argument& formal) {
  if (value.isNone()) return value;
  const c10::TypePtr type = Unwrapped(formal.type());
  if (type->kind() == c10::TypeKind::TensorType && value.isScalar()) {
    at::Tensor number = c10::scalar_to_tensor(value.toScalar());
    number.unsafeGetTensorImpl()->set_wrapped_number(
        true);  // or it would count as a tensor in type promotion
    return number;
  }
  if (type->kind() == c10::TypeKind::FloatType && value.isInt())
    return static_cast<double>(value.toInt());
  if (const auto list = type->cast<c10::ListType>()) {
    const int64_t count = formal.N().value_or(1);  // int[2] takes one number for both
    if (list->getElementType()->kind() == c10::TypeKind::FloatType && value.isScalar())
      return c10::List<double>(std::vector<double>(count, value.toScalar().toDouble()));
    if (value.isInt()) return c10::List<int64_t>(std::vector<int64_t>(count, value.toInt()));
  }
  return value;
}

absl::StatusOr<Program> Compile(const graph::Graph& graph, const plan::Stage& stage) {
  return Compiler(graph, stage).Compile();
}

}  // namespace echelon::exec
