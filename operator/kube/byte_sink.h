// A response body as the bytes that arrive, instead of one buffer at the end.
#ifndef ECHELON_OPERATOR_KUBE_BYTE_SINK_H_
#define ECHELON_OPERATOR_KUBE_BYTE_SINK_H_

#include <cpprest/http_client.h>

#include <functional>
#include <string_view>
#include <utility>

namespace echelon::op {

// Called on a cpprest thread, one call at a time; the next read from the socket starts when the
// callback returns, so a slow reader slows the server, not our memory. It must not throw: cpprest
// would close the stream and wait, on its only thread, for what that thread is to do.
class ByteSink final : public concurrency::streams::details::streambuf_state_manager<uint8_t> {
  using Base = concurrency::streams::details::streambuf_state_manager<uint8_t>;

 public:
  using OnBytes = std::function<void(std::string_view)>;
  explicit ByteSink(OnBytes on_bytes) : Base(std::ios_base::out), on_bytes_(std::move(on_bytes)) {}

  static concurrency::streams::ostream Stream(OnBytes on_bytes) {
    return concurrency::streams::ostream(
        concurrency::streams::streambuf<uint8_t>(std::make_shared<ByteSink>(std::move(on_bytes))));
  }

  bool can_seek() const override { return false; }
  bool has_size() const override { return false; }
  size_t buffer_size(std::ios_base::openmode) const override { return 0; }
  void set_buffer_size(size_t, std::ios_base::openmode) override {}
  size_t in_avail() const override { return 0; }
  pos_type getpos(std::ios_base::openmode) const override { return traits::eof(); }
  pos_type seekpos(pos_type, std::ios_base::openmode) override { return traits::eof(); }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return traits::eof();
  }
  bool acquire(uint8_t*&, size_t&) override { return false; }
  void release(uint8_t*, size_t) override {}

 protected:
  pplx::task<size_t> _putn(const uint8_t* data, size_t size) override {
    on_bytes_({reinterpret_cast<const char*>(data), size});
    return pplx::task_from_result(size);
  }
  pplx::task<int_type> _putc(uint8_t byte) override {
    return _putn(&byte, 1).then([byte](size_t) { return int_type(byte); });
  }
  pplx::task<bool> _sync() override { return pplx::task_from_result(true); }
  uint8_t* _alloc(size_t) override { return nullptr; }
  void _commit(size_t) override {}

  // Nothing can be read.
  pplx::task<int_type> _bumpc() override { return Eof(); }
  pplx::task<int_type> _getc() override { return Eof(); }
  pplx::task<int_type> _nextc() override { return Eof(); }
  pplx::task<int_type> _ungetc() override { return Eof(); }
  int_type _sbumpc() override { return traits::eof(); }
  int_type _sgetc() override { return traits::eof(); }
  pplx::task<size_t> _getn(uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  size_t _scopy(uint8_t*, size_t) override { return 0; }

 private:
  static pplx::task<int_type> Eof() { return pplx::task_from_result<int_type>(traits::eof()); }
  OnBytes on_bytes_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_BYTE_SINK_H_
