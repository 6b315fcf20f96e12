#include "gmock/gmock.h"
#include "operator/kube/http_api.h"

int main(int argc, char** argv) {
  echelon::op::StartKubeThread();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
