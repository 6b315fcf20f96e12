#include "runtime/exec/program.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/exec/schema.h"
#include "tests/exec/oracle.h"
#include "tests/graph/testing.h"

namespace echelon::exec {
namespace {

using c10::IValue;
using graph::Graph;
using graph::Item;
using graph::OperatorSchema;
using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::V;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const c10::Argument& Formal(const std::string& target, const std::string& name) {
  static std::vector<c10::OperatorHandle> kept;  // formals lie in them
  kept.push_back(FindOperator(target).value());
  for (const c10::Argument& argument : kept.back().schema().arguments())
    if (argument.name() == name) return argument;
  throw std::invalid_argument(target + " has no " + name);
}

TEST(Coerce, MakesNumbersTensorsThatDoNotPromote) {
  const c10::Argument& other = Formal("torch.ops.aten.add.Tensor", "other");
  const IValue number = Coerce(2, other);
  ASSERT_TRUE(number.isTensor());
  EXPECT_EQ(number.toTensor().scalar_type(), c10::kLong);
  EXPECT_TRUE(number.toTensor().unsafeGetTensorImpl()->is_wrapped_number());
  EXPECT_EQ(Coerce(2.5, other).toTensor().scalar_type(), c10::kDouble);
  EXPECT_EQ(Coerce(true, other).toTensor().scalar_type(), c10::kBool);
}

TEST(Coerce, MakesIntegersFloatsWhereTheSchemaWantsThem) {
  EXPECT_TRUE(Coerce(1, Formal("torch.ops.aten.dropout.default", "p")).isDouble());
  EXPECT_TRUE(Coerce(1, Formal("torch.ops.aten.upsample_nearest2d.default", "scales_h")).isDouble())
      << "float?";
  EXPECT_TRUE(Coerce(1, Formal("torch.ops.aten.add.Tensor", "alpha")).isInt())
      << "a Scalar is any number";
}

TEST(Coerce, RepeatsOneNumberForAListOfFixedLength) {
  EXPECT_THAT(Coerce(3, Formal("torch.ops.aten.conv2d.default", "stride")).toIntVector(),
              ElementsAre(3, 3));
  EXPECT_THAT(Coerce(3, Formal("torch.ops.aten.sum.dim_IntList", "dim")).toIntVector(),
              ElementsAre(3));
}

TEST(Coerce, LeavesTheRestAlone) {
  EXPECT_TRUE(Coerce({}, Formal("torch.ops.aten.add.Tensor", "other")).isNone());
  EXPECT_TRUE(Coerce(3, Formal("torch.ops.aten.softmax.int", "dim")).isInt());
}

const OperatorSchema& Schema(const std::string& target) {
  static const graph::SchemaLookup lookup = DispatcherSchemas();
  const OperatorSchema* schema = lookup(target);
  if (!schema) throw std::invalid_argument(target);
  return *schema;
}

TEST(Schemas, TellWhatIsWritten) {
  const OperatorSchema& add = Schema("torch.ops.aten.add_.Tensor");
  EXPECT_TRUE(add.is_mutable);
  EXPECT_TRUE(add.arguments[0].writes);
  EXPECT_FALSE(add.arguments[1].writes);
  EXPECT_EQ(add.results[0].alias_set, add.arguments[0].alias_set);
  EXPECT_FALSE(Schema("torch.ops.aten.add.Tensor").is_mutable);
  EXPECT_TRUE(Schema("torch.ops.aten._foreach_add_.Scalar").arguments[0].writes)
      << "a list of tensors";
}

TEST(Schemas, TellWhatListsShare) {
  for (const char* target : {"torch.ops.aten.split.Tensor", "torch.ops.aten.unbind.int",
                             "torch.ops.aten.chunk.default"}) {
    const OperatorSchema& schema = Schema(target);
    EXPECT_GE(schema.arguments[0].alias_set, 0) << target;
    EXPECT_EQ(schema.results[0].alias_set, schema.arguments[0].alias_set) << target;
    EXPECT_FALSE(schema.is_mutable) << target;
  }
}

TEST(Schemas, KnowOperatorsThatHandArgumentsBack) {
  EXPECT_TRUE(Schema("torch.ops.aten.dropout.default").may_alias_any);
  EXPECT_FALSE(Schema("torch.ops.aten.linear.default").may_alias_any);
  EXPECT_TRUE(Schema("_operator.add").arguments.empty());
  EXPECT_EQ(DispatcherSchemas()("torch.ops.aten.no_such.default"), nullptr);
  EXPECT_EQ(DispatcherSchemas()("no operator at all"), nullptr);
}

// One node on x [4]; what Compile says of it.
std::string ErrorOf(const std::string& target, std::vector<graph::Argument> arguments) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  make.Output("output", V(make.Node(target, {V(x)}, {D(4)}, "layer")));
  Graph& graph = make.graph();
  graph.nodes[0].name = "broken";
  graph.nodes[0].arguments = std::move(arguments);
  const auto program = Compile(graph, oracle::StagesOf(graph, {0, 1})[0]);
  return program.ok() ? "none" : std::string(program.status().message());
}

TEST(Compile, NamesTheNodeAndTheOperatorAtFault) {
  const graph::Argument self{.name = "self", .items = {V(0)}};
  EXPECT_EQ(ErrorOf("torch.ops.aten.relu.default", {self}), "none");
  EXPECT_EQ(ErrorOf("torch.ops.mine.secret.default", {self}),
            "node broken: operator torch.ops.mine.secret.default is not known to this build; "
            "export the model without it");
  EXPECT_THAT(ErrorOf("torch.ops.aten.add.Tensor", {self}),
              HasSubstr("node broken: torch.ops.aten.add.Tensor lacks its argument other"));
  EXPECT_THAT(ErrorOf("torch.ops.aten.relu.default", {self, {.name = "gain", .items = {1.0}}}),
              HasSubstr("node broken: torch.ops.aten.relu.default is given an argument that"));
  EXPECT_THAT(
      ErrorOf("torch.ops.aten.sum.dim_IntList",
              {self, {.name = "dim", .is_list = true, .items = {std::string("rows")}}}),
      HasSubstr(
          "node broken: torch.ops.aten.sum.dim_IntList is given an argument of a wrong kind"));
}

TEST(Compile, FreesEachValueAfterItsLastUse) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(4)});
  const ValueId a = make.Node("relu", {V(x)}, {D(4)});
  const ValueId b = make.Node("add.Tensor", {V(a), V(x)}, {D(4)});
  make.Node("relu", {V(b)}, {D(4)});  // nobody reads it
  make.Output("output", V(b));
  const auto program = Compile(make.graph(), oracle::StagesOf(make.graph(), {0, 3})[0]);
  ASSERT_TRUE(program.ok()) << program.status();
  const auto& [first, second, third] =
      std::tie(program->instructions[0], program->instructions[1], program->instructions[2]);
  EXPECT_THAT(first.frees, ::testing::IsEmpty());
  EXPECT_THAT(second.frees,
              ::testing::UnorderedElementsAre(program->slots.at(a), program->slots.at(x)));
  EXPECT_THAT(third.frees, ElementsAre(third.results[0]));
}

}  // namespace
}  // namespace echelon::exec
