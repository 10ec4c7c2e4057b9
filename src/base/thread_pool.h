// A fixed team of threads for the kernels of one backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <type_traits>

namespace qnext {

// The caller is worker 0; size() - 1 threads wait beside it. A region costs about a microsecond:
// the threads spin for a while after each one and sleep when nothing comes.
// One region at a time; a pool belongs to one driving thread. No region may start inside another.
class ThreadPool {
 public:
  // threads = 0: one for each core that this process may run on.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls body(worker) on worker 0 and, beside it, at most once on each of the others, 0 < worker <
  // size(), and waits for all that began. Once worker 0 has returned nobody begins any more: the
  // bodies together do what there is to do, and a thread that has lost its core to another program
  // keeps nobody waiting. The body must not throw.
  template <typename Body>
  void run(Body&& body) {
    if (size_ == 1) return body(0);
    using Function = std::remove_reference_t<Body>;
    run_erased([](void* context, int worker) { (*static_cast<Function*>(context))(worker); },
               const_cast<void*>(static_cast<const void*>(&body)));
  }

  // The same for a body that takes its share until nothing is left: with less than
  // worthwhile_work multiply-adds in all, the caller does it alone, sooner than others would wake.
  static constexpr int64_t worthwhile_work = 1 << 17;
  template <typename Body>
  void run_shared(int64_t work, Body&& body) {
    if (work < worthwhile_work) return body(0);
    run(body);
  }

  // Calls body(begin, end) on disjoint ranges that cover [0, count); ranges are handed out as
  // workers ask, `grain` items at a time. Which worker gets which range is not fixed, so a body
  // must give the same bits whatever the split.
  template <typename Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    if (count <= 0) return;
    if (size_ == 1 || count <= grain) return body(int64_t{0}, count);
    std::atomic<int64_t> next{0};
    run([&](int) {
      for (;;) {
        const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= count) return;
        body(begin, begin + grain < count ? begin + grain : count);
      }
    });
  }

  // The same for a body that may throw: the first exception ends the loop, but for ranges under
  // way, and is thrown again here.
  template <typename Body>
  void parallel_try(int64_t count, int64_t grain, Body&& body) {
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      if (failed.load(std::memory_order_relaxed)) return;
      try {
        body(begin, end);
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  using ErasedBody = void (*)(void* context, int worker);
  void run_erased(ErasedBody body, void* context);
  void worker_loop(int worker);

  struct State;
  std::unique_ptr<State> state_;
  int size_ = 1;
};

// Cores that this process may run on.
int available_cores();

}  // namespace qnext
