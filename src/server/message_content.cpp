#include "server/message_content.h"

#include "server/fields.h"

namespace qnext::server {

std::string read_text_content(const json::Value& content, const std::string& path) {
  if (content.is_string()) return content.as_string();
  if (!content.is_array()) refuse_field(path, "must be a string or a list of parts");
  std::string text;
  for (size_t i = 0; i < content.as_array().size(); ++i) {
    const Fields part(content.as_array()[i], fmt::format("{}[{}]", path, i));
    const std::string type = part.text("type").value_or("text");
    if (type != "text" && type != "input_text" && type != "output_text")
      part.refuse("type", fmt::format("is '{}': this model reads text only", type));
    text += part.required_text("text");
  }
  return text;
}

}  // namespace qnext::server
