// The part of TeX that formulas in answers use, as MathML. What is not in it is shown as its
// source: a formula is never shown wrong in silence.

import {element, mathElement as m} from "/page/dom.js";

const GREEK = "alpha:α beta:β gamma:γ delta:δ epsilon:ϵ varepsilon:ε zeta:ζ eta:η theta:θ " +
  "vartheta:ϑ iota:ι kappa:κ lambda:λ mu:μ nu:ν xi:ξ pi:π varpi:ϖ rho:ρ varrho:ϱ sigma:σ " +
  "varsigma:ς tau:τ upsilon:υ phi:ϕ varphi:φ chi:χ psi:ψ omega:ω Gamma:Γ Delta:Δ Theta:Θ " +
  "Lambda:Λ Xi:Ξ Pi:Π Sigma:Σ Upsilon:Υ Phi:Φ Psi:Ψ Omega:Ω infty:∞ partial:∂ nabla:∇ ell:ℓ " +
  "hbar:ℏ Re:ℜ Im:ℑ aleph:ℵ emptyset:∅ varnothing:∅ forall:∀ exists:∃ nexists:∄ top:⊤ bot:⊥ " +
  "angle:∠ triangle:△ square:□ imath:ı jmath:ȷ wp:℘ degree:°";
const OPERATORS = "times:× cdot:⋅ div:÷ pm:± mp:∓ ast:∗ star:⋆ circ:∘ bullet:∙ oplus:⊕ " +
  "ominus:⊖ otimes:⊗ odot:⊙ cup:∪ cap:∩ setminus:∖ wedge:∧ land:∧ vee:∨ lor:∨ neg:¬ lnot:¬ " +
  "leq:≤ le:≤ geq:≥ ge:≥ neq:≠ ne:≠ equiv:≡ approx:≈ sim:∼ simeq:≃ cong:≅ propto:∝ ll:≪ gg:≫ " +
  "in:∈ notin:∉ ni:∋ subset:⊂ supset:⊃ subseteq:⊆ supseteq:⊇ mid:∣ nmid:∤ parallel:∥ perp:⊥ " +
  "to:→ rightarrow:→ leftarrow:← leftrightarrow:↔ Rightarrow:⇒ Leftarrow:⇐ Leftrightarrow:⇔ " +
  "implies:⟹ iff:⟺ impliedby:⟸ mapsto:↦ longrightarrow:⟶ uparrow:↑ downarrow:↓ gets:← " +
  "hookrightarrow:↪ rightharpoonup:⇀ therefore:∴ because:∵ ldots:… dots:… cdots:⋯ vdots:⋮ " +
  "ddots:⋱ prime:′ colon:: models:⊨ vdash:⊢ prec:≺ succ:≻ preceq:⪯ succeq:⪰ coloneqq:≔ " +
  "doteq:≐ asymp:≍ lbrace:{ rbrace:} langle:⟨ rangle:⟩ lfloor:⌊ rfloor:⌋ lceil:⌈ rceil:⌉ " +
  "vert:| lvert:| rvert:| Vert:‖ lVert:‖ rVert:‖ backslash:\\ odots:⊙ dagger:† S:§ " +
  "blacksquare:■ qed:∎ checkmark:✓";
const LARGE = "sum:∑ prod:∏ coprod:∐ int:∫ iint:∬ iiint:∭ oint:∮ bigcup:⋃ bigcap:⋂ " +
  "bigoplus:⨁ bigotimes:⨂ bigvee:⋁ bigwedge:⋀";
const FUNCTIONS = new Set(("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln " +
  "lg exp det dim ker deg gcd hom arg Pr").split(" "));
const LIMITS = new Set("lim max min sup inf limsup liminf argmax argmin".split(" "));
const SPACES = {",": "0.167em", ":": "0.222em", ";": "0.278em", "!": "-0.167em", " ": "0.25em",
  quad: "1em", qquad: "2em", thinspace: "0.167em", enspace: "0.5em"};
const ACCENTS = {hat: "^", widehat: "^", bar: "¯", overline: "‾", vec: "→", tilde: "~",
  widetilde: "~", dot: "˙", ddot: "¨", check: "ˇ", overrightarrow: "→", overbrace: "⏞"};
const UNDER = {underline: "_", underbrace: "⏟"};
const VARIANTS = {mathrm: "normal", mathbf: "bold", mathbb: "double-struck", mathcal: "script",
  mathscr: "script", mathfrak: "fraktur", mathit: "italic", mathsf: "sans-serif",
  mathtt: "monospace", boldsymbol: "bold", bm: "bold", rm: "normal", bf: "bold"};
const TEXTS = new Set(["text", "textrm", "textbf", "textit", "mbox", "operatorname", "textsf",
  "texttt"]);
const FENCES = {matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"],
  vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"], cases: ["{", ""], aligned: ["", ""],
  align: ["", ""], "align*": ["", ""], gathered: ["", ""], gather: ["", ""], "gather*": ["", ""],
  split: ["", ""], array: ["", ""], smallmatrix: ["", ""], equation: ["", ""],
  "equation*": ["", ""]};

function table(text) {
  return new Map(text.split(" ").map((entry) => {
    const colon = entry.indexOf(":");
    return [entry.slice(0, colon), entry.slice(colon + 1)];
  }));
}
const greek = table(GREEK);
const operators = table(OPERATORS);
const large = table(LARGE);

const MOST_LENGTH = 4000;
const MOST_DEPTH = 40;

// Letters of an alphabet of Unicode's own, where it has one; browsers draw these without fonts of
// styles.
const ALPHABETS = {bold: [0x1d400, 0x1d41a, 0x1d7ce], "double-struck": [0x1d538, 0x1d552, 0x1d7d8],
  script: [0x1d49c, 0x1d4b6], fraktur: [0x1d504, 0x1d51e], "sans-serif": [0x1d5a0, 0x1d5ba, 0x1d7e2],
  monospace: [0x1d670, 0x1d68a, 0x1d7f6]};
const EXCEPTIONS = {"double-struck": {C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ"},
  script: {B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ"},
  fraktur: {C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ"}};

function styled(letter, variant) {
  const alphabet = ALPHABETS[variant];
  if (!alphabet) return letter;
  if (EXCEPTIONS[variant]?.[letter]) return EXCEPTIONS[variant][letter];
  const starts = ["A", "a", "0"];
  const ends = ["Z", "z", "9"];
  for (let i = 0; i < alphabet.length; ++i)
    if (letter >= starts[i] && letter <= ends[i])
      return String.fromCodePoint(alphabet[i] + letter.charCodeAt(0) - starts[i].charCodeAt(0));
  return letter;
}

class Unknown extends Error {}

class Parser {
  constructor(text, display) {
    this.tokens = text.match(/\\[a-zA-Z]+\*?|\\[^]|\s+|[^\\\s]/gu) || [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
    this.variant = null;
  }

  peek() {
    while (/^\s/.test(this.tokens[this.at] || "")) this.at += 1;
    return this.tokens[this.at];
  }
  take() {
    const token = this.peek();
    this.at += 1;
    return token;
  }
  expect(token) {
    if (this.take() !== token) throw new Unknown("expected " + token);
  }

  // Up to a token that ends it, which stays.
  row(ends) {
    if (++this.depth > MOST_DEPTH) throw new Unknown("too deep");
    const items = [];
    while (this.peek() !== undefined && !ends.includes(this.peek())) {
      const item = this.scripted();
      if (item) items.push(item);
    }
    this.depth -= 1;
    return items.length === 1 ? items[0] : m("mrow", {}, ...items);
  }

  // The source of a group in braces, unread.
  raw() {
    this.expect("{");
    let text = "";
    for (let level = 1; ; this.at += 1) {
      const token = this.tokens[this.at];
      if (token === undefined) throw new Unknown("no end");
      if (token === "{") level += 1;
      if (token === "}" && --level === 0) break;
      text += token;
    }
    this.at += 1;
    return text;
  }

  group() {
    if (this.peek() !== "{") {
      if (++this.depth > MOST_DEPTH) throw new Unknown("too deep");
      const one = this.atom();
      this.depth -= 1;
      if (!one) throw new Unknown("nothing there");
      return one.node;
    }
    this.take();
    const inner = this.row(["}"]);
    this.expect("}");
    return inner;
  }

  // An atom with what stands below and above it.
  scripted() {
    const base = this.atom();
    if (!base) return null;
    let sub = null;
    let sup = null;
    let primes = "";
    for (;;) {
      const next = this.peek();
      if (next === "_" && !sub) {
        this.take();
        sub = this.group();
      } else if (next === "^" && !sup) {
        this.take();
        sup = this.group();
      } else if (next === "'") {
        this.take();
        primes += "′";
      } else if (next === "\\limits" || next === "\\nolimits") {
        this.take();
        base.limits = next === "\\limits";
      } else {
        break;
      }
    }
    if (primes) {
      const marks = m("mo", {}, primes);
      sup = sup ? m("mrow", {}, marks, sup) : marks;
    }
    const {node} = base;
    const over = base.limits;
    if (sub && sup) return m(over ? "munderover" : "msubsup", {}, node, sub, sup);
    if (sub) return m(over ? "munder" : "msub", {}, node, sub);
    if (sup) return m(over ? "mover" : "msup", {}, node, sup);
    return node;
  }

  // {node, limits}; null where there is nothing to see.
  atom() {
    const token = this.take();
    if (token === undefined) throw new Unknown("no end");
    if (token.startsWith("\\") && token.length > 1) return this.command(token.slice(1));
    if (token === "{") {
      const inner = this.row(["}"]);
      this.expect("}");
      return {node: inner};
    }
    if (token === "^" || token === "_") {
      this.at -= 1;
      return {node: m("mrow")};
    }
    if (token === "}" || token === "&" || token === "#" || token === "%" || token === "$")
      throw new Unknown(token);
    if (/\d/.test(token)) return {node: this.number(token)};
    if (/\p{L}/u.test(token)) return {node: this.letter(token)};
    if (token === "-") return {node: m("mo", {}, "−")};
    if (token === "~") return {node: m("mspace", {width: "0.25em"})};
    if ("()[]|/".includes(token)) return {node: m("mo", {stretchy: "false"}, token)};
    return {node: m("mo", {}, token)};
  }

  number(token) {
    let text = token;
    // Not across spaces: "1 2" are two numbers.
    while (/^[\d.]$/.test(this.tokens[this.at] || "") &&
      (this.tokens[this.at] !== "." || /\d/.test(this.tokens[this.at + 1] || "")))
      text += this.tokens[this.at++];
    return m("mn", {}, [...text].map((c) => styled(c, this.variant)).join(""));
  }
  letter(token) {
    const upright = this.variant && this.variant !== "italic";
    return m("mi", upright ? {mathvariant: "normal"} : {}, styled(token, this.variant));
  }

  command(name) {
    if (greek.has(name)) return {node: m("mi", {}, greek.get(name))};
    if (large.has(name)) {
      const limits = this.display && !name.includes("int");
      return {node: m("mo", {largeop: "true", movablelimits: "false"}, large.get(name)), limits};
    }
    if (operators.has(name)) {
      const sign = operators.get(name);
      return {node: m("mo", "⟨⟩⌊⌋⌈⌉|‖{}".includes(sign) ? {stretchy: "false"} : {}, sign)};
    }
    if (FUNCTIONS.has(name)) return {node: m("mi", {}, name)};
    if (LIMITS.has(name)) {
      const text = name.replace(/^(lim|arg)(?=sup|inf|max|min)/, "$1 ");
      return {node: m("mo", {movablelimits: "false", lspace: "0", rspace: "0.167em"}, text),
        limits: this.display};
    }
    if (Object.hasOwn(SPACES, name)) return {node: m("mspace", {width: SPACES[name]})};
    if (Object.hasOwn(ACCENTS, name)) {
      const stretchy = name.startsWith("over") || name.startsWith("wide") ? "true" : "false";
      const node = m("mover", {accent: "true"}, this.group(), m("mo", {stretchy}, ACCENTS[name]));
      return {node, limits: name === "overbrace"};
    }
    if (Object.hasOwn(UNDER, name))
      return {node: m("munder", {}, this.group(), m("mo", {stretchy: "true"}, UNDER[name])),
        limits: true};
    if (Object.hasOwn(VARIANTS, name)) return this.styledGroup(VARIANTS[name]);
    if (TEXTS.has(name)) {
      const text = this.raw().replaceAll("\\_", "_").replaceAll("\\ ", " ");
      if (/[\\$]/.test(text)) throw new Unknown("formulas in text");
      return {node: name === "operatorname" ? m("mi", {mathvariant: "normal"}, text)
        : m("mtext", {}, text.replaceAll(" ", "\u00a0"))};
    }
    return this.structure(name);
  }

  styledGroup(variant) {
    const before = this.variant;
    this.variant = variant;
    const node = this.group();
    this.variant = before;
    return {node};
  }

  structure(name) {
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac":
        return {node: m("mfrac", {}, this.group(), this.group())};
      case "binom": case "dbinom": case "tbinom": {
        const inner = m("mfrac", {linethickness: "0"}, this.group(), this.group());
        return {node: m("mrow", {}, m("mo", {}, "("), inner, m("mo", {}, ")"))};
      }
      case "sqrt": {
        if (this.peek() !== "[") return {node: m("msqrt", {}, this.group())};
        this.take();
        const index = this.row(["]"]);
        this.expect("]");
        return {node: m("mroot", {}, this.group(), index)};
      }
      case "overset": case "stackrel": {
        const above = this.group();
        return {node: m("mover", {}, this.group(), above)};
      }
      case "underset": {
        const below = this.group();
        return {node: m("munder", {}, this.group(), below)};
      }
      case "left": return this.fenced();
      case "big": case "Big": case "bigg": case "Bigg": case "bigl": case "bigr": case "Bigl":
      case "Bigr": case "biggl": case "biggr":
        return {node: m("mo", {stretchy: "false"}, this.fence())};
      case "begin": return {node: this.environment()};
      case "boxed": return {node: m("menclose", {notation: "box"}, this.group())};
      case "pmod":
        return {node: m("mrow", {}, m("mspace", {width: "1em"}), m("mo", {stretchy: "false"}, "("),
          m("mi", {}, "mod"), m("mspace", {width: "0.3em"}), this.group(),
          m("mo", {stretchy: "false"}, ")"))};
      case "bmod": case "mod": return {node: m("mo", {lspace: "0.3em", rspace: "0.3em"}, "mod")};
      case "not": {
        const next = this.atom();
        if (!next || next.node.localName !== "mo") throw new Unknown("not");
        next.node.append("\u0338");
        return next;
      }
      case "displaystyle": case "textstyle": case "nonumber": case "notag": return null;
      case "{": case "}": case "|":
        return {node: m("mo", {stretchy: "false"}, name === "|" ? "‖" : name)};
      case "%": case "$": case "&": case "#": case "_": return {node: m("mi", {}, name)};
      default: throw new Unknown(name);
    }
  }

  fence() {
    const token = this.take();
    if (token === ".") return "";
    if (token === "\\|") return "‖";
    if (token === "\\{" || token === "\\}") return token[1];
    const name = token?.startsWith("\\") ? operators.get(token.slice(1)) : token;
    if (!name || !"()[]|/{}⟨⟩⌊⌋⌈⌉‖<>".includes(name)) throw new Unknown("fence");
    return name;
  }

  fenced() {
    const open = this.fence();
    const inner = m("mrow");
    for (;;) {
      inner.append(this.row(["\\right", "\\middle"]));
      if (this.peek() !== "\\middle") break;
      this.take();
      inner.append(m("mo", {stretchy: "true"}, this.fence()));
    }
    this.expect("\\right");
    const close = this.fence();
    return {node: m("mrow", {}, m("mo", {fence: "true", stretchy: "true"}, open), inner,
      m("mo", {fence: "true", stretchy: "true"}, close))};
  }

  environment() {
    const name = this.raw();
    const fences = FENCES[name];
    if (!Object.hasOwn(FENCES, name)) throw new Unknown(name);
    if (name === "array") this.raw();  // how columns are set
    const rows = [[]];
    const ends = ["&", "\\\\", "\\end"];
    for (;;) {
      const ruled = this.peek() === "\\hline";
      if (ruled) {
        this.take();
        continue;
      }
      rows.at(-1).push(m("mtd", {}, this.row(ends)));
      const end = this.take();
      if (end === "\\\\") rows.push([]);
      else if (end === "\\end") break;
      else if (end !== "&") throw new Unknown("no end");
    }
    if (this.raw() !== name) throw new Unknown("end of another");
    if (rows.length > 1 && rows.at(-1).length === 1 && !rows.at(-1)[0].textContent) rows.pop();
    const aligned = /^(align|split)/.test(name);
    const kind = aligned ? "tex-aligned" : name === "cases" ? "tex-cases" : "tex-matrix";
    const body = m("mtable", {class: kind, ...(aligned ? {displaystyle: "true"} : {})},
      ...rows.map((cells) => m("mtr", {}, ...cells)));
    const fence = (sign) => m("mo", {fence: "true", stretchy: "true"}, sign);
    if (!fences[0] && !fences[1]) return body;
    return m("mrow", {}, fence(fences[0]), body, ...(fences[1] ? [fence(fences[1])] : []));
  }
}

// MathML of a formula without its dollars, or its source where that cannot be had.
export function formula(source, display) {
  try {
    if (source.length > MOST_LENGTH) throw new Unknown("too long");
    const parser = new Parser(source.trim(), display);
    const body = parser.row([]);
    const math = m("math", display ? {display: "block"} : {}, body);
    math.setAttribute("aria-label", source.trim());
    return math;
  } catch (problem) {
    if (!(problem instanceof Unknown)) throw problem;
    return element("code", {class: "formula-source"}, source.trim());
  }
}
