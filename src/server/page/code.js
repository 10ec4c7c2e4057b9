// A block of code: its language, a button that copies it, and colours that any language can have:
// comments, strings, numbers and the words that most languages keep for themselves.

import {element, icon, iconButton, icons} from "/page/dom.js";

const KEYWORDS = new Set(("abstract and as assert async await auto bool boolean break byte case catch " +
  "char class const constexpr continue def default defer delete do double elif else end enum except " +
  "export extends extern false final finally float fn for from func function go goto if impl " +
  "implements import in include inline int interface is lambda let local long loop match mod module " +
  "mut namespace new nil None nonlocal not null nullptr operator or override package pass private " +
  "protected pub public raise return self short signed sizeof static std string struct super switch " +
  "template then this throw trait True False true try type typedef typename undefined union unsigned " +
  "use using val var virtual void volatile when where while with yield select insert update create " +
  "table join group order by limit SELECT FROM WHERE INSERT UPDATE DELETE CREATE TABLE JOIN GROUP " +
  "ORDER BY LIMIT AND OR NOT AS ON").split(" "));

const HASH = new Set(["python", "py", "sh", "bash", "shell", "zsh", "ruby", "rb", "yaml", "yml",
  "toml", "ini", "r", "perl", "make", "makefile", "cmake", "dockerfile", "nix", "conf", "console"]);
const DASHES = new Set(["sql", "lua", "haskell", "hs", "ada"]);
const PLAIN = new Set(["", "text", "txt", "plain", "plaintext", "output", "markdown", "md", "csv",
  "log"]);

// Longer blocks stay plain: colours are not worth the wait.
const MOST_COLOURED = 50000;

function commentPattern(language) {
  if (HASH.has(language)) return "#[^\\n]*";
  if (DASHES.has(language)) return "--[^\\n]*";
  if (["html", "xml", "svg"].includes(language)) return "<!--[^]*?-->";
  return "\\/\\/[^\\n]*|\\/\\*[^]*?\\*\\/";
}

function colour(code, text, language) {
  if (PLAIN.has(language) || text.length > MOST_COLOURED) return code.append(text);
  const pattern = new RegExp("(" + commentPattern(language) + ")" +
    "|(\"(?:[^\"\\\\\\n]|\\\\.)*\"|'(?:[^'\\\\\\n]|\\\\.)*'|`(?:[^`\\\\]|\\\\.)*`)" +
    "|(\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)" +
    "|([A-Za-z_]\\w*)", "g");
  const kinds = ["comment", "string", "number"];
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    let kind = kinds.find((_, i) => found[i + 1] !== undefined);
    if (found[4] !== undefined) {
      if (KEYWORDS.has(found[4])) kind = "keyword";
      else if (text[found.index + found[4].length] === "(") kind = "call";
      else continue;
    }
    code.append(text.slice(at, found.index), element("span", {class: "code-" + kind}, found[0]));
    at = found.index + found[0].length;
  }
  code.append(text.slice(at));
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure origin there is no clipboard but the selection's.
    const area = element("textarea", {class: "hidden-text"});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.replaceChildren(icon(icons.check));
  setTimeout(() => button.replaceChildren(icon(icons.copy)), 1500);
}

export function copyButton(label, text) {
  const button = iconButton(label, icons.copy, () => copy(button, text()));
  return button;
}

export function codeBlock(text, language = "") {
  const code = element("code");
  colour(code, text, language.toLowerCase());
  return element("div", {class: "code"},
    element("div", {class: "code-head"},
      element("span", {}, language.slice(0, 40) || "text"), copyButton("Copy code", () => text)),
    element("pre", {tabindex: "0"}, code));
}
