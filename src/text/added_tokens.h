// Tokens found in the text as whole strings before it is cut into words: control tokens such as
// <|im_start|>, and whatever a fine-tune added. Semantics of the Hugging Face `tokenizers` library.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // left out of decoded text on request; text may be kept from it
  bool single_word = false;  // only where no word character (\w) touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in normalised text, in its own normalised form
};

// Finds a set of added tokens in text: from left to right, the longest that starts there.
class AddedTokenMatcher {
 public:
  // contents[i] is what to look for in place of tokens[i].content. Contents are at most
  // maximum_length bytes, which bounds the time at each byte of text.
  static constexpr size_t maximum_length = 1024;
  AddedTokenMatcher() = default;
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents);

  // Calls on_text(piece) and on_token(id) in the order of the text; pieces are not empty. With
  // parse_special false the special tokens stay part of the text around them.
  template <typename OnText, typename OnToken>
  void split(std::string_view text, bool parse_special, OnText&& on_text,
             OnToken&& on_token) const {
    size_t done = 0;
    Match match;
    for (size_t offset = 0; find(text, offset, match); offset = match.end) {
      const AddedToken& token = tokens_[match.token];
      if (!accept(token, text, match, parse_special)) continue;
      const size_t begin = token.lstrip ? strip_left(text, match.begin, done) : match.begin;
      if (done < begin) on_text(text.substr(done, begin - done));
      on_token(token.id);
      done = token.rstrip ? strip_right(text, match.end) : match.end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  struct Match {
    size_t begin = 0, end = 0, token = 0;
  };
  struct Node {
    std::vector<std::pair<char, uint32_t>> children;
    int32_t token = -1;
  };

  bool find(std::string_view text, size_t offset, Match& match) const;
  bool longest_at(std::string_view text, size_t offset, Match& match) const;
  static bool accept(const AddedToken& token, std::string_view text, const Match& match,
                     bool parse_special);
  static size_t strip_left(std::string_view text, size_t begin, size_t limit);
  static size_t strip_right(std::string_view text, size_t end);

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};  // bytes that begin some token
  int only_start_ = -1;             // that byte, where there is just one
};

}  // namespace qnext
