// One message as the page shows it. While an answer grows, only the blocks at its end are made anew.

import {codeBlock, copyButton} from "/page/code.js";
import {element, iconButton, icons} from "/page/dom.js";
import {renderBlock, splitBlocks} from "/page/markdown.js";
import {statsText} from "/page/request.js";

const NAMES = {user: "You", assistant: "Answer", tool: "Tool result"};

// A text as Markdown, kept up to date.
class GrowingText {
  constructor(holder) {
    this.holder = holder;
    this.blocks = [];
  }
  show(text) {
    const blocks = splitBlocks(text);
    let same = 0;
    while (same < blocks.length && this.blocks[same] === blocks[same]) same += 1;
    while (this.holder.childNodes.length > same) this.holder.lastChild.remove();
    for (const block of blocks.slice(same)) this.holder.append(renderBlock(block));
    this.blocks = blocks;
  }
}

function prettyArguments(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export class MessageView {
  // actions: {again(node), edit(node, text), choose(node, index), toolResult(node, call, text)}
  constructor(conversation, node, actions) {
    this.conversation = conversation;
    this.node = node;
    this.actions = actions;
    this.body = element("div", {class: "text"});
    this.reasoning = element("div", {class: "text"});
    this.summary = element("summary", {}, "Reasoning");
    this.folded = element("details", {class: "reasoning", hidden: true}, this.summary,
      this.reasoning);
    this.calls = element("div", {class: "calls"});
    this.problem = element("p", {class: "problem", role: "alert", hidden: true});
    this.foot = element("div", {class: "foot"});
    this.element = element("article",
      {class: "message " + node.role, "aria-label": NAMES[node.role], "data-node": node.id},
      element("h2", {class: "who"}, NAMES[node.role]),
      this.folded, this.body, this.calls, this.problem, this.foot);
    this.texts = [new GrowingText(this.body), new GrowingText(this.reasoning)];
    this.update(false);
  }

  update(growing) {
    const {node} = this;
    this.element.classList.toggle("growing", growing);
    this.element.setAttribute("aria-busy", String(growing));
    if (node.role === "assistant") this.texts[0].show(node.content);
    else this.body.textContent = node.content;
    if (node.reasoning) {
      this.folded.hidden = false;
      this.summary.textContent = growing && !node.content ? "Reasoning…" : "Reasoning";
      this.texts[1].show(node.reasoning);
    }
    this.problem.hidden = !node.problem;
    this.problem.textContent = node.problem || "";
    this.showCalls(growing);
    this.showFoot(growing);
  }

  showCalls(growing) {
    const calls = this.node.calls || [];
    if (calls.length === 0) return;
    this.calls.replaceChildren(...calls.filter(Boolean).map((call) => {
      const box = element("section", {class: "call", "aria-label": "Tool call"},
        element("p", {class: "call-name"}, "Calls ", element("code", {}, call.name)),
        codeBlock(prettyArguments(call.arguments), "json"));
      if (!growing && !this.isAnswered(call)) box.append(this.resultForm(call));
      return box;
    }));
  }

  isAnswered(call) {
    const below = (node) => node.children.some((id) => {
      const child = this.conversation.nodes[id];
      return child.role === "tool" && (child.call === call.id || below(child));
    });
    return below(this.node);
  }

  resultForm(call) {
    const field = element("textarea", {rows: "2", "aria-label": "Result of " + call.name,
      placeholder: "What the tool answers"});
    const send = (event) => {
      event.preventDefault();
      this.actions.toolResult(this.node, call, field.value);
    };
    return element("form", {class: "result", onsubmit: send}, field,
      element("button", {type: "submit", class: "plain"}, "Send result"));
  }

  showFoot(growing) {
    const {node, actions} = this;
    const parts = [];
    if (!growing) {
      const siblings = this.conversation.nodes[node.parent].children;
      if (siblings.length > 1) {
        const at = siblings.indexOf(node.id);
        const step = (label, path, to) => iconButton(label, path,
          () => actions.choose(node, to), {disabled: to < 0 || to >= siblings.length});
        parts.push(element("span", {class: "branches"},
          step("Earlier version", icons.left, at - 1),
          element("span", {}, `${at + 1} of ${siblings.length}`),
          step("Later version", icons.right, at + 1)));
      }
      parts.push(copyButton("Copy message", () => node.content));
      if (node.role === "user")
        parts.push(iconButton("Edit message", icons.edit, () => this.beginEdit()));
      if (node.role === "assistant")
        parts.push(iconButton("Regenerate answer", icons.again, () => actions.again(node)));
    }
    if (node.stats)
      parts.push(element("span", {class: "stats"}, statsText(node.stats) +
        (node.finish === "length" ? " · cut at its length" : "") +
        (node.stopped ? " · stopped" : "")));
    this.foot.replaceChildren(...parts);
  }

  beginEdit() {
    const field = element("textarea", {class: "edit", "aria-label": "Edit message", rows: "4"});
    field.value = this.node.content;
    const end = () => {
      form.replaceWith(this.body);
      this.foot.hidden = false;
    };
    const send = (event) => {
      event?.preventDefault();
      const text = field.value.trim();
      end();
      if (text) this.actions.edit(this.node, text);
    };
    const form = element("form", {class: "editing", onsubmit: send}, field,
      element("div", {class: "buttons"},
        element("button", {type: "button", class: "plain", onclick: end}, "Cancel"),
        element("button", {type: "submit", class: "primary"}, "Send")));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
    });
    this.body.replaceWith(form);
    this.foot.hidden = true;
    field.focus();
  }
}
