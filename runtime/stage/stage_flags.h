// The flags of echelon-stage, and the environment that mirrors them (RANK, WORLD, HOST, PORT as in
// the article).
#ifndef ECHELON_RUNTIME_STAGE_STAGE_FLAGS_H_
#define ECHELON_RUNTIME_STAGE_STAGE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/stage/model.h"

namespace echelon::stage {

struct StageFlags {
  std::string model;
  int rank = 0, world = 1;
  std::string host = "127.0.0.1";  // the head's: rank 0 listens there, the others dial it
  int port = 29500;
  std::string name;              // served as; the file's stem otherwise
  std::string bind = "0.0.0.0";  // of this rank's own ports
  bool bind_given = false;       // then the group's listener too
  int http_port = 8000, grpc_port = 8001, metrics_port = 8002, link_port = 0;
  int health_port = 0;  // of the probes; 0: none
  std::string advertise;
  PlanFlags plan;
  int chunks = 1;
  int window = 0;  // 0: twice the stages
  int queue = 256;
  int threads = 0;
  std::string weights;     // text: the checkpoint's directory
  int chunk_tokens = 128;  // text: of prompts in a step
  int max_running = 256;   // text: sequences at once
  bool verify_weights = true;
  bool exact = false;
  double request_timeout_s = 300, join_timeout_s = 600;  // join: 0: as long as it takes
  double no_progress_s = 0;                              // 0: off
  double drain_s = 5;
  int liveness_ms = 700;
  std::string max_request_bytes = "256MiB";
  std::string revision;
  std::string incarnation;
  std::string pod_name;
  int64_t incarnation_time_ms = 0;  // since 1970
  std::string report_termination;   // a file; "": none
  bool quiet = false;               // no stage code
  int report_fd = -1;
};

// The exit status when the process should end at once (--help, a flag that is wrong), none to go
// on.
std::optional<int> ParseStageFlags(int argc, char** argv, StageFlags* flags);

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_STAGE_FLAGS_H_
