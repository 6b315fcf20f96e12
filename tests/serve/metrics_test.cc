#include "runtime/serve/metrics.h"

#include <gmock/gmock.h>

#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "tests/serve/raw_client.h"

namespace echelon::serve {
namespace {

using testing::HasSubstr;

MetricsOptions Net() { return {.model = "net", .rank = 1, .version = "0.1", .torch_version = "2"}; }

void UseAll(Metrics& metrics) {
  metrics.ObserveCompute(0.002);
  metrics.AddLinkReceived(100);
  metrics.AddLinkSent(200);
  metrics.AddLinkWait(0.5);
  metrics.SetWeights(10, 20);
  metrics.SetEpoch(7);
  metrics.SetReady(true);
  metrics.SetQueueDepth(3);
  metrics.AddError("Rank lost!");
  metrics.ObserveRequest(absl::OkStatus(), 0.1);
  metrics.ObserveRequest(absl::UnavailableError("x"), 0.1);
  metrics.AddPromptTokens(12);
  metrics.AddGeneratedTokens(34);
  metrics.ObserveFirstToken(0.1);
  metrics.ObserveNextToken(0.1);
  metrics.AddPreemptions(2);
  metrics.SetRunning(4);
  metrics.SetKvBlocks(5, 64);
}

TEST(Metrics, ShowWhatWasCounted) {
  Metrics metrics(Net());
  UseAll(metrics);
  const std::string text = metrics.Text();
  for (const char* line : {
           R"(echelon_compute_seconds_count{model="net",rank="1"} 1)",
           R"(echelon_micro_batches_total{model="net",rank="1"} 1)",
           R"(echelon_link_received_bytes_total{model="net",rank="1"} 100)",
           R"(echelon_link_sent_bytes_total{model="net",rank="1"} 200)",
           R"(echelon_weights_loaded_bytes{model="net",rank="1"} 10)",
           R"(echelon_weights_bytes{model="net",rank="1"} 20)",
           R"(echelon_epoch{model="net",rank="1"} 7)",
           R"(echelon_ready{model="net",rank="1"} 1)",
           R"(echelon_queue_requests{model="net",rank="1"} 3)",
           R"(echelon_errors_total{model="net",rank="1",reason="rank_lost_"} 1)",
           R"(echelon_requests_total{model="net",rank="1",code="OK"} 1)",
           R"(echelon_requests_total{model="net",rank="1",code="UNAVAILABLE"} 1)",
           R"(echelon_request_seconds_count{model="net",rank="1"} 2)",
           R"(echelon_prompt_tokens_total{model="net",rank="1"} 12)",
           R"(echelon_generated_tokens_total{model="net",rank="1"} 34)",
           R"(echelon_time_to_first_token_seconds_count{model="net",rank="1"} 1)",
           R"(echelon_time_per_output_token_seconds_count{model="net",rank="1"} 1)",
           R"(echelon_preemptions_total{model="net",rank="1"} 2)",
           R"(echelon_running_requests{model="net",rank="1"} 4)",
           R"(echelon_kv_blocks_used{model="net",rank="1"} 5)",
           R"(echelon_kv_blocks{model="net",rank="1"} 64)",
       })
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, HasSubstr(R"(version="0.1")"));
  std::smatch resident;
  ASSERT_TRUE(
      std::regex_search(text, resident, std::regex(R"(echelon_resident_bytes\{.*\} (\d+))")));
  EXPECT_GT(std::stod(resident[1]), 1e6);
}

// The rules that promtool checks: names, base units, _total on counters and nowhere else, a help
// text for each.
TEST(Metrics, FollowTheNamingRules) {
  Metrics metrics(Net());
  UseAll(metrics);
  std::set<std::string> helped, names;
  const std::regex name_rule("echelon_[a-z][a-z_]*");
  const std::regex unit(
      "(_ms|_milliseconds|_us|_minutes|_kb|_mb|_kilobytes|_megabytes|_count|_bucket)($|_)");
  const std::string text = metrics.Text();
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() > 3 && words[1] == "HELP") helped.insert(words[2]);
    if (words.size() == 4 && words[1] == "TYPE") {
      const std::string &name = words[2], &type = words[3];
      EXPECT_TRUE(names.insert(name).second) << name << " twice";
      EXPECT_TRUE(std::regex_match(name, name_rule)) << name;
      EXPECT_FALSE(std::regex_search(name, unit)) << name;
      EXPECT_EQ(absl::EndsWith(name, "_total"), type == "counter") << name;
      EXPECT_EQ(absl::EndsWith(name, "_info"), name == "echelon_build_info");
    }
    if (!line.empty() && line[0] != '#') {
      EXPECT_THAT(line, HasSubstr(R"(model="net",rank="1")"));
    }
  }
  EXPECT_EQ(helped, names);
  EXPECT_EQ(names.size(), 23u);
}

TEST(MetricsServer, ServesTextOnItsOwnPort) {
  Metrics metrics(Net());
  auto server = MetricsServer::Start(&metrics, "127.0.0.1", 0);
  ASSERT_TRUE(server.ok()) << server.status();
  RawClient client((*server)->port());
  const RawReply reply = client.Get("/metrics");
  EXPECT_EQ(reply.code, 200);
  EXPECT_THAT(reply.header, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(reply.body, HasSubstr("echelon_build_info"));
  EXPECT_EQ(client.Get("/other").code, 404);
  const auto second = MetricsServer::Start(&metrics, "127.0.0.1", (*server)->port());
  EXPECT_EQ(second.status().message(),
            absl::StrCat("port ", (*server)->port(),
                         " is taken; choose another with --metrics-port (0: any)"));
}

}  // namespace
}  // namespace echelon::serve
