#include "runtime/graph/expr.h"

#include <cctype>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/expr_term.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

using Term = Expr::Term;
using TermPtr = std::shared_ptr<const Term>;
constexpr size_t kMaxText = 64 << 10;
constexpr int kMaxDepth = 60;

TermPtr Number(Fraction number) {
  return std::make_shared<Term>(Term{.kind = Term::kNumber, .number = number});
}
TermPtr Symbol(std::string name) {
  return std::make_shared<Term>(Term{.kind = Term::kSymbol, .name = std::move(name)});
}
TermPtr Call(std::string name, std::vector<TermPtr> arguments) {
  return std::make_shared<Term>(
      Term{.kind = Term::kCall, .name = std::move(name), .arguments = std::move(arguments)});
}

bool IsIdentifier(std::string_view text) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0]))) return false;
  for (const unsigned char c : text) {
    if (!std::isalnum(c) && c != '_') return false;
  }
  return true;
}

// "12" or "0.5" as an exact fraction; nothing beyond 18 digits.
std::optional<Fraction> ParseNumber(std::string_view text) {
  const size_t point = text.find('.');
  std::string digits(text);
  int64_t den = 1;
  if (point != std::string_view::npos) {
    while (digits.size() > point + 1 && digits.back() == '0') digits.pop_back();
    for (size_t i = point + 1; i < digits.size() && den < 1'000'000'000'000'000'000; ++i) den *= 10;
    digits.erase(point, 1);
  }
  int64_t num = 0;
  if (digits.size() > 19 || !absl::SimpleAtoi(digits, &num)) return std::nullopt;
  if (num == INT64_MIN) return std::nullopt;
  int64_t a = num < 0 ? -num : num, b = den;
  while (b != 0) a = std::exchange(b, a % b);
  return Fraction{num / a, den / a};
}

// Recursive descent over Python's expression grammar, as much of it as sizes need.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<TermPtr> Run() {
    ECHELON_ASSIGN_OR_RETURN(TermPtr term, Sum(0));
    SkipSpace();
    if (at_ != text_.size()) return Bad("unexpected text");
    return term;
  }

 private:
  absl::Status Bad(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(what, " in size expression ", Quoted(text_)));
  }

  void SkipSpace() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool Take(std::string_view token) {
    SkipSpace();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  std::string_view Word(bool number) {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '_' || (number && text_[at_] == '.'))) {
      ++at_;
    }
    return text_.substr(begin, at_ - begin);
  }

  absl::StatusOr<TermPtr> Sum(int depth) {
    if (depth > kMaxDepth) return Bad("nesting too deep");
    ECHELON_ASSIGN_OR_RETURN(TermPtr first, Product(depth));
    std::vector<TermPtr> terms{std::move(first)};
    while (true) {
      const bool plus = Take("+"), minus = !plus && Take("-");
      if (!plus && !minus) break;
      ECHELON_ASSIGN_OR_RETURN(TermPtr next, Product(depth));
      terms.push_back(plus ? next : Call("Mul", {Number({-1}), next}));
    }
    return terms.size() == 1 ? terms[0] : Call("Add", std::move(terms));
  }

  absl::StatusOr<TermPtr> Product(int depth) {
    ECHELON_ASSIGN_OR_RETURN(TermPtr left, Unary(depth));
    for (int chained = 0;; ++chained) {
      const char* name = Take("//") ? "FloorDiv" : Take("/") ? "Div" : Take("%") ? "Mod" : nullptr;
      if (!name && Take("*")) name = "Mul";
      if (!name) return left;
      // A chain is a left-leaning tree: as deep as it is long.
      if (chained + depth > kMaxDepth) return Bad("too many factors");
      ECHELON_ASSIGN_OR_RETURN(TermPtr right, Unary(depth));
      left = Call(name, {std::move(left), std::move(right)});
    }
  }

  absl::StatusOr<TermPtr> Unary(int depth) {
    if (depth > kMaxDepth) return Bad("nesting too deep");
    if (Take("-")) {
      ECHELON_ASSIGN_OR_RETURN(TermPtr value, Unary(depth + 1));
      if (value->kind == Term::kNumber) return Number({-value->number.num, value->number.den});
      return Call("Mul", {Number({-1}), std::move(value)});
    }
    ECHELON_ASSIGN_OR_RETURN(TermPtr base, Atom(depth));
    if (!Take("**")) return base;
    ECHELON_ASSIGN_OR_RETURN(TermPtr exponent, Unary(depth + 1));
    return Call("Pow", {std::move(base), std::move(exponent)});
  }

  absl::StatusOr<TermPtr> Atom(int depth) {
    if (Take("(")) {
      ECHELON_ASSIGN_OR_RETURN(TermPtr inner, Sum(depth + 1));
      if (!Take(")")) return Bad("a bracket is not closed");
      return inner;
    }
    SkipSpace();
    if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      const std::optional<Fraction> number = ParseNumber(Word(true));
      if (!number) return Bad("a number out of range");
      return Number(*number);
    }
    const std::string name(Word(false));
    if (name.empty()) return Bad("something is missing");
    if (!Take("(")) return Symbol(name);
    return Arguments(name, depth + 1);
  }

  // After "name(": terms, strings and keywords, up to the closing bracket.
  absl::StatusOr<TermPtr> Arguments(const std::string& name, int depth) {
    std::vector<TermPtr> terms;
    std::string text;
    while (!Take(")")) {
      if ((!terms.empty() || !text.empty()) && !Take(",")) return Bad("a bracket is not closed");
      SkipSpace();
      if (Take("'")) {
        const size_t end = text_.find('\'', at_);
        if (end == std::string_view::npos) return Bad("a string is not closed");
        text = std::string(text_.substr(at_, end - at_));
        at_ = end + 1;
        continue;
      }
      const size_t before = at_;
      Word(false);
      if (Take("=")) {  // positive=True: assumptions, of no use here
        SkipSpace();
        Word(false);
        continue;
      }
      at_ = before;
      ECHELON_ASSIGN_OR_RETURN(TermPtr term, Sum(depth));
      terms.push_back(std::move(term));
      if (terms.size() > 4096) return Bad("too many arguments");
    }
    return Finish(name, std::move(terms), text);
  }

  absl::StatusOr<TermPtr> Finish(const std::string& name, std::vector<TermPtr> terms,
                                 const std::string& text) const {
    if (name == "Symbol" || name == "Dummy") {
      if (!IsIdentifier(text)) return Bad("a symbol without a name");
      return Symbol(text);
    }
    if (name == "Integer" && terms.size() == 1) return terms[0];
    if (name == "Rational" && terms.size() == 2) return Call("Div", std::move(terms));
    if (name == "Float") {
      const bool negative = !text.empty() && text[0] == '-';
      const auto number = ParseNumber(std::string_view(text).substr(negative));
      if (!number) return Bad("a number out of range");
      return Number({negative ? -number->num : number->num, number->den});
    }
    if (!IsFunction(name, terms.size()))
      return Bad(absl::StrCat("unknown function ", Quoted(name)));
    return Call(name, std::move(terms));
  }

  const std::string_view text_;
  size_t at_ = 0;
};

// Binding strength of what a term prints as: sum 1, product 2, atom 3.
struct Printed {
  std::string text;
  int strength = 3;
};

std::string Wrapped(const Printed& part, int needed) {
  return part.strength < needed ? absl::StrCat("(", part.text, ")") : part.text;
}

bool IsMinusOne(const Term& term) {
  return term.kind == Term::kNumber && term.number.num == -1 && term.number.den == 1;
}

Printed Print(const Term& term);

Printed PrintSum(const Term& term) {
  std::string out;
  for (const TermPtr& part : term.arguments) {
    const Printed printed = Print(*part);
    const bool minus = !out.empty() && printed.text.starts_with('-');
    if (!out.empty()) absl::StrAppend(&out, minus ? " - " : " + ");
    absl::StrAppend(&out, minus ? printed.text.substr(1) : printed.text);
  }
  return {out, 1};
}

Printed PrintProduct(const Term& term) {
  std::string out;
  for (size_t i = 0; i < term.arguments.size(); ++i) {
    if (i == 0 && term.arguments.size() > 1 && IsMinusOne(*term.arguments[0])) {
      out.push_back('-');
      continue;
    }
    const bool first = out.empty() || out == "-";
    absl::StrAppend(&out, first ? "" : "*", Wrapped(Print(*term.arguments[i]), first ? 2 : 3));
  }
  return {out, 2};
}

Printed Print(const Term& term) {
  if (term.kind == Term::kSymbol) return {term.name};
  if (term.kind == Term::kNumber) {
    if (term.number.den == 1) return {absl::StrCat(term.number.num), term.number.num < 0 ? 2 : 3};
    return {absl::StrCat(term.number.num, "/", term.number.den), 2};
  }
  if (term.name == "Add") return PrintSum(term);
  if (term.name == "Mul") return PrintProduct(term);
  const bool floor = term.name == "FloorDiv" || term.name == "CleanDiv";
  const bool divide = term.name == "Div" || term.name.ends_with("TrueDiv");
  if (floor || divide) {
    return {absl::StrCat(Wrapped(Print(*term.arguments[0]), 2), floor ? "//" : "/",
                         Wrapped(Print(*term.arguments[1]), 3)),
            2};
  }
  std::vector<std::string> parts;
  for (const TermPtr& part : term.arguments) parts.push_back(Print(*part).text);
  return {absl::StrCat(term.name, "(", absl::StrJoin(parts, ", "), ")")};
}

void Collect(const Term& term, std::set<std::string>* symbols) {
  if (term.kind == Term::kSymbol) symbols->insert(term.name);
  for (const TermPtr& argument : term.arguments) Collect(*argument, symbols);
}

}  // namespace

absl::StatusOr<Expr> Expr::Parse(std::string_view text) {
  if (text.size() > kMaxText) {
    return absl::InvalidArgumentError(absl::StrCat("a size expression of ", text.size(),
                                                   " bytes; at most ", kMaxText, " are read"));
  }
  ECHELON_ASSIGN_OR_RETURN(std::shared_ptr<const Term> root, Parser(text).Run());
  return Expr(std::move(root));
}

absl::StatusOr<int64_t> Expr::Evaluate(const SymbolValues& symbols) const {
  ECHELON_ASSIGN_OR_RETURN(const Fraction value, EvaluateTerm(*root_, symbols));
  if (value.den == 1) return value.num;
  return absl::InvalidArgumentError(
      absl::StrCat(ToString(), " is ", value.num, "/", value.den, ", no whole number"));
}

std::string Expr::ToString() const { return Print(*root_).text; }

std::set<std::string> Expr::Symbols() const {
  std::set<std::string> symbols;
  Collect(*root_, &symbols);
  return symbols;
}

bool Expr::IsSymbol() const { return root_->kind == Term::kSymbol; }

absl::StatusOr<int64_t> Evaluate(std::string_view expr, const SymbolValues& symbols) {
  ECHELON_ASSIGN_OR_RETURN(const Expr parsed, Expr::Parse(expr));
  return parsed.Evaluate(symbols);
}

}  // namespace echelon::graph
