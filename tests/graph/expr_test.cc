#include "runtime/graph/expr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace echelon::graph {
namespace {

using ::testing::HasSubstr;

const SymbolValues kSymbols{{"s0", 5}, {"s1", 7}, {"big", INT64_MAX}};

TEST(Expr, EvaluatesSizes) {
  const std::pair<const char*, int64_t> cases[] = {
      {"s0", 5},
      {"2*s0 + 1", 11},
      {"s0//2", 2},
      {"-s0//2", -3},
      {"Mod(s0, 4)", 1},
      {"PythonMod(-s0, 4)", 3},
      {"-s0 % 4", 3},
      {"Max(1, s0)", 5},
      {"Min(32, 32*s0)", 32},
      {"floor(s0/2)", 2},
      {"ceiling(s0/2)", 3},
      {"CeilToInt(IntTrueDiv(s0, 2))", 3},
      {"FloorDiv(s0*s1 + 1, 2)", 18},
      {"(s0 + 1)*(s1 - 1)", 36},
      {"s0**2", 25},
      {"2**-1*s0*2", 5},
      {"ModularIndexing(s1, 2, 2)", 1},
      {"RoundToInt(s0/2)", 2},
      {"TruncToInt(-s0/2)", -2},
      {"Symbol('s0', positive=True, integer=True)", 5},
      {"Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(1))", 11},
      {"Mul(Rational(1, 5), Symbol('s0', positive=True, integer=True))", 1},
      {"Mul(Integer(-1), Symbol('s0'))", -5},
      {"Pow(Symbol('s0'), Integer(2))", 25},
      {"floor(Mul(Float('0.5', precision=53), Symbol('s0')))", 2},
      {"FloorDiv(Add(Mul(Symbol('s0'), Symbol('s1')), Integer(1)), Integer(2))", 18}};
  for (const auto& [text, wanted] : cases) {
    const auto got = Evaluate(text, kSymbols);
    ASSERT_TRUE(got.ok()) << text << ": " << got.status();
    EXPECT_EQ(*got, wanted) << text;
  }
}

TEST(Expr, PrintsConstructorsAsPeopleWriteThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"Symbol('s77', positive=True, integer=True)", "s77"},
      {"Add(Mul(Integer(2), Symbol('s0')), Integer(1))", "2*s0 + 1"},
      {"FloorDiv(Add(Mul(Integer(2), Symbol('s0')), Integer(1)), Integer(3))", "(2*s0 + 1)//3"},
      {"Add(Symbol('a'), Mul(Integer(-1), Symbol('b')))", "a - b"},
      {"Add(Symbol('a'), Integer(-1))", "a - 1"},
      {"Mul(Integer(4), Add(Symbol('a'), Symbol('b')))", "4*(a + b)"},
      {"Mod(Symbol('s0'), Integer(4))", "Mod(s0, 4)"},
      {"Min(Integer(32), Mul(Integer(32), Symbol('s23')))", "Min(32, 32*s23)"}};
  for (const auto& [text, wanted] : cases) {
    const auto expr = Expr::Parse(text);
    ASSERT_TRUE(expr.ok()) << expr.status();
    EXPECT_EQ(expr->ToString(), wanted);
    EXPECT_EQ(Expr::Parse(expr->ToString())->ToString(), wanted);
  }
}

TEST(Expr, RefusesWhatHasNoValue) {
  const std::pair<const char*, const char*> cases[] = {
      {"s9", "symbol s9 has no value"},         {"s0//0", "divides by zero"},
      {"big + 1", "overflows 64 bits"},         {"big*big", "overflows 64 bits"},
      {"s0/2", "5/2, no whole number"},         {"", "something is missing"},
      {"s0 +", "something is missing"},         {"(s0", "not closed"},
      {"f(s0)", "unknown function 'f'"},        {"s0 s1", "unexpected text"},
      {"99999999999999999999", "out of range"}, {"2**100", "has no value"},
      {"Symbol('')", "without a name"}};
  for (const auto& [text, wanted] : cases) {
    const auto got = Evaluate(text, kSymbols);
    ASSERT_FALSE(got.ok()) << text << " = " << *got;
    EXPECT_THAT(std::string(got.status().message()), HasSubstr(wanted)) << text;
  }
}

TEST(Expr, BoundsItsRecursion) {
  EXPECT_FALSE(Expr::Parse(std::string(10000, '(')).ok());
  EXPECT_FALSE(Expr::Parse(std::string(10000, '-') + "1").ok());
  std::string product = "1", power = "1";
  for (int i = 0; i < 10000; ++i) product += "*1", power += "**1";
  EXPECT_FALSE(Expr::Parse(product).ok());
  EXPECT_FALSE(Expr::Parse(power).ok());
  EXPECT_FALSE(Expr::Parse(std::string(100000, '1')).ok());
}

}  // namespace
}  // namespace echelon::graph
