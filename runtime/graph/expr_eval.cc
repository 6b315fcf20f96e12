#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/graph/expr_term.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

using Wide = __int128;
using Maybe = std::optional<Fraction>;  // empty: overflow, division by zero, or no meaning

Wide Gcd(Wide a, Wide b) {
  while (b != 0) a = std::exchange(b, a % b);
  return a < 0 ? -a : a;
}

Maybe Reduced(Wide num, Wide den) {
  if (den == 0) return std::nullopt;
  if (den < 0) num = -num, den = -den;
  const Wide common = Gcd(num, den);
  if (common > 1) num /= common, den /= common;
  constexpr Wide kMax = std::numeric_limits<int64_t>::max();
  if (num > kMax || num < -kMax || den > kMax) return std::nullopt;
  return Fraction{static_cast<int64_t>(num), static_cast<int64_t>(den)};
}

// Products of two 64-bit numbers fit 126 bits; a sum of two such products fits 127.
Maybe Add(Fraction a, Fraction b) {
  return Reduced(Wide{a.num} * b.den + Wide{b.num} * a.den, Wide{a.den} * b.den);
}
Maybe Multiply(Fraction a, Fraction b) { return Reduced(Wide{a.num} * b.num, Wide{a.den} * b.den); }
Maybe Divide(Fraction a, Fraction b) { return Reduced(Wide{a.num} * b.den, Wide{a.den} * b.num); }
Fraction Negated(Fraction a) { return {-a.num, a.den}; }
bool Less(Fraction a, Fraction b) { return Wide{a.num} * b.den < Wide{b.num} * a.den; }

Fraction Floor(Fraction a) {
  const int64_t quotient = a.num / a.den;
  return {quotient - (a.num % a.den != 0 && a.num < 0)};
}
Fraction Ceil(Fraction a) { return Negated(Floor(Negated(a))); }
Fraction Truncate(Fraction a) { return {a.num / a.den}; }

// Python's round: halves go to the even neighbour.
Maybe Round(Fraction a) {
  const Fraction low = Floor(a);
  const Maybe rest = Add(a, Negated(low));
  if (!rest) return rest;
  const Wide twice = Wide{rest->num} * 2;
  const bool up = twice > rest->den || (twice == rest->den && low.num % 2 != 0);
  return up ? Add(low, {1}) : Maybe(low);
}

Maybe FloorDivide(Fraction a, Fraction b) {
  const Maybe quotient = Divide(a, b);
  return quotient ? Maybe(Floor(*quotient)) : std::nullopt;
}

Maybe Modulo(Fraction a, Fraction b) {
  const Maybe quotient = FloorDivide(a, b);
  const Maybe product = quotient ? Multiply(*quotient, b) : std::nullopt;
  return product ? Add(a, Negated(*product)) : std::nullopt;
}

Maybe Power(Fraction base, Fraction exponent) {
  if (exponent.den != 1 || exponent.num > 64 || exponent.num < -64) return std::nullopt;
  Maybe result = Fraction{1};
  for (int64_t i = 0; result && i < std::abs(exponent.num); ++i) result = Multiply(*result, base);
  return result && exponent.num < 0 ? Divide({1}, *result) : result;
}

Maybe Shift(Fraction a, Fraction by, bool left) {
  if (by.num < 0 || by.num > 62 || by.den != 1) return std::nullopt;
  const Fraction factor{int64_t{1} << by.num};
  return left ? Multiply(a, factor) : FloorDivide(a, factor);
}

using Function = Maybe (*)(const std::vector<Fraction>&);
struct Row {
  size_t least, most;
  Function apply;
};
constexpr size_t kAny = 4096;

template <Maybe (*kFold)(Fraction, Fraction)>
Maybe FoldAll(const std::vector<Fraction>& a) {
  Maybe result = a[0];
  for (size_t i = 1; result && i < a.size(); ++i) result = kFold(*result, a[i]);
  return result;
}
template <Maybe (*kBinary)(Fraction, Fraction)>
Maybe Two(const std::vector<Fraction>& a) {
  return kBinary(a[0], a[1]);
}
template <Fraction (*kUnary)(Fraction)>
Maybe One(const std::vector<Fraction>& a) {
  return kUnary(a[0]);
}
Maybe Same(const std::vector<Fraction>& a) { return a[0]; }

const std::map<std::string, Row, std::less<>>& Functions() {
  static const auto* const rows = new std::map<std::string, Row, std::less<>>{
      {"Add", {1, kAny, FoldAll<Add>}},
      {"Mul", {1, kAny, FoldAll<Multiply>}},
      {"Max",
       {1, kAny,
        [](const auto& a) -> Maybe { return *std::max_element(a.begin(), a.end(), Less); }}},
      {"Min",
       {1, kAny,
        [](const auto& a) -> Maybe { return *std::min_element(a.begin(), a.end(), Less); }}},
      {"Pow", {2, 2, Two<Power>}},
      {"PowByNatural", {2, 2, Two<Power>}},
      {"FloorDiv", {2, 2, Two<FloorDivide>}},
      {"CleanDiv", {2, 2, Two<FloorDivide>}},
      {"Div", {2, 2, Two<Divide>}},
      {"IntTrueDiv", {2, 2, Two<Divide>}},
      {"FloatTrueDiv", {2, 2, Two<Divide>}},
      {"Mod", {2, 2, Two<Modulo>}},
      {"PythonMod", {2, 2, Two<Modulo>}},
      {"CeilDiv",
       {2, 2,
        [](const auto& a) -> Maybe {
          const Maybe quotient = Divide(a[0], a[1]);
          return quotient ? Maybe(Ceil(*quotient)) : quotient;
        }}},
      {"ModularIndexing",
       {3, 3,
        [](const auto& a) -> Maybe {
          const Maybe quotient = FloorDivide(a[0], a[1]);
          return quotient ? Modulo(*quotient, a[2]) : quotient;
        }}},
      {"LShift", {2, 2, [](const auto& a) { return Shift(a[0], a[1], true); }}},
      {"RShift", {2, 2, [](const auto& a) { return Shift(a[0], a[1], false); }}},
      {"floor", {1, 1, One<Floor>}},
      {"FloorToInt", {1, 1, One<Floor>}},
      {"ceiling", {1, 1, One<Ceil>}},
      {"CeilToInt", {1, 1, One<Ceil>}},
      {"TruncToInt", {1, 1, One<Truncate>}},
      {"TruncToFloat", {1, 1, One<Truncate>}},
      {"RoundToInt", {1, 1, [](const auto& a) { return Round(a[0]); }}},
      {"Abs", {1, 1, [](const auto& a) -> Maybe { return a[0].num < 0 ? Negated(a[0]) : a[0]; }}},
      {"ToFloat", {1, 1, Same}},
      {"Identity", {1, 1, Same}}};
  return *rows;
}

}  // namespace

bool IsFunction(std::string_view name, size_t arguments) {
  const auto found = Functions().find(name);
  return found != Functions().end() && arguments >= found->second.least &&
         arguments <= found->second.most;
}

absl::StatusOr<Fraction> EvaluateTerm(const Expr::Term& term, const SymbolValues& symbols) {
  if (term.kind == Expr::Term::kNumber) return term.number;
  if (term.kind == Expr::Term::kSymbol) {
    const auto found = symbols.find(term.name);
    if (found == symbols.end()) {
      return absl::NotFoundError(absl::StrCat("symbol ", term.name, " has no value"));
    }
    if (found->second == std::numeric_limits<int64_t>::min()) {
      return absl::OutOfRangeError(absl::StrCat("symbol ", term.name, " is out of range"));
    }
    return Fraction{found->second};
  }
  std::vector<Fraction> arguments;
  for (const auto& argument : term.arguments) {
    ECHELON_ASSIGN_OR_RETURN(const Fraction value, EvaluateTerm(*argument, symbols));
    arguments.push_back(value);
  }
  const Maybe result = Functions().find(term.name)->second.apply(arguments);
  if (result) return *result;
  return absl::OutOfRangeError(
      absl::StrCat(term.name, " overflows 64 bits, divides by zero or has no value"));
}

}  // namespace echelon::graph
