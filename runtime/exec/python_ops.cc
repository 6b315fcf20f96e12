#include "runtime/exec/python_ops.h"

#include <cmath>
#include <functional>
#include <map>
#include <stdexcept>

namespace echelon::exec {
namespace {

using c10::IValue;
using torch::jit::Stack;

double Number(const IValue& value) {
  return value.isBool() ? static_cast<double>(value.toBool()) : value.toScalar().toDouble();
}

bool IsIntegral(const IValue& value) { return value.isInt() || value.isBool(); }
int64_t Integer(const IValue& value) { return value.isBool() ? value.toBool() : value.toInt(); }

struct FloorDivide {  // towards minus infinity, as Python's //
  int64_t operator()(int64_t a, int64_t b) const {
    if (b == 0) throw std::runtime_error("integer division by zero");
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
  }
  double operator()(double a, double b) const { return std::floor(a / b); }
};
struct Modulo {  // the sign of the divisor, as Python's %
  template <class T>
  T operator()(T a, T b) const {
    return a - b * FloorDivide()(a, b);
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

template <class Operation>
IValue Arithmetic(const Stack& s) {
  if (IsIntegral(s.at(0)) && IsIntegral(s.at(1))) return Operation()(Integer(s[0]), Integer(s[1]));
  return Operation()(Number(s[0]), Number(s.at(1)));
}

template <class Operation>
IValue Compare(const Stack& s) {
  return static_cast<bool>(Operation()(Number(s.at(0)), Number(s.at(1))));
}

template <class Operation>
IValue Logic(const Stack& s) {
  return static_cast<bool>(Operation()(Number(s.at(0)) != 0, Number(s.at(1)) != 0));
}

IValue TrueDivide(const Stack& s) {
  const double divisor = Number(s.at(1));
  if (divisor == 0) throw std::runtime_error("division by zero");
  return Number(s[0]) / divisor;
}

IValue Negate(const Stack& s) {
  return IsIntegral(s.at(0)) ? IValue(-Integer(s[0])) : IValue(-Number(s[0]));
}

IValue Power(const Stack& s) {
  if (!IsIntegral(s.at(0)) || !IsIntegral(s.at(1)) || Integer(s[1]) < 0) return std::pow(Number(s[0]), Number(s[1]));
  int64_t result = 1;
  for (int64_t i = Integer(s[1]); i > 0; --i)
    if (__builtin_mul_overflow(result, Integer(s[0]), &result)) throw std::runtime_error("integer power overflows");
  return result;
}

IValue GetItem(const Stack& s) {
  const auto items = s.at(0).toListRef();
  const int64_t index = s.at(1).toInt(), size = static_cast<int64_t>(items.size());
  if (index < -size || index >= size) throw std::runtime_error("list index out of range");
  return items[index < 0 ? index + size : index];
}

template <double (*Rounding)(double)>
IValue Round(const Stack& s) {
  return IsIntegral(s.at(0)) ? IValue(Integer(s[0])) : IValue(static_cast<int64_t>(Rounding(Number(s[0]))));
}

IValue Not(const Stack& s) { return Number(s.at(0)) == 0; }
IValue ToFloat(const Stack& s) { return Number(s.at(0)); }
IValue SymNot(const Stack& s) { return Not(s); }
IValue SquareRoot(const Stack& s) { return std::sqrt(Number(s.at(0))); }
IValue Conditional(const Stack& s) { return Number(s.at(0)) != 0 ? s.at(1) : s.at(2); }
IValue Sum(const Stack& s) {
  int64_t sum = 0;
  for (const IValue& item : s.at(0).isList() ? s[0].toListRef() : c10::ArrayRef<IValue>(s)) sum += Integer(item);
  return sum;
}

}  // namespace

PythonOperator FindPythonOperator(const std::string& target) {
  static const auto* table = new std::map<std::string, PythonOperator>{
      {"_operator.add", Arithmetic<std::plus<>>},
      {"_operator.sub", Arithmetic<std::minus<>>},
      {"_operator.mul", Arithmetic<std::multiplies<>>},
      {"_operator.floordiv", Arithmetic<FloorDivide>},
      {"_operator.mod", Arithmetic<Modulo>},
      {"_operator.truediv", TrueDivide},
      {"_operator.pow", Power},
      {"_operator.neg", Negate},
      {"_operator.getitem", GetItem},
      {"_operator.eq", Compare<std::equal_to<>>},
      {"_operator.ne", Compare<std::not_equal_to<>>},
      {"_operator.lt", Compare<std::less<>>},
      {"_operator.le", Compare<std::less_equal<>>},
      {"_operator.gt", Compare<std::greater<>>},
      {"_operator.ge", Compare<std::greater_equal<>>},
      {"_operator.and_", Logic<std::logical_and<>>},
      {"_operator.or_", Logic<std::logical_or<>>},
      {"_operator.not_", Not},
      {"torch.sym_max", Arithmetic<Maximum>},
      {"torch.sym_min", Arithmetic<Minimum>},
      {"torch.sym_int", Round<std::trunc>},
      {"torch.sym_float", ToFloat},
      {"torch.sym_not", SymNot},
      {"torch.sym_ite", Conditional},
      {"torch.sym_sum", Sum},
      {"torch._sym_sqrt", SquareRoot},
      {"math.ceil", Round<std::ceil>},
      {"math.floor", Round<std::floor>},
      {"math.trunc", Round<std::trunc>},
      {"builtins.round", Round<std::nearbyint>},
      {"math.sqrt", SquareRoot}};
  const auto found = table->find(target);
  return found == table->end() ? nullptr : found->second;
}

}  // namespace echelon::exec
