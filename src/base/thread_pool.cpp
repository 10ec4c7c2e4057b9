#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qnext {

namespace {

// Waiting in three stages. Regions of one forward pass follow each other within microseconds, so
// first spin; then offer the core to whoever else is runnable, for the one waited for may have lost
// it; then, where a worker waits for a region that does not come, sleep.
constexpr int spins = 512;     // about 10 to 20 microseconds
constexpr int yields = 1'000;  // a few hundred microseconds on an idle machine

void wait_a_little(int round) {
  if (round >= spins) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Of State::door.
constexpr uint64_t open_bit = 1 << 16;
constexpr int epoch_shift = 17;
constexpr uint64_t inside_mask = open_bit - 1;

}  // namespace

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;
  // Of the region, written before it is opened, read by workers that have entered it.
  ErasedBody body = nullptr;
  void* context = nullptr;
  alignas(64) std::atomic<uint64_t> epoch{0};  // regions so far
  // The newest region: its epoch (the low bits of it) above, then whether it is open to workers,
  // then how many are inside. A worker that comes when it is closed has missed it, and nobody
  // waits.
  alignas(64) std::atomic<uint64_t> door{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};

  bool enter(uint64_t region);
};

// Only while the region is open: a later one's caller waits until its own are out.
bool ThreadPool::State::enter(uint64_t region) {
  const uint64_t wanted = region << epoch_shift | open_bit;
  uint64_t now = door.load(std::memory_order_relaxed);
  while ((now & ~inside_mask) == wanted)
    if (door.compare_exchange_weak(now, now + 1, std::memory_order_acquire,
                                   std::memory_order_relaxed))
      return true;
  return false;
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 0 || threads > 1024) fail("{} threads: use 1 to 1024, or 0 for all cores", threads);
  size_ = threads == 0 ? available_cores() : threads;
  for (int worker = 1; worker < size_; ++worker)
    state_->threads.emplace_back([this, worker] { worker_loop(worker); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->epoch.fetch_add(1);
  }
  state_->wake.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::run_erased(ErasedBody body, void* context) {
  State& state = *state_;
  state.body = body;
  state.context = context;
  const uint64_t region = state.epoch.load(std::memory_order_relaxed) + 1;
  state.door.store(region << epoch_shift | open_bit, std::memory_order_release);
  state.epoch.store(region, std::memory_order_seq_cst);
  // A worker counts itself a sleeper before it looks at the epoch for the last time (both
  // sequentially consistent), so either it sees the new epoch or we see the sleeper.
  if (state.sleepers.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(state.mutex); }
    state.wake.notify_all();
  }
  body(context, 0);
  uint64_t now = state.door.fetch_and(~open_bit, std::memory_order_acquire);
  for (int round = 0; (now & inside_mask) != 0; ++round) {
    wait_a_little(std::min(round, spins));
    now = state.door.load(std::memory_order_acquire);
  }
}

void ThreadPool::worker_loop(int worker) {
  State& state = *state_;
  uint64_t seen = 0;
  for (;;) {
    for (int round = 0; state.epoch.load(std::memory_order_acquire) == seen; ++round) {
      if (round < spins + yields) {
        wait_a_little(round);
        continue;
      }
      std::unique_lock lock(state.mutex);
      state.sleepers.fetch_add(1, std::memory_order_seq_cst);
      state.wake.wait(lock, [&] { return state.epoch.load(std::memory_order_seq_cst) != seen; });
      state.sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
    seen = state.epoch.load(std::memory_order_acquire);
    if (state.stop) return;
    if (!state.enter(seen)) continue;
    state.body(state.context, worker);
    state.door.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace qnext
