#include "runtime/plan/legal_cuts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/plan/plan.h"
#include "tests/graph/testing.h"

namespace echelon::plan {
namespace {

using graph::Stored;
using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::Schemas;
using graph::testing::V;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A chain on x [4]; each node takes the value before it.
class Chain {
 public:
  Chain() : last_(make_.Input("x", {D(4)})) {}
  ValueId Then(const std::string& target, std::vector<graph::Item> rest = {}) {
    rest.insert(rest.begin(), V(last_));
    return last_ = make_.Node(target, rest, {D(4)});
  }
  std::vector<int> Cuts() {
    if (make_.graph().outputs.empty()) make_.Output("output", V(last_));
    return LegalCuts(make_.graph(), Schemas());
  }
  GraphMaker& make() { return make_; }
  ValueId last() const { return last_; }

 private:
  GraphMaker make_;
  ValueId last_;
};

TEST(LegalCuts, LieBetweenAllPureNodes) {
  Chain chain;
  for (int i = 0; i < 4; ++i) chain.Then("relu");
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 2, 3));
  EXPECT_THAT(LegalCuts(graph::testing::Net(), Schemas()), ElementsAre(1, 2));
}

TEST(LegalCuts, AllowAWriteRightAfterTheCutThroughOneName) {
  Chain chain;
  chain.Then("relu");
  chain.Then("relu_");  // only its argument crosses before it
  chain.Then("relu");
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 2));
}

TEST(LegalCuts, RefuseAWriteAfterTheCutWhenTheClassCrossesTwice) {
  Chain chain;
  const ValueId a = chain.Then("relu");
  const ValueId view = chain.Then("view");
  chain.Then("mul.Tensor", {2.0});
  chain.make().Node("relu_", {V(a)}, {D(4)});  // node 3 writes what node 4 reads as view
  const ValueId sum = chain.make().Node("add.Tensor", {V(view), V(chain.last())}, {D(4)});
  chain.make().Output("output", V(sum));
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 4))
      << "a alone crosses at 1; at 2 and 3 a and its view do";
}

TEST(LegalCuts, CountAnOutputAsANameThatCrosses) {
  Chain chain;
  const ValueId a = chain.Then("relu");
  const ValueId view = chain.Then("view");
  chain.Then("relu_");
  chain.make().Output("a", V(a));
  static_cast<void>(view);
  EXPECT_THAT(chain.Cuts(), ElementsAre(1));
}

TEST(LegalCuts, SeeThroughOperatorsThatHandTheirArgumentBack) {
  Chain chain;
  const ValueId a = chain.Then("relu");
  chain.Then("dropout", {0.1, false});
  chain.Then("relu_");
  chain.make().Output("output",
                      V(chain.make().Node("add.Tensor", {V(a), V(chain.last())}, {D(4)})));
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 3)) << "after the write both names carry its result";
}

TEST(LegalCuts, KeepReadersAndWritersOfABufferTogether) {
  Chain chain;
  const ValueId buffer = chain.make().Stored("steps", {4}, Stored::kBuffer);
  chain.Then("relu");
  chain.Then("add.Tensor", {V(buffer)});
  chain.Then("relu");
  chain.make().Node("add_.Tensor", {V(buffer), 1.0}, {D(4)});
  chain.Then("relu");
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 4));
}

TEST(LegalCuts, TreatOneRecordUnderTwoNamesAsOneBuffer) {
  Chain chain;
  const ValueId a = chain.make().Stored("a", {4}, Stored::kBuffer, "record");
  const ValueId b = chain.make().Stored("b", {4}, Stored::kBuffer, "record");
  chain.Then("add.Tensor", {V(a)});
  chain.Then("relu");
  chain.make().Node("add_.Tensor", {V(b), 1.0}, {D(4)});
  EXPECT_THAT(chain.Cuts(), IsEmpty());
}

TEST(LegalCuts, ReplicateTiedWeightsThatNobodyWrites) {
  Chain chain;
  const ValueId a = chain.make().Stored("a", {4}, Stored::kParameter, "record");
  const ValueId b = chain.make().Stored("b", {4}, Stored::kParameter, "record");
  chain.Then("add.Tensor", {V(a)});
  chain.Then("add.Tensor", {V(b)});
  EXPECT_THAT(chain.Cuts(), ElementsAre(1));
}

TEST(LegalCuts, SeeTheStatisticsThatBatchNormHides) {
  Chain chain;
  const ValueId mean = chain.make().Stored("mean", {4}, Stored::kBuffer);
  const ValueId none = mean;
  chain.Then("add.Tensor", {V(mean)});
  chain.Then("relu");
  chain.Then("batch_norm", {graph::None{}, graph::None{}, V(none), graph::None{}, true});
  EXPECT_THAT(chain.Cuts(), IsEmpty());
}

TEST(LegalCuts, NeverPartAsStridedFromItsStorage) {
  Chain chain;
  chain.Then("relu");
  chain.Then("relu");
  chain.Then("view");
  chain.Then("as_strided", {int64_t{2}});
  chain.Then("relu");
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 4)) << "the storage is made by node 1";
}

TEST(LegalCuts, KeepAReshapeWithTheWriteItMightShare) {
  Chain chain;
  const ValueId a = chain.Then("relu");
  chain.Then("relu");
  const ValueId b = chain.make().Node("reshape", {V(a)}, {D(4)});
  chain.make().Node("relu_", {V(b)}, {D(4)});
  chain.make().Output("output",
                      V(chain.make().Node("add.Tensor", {V(a), V(chain.last())}, {D(4)})));
  EXPECT_THAT(chain.Cuts(), ElementsAre(4))
      << "a copy's strides could turn the reshape into a view";
}

TEST(LegalCuts, TakeAnUnknownOperatorForAView) {
  Chain chain;
  const ValueId a = chain.Then("relu");
  chain.Then("torch.ops.my.op.default");
  chain.Then("relu_");
  chain.make().Output("output",
                      V(chain.make().Node("add.Tensor", {V(a), V(chain.last())}, {D(4)})));
  EXPECT_THAT(chain.Cuts(), ElementsAre(1, 3));
}

TEST(LegalCuts, AreFoundFastInLargeGraphs) {
  Chain chain;
  for (int i = 0; i < 10000; ++i) chain.Then(i % 3 ? "view" : i % 2 ? "relu_" : "relu");
  EXPECT_GT(chain.Cuts().size(), 5000u);
}

}  // namespace
}  // namespace echelon::plan
