// Round trip of a hop: a frame to another process, on another core, and back, next to the same
// bytes over a bare blocking socket. All variants take turns within every round; the second bare
// one is the control: what differs between two runs of the same thing is noise.
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/link/socket.h"
#include "runtime/link/tcp_link.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::link {
namespace {

using Clock = std::chrono::steady_clock;

const absl::Duration kTimeout = absl::Seconds(20);
const absl::Duration kSpin = absl::Microseconds(50);
const LinkOptions kTcpAlone{.share_memory = false};
const Hello kHello{.epoch = 1, .rank = 0, .token = "bench"};
const Hello kSpinHello{.epoch = 2, .rank = 0, .token = "bench"};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

void Must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu) % std::max(1u, std::thread::hardware_concurrency()), &set);
  sched_setaffinity(0, sizeof(set), &set);
}

bool SendAll(int fd, const std::byte* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

bool ReceiveAll(int fd, std::byte* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t came = recv(fd, data, bytes, MSG_WAITALL);
    if (came <= 0) return false;
    data += came;
    bytes -= static_cast<size_t>(came);
  }
  return true;
}

void EchoBare(Fd fd) {
  SetNoDelay(fd.get());
  uint64_t bytes = 0;
  if (!ReceiveAll(fd.get(), reinterpret_cast<std::byte*>(&bytes), sizeof(bytes))) return;
  Tensor buffer = Tensor::Empty(DType::kU8, {static_cast<int64_t>(bytes)});
  while (ReceiveAll(fd.get(), buffer.data, bytes) && SendAll(fd.get(), buffer.data, bytes)) {
  }
}

void EchoLink(Link* link) {
  for (;;) {
    auto frame = link->Receive();
    if (!frame.ok() || !link->Send(*frame).ok()) return;
  }
}

struct Ports {
  int bare = 0, link = 0, spinning_link = 0, tcp_link = 0;
};

// The echo process: ends when the pipe's other end does.
[[noreturn]] void Echo(int ports_to, int life) {
  PinTo(1);
  Fd bare = Must(ListenOn("127.0.0.1", 0));
  auto listener = Must(TcpListener::Listen("127.0.0.1", 0, {}));
  auto spinning = Must(TcpListener::Listen("127.0.0.1", 0, {}, {.spin = kSpin}));
  auto tcp = Must(TcpListener::Listen("127.0.0.1", 0, {}, kTcpAlone));
  const Ports ports{LocalPort(bare.get()), listener->port(), spinning->port(), tcp->port()};
  if (write(ports_to, &ports, sizeof(ports)) != sizeof(ports)) _exit(1);
  std::thread([&] {
    while (true) {
      pollfd ready{.fd = bare.get(), .events = POLLIN};
      poll(&ready, 1, -1);
      Fd fd(accept(bare.get(), nullptr, nullptr));
      if (fd.get() >= 0) std::thread(EchoBare, std::move(fd)).detach();
    }
  }).detach();
  const auto serve = [](TcpListener* from, const Hello& hello) {
    while (true) {
      auto link = from->Accept(hello, kTimeout);
      if (link.ok())
        std::thread([link = std::shared_ptr<Link>(*std::move(link))] {
          EchoLink(link.get());
        }).detach();
    }
  };
  std::thread(serve, listener.get(), kHello).detach();
  std::thread(serve, spinning.get(), kSpinHello).detach();
  std::thread(serve, tcp.get(), kHello).detach();
  char end;
  while (read(life, &end, 1) > 0) {
  }
  _exit(0);
}

struct Variant {
  std::string name;
  std::function<void()> round_trip;
  std::vector<double> us;  // median of each round
};

std::function<void()> Bare(const Ports& ports, size_t bytes) {
  auto fd =
      std::make_shared<Fd>(Must(ConnectTo({"127.0.0.1", ports.bare}, SteadyNow() + kTimeout)));
  SetNoDelay(fd->get());
  const uint64_t size = bytes;
  SendAll(fd->get(), reinterpret_cast<const std::byte*>(&size), sizeof(size));
  Tensor out = Tensor::Empty(DType::kU8, {static_cast<int64_t>(bytes)});
  Tensor in = Tensor::Empty(DType::kU8, {static_cast<int64_t>(bytes)});
  std::fill_n(out.data, bytes, std::byte{1});
  return [=] {
    if (!SendAll(fd->get(), out.data, bytes) || !ReceiveAll(fd->get(), in.data, bytes)) {
      throw std::runtime_error("the bare connection broke");
    }
  };
}

std::function<void()> Framed(int port, const Hello& hello, size_t bytes,
                             const LinkOptions& options) {
  const std::shared_ptr<Link> link =
      Must(Dial(absl::StrCat("127.0.0.1:", port), hello, {}, kTimeout, options));
  Frame frame{.epoch = 1,
              .tensors = {{1, Tensor::Empty(DType::kF32, {static_cast<int64_t>(bytes / 4)})}}};
  std::fill_n(frame.tensors[0].tensor.data, bytes, std::byte{1});
  return [=] {
    Must(link->Send(frame));
    Must(link->Receive().status());
  };
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void RunRound(Variant* variant, int trips) {
  std::vector<double> us;
  for (int i = 0; i < trips; ++i) {
    const auto start = Clock::now();
    variant->round_trip();
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  variant->us.push_back(Median(us));
}

void MeasureSize(const Ports& ports, size_t bytes, int trips, int rounds,
                 nlohmann::ordered_json* rows) {
  std::vector<Variant> variants = {
      {"bare TCP", Bare(ports, bytes)},
      {"bare TCP again (control)", Bare(ports, bytes)},
      {"link", Framed(ports.link, kHello, bytes, {})},
      {"link, spinning", Framed(ports.spinning_link, kSpinHello, bytes, {.spin = kSpin})},
      {"link, TCP alone", Framed(ports.tcp_link, kHello, bytes, kTcpAlone)},
  };
  for (Variant& variant : variants) RunRound(&variant, std::max(trips / 10, 5));
  for (Variant& variant : variants) variant.us.clear();
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < variants.size(); ++i) {
      RunRound(&variants[(i + static_cast<size_t>(round)) % variants.size()], trips);
    }
  }
  for (const Variant& variant : variants) {
    std::vector<double> ratios;
    for (size_t i = 0; i < variant.us.size(); ++i)
      ratios.push_back(variant.us[i] / variants[0].us[i]);
    const auto [least, most] = std::minmax_element(variant.us.begin(), variant.us.end());
    const auto [least_ratio, most_ratio] = std::minmax_element(ratios.begin(), ratios.end());
    std::printf("%8zu  %-26s %10.1f  %9.1f .. %-9.1f %6.3f  %5.3f .. %5.3f\n", bytes,
                variant.name.c_str(), Median(variant.us), *least, *most, Median(ratios),
                *least_ratio, *most_ratio);
    rows->push_back({{"bytes", bytes},
                     {"variant", variant.name},
                     {"rounds", rounds},
                     {"median_us", Median(variant.us)},
                     {"min_us", *least},
                     {"max_us", *most},
                     {"ratio", Median(ratios)},
                     {"min_ratio", *least_ratio},
                     {"max_ratio", *most_ratio},
                     {"by_round", ratios}});
  }
}

int Run(int rounds, const std::string& json_path) {
  int ports_pipe[2], life_pipe[2];
  if (pipe(ports_pipe) != 0 || pipe(life_pipe) != 0) return 1;
  const pid_t echo = fork();
  if (echo == 0) {
    close(life_pipe[1]);
    Echo(ports_pipe[1], life_pipe[0]);
  }
  close(ports_pipe[1]);
  close(life_pipe[0]);
  PinTo(0);
  Ports ports;
  if (read(ports_pipe[0], &ports, sizeof(ports)) != sizeof(ports)) return 1;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf(
      "   bytes  round trip                  median us        min .. max       ratio    min .. "
      "max\n");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  MeasureSize(ports, 4 << 10, 2000, rounds, &rows);
  MeasureSize(ports, 64 << 10, 1000, rounds, &rows);
  MeasureSize(ports, 8 << 20, 30, rounds, &rows);
  if (!json_path.empty())
    std::ofstream(json_path) << nlohmann::ordered_json{{"rows", rows}}.dump(2) << "\n";
  close(life_pipe[1]);
  waitpid(echo, nullptr, 0);
  return 0;
}

}  // namespace
}  // namespace echelon::link

int main(int argc, char** argv) {
  CLI::App app("Round trip of a hop next to a bare TCP ping-pong");
  int rounds = 9;
  std::string json_path;
  app.add_option("--rounds", rounds, "interleaved rounds")->check(CLI::Range(1, 1000));
  app.add_option("--json", json_path, "also write the rows here");
  CLI11_PARSE(app, argc, argv);
  try {
    return echelon::link::Run(rounds, json_path);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
