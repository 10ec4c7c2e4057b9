#include "server/answer_feed.h"

#include <utility>

namespace qnext::server {

void AnswerFeed::call_wake() {
  if (!wake_ || woken_ || !has_news_) return;
  if (options_.whole && !news_.finish) return;
  woken_ = true;
  wake_();
}

bool AnswerFeed::grow(size_t bytes) {
  has_news_ = true;
  waiting_bytes_ += bytes;
  call_wake();
  return waiting_bytes_ <= options_.limit_bytes;
}

bool AnswerFeed::add_text(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  news_.text += piece;
  return grow(piece.size());
}

bool AnswerFeed::add_token(const ops::SampledToken& token) {
  if (!options_.keep_tokens) return true;
  const std::lock_guard lock(mutex_);
  news_.tokens.push_back(token);
  return grow(sizeof(token) + token.top.size() * sizeof(token.top[0]));
}

void AnswerFeed::finish(const engine::Finish& finish) {
  const std::lock_guard lock(mutex_);
  news_.finish = finish;
  has_news_ = true;
  call_wake();
}

AnswerNews AnswerFeed::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  has_news_ = false;
  waiting_bytes_ = 0;
  return std::exchange(news_, {});
}

void AnswerFeed::set_wake(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
  woken_ = false;
  call_wake();
}

}  // namespace qnext::server
