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

// Python's integers have no end; ours end with an error, never with a wrong number.
int64_t Checked(bool overflows, int64_t result) {
  if (overflows) throw std::runtime_error("an integer does not fit 64 bits");
  return result;
}

struct Add {
  int64_t operator()(int64_t a, int64_t b) const {
    const bool overflows = __builtin_add_overflow(a, b, &a);
    return Checked(overflows, a);
  }
  double operator()(double a, double b) const { return a + b; }
};
struct Subtract {
  int64_t operator()(int64_t a, int64_t b) const {
    const bool overflows = __builtin_sub_overflow(a, b, &a);
    return Checked(overflows, a);
  }
  double operator()(double a, double b) const { return a - b; }
};
struct Multiply {
  int64_t operator()(int64_t a, int64_t b) const {
    const bool overflows = __builtin_mul_overflow(a, b, &a);
    return Checked(overflows, a);
  }
  double operator()(double a, double b) const { return a * b; }
};
struct Modulo {  // the sign of the divisor, as Python's %
  int64_t operator()(int64_t a, int64_t b) const {
    if (b == 0) throw std::runtime_error("integer modulo by zero");
    if (b == -1) return 0;  // the smallest integer % -1 traps
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  }
  double operator()(double a, double b) const {
    if (b == 0) throw std::runtime_error("float modulo by zero");
    const double rest = std::fmod(a, b);
    if (rest == 0) return std::copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
  }
};
struct FloorDivide {  // towards minus infinity, as Python's //
  int64_t operator()(int64_t a, int64_t b) const {
    if (b == 0) throw std::runtime_error("integer division by zero");
    if (b == -1) return Subtract()(0, a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
  }
  // From the remainder, which is exact: a / b may round up to the next integer.
  double operator()(double a, double b) const {
    if (b == 0) throw std::runtime_error("float floor division by zero");
    const double quotient = (a - Modulo()(a, b)) / b;
    return quotient == 0 ? std::copysign(0.0, a / b) : std::round(quotient);
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
  if (IsIntegral(s.at(0)) && IsIntegral(s.at(1)))
    return static_cast<bool>(Operation()(Integer(s[0]), Integer(s[1])));
  return static_cast<bool>(Operation()(Number(s.at(0)), Number(s.at(1))));
}

// Bit by bit, which is logic on booleans.
template <class Operation>
IValue Bitwise(const Stack& s) {
  const int64_t result = Operation()(Integer(s.at(0)), Integer(s.at(1)));
  return s[0].isBool() && s[1].isBool() ? IValue(result != 0) : IValue(result);
}

IValue TrueDivide(const Stack& s) {
  const double divisor = Number(s.at(1));
  if (divisor == 0) throw std::runtime_error("division by zero");
  return Number(s[0]) / divisor;
}

IValue Negate(const Stack& s) {
  return IsIntegral(s.at(0)) ? IValue(Subtract()(0, Integer(s[0]))) : IValue(-Number(s[0]));
}

IValue Power(const Stack& s) {
  if (!IsIntegral(s.at(0)) || !IsIntegral(s.at(1)) || Integer(s[1]) < 0) {
    const double base = Number(s[0]), exponent = Number(s[1]);
    if (base == 0 && exponent < 0) throw std::runtime_error("zero to a negative power");
    if (base < 0 && std::isfinite(exponent) && exponent != std::floor(exponent))
      throw std::runtime_error("a negative number to a fractional power");
    return std::pow(base, exponent);
  }
  const Multiply multiply;
  int64_t result = 1, square = Integer(s[0]);
  for (int64_t left = Integer(s[1]); left > 0; left /= 2) {
    if (left % 2 == 1) result = multiply(result, square);
    if (left > 1) square = multiply(square, square);
  }
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
  if (IsIntegral(s.at(0))) return Integer(s[0]);
  const double rounded = Rounding(Number(s[0]));
  if (!(std::abs(rounded) < 0x1p63)) throw std::runtime_error("a float is no integer of 64 bits");
  return static_cast<int64_t>(rounded);
}

IValue SquareRoot(const Stack& s) {
  if (Number(s.at(0)) < 0) throw std::runtime_error("square root of a negative number");
  return std::sqrt(Number(s[0]));
}

IValue Not(const Stack& s) { return Number(s.at(0)) == 0; }
IValue ToFloat(const Stack& s) { return Number(s.at(0)); }
IValue Conditional(const Stack& s) { return Number(s.at(0)) != 0 ? s.at(1) : s.at(2); }
IValue Sum(const Stack& s) {
  int64_t sum = 0;
  if (!s.at(0).isList()) {
    for (const IValue& item : s) sum = Add()(sum, Integer(item));
  } else if (s[0].isIntList()) {
    for (const int64_t item : s[0].toIntList()) sum = Add()(sum, item);
  } else {
    for (const IValue& item : s[0].toListRef()) sum = Add()(sum, Integer(item));
  }
  return sum;
}

}  // namespace

PythonOperator FindPythonOperator(const std::string& target) {
  static const auto* table =
      new std::map<std::string, PythonOperator>{{"_operator.add", Arithmetic<Add>},
                                                {"_operator.sub", Arithmetic<Subtract>},
                                                {"_operator.mul", Arithmetic<Multiply>},
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
                                                {"_operator.and_", Bitwise<std::bit_and<>>},
                                                {"_operator.or_", Bitwise<std::bit_or<>>},
                                                {"_operator.not_", Not},
                                                {"torch.sym_max", Arithmetic<Maximum>},
                                                {"torch.sym_min", Arithmetic<Minimum>},
                                                {"torch.sym_int", Round<std::trunc>},
                                                {"torch.sym_float", ToFloat},
                                                {"torch.sym_not", Not},
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
