#include "runtime/exec/python_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace echelon::exec {
namespace {

using c10::IValue;

constexpr int64_t kLeast = std::numeric_limits<int64_t>::min(),
                  kMost = std::numeric_limits<int64_t>::max();

IValue Call(const std::string& target, const std::vector<IValue>& arguments) {
  const PythonOperator op = FindPythonOperator(target);
  if (!op) throw std::invalid_argument(target + " is not known");
  return op(arguments);
}

void ExpectInt(const std::string& target, const std::vector<IValue>& arguments, int64_t wanted) {
  const IValue got = Call(target, arguments);
  ASSERT_TRUE(got.isInt()) << target;
  EXPECT_EQ(got.toInt(), wanted) << target;
}

void ExpectFloat(const std::string& target, const std::vector<IValue>& arguments, double wanted) {
  const IValue got = Call(target, arguments);
  ASSERT_TRUE(got.isDouble()) << target;
  EXPECT_EQ(got.toDouble(), wanted) << target;
  EXPECT_EQ(std::signbit(got.toDouble()), std::signbit(wanted)) << target;
}

void ExpectBool(const std::string& target, const std::vector<IValue>& arguments, bool wanted) {
  const IValue got = Call(target, arguments);
  ASSERT_TRUE(got.isBool()) << target;
  EXPECT_EQ(got.toBool(), wanted) << target;
}

void ExpectError(const std::string& target, const std::vector<IValue>& arguments) {
  EXPECT_THROW(Call(target, arguments), std::runtime_error) << target;
}

TEST(PythonOps, DivideIntegersTowardsMinusInfinity) {
  ExpectInt("_operator.floordiv", {7, 2}, 3);
  ExpectInt("_operator.floordiv", {-7, 2}, -4);
  ExpectInt("_operator.floordiv", {7, -2}, -4);
  ExpectInt("_operator.floordiv", {-7, -2}, 3);
  ExpectInt("_operator.floordiv", {-8, 2}, -4);
  ExpectInt("_operator.floordiv", {kMost, -1}, -kMost);
  ExpectInt("_operator.mod", {7, 3}, 1);
  ExpectInt("_operator.mod", {-7, 3}, 2);
  ExpectInt("_operator.mod", {7, -3}, -2);
  ExpectInt("_operator.mod", {-7, -3}, -1);
  ExpectInt("_operator.mod", {kLeast, -1}, 0);
  ExpectInt("_operator.mod", {6, -3}, 0);
}

TEST(PythonOps, DivideFloatsTowardsMinusInfinity) {
  ExpectFloat("_operator.floordiv", {-7.5, 2}, -4.0);
  ExpectFloat("_operator.floordiv", {1.0, 0.1}, 9.0);  // 0.1 is a little more than a tenth
  ExpectFloat("_operator.floordiv", {-0.0, 3.0}, -0.0);
  ExpectFloat("_operator.mod", {5.5, -2.0}, -0.5);
  ExpectFloat("_operator.mod", {-5.5, 2}, 0.5);
  ExpectFloat("_operator.mod", {1e17, 3.0}, 1.0);
  ExpectFloat("_operator.mod", {4.0, -2.0}, -0.0);
  ExpectFloat("_operator.truediv", {7, 2}, 3.5);
}

TEST(PythonOps, CountBooleansAsNumbers) {
  ExpectInt("_operator.add", {true, true}, 2);
  ExpectInt("_operator.mul", {true, 5}, 5);
  ExpectBool("_operator.eq", {true, 1}, true);
  ExpectBool("_operator.and_", {true, false}, false);
  ExpectInt("_operator.and_", {6, 3}, 2);
  ExpectInt("_operator.or_", {6, true}, 7);
  ExpectBool("_operator.not_", {0}, true);
}

TEST(PythonOps, CompareIntegersToTheLastBit) {
  ExpectBool("_operator.eq", {kMost, kMost - 1}, false);
  ExpectBool("_operator.lt", {kMost - 1, kMost}, true);
  ExpectBool("_operator.ge", {2, 2.5}, false);
  ExpectBool("_operator.ne", {2, 2.0}, false);
}

TEST(PythonOps, RoundToIntegers) {
  ExpectInt("math.ceil", {-1.5}, -1);
  ExpectInt("math.floor", {-1.5}, -2);
  ExpectInt("math.trunc", {-1.5}, -1);
  ExpectInt("torch.sym_int", {-1.5}, -1);
  ExpectInt("builtins.round", {2.5}, 2);  // half to even
  ExpectInt("builtins.round", {3.5}, 4);
  ExpectInt("math.ceil", {kMost}, kMost);
  ExpectFloat("torch.sym_float", {3}, 3.0);
}

TEST(PythonOps, RaiseToPowers) {
  ExpectInt("_operator.pow", {-3, 3}, -27);
  ExpectInt("_operator.pow", {2, 0}, 1);
  ExpectInt("_operator.pow", {-1, kMost}, -1);  // at once
  ExpectInt("_operator.pow", {3, 39}, 4052555153018976267);
  ExpectFloat("_operator.pow", {2, -1}, 0.5);
  ExpectFloat("_operator.pow", {2.0, 3}, 8.0);
  ExpectFloat("torch._sym_sqrt", {9}, 3.0);
}

TEST(PythonOps, ChooseAndSum) {
  ExpectInt("torch.sym_max", {3, 5}, 5);
  ExpectFloat("torch.sym_min", {3, 2.5}, 2.5);
  ExpectInt("torch.sym_ite", {false, 1, 2}, 2);
  ExpectInt("torch.sym_sum", {std::vector<int64_t>{1, 2, 3}}, 6);
  ExpectInt("torch.sym_sum", {1, 2}, 3);
  ExpectInt("_operator.neg", {5}, -5);
  ExpectInt("_operator.getitem", {std::vector<int64_t>{4, 5}, -1}, 5);
}

TEST(PythonOps, RefuseWhatPythonRefusesAndWhatDoesNotFit) {
  for (const char* target : {"_operator.floordiv", "_operator.mod", "_operator.truediv"}) {
    ExpectError(target, {1, 0});
    ExpectError(target, {1.0, 0.0});
  }
  ExpectError("_operator.floordiv", {kLeast, -1});
  ExpectError("_operator.neg", {kLeast});
  ExpectError("_operator.add", {kMost, 1});
  ExpectError("_operator.sub", {kLeast, 1});
  ExpectError("_operator.mul", {kMost, 2});
  ExpectError("_operator.pow", {2, 63});
  ExpectError("_operator.pow", {0, -1});
  ExpectError("torch.sym_sum", {std::vector<int64_t>{kMost, 1}});
  ExpectError("math.floor", {std::numeric_limits<double>::infinity()});
  ExpectError("torch.sym_int", {std::nan("")});
  ExpectError("torch.sym_int", {1e19});
  ExpectError("math.sqrt", {-1.0});
  ExpectError("_operator.getitem", {std::vector<int64_t>{4, 5}, 2});
  EXPECT_EQ(FindPythonOperator("_operator.matmul"), nullptr);
}

}  // namespace
}  // namespace echelon::exec
