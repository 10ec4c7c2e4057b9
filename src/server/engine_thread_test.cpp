#include "server/engine_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <thread>

#include "engine/testing/fake_backend.h"
#include "engine/testing/reference_answer.h"
#include "engine/testing/tiny_tokenizer.h"

namespace qnext::server {
namespace {

using engine::FinishReason;
using engine::GenerationRequest;
using engine::testing::FakeBackend;
using engine::testing::FakeOptions;
using ::testing::HasSubstr;

// Waits for news as a connection does.
class Reader {
 public:
  explicit Reader(AnswerHandle handle) : handle_(std::move(handle)) {
    handle_.set_wake([this] {
      const std::lock_guard lock(mutex_);
      woken_ = true;
      changed_.notify_one();
    });
  }
  // The next news; false where none came in time.
  bool next() {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_for(lock, std::chrono::seconds(30), [this] { return woken_; }))
        return false;
      woken_ = false;
    }
    AnswerNews news = handle_.take();
    text += news.text;
    for (const ops::SampledToken& token : news.tokens) tokens.push_back(token.token);
    finish = news.finish;
    return true;
  }
  void read_all() {
    while (!finish) ASSERT_TRUE(next()) << "no news for 30 seconds";
  }

  std::string text;
  std::vector<int32_t> tokens;
  std::optional<engine::Finish> finish;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  AnswerHandle handle_;
};

class EngineThreads : public ::testing::Test {
 protected:
  void start(const FakeOptions& fake, const engine::EngineOptions& options, int32_t queue) {
    backend_ = std::make_unique<FakeBackend>(fake);
    engine_ = std::make_unique<engine::Engine>(*backend_, &tokenizer_, options);
    thread_ = std::make_unique<EngineThread>(*engine_, queue, metrics_);
  }
  AnswerHandle submit(const GenerationRequest& request, const FeedOptions& feed = {}) {
    return std::move(thread_->submit({request}, feed).front());
  }
  engine::testing::ReferenceAnswer reference(const GenerationRequest& request) const {
    const auto& eos = backend_->config().eos_token_ids;
    return engine::testing::reference_answer(
        request, {.vocabulary = backend_->options.vocabulary,
                  .context = backend_->options.context,
                  .eos_tokens = std::vector<int32_t>(eos.begin(), eos.end()),
                  .tokenizer = &tokenizer_});
  }
  // Everything is given back, soon after the last answer ended.
  void expect_all_free() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    ServerLoad load = thread_->load();
    while ((load.unfinished > 0 || load.engine.free_pages != engine_->options().pages) &&
           std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      load = thread_->load();
    }
    EXPECT_EQ(load.unfinished, 0);
    EXPECT_EQ(load.engine.running, 0);
    EXPECT_EQ(load.engine.waiting, 0);
    EXPECT_EQ(load.engine.free_pages, engine_->options().pages);
    EXPECT_EQ(load.engine.free_slots, engine_->options().slots);
  }

  Tokenizer tokenizer_ = engine::testing::tiny_tokenizer();
  Metrics metrics_;
  std::unique_ptr<FakeBackend> backend_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<EngineThread> thread_;
};

FakeOptions tiny_model() {
  return {.vocabulary = engine::testing::tiny_vocabulary, .context = 1000};
}

GenerationRequest request_of(std::vector<int32_t> prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

TEST_F(EngineThreads, GivesTheAnswersOfTheEngine) {
  start(tiny_model(), {.max_sequences = 3}, 10);
  std::vector<GenerationRequest> requests;
  for (int32_t i = 0; i < 8; ++i) requests.push_back(request_of({i, 1, 2}, 20 + i));
  requests[2].stop_strings = {"ab"};
  requests[3].stop_tokens = {3};
  std::vector<std::unique_ptr<Reader>> readers;
  for (AnswerHandle& handle : thread_->submit(requests, {.keep_tokens = true}))
    readers.push_back(std::make_unique<Reader>(std::move(handle)));
  for (size_t i = 0; i < requests.size(); ++i) {
    readers[i]->read_all();
    auto wanted = reference(requests[i]);
    EXPECT_EQ(readers[i]->text, wanted.text);
    EXPECT_EQ(readers[i]->finish->reason, wanted.reason);
    if (wanted.reason == FinishReason::stop_token) wanted.tokens.pop_back();
    EXPECT_EQ(readers[i]->tokens, wanted.tokens);
  }
  expect_all_free();
  EXPECT_EQ(metrics_.prompt_tokens.value(), 8 * 3);
}

TEST_F(EngineThreads, WhoWantsAWholeAnswerIsWokenOnce) {
  start(tiny_model(), {}, 0);
  const GenerationRequest request = request_of({1, 2}, 50);
  Reader reader(submit(request, {.whole = true}));
  ASSERT_TRUE(reader.next());
  EXPECT_TRUE(reader.finish);
  EXPECT_EQ(reader.text, reference(request).text);
}

TEST_F(EngineThreads, RefusesWhatHasNoPlaceOrCouldNeverRun) {
  std::atomic<bool> hold = true;
  FakeOptions fake = tiny_model();
  fake.seconds = [&](const backend::Batch&) {
    while (hold) std::this_thread::yield();
    return 0.0;
  };
  start(fake, {.max_sequences = 1}, 2);
  EXPECT_THROW(thread_->submit({request_of({}, 1)}, {}), Error);
  EXPECT_THROW(thread_->submit({request_of({1}, 1), request_of({1000}, 1)}, {}), Error);
  EXPECT_THROW(
      thread_->submit(std::vector<GenerationRequest>(4, request_of({1}, 1)), FeedOptions{}),
      QueueFull);
  EXPECT_EQ(thread_->load().unfinished, 0);
  std::vector<AnswerHandle> handles =
      thread_->submit(std::vector<GenerationRequest>(3, request_of({1}, 5)), FeedOptions{});
  EXPECT_THROW(submit(request_of({1}, 1)), QueueFull);
  hold = false;
  for (AnswerHandle& handle : handles) Reader(std::move(handle)).read_all();
  EXPECT_NO_THROW(submit(request_of({1}, 1)));
  handles.clear();
  expect_all_free();
}

TEST_F(EngineThreads, LettingGoOfAnAnswerFreesItsPlaceAtOnce) {
  start(tiny_model(), {.max_sequences = 2}, 100);
  for (int i = 0; i < 50; ++i) submit(request_of({1, 2, 3}, 900));
  expect_all_free();
  Reader last(submit(request_of({4}, 3)));
  last.read_all();
  EXPECT_EQ(last.finish->reason, FinishReason::length);
  EXPECT_GT(metrics_.finished(FinishReason::cancelled).value(), 0);
}

// A reader that never reads loses its own answer, and nobody else waits for it.
TEST_F(EngineThreads, ASlowReaderStopsNobody) {
  start(tiny_model(), {.max_sequences = 2}, 0);
  AnswerHandle slow = submit(request_of({1, 2}, 900), {.limit_bytes = 100});
  Reader quick(submit(request_of({2, 1}, 900), {.limit_bytes = 1 << 20}));
  quick.read_all();
  EXPECT_EQ(quick.finish->reason, FinishReason::length);
  expect_all_free();
  const AnswerNews news = slow.take();
  ASSERT_TRUE(news.finish);
  EXPECT_EQ(news.finish->reason, FinishReason::error);
  EXPECT_THAT(news.finish->error, HasSubstr("not read"));
  EXPECT_LT(news.text.size(), 120u);
}

TEST_F(EngineThreads, CancelAllEndsWhatRunsAndWaits) {
  start(tiny_model(), {.max_sequences = 2}, 10);
  std::vector<std::unique_ptr<Reader>> readers;
  for (AnswerHandle& handle :
       thread_->submit(std::vector<GenerationRequest>(8, request_of({1}, 900)), FeedOptions{}))
    readers.push_back(std::make_unique<Reader>(std::move(handle)));
  thread_->cancel_all();
  for (const auto& reader : readers) reader->read_all();
  expect_all_free();
}

TEST_F(EngineThreads, AStepThatFailsEndsItsRequestsAndNoOthers) {
  FakeOptions fake = tiny_model();
  fake.fails = [](std::span<const int32_t> history) { return history[0] == 5; };
  start(fake, {.max_sequences = 2}, 0);
  Reader bad(submit(request_of({5}, 10)));
  Reader good(submit(request_of({6}, 10)));
  bad.read_all();
  good.read_all();
  EXPECT_EQ(bad.finish->reason, FinishReason::error);
  EXPECT_THAT(bad.finish->error, HasSubstr("not numbers"));
  EXPECT_EQ(good.finish->reason, FinishReason::length);
}

// 200 readers on 8 threads; every fifth lets go half-way, all others read the right text.
TEST_F(EngineThreads, ManyReadersOfWhomSomeLeave) {
  start(tiny_model(), {.max_sequences = 16}, 200);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        const int number = t * 25 + i;
        const GenerationRequest request = request_of({number % 12, number / 12 % 12, 1}, 100);
        Reader reader(submit(request));
        if (number % 5 == 0) {
          while (reader.text.size() < 40 && !reader.finish) ASSERT_TRUE(reader.next());
          continue;
        }
        reader.read_all();
        EXPECT_EQ(reader.text, reference(request).text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_all_free();
}

TEST_F(EngineThreads, EndsWithAnswersUnderWay) {
  start(tiny_model(), {.max_sequences = 2}, 100);
  {
    std::vector<AnswerHandle> handles =
        thread_->submit(std::vector<GenerationRequest>(20, request_of({1}, 900)), FeedOptions{});
  }
  thread_.reset();
  EXPECT_EQ(engine_->load().running, 0);
  EXPECT_EQ(engine_->load().waiting, 0);
}

}  // namespace
}  // namespace qnext::server
