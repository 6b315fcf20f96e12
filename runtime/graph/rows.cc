#include "runtime/graph/rows.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/graph/expr.h"
#include "runtime/graph/printer.h"

namespace echelon::graph {
namespace {

constexpr int kNowhere = -1;

// What a value has to do with the batch.
enum class Kind {
  kApart,     // nothing
  kRows,      // the rows' own numbers, along one dimension
  kConstant,  // as long as the batch, but every row alike (zeros, ones, an expanded constant)
  kNumbered,  // as long as the batch, each row by its index (arange)
  kSize,      // a scalar that depends on the batch size
};

struct Trace {
  Kind kind = Kind::kApart;
  int dim = kNowhere;  // where the rows are
  double outer =
      1;  // what is merged into that dimension ahead of them: 6 where [6, s] was made [6*s]
};

std::string_view NameOf(const std::string& target) {
  std::string_view name = target;
  if (!name.starts_with("torch.ops.")) return name;
  name.remove_prefix(10);
  name.remove_prefix(std::min(name.size(), name.find('.') + 1));
  name = name.substr(0, name.find('.'));
  while (name.ends_with('_') && !name.ends_with("__")) name.remove_suffix(1);  // in place: the same
  return name;
}

using Names = std::set<std::string_view>;

// Move or merge dimensions; where the batch goes is told by the shapes.
const Names& Layouts() {
  static const auto* const names = new Names{
      "view",    "reshape",         "_unsafe_view", "flatten",    "unflatten", "transpose",
      "permute", "unsqueeze",       "squeeze",      "movedim",    "swapaxes",  "t",
      "expand",  "expand_as",       "contiguous",   "clone",      "to",        "alias",
      "detach",  "lift_fresh_copy", "view_as",      "reshape_as", "type_as",   "_to_copy",
      "slice",   "stack",           "unbind"};
  return *names;
}
const Names& Reshapes() {
  static const auto* const names =
      new Names{"view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"};
  return *names;
}
const Names& Fills() {
  static const auto* const names = new Names{
      "zeros",      "ones",      "full",     "empty",    "zeros_like", "ones_like",    "full_like",
      "empty_like", "new_zeros", "new_ones", "new_full", "new_empty",  "scalar_tensor"};
  return *names;
}
// Work along dimension 0 unless told otherwise.
const Names& AlongFirst() {
  static const auto* const names =
      new Names{"cat",   "concat",       "concatenate", "stack",           "split",
                "chunk", "tensor_split", "unbind",      "split_with_sizes"};
  return *names;
}
const Names& Products() {
  static const auto* const names =
      new Names{"matmul", "mm", "bmm", "linear", "addmm", "baddbmm", "mv", "dot"};
  return *names;
}

class RowTracer {
 public:
  RowTracer(const Graph& graph, const std::string& symbol)
      : graph_(graph), symbol_(symbol), traces_(graph.values.size()) {
    for (const Value& value : graph.values) Remember(value);
  }

  std::string Run() {
    for (const Input& input : graph_.inputs) Start(input.value);
    for (const Node& node : graph_.nodes) {
      const std::string fault = Step(node);
      if (fault.empty()) continue;
      // Faults count only where an output can see them.
      ForEachResult(node, [&](ValueId id) { faults_.emplace(id, fault); });
    }
    return Blame();
  }

 private:
  // Whether a size is s, 2*s, ... of the batch (multiple), or has to do with it otherwise (other).
  enum class Size { kNone, kSymbol, kMultiple, kOther };

  Size Classify(const std::string& text) const {
    if (text.empty()) return Size::kNone;
    if (text == symbol_) return Size::kSymbol;
    const absl::StatusOr<Expr> expr = Expr::Parse(text);
    if (!expr.ok()) return Size::kOther;
    const std::set<std::string> symbols = expr->Symbols();
    if (!symbols.contains(symbol_)) return Size::kNone;
    SymbolValues values;
    int64_t other = 5;
    for (const std::string& symbol : symbols) values[symbol] = other++;
    const auto at = [&](int64_t batch) {
      values[symbol_] = batch;
      return expr->Evaluate(values).value_or(-1);
    };
    const int64_t one = at(1);
    return one > 0 && at(2) == 2 * one && at(7) == 7 * one ? Size::kMultiple : Size::kOther;
  }

  void Remember(const Value& value) {
    for (const Dim& dim : value.shape) {
      if (dim.symbolic() && !sizes_.contains(dim.expr)) sizes_[dim.expr] = Classify(dim.expr);
    }
  }
  Size SizeOf(const Dim& dim) const { return dim.symbolic() ? sizes_.at(dim.expr) : Size::kNone; }

  // The one dimension that is the batch or a multiple; nullopt when there are several, or another
  // kind of size.
  std::optional<int> BatchDim(const Value& value) const {
    int found = kNowhere;
    for (size_t i = 0; i < value.shape.size(); ++i) {
      const Size size = SizeOf(value.shape[i]);
      if (size == Size::kNone) continue;
      if (size == Size::kOther || found != kNowhere) return std::nullopt;
      found = static_cast<int>(i);
    }
    return found;
  }

  void Start(ValueId id) {
    const int dim = BatchDim(graph_.values[id]).value_or(kNowhere);
    if (dim != kNowhere) traces_[id] = {Kind::kRows, dim};
  }

  const Argument* Find(const Node& node, std::string_view name) const {
    for (const Argument& argument : node.arguments) {
      if (argument.name == name) return &argument;
    }
    return nullptr;
  }
  std::optional<ValueId> FindValue(const Node& node, std::string_view name) const {
    const Argument* argument = Find(node, name);
    const ValueRef* ref =
        argument && !argument->is_list ? std::get_if<ValueRef>(&argument->items.front()) : nullptr;
    return ref ? std::optional(ref->id) : std::nullopt;
  }
  bool FindFlag(const Node& node, std::string_view name) const {
    const Argument* argument = Find(node, name);
    const bool* flag =
        argument && !argument->is_list ? std::get_if<bool>(&argument->items.front()) : nullptr;
    return flag && *flag;
  }

  std::string Fault(const Node& node, std::string_view what) const {
    return absl::StrCat("node ", node.name, " (", node.target, ") ", std::string(what));
  }

  // The strongest kind among the arguments.
  Kind KindOf(const Node& node) const {
    bool rows = false, constant = false, numbered = false, size = false;
    ForEachUse(node, [&](ValueId id) {
      rows |= traces_[id].kind == Kind::kRows;
      constant |= traces_[id].kind == Kind::kConstant;
      numbered |= traces_[id].kind == Kind::kNumbered;
      size |= traces_[id].kind == Kind::kSize;
    });
    return numbered   ? Kind::kNumbered
           : rows     ? Kind::kRows
           : constant ? Kind::kConstant
           : size     ? Kind::kSize
                      : Kind::kApart;
  }

  std::string Step(const Node& node) {
    const std::string_view name = NameOf(node.target);
    if (name.starts_with("sym_") || node.target.starts_with("_operator.")) return StepScalar(node);
    const Kind kind = KindOf(node);
    if (kind == Kind::kApart) return "";
    std::string fault = Checks(node, name, kind);
    if (!fault.empty()) return fault;
    const Kind made = Made(name, kind);
    ForEachResult(node, [&](ValueId id) {
      const Value& value = graph_.values[id];
      if (value.type == ValueType::kNone || !fault.empty()) return;
      if (value.type != ValueType::kTensor) {
        fault = Fault(node, "makes a number of the batch");
        return;
      }
      const std::optional<int> dim = BatchDim(value);
      if (!dim)
        fault = Fault(node, absl::StrCat("has the batch size twice or resized: ", TypeText(value)));
      else if (*dim != kNowhere)
        traces_[id] = {made, *dim, Outer(node, name, value, *dim)};
      else if (made == Kind::kRows)
        fault = Fault(node, absl::StrCat("loses the batch: ", TypeText(value)));
    });
    return fault;
  }

  // Numbers computed from sizes.
  std::string StepScalar(const Node& node) {
    ForEachResult(node, [&](ValueId id) {
      const Value& value = graph_.values[id];
      const Size size = value.expr.empty() ? Size::kNone : Classify(value.expr);
      if (size != Size::kNone) traces_[id] = {Kind::kSize, kNowhere};
    });
    return "";
  }

  Kind Made(std::string_view name, Kind kind) const {
    if (kind == Kind::kSize) {
      if (name == "arange" || name == "linspace" || name.starts_with("rand") || name == "eye") {
        return Kind::kNumbered;
      }
      return Kind::kConstant;
    }
    if (Fills().contains(name)) return Kind::kConstant;
    if (name == "index" && kind == Kind::kNumbered) return Kind::kRows;
    return kind;
  }

  std::string Checks(const Node& node, std::string_view name, Kind kind) const {
    if (kind == Kind::kSize) return "";  // sizes of fresh tensors
    const bool layout = Layouts().contains(name);
    if (UsesSizeAsNumber(node)) return Fault(node, "computes with the batch size");
    if (kind == Kind::kNumbered && !layout && name != "index" && HasRows(node)) {
      return Fault(node, "computes with the index of a row");
    }
    if (name == "index" || name == "index_put" || name == "_unsafe_index") return CheckIndex(node);
    if (FindFlag(node, "training") || FindFlag(node, "use_input_stats") ||
        FindFlag(node, "train")) {
      return Fault(node, "is in training mode");
    }
    if (Products().contains(name)) return CheckProduct(node, name);
    if (name.find("scaled_dot_product") != name.npos) return CheckAttention(node);
    if (name == "lstm" || name == "gru" || name.starts_with("rnn_")) return CheckRecurrent(node);
    if (Reshapes().contains(name)) return CheckReshape(node, name);
    if (std::string fault = CheckAlike(node); !fault.empty()) return fault;
    if (name.starts_with("conv")) return CheckPosition(node, "input", 0);
    if (name == "layer_norm" || name == "native_layer_norm" || name == "rms_norm")
      return CheckNorm(node);
    if (name.ends_with("roll") && !Find(node, "dims")) return Fault(node, "shifts rows");
    return layout && name != "slice" && name != "unbind" ? "" : CheckDims(node, name);
  }

  bool HasRows(const Node& node) const {
    bool rows = false;
    ForEachUse(node, [&](ValueId id) { rows |= traces_[id].kind == Kind::kRows; });
    return rows;
  }

  // x / x.shape[0]: sizes may shape tensors, not enter the arithmetic.
  bool UsesSizeAsNumber(const Node& node) const {
    static const auto* const numbers = new Names{
        "other", "value", "fill_value", "exponent", "alpha", "beta", "scale", "min", "max", "p"};
    for (const Argument& argument : node.arguments) {
      if (argument.is_list || !numbers->contains(argument.name)) continue;
      const ValueRef* ref = std::get_if<ValueRef>(&argument.items.front());
      if (ref && traces_[ref->id].kind == Kind::kSize) return true;
    }
    return false;
  }

  // The batch dimension may be indexed by its own arange alone.
  std::string CheckIndex(const Node& node) const {
    const std::optional<ValueId> self = FindValue(node, "self");
    const Argument* indices = Find(node, "indices");
    if (!self || !indices || node.target.find("index_put") != std::string::npos) {
      return Fault(node, "writes rows by index");
    }
    for (size_t i = 0; i < indices->items.size(); ++i) {
      const ValueRef* ref = std::get_if<ValueRef>(&indices->items[i]);
      if (!ref) continue;
      const bool along =
          traces_[*self].kind == Kind::kRows && traces_[*self].dim == static_cast<int>(i);
      const bool numbered = traces_[ref->id].kind == Kind::kNumbered;
      if (along != numbered) return Fault(node, "picks rows by index");
    }
    return "";
  }

  // A product sums over the last dimension of its left and the last but one of its right argument.
  std::string CheckProduct(const Node& node, std::string_view name) const {
    const auto sums = [&](std::string_view argument, int from_end) {
      const std::optional<ValueId> id = FindValue(node, argument);
      if (!id || traces_[*id].dim == kNowhere) return false;
      const int rank = static_cast<int>(graph_.values[*id].shape.size());
      return traces_[*id].dim == std::max(rank - from_end, 0) &&
             (rank > 1 || from_end == 1 || rank == 1);
    };
    const bool linear = name == "linear";
    const bool left = sums(linear              ? "input"
                           : name == "addmm"   ? "mat1"
                           : name == "baddbmm" ? "batch1"
                                               : "self",
                           1);
    const bool right = linear ? false
                              : sums(name == "addmm"                 ? "mat2"
                                     : name == "baddbmm"             ? "batch2"
                                     : name == "mm" || name == "bmm" ? "mat2"
                                                                     : "other",
                                     2);
    return left || right ? Fault(node, "sums over the batch") : "";
  }

  std::string CheckAttention(const Node& node) const {
    for (const char* argument : {"query", "key", "value"}) {
      const std::optional<ValueId> id = FindValue(node, argument);
      if (!id || traces_[*id].dim == kNowhere) continue;
      const int rank = static_cast<int>(graph_.values[*id].shape.size());
      if (traces_[*id].dim >= rank - 2) return Fault(node, "attends from row to row");
    }
    return "";
  }

  std::string CheckRecurrent(const Node& node) const {
    return CheckPosition(node, "input", FindFlag(node, "batch_first") ? 0 : 1);
  }

  std::string CheckPosition(const Node& node, std::string_view argument, int wanted) const {
    const std::optional<ValueId> id = FindValue(node, argument);
    if (!id || traces_[*id].dim == kNowhere || traces_[*id].dim == wanted) return "";
    return Fault(node, "works along the batch");
  }

  std::string CheckNorm(const Node& node) const {
    const std::optional<ValueId> id = FindValue(node, "input");
    const Argument* shape = Find(node, "normalized_shape");
    if (!id || !shape || traces_[*id].dim == kNowhere) return "";
    const auto rank = static_cast<int>(graph_.values[*id].shape.size());
    const bool within = traces_[*id].dim >= rank - static_cast<int>(shape->items.size());
    return within ? Fault(node, "works along the batch") : "";
  }

  // All rows that meet in a node must lie alike.
  std::string CheckAlike(const Node& node) const {
    double outer = 0;
    bool alike = true;
    ForEachUse(node, [&](ValueId id) {
      if (traces_[id].kind != Kind::kRows) return;
      alike &= outer == 0 || outer == traces_[id].outer;
      outer = traces_[id].outer;
    });
    return alike ? "" : Fault(node, "reshapes across rows");
  }

  static double ElementsBefore(const Value& value, int dim) {
    double product = 1;
    for (int i = 0; i < dim; ++i) product *= static_cast<double>(value.shape[i].hint);
    return product;
  }

  // A reshape keeps what stands before the rows, be it in dimensions of its own or merged into
  // theirs.
  double Outer(const Node& node, std::string_view name, const Value& made, int dim) const {
    double outer = 1;
    ForEachUse(node, [&](ValueId id) {
      if (traces_[id].dim == kNowhere) return;
      outer = traces_[id].outer;
      if (Reshapes().contains(name)) {
        outer *= ElementsBefore(graph_.values[id], traces_[id].dim) / ElementsBefore(made, dim);
      }
    });
    return outer;
  }

  std::string CheckReshape(const Node& node, std::string_view name) const {
    if (node.results.size() != 1 || node.results[0].values.size() != 1) return "";
    const Value& made = graph_.values[node.results[0].values[0]];
    const std::optional<int> dim = BatchDim(made);
    if (!dim || *dim == kNowhere) return "";
    const double outer = Outer(node, name, made, *dim);
    const Dim& size = made.shape[*dim];
    const bool whole = outer >= 1 && outer == std::floor(outer);
    const bool room =
        SizeOf(size) == Size::kMultiple ? outer < static_cast<double>(size.hint) : outer == 1;
    return whole && room ? "" : Fault(node, "reshapes across rows");
  }

  // Any "dim" that is the batch's, of any tensor argument.
  std::string CheckDims(const Node& node, std::string_view name) const {
    std::vector<int64_t> dims;
    for (const char* key : {"dim", "dims", "axis"}) {
      if (const Argument* argument = Find(node, key)) {
        for (const Item& item : argument->items) {
          if (const int64_t* number = std::get_if<int64_t>(&item)) dims.push_back(*number);
        }
      }
    }
    if (dims.empty() && AlongFirst().contains(name)) dims.push_back(0);
    bool along = false;
    ForEachUse(node, [&](ValueId id) {
      const auto rank = static_cast<int64_t>(graph_.values[id].shape.size());
      for (const int64_t dim : dims) {
        along |= traces_[id].dim != kNowhere && traces_[id].dim == (dim < 0 ? dim + rank : dim);
      }
    });
    if (!along) return "";
    return name == "slice" && SliceKeepsRows(node) ? "" : Fault(node, "works along the batch");
  }

  // x[:] or x[0:batch], which export leaves as a slice.
  bool SliceKeepsRows(const Node& node) const {
    const Value &from = graph_.values[*FindValue(node, "self")],
                &to = graph_.values[node.results[0].values[0]];
    const std::optional<int> before = BatchDim(from), after = BatchDim(to);
    return before && after && *before != kNowhere && *after == *before &&
           from.shape[*before].expr == to.shape[*after].expr;
  }

  // The first faulty node that an output depends on.
  std::string Blame() const {
    std::vector<bool> needed(graph_.values.size());
    for (const Output& output : graph_.outputs) {
      if (const ValueRef* ref = std::get_if<ValueRef>(&output.item)) {
        needed[ref->id] = true;
        if (traces_[ref->id].kind == Kind::kNumbered) {
          return absl::StrCat("output ", output.name, " numbers the rows");
        }
      }
    }
    std::string blamed;
    for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
      bool live = false;
      ForEachResult(*node, [&](ValueId id) { live |= needed[id]; });
      if (!live) continue;
      ForEachUse(*node, [&](ValueId id) { needed[id] = true; });
      ForEachResult(*node, [&](ValueId id) {
        const auto fault = faults_.find(id);
        if (fault != faults_.end()) blamed = fault->second;
      });
    }
    return blamed;
  }

  const Graph& graph_;
  const std::string symbol_;
  std::map<std::string, Size> sizes_;
  std::vector<Trace> traces_;
  std::map<ValueId, std::string> faults_;
};

}  // namespace

std::string WhereRowsMeet(const Graph& graph, const std::string& symbol) {
  return RowTracer(graph, symbol).Run();
}

}  // namespace echelon::graph
