// Markdown as models write it, to DOM nodes. What the text says becomes text: there is no markup of
// its own, no image and no link but http, https and mailto.
//
// Blocks: paragraphs (a line end is a line break), headings, lists, quotes, fenced code, tables,
// rules, formulas. Hostile text costs time in proportion to its length: nesting is limited, and
// marks look for their partners within a limited distance.

import {codeBlock} from "/page/code.js";
import {element} from "/page/dom.js";
import {formula} from "/page/math.js";

const MOST_NESTING = 12;
const EMPHASIS_REACH = 1000;
const LINK_REACH = 2000;
const FORMULA_LINES = 60;

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const MATH_BEGIN = /^\s*(\$\$|\\\[)/;

// A text as a list of its blocks, each the lines it is made of. While a text grows at its end, all
// blocks but the last few stay what they are.
export function splitBlocks(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const end = blockEnd(lines, at);
    blocks.push(lines.slice(at, end).join("\n"));
    at = end;
  }
  return blocks;
}

function blockEnd(lines, at) {
  const fence = lines[at].match(FENCE);
  if (fence) return fenceEnd(lines, at, fence[2]);
  if (MATH_BEGIN.test(lines[at])) {
    const end = mathEnd(lines, at);
    if (end > at) return end;
  }
  if (HEADING.test(lines[at]) || RULE.test(lines[at])) return at + 1;
  if (QUOTE.test(lines[at])) return runEnd(lines, at, (line) => QUOTE.test(line));
  if (ITEM.test(lines[at])) return listEnd(lines, at);
  if (isTable(lines, at)) return runEnd(lines, at, (line) => line.includes("|"));
  return runEnd(lines, at, (line, i) => line.trim() !== "" && (i === at || !interrupts(lines, i)));
}

function runEnd(lines, at, belongs) {
  let end = at;
  while (end < lines.length && belongs(lines[end], end)) end += 1;
  return Math.max(end, at + 1);
}

function fenceEnd(lines, at, mark) {
  for (let i = at + 1; i < lines.length; ++i) {
    const line = lines[i].trim();
    if (line.startsWith(mark) && line.replaceAll(mark[0], "") === "") return i + 1;
  }
  return lines.length;
}

// Behind the line that closes a formula; `at` where none does.
function mathEnd(lines, at) {
  const close = lines[at].trim().startsWith("$$") ? "$$" : "\\]";
  if (lines[at].trim().slice(2).trimEnd().endsWith(close)) return at + 1;
  if (lines[at].trim().slice(2).includes(close)) return at;
  const most = Math.min(lines.length, at + FORMULA_LINES);
  for (let i = at + 1; i < most && lines[i].trim() !== ""; ++i)
    if (lines[i].trimEnd().endsWith(close)) return i + 1;
  return at;
}

// Whether a line ends the paragraph before it.
function interrupts(lines, i) {
  const line = lines[i];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    (ITEM.test(line) && line.trim().length > 1) || isTable(lines, i) ||
    (MATH_BEGIN.test(line) && mathEnd(lines, i) > i);
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

// A list goes on through empty lines, as long as items of its kind or indented text follow.
function listEnd(lines, at) {
  const first = lines[at].match(ITEM);
  const isOther = (line) => {
    const mark = line.match(ITEM);
    return mark && mark[1].length <= first[1].length + 1 && /\d/.test(mark[2]) !== /\d/.test(first[2]);
  };
  let end = at + 1;
  let fence = null;
  while (end < lines.length) {
    const line = lines[end];
    const mark = line.trim().match(/^(`{3,}|~{3,})/);
    if (fence) {
      if (mark && mark[1].startsWith(fence)) fence = null;
    } else if (isOther(line)) {
      break;
    } else if (line.trim() === "") {
      let next = end + 1;
      while (next < lines.length && next <= end + 2 && lines[next].trim() === "") next += 1;
      if (next >= lines.length || !(ITEM.test(lines[next]) || indentOf(lines[next]) >= 2)) break;
    } else if (mark && indentOf(line) >= 2) {
      fence = mark[1];
    } else if (!ITEM.test(line) && indentOf(line) < 2 && interrupts(lines, end)) {
      break;
    } else if (RULE.test(line) && !/^\s*[-*]\s/.test(line)) {
      break;
    }
    end += 1;
  }
  return end;
}

function isTable(lines, at) {
  return at + 1 < lines.length && lines[at].includes("|") && lines[at + 1].includes("|") &&
    /^[\s|:-]+$/.test(lines[at + 1]) && lines[at + 1].includes("-");
}

// One block to one node.
export function renderBlock(source, depth = 0) {
  const lines = source.split("\n");
  const first = lines[0];
  const fence = first.match(FENCE);
  if (fence) return renderFence(lines, fence);
  if (MATH_BEGIN.test(first) && mathEnd(lines, 0) === lines.length) {
    const body = source.trim().slice(2, -2);
    return element("div", {class: "formula"}, formula(body, true));
  }
  const heading = first.match(HEADING);
  if (heading) {
    // The page's own heading is h1.
    const made = element("h" + Math.min(heading[1].length + 1, 6));
    return appendInline(made, heading[2], depth);
  }
  if (RULE.test(first)) return element("hr");
  if (depth < MOST_NESTING) {
    if (QUOTE.test(first)) {
      const inner = lines.map((line) => line.replace(QUOTE, "")).join("\n");
      return element("blockquote", {}, renderBlocks(inner, depth + 1));
    }
    if (ITEM.test(first)) return renderList(lines, depth);
  }
  if (isTable(lines, 0)) return renderTable(lines, depth);
  return appendInline(element("p"), source.trim(), depth);
}

function renderBlocks(text, depth) {
  return splitBlocks(text).map((block) => renderBlock(block, depth));
}

// A whole text.
export function renderMarkdown(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...renderBlocks(text, 0));
  return fragment;
}

function renderFence(lines, fence) {
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence[2]);
  const indent = fence[1].length;
  const body = lines.slice(1, closed ? -1 : undefined)
    .map((line) => line.slice(Math.min(indent, indentOf(line))));
  return codeBlock(body.join("\n"), fence[3].trim().split(/\s/)[0]);
}

function renderList(lines, depth) {
  const first = lines[0].match(ITEM);
  const ordered = /\d/.test(first[2]);
  const list = element(ordered ? "ol" : "ul");
  if (ordered && parseInt(first[2], 10) !== 1) list.setAttribute("start", parseInt(first[2], 10));
  const base = first[1].length;
  let item = [];
  const finish = () => {
    if (item.length > 0) list.append(renderItem(item, depth));
    item = [];
  };
  for (const line of lines) {
    const mark = line.match(ITEM);
    if (mark && mark[1].length <= base + 1) {
      finish();
      item.push(line.slice(mark[0].length));
    } else {
      // What belongs to an item is indented by what its mark takes, or less.
      item.push(line.slice(Math.min(indentOf(line), base + first[2].length + 1)));
    }
  }
  finish();
  return list;
}

function renderItem(lines, depth) {
  const made = element("li");
  const task = lines[0].match(/^\[([ xX])\]\s+/);
  if (task) {
    lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
    const done = task[1] !== " ";
    made.className = "task";
    made.append(element("span", {role: "img", "aria-label": done ? "done" : "not done"},
      done ? "☑ " : "☐ "));
  }
  const blocks = splitBlocks(lines.join("\n"));
  blocks.forEach((block, i) => {
    const node = renderBlock(block, depth + 1);
    // An item of one paragraph is no paragraph.
    if (i === 0 && node.localName === "p") made.append(...node.childNodes);
    else made.append(node);
  });
  return made;
}

function splitRow(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function renderTable(lines, depth) {
  const sides = splitRow(lines[1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left");
  const row = (line, kind) => element("tr", {}, splitRow(line).slice(0, sides.length)
    .map((cell, i) => appendInline(element(kind, {class: "to-" + sides[i],
      scope: kind === "th" ? "col" : null}), cell, depth)));
  return element("div", {class: "table", tabindex: "0", role: "region", "aria-label": "Table"},
    element("table", {},
      element("thead", {}, row(lines[0], "th")),
      element("tbody", {}, lines.slice(2).map((line) => row(line, "td")))));
}

// Marks within a line. Each takes the text, where the mark stands, the nesting and, by mark, up to
// where none closes, and gives [node, end], or nothing.
const INLINE = {
  "\\": escaped,
  "`": codeSpan,
  "$": dollarFormula,
  "*": emphasis,
  "_": emphasis,
  "~": struck,
  "[": link,
  "!": image,
  "<": angleLink,
  "h": bareLink,
  "\n": lineBreak,
};
const SPECIAL = /[\\`$*_~[!<\n]|https?:\/\//g;

export function appendInline(parent, text, depth = 0) {
  let plain = "";
  let at = 0;
  const finder = new RegExp(SPECIAL);
  const unclosed = new Map();
  while (at < text.length) {
    finder.lastIndex = at;
    const found = finder.exec(text);
    if (!found) break;
    plain += text.slice(at, found.index);
    at = found.index;
    const made = depth < MOST_NESTING ? INLINE[text[at]](text, at, depth, unclosed) : null;
    if (made) {
      if (plain) parent.append(plain);
      plain = "";
      parent.append(made[0]);
      at = made[1];
    } else {
      plain += text[at];
      at += 1;
    }
  }
  plain += text.slice(at);
  if (plain) parent.append(plain);
  return parent;
}

function escaped(text, at) {
  const next = text[at + 1];
  if (next === "(" || next === "[") {
    const end = text.indexOf(next === "(" ? "\\)" : "\\]", at + 2);
    if (end > 0 && end - at < LINK_REACH)
      return [formula(text.slice(at + 2, end), next === "["), end + 2];
  }
  if (next === "\n") return [element("br"), at + 2];
  if (next && /[!-/:-@[-`{-~]/.test(next)) return [next, at + 2];
  return null;
}

function codeSpan(text, at) {
  const mark = text.slice(at).match(/^`+/)[0];
  if (mark.length > 16) return [mark, at + mark.length];
  for (let end = at + mark.length; ; end += mark.length) {
    end = text.indexOf(mark, end);
    if (end < 0 || end - at > EMPHASIS_REACH) return [mark, at + mark.length];
    if (text[end + mark.length] === "`") {
      while (text[end + mark.length] === "`") end += 1;
      continue;
    }
    let body = text.slice(at + mark.length, end).replaceAll("\n", " ");
    if (/^ .*[^ ].* $/.test(body)) body = body.slice(1, -1);
    return [element("code", {}, body), end + mark.length];
  }
}

// A dollar before a space or behind a number is a dollar.
function dollarFormula(text, at) {
  const display = text[at + 1] === "$";
  const mark = display ? "$$" : "$";
  const begin = at + mark.length;
  if (!text[begin] || /\s/.test(text[begin])) return null;
  for (let end = text.indexOf(mark, begin + 1); end > 0 && end - at < EMPHASIS_REACH;
    end = text.indexOf(mark, end + 1)) {
    if (text[end - 1] === "\\") continue;
    if (!display && (/\s/.test(text[end - 1]) || /\d/.test(text[end + 1] || ""))) return null;
    return [formula(text.slice(begin, end), display), end + mark.length];
  }
  return null;
}

function emphasis(text, at, depth, unclosed) {
  const sign = text[at];
  const isWord = (c) => c !== undefined && /[\p{L}\p{N}]/u.test(c);
  const length = Math.min(text.slice(at, at + 4).match(/^(\*+|_+)/)[0].length, 3);
  const after = text[at + length];
  if (after === undefined || /\s/.test(after) || after === sign) return null;
  if (sign === "_" && isWord(text[at - 1])) return null;  // snake_case
  const mark = sign.repeat(length);
  const most = Math.min(text.length, at + EMPHASIS_REACH);
  const begin = Math.max(at + length, unclosed.get(mark) || 0);
  for (let end = text.indexOf(mark, begin); end > 0 && end < most;
    end = text.indexOf(mark, end + 1)) {
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    if (sign === "_" && isWord(text[end + length])) continue;
    // "*a **b** c*": a longer run is none of ours.
    if (length < 3 && text[end + length] === sign) {
      while (text[end + 1] === sign) end += 1;
      continue;
    }
    const inner = text.slice(at + length, end);
    const made = element(length === 1 ? "em" : "strong");
    const holder = length === 3 ? made.appendChild(element("em")) : made;
    appendInline(holder, inner, depth + 1);
    return [made, end + length];
  }
  unclosed.set(mark, most);
  return [mark, at + length];
}

function struck(text, at, depth) {
  if (text[at + 1] !== "~" || /\s/.test(text[at + 2] || " ")) return null;
  const end = text.indexOf("~~", at + 2);
  if (end < 0 || end - at > EMPHASIS_REACH) return ["~~", at + 2];
  return [appendInline(element("del"), text.slice(at + 2, end), depth + 1), end + 2];
}

// The address, where it is one that a click may open; else null.
export function safeAddress(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function anchor(address) {
  return element("a", {href: address, target: "_blank", rel: "noopener noreferrer nofollow"});
}

// [text](address "title")
function linkParts(text, at) {
  let level = 0;
  let close = at;
  const most = Math.min(text.length, at + LINK_REACH);
  for (; close < most; ++close) {
    if (text[close] === "\\") close += 1;
    else if (text[close] === "[") level += 1;
    else if (text[close] === "]" && --level === 0) break;
  }
  if (text[close] !== "]" || text[close + 1] !== "(") return null;
  const end = text.indexOf(")", close + 2);
  if (end < 0 || end - close > LINK_REACH) return null;
  const target = text.slice(close + 2, end).trim().match(/^<?([^\s>]*)>?(?:\s+["'(].*)?$/s);
  if (!target) return null;
  return {label: text.slice(at + 1, close), address: target[1], end: end + 1};
}

function link(text, at, depth) {
  const parts = linkParts(text, at);
  if (!parts) return null;
  const address = safeAddress(parts.address);
  // What may not be opened is shown as it was written.
  if (!address) return [text.slice(at, parts.end), parts.end];
  return [appendInline(anchor(address), parts.label, depth + 1), parts.end];
}

// An image would be fetched from somewhere: it is shown as a link to it.
function image(text, at) {
  if (text[at + 1] !== "[") return null;
  const parts = linkParts(text, at + 1);
  const address = parts && safeAddress(parts.address);
  if (!address) return null;
  const made = anchor(address);
  made.append("🖼 " + (parts.label || address));
  return [made, parts.end];
}

function angleLink(text, at) {
  const found = text.slice(at, at + LINK_REACH).match(/^<((?:https?:\/\/|mailto:)[^\s<>]+)>/);
  const address = found && safeAddress(found[1]);
  if (!address) return null;
  const made = anchor(address);
  made.append(found[1]);
  return [made, at + found[0].length];
}

function bareLink(text, at) {
  if (at > 0 && /\w/.test(text[at - 1])) return null;
  const found = text.slice(at, at + LINK_REACH).match(/^https?:\/\/[^\s<>"'`)\]*]*[^\s<>"'`)\].,;:!?*]/);
  const address = found && safeAddress(found[0]);
  if (!address) return null;
  const made = anchor(address);
  made.append(found[0]);
  return [made, at + found[0].length];
}

function lineBreak(text, at) {
  return [element("br"), at + 1];
}
