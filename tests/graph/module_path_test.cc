#include <gtest/gtest.h>

#include "runtime/graph/graph_builder.h"

namespace echelon::graph {
namespace {

TEST(InnermostModule, ReadsTheLastLevelOfAStack) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"L__self__,,net.Net", ""},
      {"L__self__,,net.Net;L__self__net1,net1,torch.nn.Linear", "net1"},
      {"L__self__,,n.N;L__self__a_b.0,a.b.0,torch.nn.Linear", "a.b.0"},
      {"L__self__,,n.N;L__self__block.2@1,block.2@1,torch.nn.GELU", "block.2"},
      {"L__self__,L['self'],n.N;L__self___net1,L['self'].net1,torch.nn.Linear", "net1"},
      {"x,L['self']._modules['layers'].0,n.L", "layers.0"},
      {"k(None, 2, None).0,layers.slice(None, 2, None).0,n.L", "layers.0"},
      {"k(2, None, None).1.fc,layers.slice(2, None, None).1.fc,n.L", "layers.3.fc"},
      {"_empty_nn_module_stack_from_metadata_hook,_empty_nn_module_stack_from_metadata_hook,"
       "_empty_nn_module_stack_from_metadata_hook",
       ""},
      {"no commas", ""},
      {",", ""},
      {"a,slice(,b", "slice("}};
  for (const auto& [stack, wanted] : cases) EXPECT_EQ(InnermostModule(stack), wanted) << stack;
}

}  // namespace
}  // namespace echelon::graph
