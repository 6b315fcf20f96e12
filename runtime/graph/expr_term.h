// The tree behind Expr: made by expr.cc's parser, walked by expr_eval.cc. Private to these two.
#ifndef ECHELON_RUNTIME_GRAPH_EXPR_TERM_H_
#define ECHELON_RUNTIME_GRAPH_EXPR_TERM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/expr.h"

namespace echelon::graph {

// A fraction in lowest terms, den > 0.
struct Fraction {
  int64_t num = 0, den = 1;
};

struct Expr::Term {
  enum Kind { kNumber, kSymbol, kCall } kind = kNumber;
  Fraction number;
  std::string name;  // of a symbol, or of a function: always one that IsFunction knows
  std::vector<std::shared_ptr<const Term>> arguments;
};

bool IsFunction(std::string_view name, size_t arguments);
absl::StatusOr<Fraction> EvaluateTerm(const Expr::Term& term, const SymbolValues& symbols);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_EXPR_TERM_H_
