// Loading progress of several ranks: bars on a terminal, lines otherwise. On stderr.
#ifndef ECHELON_RUNTIME_CLI_PROGRESS_H_
#define ECHELON_RUNTIME_CLI_PROGRESS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace echelon {

class Progress {
 public:
  explicit Progress(int ranks);
  void Loading(int rank, int64_t loaded_bytes, int64_t total_bytes);
  void Say(const std::string& line);  // a line above the bars
  void Done();                        // bars stay as they are; later ones begin below

 private:
  struct Bar {
    int64_t loaded_bytes = 0, total_bytes = 0;
    int quarters = -1;  // printed last, where there is no terminal
  };
  void Draw();
  void Erase();

  const bool terminal_;
  std::vector<Bar> bars_;
  int drawn_ = 0;  // lines on the screen that the next Draw replaces
};

// "rank 0 [##########----------]  50 %  120.0 MiB of 240.0 MiB"
std::string BarText(int rank, int64_t loaded_bytes, int64_t total_bytes);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_PROGRESS_H_
