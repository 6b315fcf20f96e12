#include "operator/kube/resource.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace echelon::op {
namespace {

using nlohmann::json;

TEST(Paths, NameGroupNamespaceAndObject) {
  EXPECT_EQ(CollectionPath(kPods, "n"), "/api/v1/namespaces/n/pods");
  EXPECT_EQ(CollectionPath(kStatefulSets, ""), "/apis/apps/v1/statefulsets");
  EXPECT_EQ(CollectionPath(kNodes, "ignored"), "/api/v1/nodes");
  EXPECT_EQ(ObjectPath(kPipelineDeployments, "n", "net", "status"),
            "/apis/echelon.dev/v1alpha1/namespaces/n/pipelinedeployments/net/status");
  EXPECT_EQ(ObjectPath(kPods, "a/b", "c?d"), "/api/v1/namespaces/a%2Fb/pods/c%3Fd");
}

TEST(Paths, ListsAndWatchesCarryTheirSelection) {
  const Selection of{
      .ns = "n", .label_selector = "a=b,c in (d)", .field_selector = "metadata.name=x"};
  EXPECT_EQ(ListPath(kPods, of, 250, "to/ken=="),
            "/api/v1/namespaces/n/pods?labelSelector=a%3Db%2Cc%20in%20%28d%29"
            "&fieldSelector=metadata.name%3Dx&limit=250&continue=to%2Fken%3D%3D");
  EXPECT_EQ(ListPath(kPods, {}, 0, "", "0"), "/api/v1/pods?resourceVersion=0");
  EXPECT_EQ(
      WatchPath(kPods, {}, "12", absl::Minutes(5)),
      "/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=12&timeoutSeconds=300");
}

TEST(Requests, AnApplyForcesAndNamesItsManager) {
  const Request apply = Apply(kPods, "n", "a", "{}", {.subresource = "status", .strict = true});
  EXPECT_EQ(apply.method, "PATCH");
  EXPECT_EQ(apply.content_type, "application/apply-patch+yaml");
  EXPECT_EQ(apply.path,
            "/api/v1/namespaces/n/pods/a/"
            "status?fieldManager=echelon-operator&force=true&fieldValidation=Strict");
}

TEST(Requests, ADeletionCarriesItsConditions) {
  const Request request =
      Delete(kPods, "n", "a", {.uid = "u", .resource_version = "7", .grace_seconds = 0});
  EXPECT_EQ(
      json::parse(request.body),
      json::parse(R"({"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background",
                            "gracePeriodSeconds":0,"preconditions":{"uid":"u","resourceVersion":"7"}})"));
}

TEST(Resources, AreFoundByKindAndByCollection) {
  EXPECT_EQ(*FindResource("apps/v1", "StatefulSet"), kStatefulSets);
  EXPECT_EQ(FindResource("apps/v2", "StatefulSet"), nullptr);
  EXPECT_EQ(*FindCollection("events.k8s.io/v1", "events"), kEvents);
  EXPECT_EQ(*FindCollection("v1", "events"), kCoreEvents);
}

TEST(ErrorText, IsOneLineWhateverTheBody) {
  struct Case {
    int code;
    const char* body;
    const char* text;
  };
  for (const Case& c :
       {Case{409, R"({"kind":"Status","reason":"Conflict","message":"modified;\n try again"})",
             "409 Conflict: modified;  try again"},
        Case{502, "<html>\nBad Gateway\n</html>", "502: <html> Bad Gateway </html>"},
        Case{500, "", "500"}, Case{418, R"({"message":7})", R"(418: {"message":7})"}}) {
    EXPECT_EQ(ErrorText({.code = c.code, .body = c.body}), c.text);
  }
  EXPECT_LT(ErrorText({.code = 500, .body = std::string(100'000, 'x')}).size(), 300u);
}

TEST(ToStatus, TellsWhatToDoByItsCodeAndHowLongToWait) {
  const std::pair<int, absl::StatusCode> cases[] = {{200, absl::StatusCode::kOk},
                                                    {400, absl::StatusCode::kInvalidArgument},
                                                    {401, absl::StatusCode::kUnauthenticated},
                                                    {403, absl::StatusCode::kPermissionDenied},
                                                    {404, absl::StatusCode::kNotFound},
                                                    {409, absl::StatusCode::kAborted},
                                                    {410, absl::StatusCode::kOutOfRange},
                                                    {422, absl::StatusCode::kInvalidArgument},
                                                    {429, absl::StatusCode::kUnavailable},
                                                    {503, absl::StatusCode::kUnavailable}};
  for (const auto& [code, status] : cases)
    EXPECT_EQ(ToStatus({.code = code}).code(), status) << code;
  EXPECT_EQ(RetryAfter(ToStatus({.code = 429, .retry_after = absl::Seconds(3)})), absl::Seconds(3));
  EXPECT_EQ(RetryAfter(ToStatus({.code = 429})), absl::ZeroDuration());
}

}  // namespace
}  // namespace echelon::op
