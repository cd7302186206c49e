// Reads a Bicep file on stdin and prints its resources as JSON. What is not as
// the grammar has it is said on stderr, and the exit code is 1.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Language, Parser } from 'web-tree-sitter';

await Parser.init();
const parser = new Parser();
parser.setLanguage(await Language.load(createRequire(import.meta.url).resolve('tree-sitter-bicep/tree-sitter-bicep.wasm')));
// The grammar takes // at the beginning of a string for a comment, which Bicep does not.
const root = parser.parse(readFileSync(0, 'utf8').replaceAll("'//", "'\\u{2f}/")).rootNode;

if (root.hasError) {
  complain(root);
  process.exit(1);
}

function complain(node) {
  if (node.isError || node.isMissing) {
    const { row, column } = node.startPosition;
    console.error(`${row + 1}:${column + 1}: ${node.isMissing ? `missing ${node.type}` : 'not Bicep'}`);
    return;
  }
  node.children.filter((n) => n.hasError || n.isMissing).forEach(complain);
}

const escapes = { n: '\n', r: '\r', t: '\t', '\\': '\\', "'": "'", $: '$' };

// text is a string's value. An interpolation is none.
function text(node) {
  if (node.namedChildren.some((n) => n.type === 'interpolation')) {
    return { expression: node.text };
  }
  return node.text.slice(1, -1).replace(/\\(u\{([0-9a-fA-F]+)\}|.)/g, (_, one, code) => {
    if (code) return String.fromCodePoint(parseInt(code, 16));
    if (!(one in escapes)) throw new Error(`no escape of Bicep: \\${one}`);
    return escapes[one];
  });
}

// value is a literal; anything else is {expression: …}.
function value(node) {
  switch (node.type) {
    case 'string':
      return text(node);
    case 'number':
      return Number(node.text);
    case 'array':
      return node.namedChildren.filter((n) => n.type !== 'comment').map(value);
    case 'object':
      return object(node);
  }
  return { expression: node.text };
}

function object(node) {
  const out = {};
  for (const property of node.namedChildren.filter((n) => n.type !== 'comment')) {
    const [key, of] = property.namedChildren;
    const name = key.type === 'string' ? text(key) : key.text;
    if (name in out) throw new Error(`${name} is there twice`);
    out[name] = value(of);
  }
  return out;
}

const resources = root.namedChildren
  .filter((n) => n.type === 'resource_declaration')
  .map((n) => {
    const [name, kind, body] = n.namedChildren;
    return { name: name.text, kind: text(kind), existing: n.children.some((c) => c.type === 'existing'), body: object(body) };
  });
console.log(JSON.stringify(resources));
