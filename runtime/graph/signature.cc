#include "runtime/graph/signature.h"

#include <cstring>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/printer.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

absl::Status Wrong(const std::string& input, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("input ", Quoted(input), ": ", what));
}

std::string InputNames(const Graph& graph) {
  return absl::StrJoin(graph.inputs, ", ", [](std::string* out, const Input& input) {
    absl::StrAppend(out, input.name);
  });
}

// A size that came, and what it must be.
struct Size {
  const std::string* input;
  size_t dim;
  int64_t got;
  std::string expr;

  // An integer input has a value, no dimensions.
  std::string Where() const {
    return dim == kValue ? "its value" : absl::StrCat("dimension ", dim);
  }
  static constexpr size_t kValue = SIZE_MAX;
};

class Binder {
 public:
  Binder(const Graph& graph, SymbolValues* symbols) : graph_(graph), symbols_(*symbols) {}

  absl::Status Run(const std::vector<NamedTensor>& inputs) {
    std::map<std::string, const Tensor*> given;
    for (const NamedTensor& input : inputs) {
      if (!given.emplace(input.name, &input.tensor).second) return Wrong(input.name, "given twice");
    }
    for (const Input& input : graph_.inputs) {
      const auto found = given.find(input.name);
      if (found == given.end()) {
        return Wrong(input.name, absl::StrCat("missing; the model takes ", InputNames(graph_)));
      }
      ECHELON_RETURN_IF_ERROR(CheckOne(input, *found->second));
      given.erase(found);
    }
    if (!given.empty()) {
      return Wrong(given.begin()->first,
                   absl::StrCat("unknown; the model takes ", InputNames(graph_)));
    }
    return BindAll();
  }

 private:
  absl::Status CheckOne(const Input& input, const Tensor& tensor) {
    const Value& value = graph_.values[input.value];
    const bool scalar = value.type != ValueType::kTensor;
    const DType wanted = scalar ? DType::kI64 : value.dtype;
    if (tensor.dtype != wanted) {
      return Wrong(input.name,
                   absl::StrCat("is ", std::string(Name(tensor.dtype)), ", the model takes ",
                                scalar ? "i64 scalar" : TypeText(value)));
    }
    if (tensor.shape.size() != value.shape.size()) {
      return Wrong(input.name, absl::StrCat("has ", tensor.shape.size(), " dimensions (",
                                            ShapeText(tensor.shape), "), the model takes ",
                                            scalar ? "i64 scalar" : TypeText(value)));
    }
    for (size_t i = 0; i < value.shape.size(); ++i) {
      const Dim& dim = value.shape[i];
      if (dim.symbolic()) {
        sizes_.push_back({&input.name, i, tensor.shape[i], dim.expr});
      } else if (tensor.shape[i] != dim.hint) {
        return Wrong(input.name,
                     absl::StrCat("dimension ", i, " is ", tensor.shape[i], ", must be ", dim.hint,
                                  "; the model takes ", TypeText(value)));
      }
    }
    if (scalar) return CheckScalar(input, value, tensor);
    return absl::OkStatus();
  }

  absl::Status CheckScalar(const Input& input, const Value& value, const Tensor& tensor) {
    int64_t got = 0;
    if (tensor.data == nullptr || tensor.nbytes < sizeof got) return Wrong(input.name, "no value");
    std::memcpy(&got, tensor.data, sizeof got);
    if (!value.expr.empty()) {
      sizes_.push_back({&input.name, Size::kValue, got, value.expr});
    } else if (value.hint && got != *value.hint) {
      return Wrong(input.name, absl::StrCat("its value is ", got, ", must be ", *value.hint));
    }
    return absl::OkStatus();
  }

  // Plain symbols first, so that the order of inputs does not matter.
  absl::Status BindAll() {
    for (const Size& size : sizes_) {
      ECHELON_ASSIGN_OR_RETURN(const Expr expr, Parse(size));
      if (expr.IsSymbol()) ECHELON_RETURN_IF_ERROR(Bind(size, expr.ToString(), size.got));
    }
    for (const Size& size : sizes_) {
      ECHELON_ASSIGN_OR_RETURN(const Expr expr, Parse(size));
      if (expr.IsSymbol()) continue;
      ECHELON_RETURN_IF_ERROR(Solve(size, expr));
      const absl::StatusOr<int64_t> wanted = expr.Evaluate(symbols_);
      if (!wanted.ok()) {
        return Wrong(*size.input, absl::StrCat(size.Where(), " (", expr.ToString(),
                                               "): ", wanted.status().message()));
      }
      if (*wanted != size.got) {
        return Wrong(*size.input, absl::StrCat(size.Where(), " is ", size.got, ", must be ",
                                               expr.ToString(), " = ", *wanted));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Expr> Parse(const Size& size) const {
    absl::StatusOr<Expr> expr = Expr::Parse(size.expr);
    if (expr.ok()) return expr;
    return Wrong(*size.input, absl::StrCat(size.Where(), ": ", expr.status().message()));
  }

  absl::Status Bind(const Size& size, const std::string& symbol, int64_t value) {
    const auto range = graph_.symbols.find(symbol);
    if (range != graph_.symbols.end() && (value < range->second.min || value > range->second.max)) {
      const Range& allowed = range->second;
      return absl::OutOfRangeError(absl::StrCat(
          "input ", Quoted(*size.input), ": ", size.Where(), " is ", size.got, ", but ", symbol,
          allowed.max == INT64_MAX
              ? absl::StrCat(" must be at least ", allowed.min)
              : absl::StrCat(" must lie in ", allowed.min, "..", allowed.max)));
    }
    const auto [bound, fresh] = symbols_.emplace(symbol, value);
    if (fresh) first_[symbol] = &size;
    if (bound->second == value) return absl::OkStatus();
    const Size* other = first_[symbol];
    return Wrong(*size.input, absl::StrCat(size.Where(), " is ", size.got, ", but ",
                                           other ? absl::StrCat(other->Where(), " of input ",
                                                                Quoted(*other->input))
                                                 : symbol,
                                           " is ", bound->second, "; both are ", symbol));
  }

  // a*s + b with one unknown s; anything else is left for the comparison to find wanting.
  absl::Status Solve(const Size& size, const Expr& expr) {
    std::string unknown;
    for (const std::string& symbol : expr.Symbols()) {
      if (symbols_.contains(symbol)) continue;
      if (!unknown.empty()) return absl::OkStatus();
      unknown = symbol;
    }
    if (unknown.empty()) return absl::OkStatus();
    SymbolValues trial = symbols_;
    trial[unknown] = 0;
    const absl::StatusOr<int64_t> at_zero = expr.Evaluate(trial);
    trial[unknown] = 1;
    const absl::StatusOr<int64_t> at_one = expr.Evaluate(trial);
    int64_t slope, rest;
    if (!at_zero.ok() || !at_one.ok() || __builtin_sub_overflow(*at_one, *at_zero, &slope) ||
        __builtin_sub_overflow(size.got, *at_zero, &rest) || slope == 0 || slope == -1) {
      return absl::OkStatus();
    }
    if (rest % slope != 0) {
      return Wrong(*size.input, absl::StrCat(size.Where(), " is ", size.got, ", must be ",
                                             expr.ToString(), " for a whole ", unknown));
    }
    return Bind(size, unknown, rest / slope);
  }

  const Graph& graph_;
  SymbolValues& symbols_;
  std::vector<Size> sizes_;
  std::map<std::string, const Size*> first_;
};

}  // namespace

absl::Status BindInputs(const Graph& graph, const std::vector<NamedTensor>& inputs,
                        SymbolValues* symbols) {
  SymbolValues bound;
  ECHELON_RETURN_IF_ERROR(Binder(graph, &bound).Run(inputs));
  if (symbols) *symbols = std::move(bound);
  return absl::OkStatus();
}

}  // namespace echelon::graph
