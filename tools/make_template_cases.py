"""Writes tests/data/template-cases.json: small templates with what Python's jinja2 makes of them.

Needs jinja2 (pip install jinja2). Settings and functions are those that transformers gives to chat
templates. A case that Python refuses is written without "rendered".
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return datetime.datetime.fromtimestamp(0, datetime.timezone.utc).strftime(form)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


VARIABLES = {
    "n": 7, "x": -2.5, "big": 1e22, "tiny": 1e-7, "s": "Hello, World", "u": "hé杭州 ß🙂", "e": "",
    "html": "<a href=\"x\">T&C's</a>", "l": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": {"c": [True, None]}, "items": "mine"}, "none": None, "t": True, "f": False,
    "nested": [[1, 2], [3, [4]]], "bos_token": "<s>", "eos_token": "</s>",
    "people": [{"name": "Ann", "age": 30, "city": "Rome"}, {"name": "bob", "age": 25},
               {"name": "Cid", "age": 30, "city": "rome"}],
    "messages": [
        {"role": "system", "content": "  Be kind. "}, {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nHello"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function",
             "function": {"name": "f", "arguments": {"city": "杭州", "n": 2, "q": 1.0}}}]},
        {"role": "tool", "content": "{\"ok\": true}"}],
    "tools": [{"type": "function", "function": {
        "name": "f", "description": "Does \"f\" <now>", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["city"]}}}],
    "add_generation_prompt": True,
}

EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 // 2, -7 // 2, 7 // -2, 7 % 3, -7 % 3, 7 % -3
7 / 2, 6 / 2, -7.5 // 2, -7.5 % 2, 7.5 % -2
2 ** 3 ** 2, -2 ** 2, 2 ** -1, 2.0 ** 0.5
1_000, 0x1F, 0b101, 0o17, 1e5, 1.5e-3, 1_0.2_5, 00
1e16, 1e15, 123456789.125, 1e-4, 1e-5, 0.1 + 0.2, 1e300 * 1e10, -1e300 * 1e10
big, tiny, x, n, -x, +n, - -n
true, True, false, False, none, None
1 == 1.0, 1 == true, '1' == 1, [1] == [1.0], (1,) == [1], {'a': 1} == {'a': 1.0}
1 < 2 < 3, 1 < 3 < 2, 1 == 1 != 2, 3 > 2 >= 2
'a' < 'b', 'Z' < 'a', [1, 2] < [1, 3], [1] < [1, 0], 'é' > 'z'
1 < 'a'
none < 1
[1] < (1,)
n in l, 3 in l, 3 not in l, 'ell' in s, '' in s, 'b' in d, 1 in d
1 in 'abc'
n and l, e or 'x', not e, not not n, none and 1, 0 or none
n if t else x, n if f else x, (n if f) is defined, n if f
'a' if f else 'b' if f else 'c'
'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1] ~ undefined_thing
'a' 'b' "c"
'a\nb\tc\\d\'e\x41\u00e9\U0001F642\101\q'
'a' * 3, 3 * 'a', 'a' * -1, [1] * 2, (1,) * 2, 2 * [1]
[1] + [2], (1,) + (2,), 'a' + 'b'
'a' + 1
1 + 'a'
[1] + (2,)
1 / 0
1 // 0
1 % 0
1.5 / 0
0 ** -1
-'a'
[1, 2, 3][0], [1, 2, 3][-1], (1, 2)[1], 'abc'[1], 'abc'[-1], u[1], u[-1], u[2]
[1][5] is defined, 'abc'[9] is defined, d.zzz is defined, d['zzz'] is defined
l[1:], l[:1], l[::-1], l[-2:], l[5:], l[::2], l[:-1], l[-100:100], l[2:0:-1]
s[1:4], s[::-1], s[-5:], u[::-1], u[1:3], u[::2], e[::-1], s[10:2], s[:0]
(1, 2, 3)[1:], range(10)[2:5], range(10)[::-3], range(10)[-1]
l[::0]
l['a':]
messages[1:] | length, messages[-1].role, messages[0]['role'], messages[::-1][0].role
nested.0.1, nested.1.1.0, nested[1][1][0]
d.b, d['b'], d.a.c, d.a.c[0], d.items is string, d['items'], d.items() | list, d.keys() | list
d.items(), d.keys(), d.values(), d.get('b'), d.get('z'), d.get('z', 5)
d | length, d | list, d | first, d.values() | list, d.items() | length
{}, {'a': 1, 'b': [1, 'x']}, {1: 2, 'a': none, (1, 2): 3}, {1: 'a', 1.0: 'b', true: 'c'}
[], [1, 'a', none, true, 1.0, 'it\'s', "say \"x\""], (), (1,), (1, 'a')
'it\'s "both"', ['it\'s "both"'], ['a\nb\t\\'], ['é🙂'], ['\x00\x7f\xa0\u200b\u2028']
undefined_thing, undefined_thing is defined, undefined_thing is undefined, not undefined_thing
undefined_thing | length, undefined_thing | list, undefined_thing | join, undefined_thing | upper
undefined_thing == other_thing, undefined_thing == none, undefined_thing == '', [undefined_thing]
undefined_thing.x
undefined_thing['x']
undefined_thing()
undefined_thing + 1
1 + undefined_thing
undefined_thing < 1
-undefined_thing
1 in undefined_thing, undefined_thing in [1], undefined_thing in [undefined_thing]
undefined_thing in 'abc'
undefined_thing | int
undefined_thing | float
undefined_thing | tojson
undefined_thing | abs
undefined_thing | trim, undefined_thing | string, undefined_thing | default('x'), undefined_thing | d
e | default('x'), e | default('x', true), none | default('x'), none | d('x', boolean=true), 0 | d(5, 1)
none.x is defined, none.x, n.x is defined, s.x is defined
n()
s()
n is number, x is number, t is number, s is number, none is number
n is integer, t is integer, x is integer, x is float, n is float
s is string, n is string, none is none, n is none, t is boolean, n is boolean
t is true, n is true, f is false, 0 is false, 1 is true
d is mapping, l is mapping, l is sequence, s is sequence, d is sequence, n is sequence, none is sequence
l is iterable, s is iterable, d is iterable, n is iterable, none is iterable, range(3) is iterable
range is callable, n is callable, s.upper is callable, undefined_thing is callable
n is odd, n is even, 4 is even, n is divisibleby 7, n is divisibleby(3), 9 is divisibleby 3
n is eq 7, n is equalto 7, n is ne 7, n is gt 3, n is lt 3, n is ge 7, n is le 6
n is greaterthan 3, n is lessthan 3, n is sameas 7, none is sameas none, l is sameas l, [1] is sameas [1]
'a' is in 'abc', 3 is in l, 3 is not in l, n is not none
'abc' is lower, 'ABC' is upper, 'aBc' is lower, '123' is lower, '' is upper, 'A1' is upper
'upper' is filter, 'nope' is filter, 'odd' is test, 'nope' is test
('a' | safe) is escaped, 'a' is escaped
n is defined and n > 3, not n is defined, n is defined == true
n is odd is even
s | upper, s | lower, s | title, s | capitalize, u | upper, u | lower, u | capitalize, u | title
'hello wORLD-foo (bar) [x] {y} <z>' | title, "they're bill's" | title, "they're bill's".title()
'ǆ ß ŉ ﬁ İ Σ ΑΣ' | upper, 'ΑΣ Σ ΑΣΑ' | lower, 'ß'.upper(), 'ﬁx'.title()
'  a b  ' | trim, 'xxaxx' | trim('x'), '\n a \t' | trim | length, 5 | trim, none | trim
s | replace('l', 'L'), s | replace('l', 'L', 1), 'aaa' | replace('', '-'), 5 | replace(5, 6)
s | length, u | length, l | length, d | count, range(5) | length
n | length
none | length
l | sort, l | sort(reverse=true), words | sort, words | sort(case_sensitive=true), words | sort(true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='age', reverse=true) | map(attribute='name') | list
[1, 'a'] | sort
[none, 1] | sort
[[2, 1], [1, 5], [1, 2]] | sort, [1.5, 1, true] | sort
d | dictsort, {'b': 1, 'A': 2, 'a': 3} | dictsort, {'b': 1, 'A': 2} | dictsort(true)
{'b': 1, 'A': 2} | dictsort(by='value'), {'b': 1, 'A': 2} | dictsort(false, 'key', true)
{1: 1, 'a': 2} | dictsort
words | unique | list, [1, 1.0, true, 2] | unique | list, words | unique(true) | list
people | unique(attribute='age') | map(attribute='name') | list
[[1], [1]] | unique | list
l | min, l | max, words | min, words | max, [] | min, people | max(attribute='age'), 'abc' | max
words | max(true), words | min(case_sensitive=true)
l | sum, [] | sum, people | sum(attribute='age'), l | sum(start=10), [1.5, 2] | sum, [[1], [2]] | sum(start=[])
words | sum
l | first, l | last, '' | first, s | first, s | last, d | last, [] | last, u | last, range(4) | last
l | reverse | list, s | reverse, u | reverse, (1, 2) | reverse | list, range(3) | reverse | list
l | map('string') | reverse
n | reverse
l | join, l | join(', '), people | join(' & ', attribute='name'), s | join('-'), [1, none, true] | join('|')
n | join
l | batch(2) | list, l | batch(2, 0) | list, range(7) | batch(3, 'x') | list, [] | batch(2) | list
range(7) | slice(3) | list, range(7) | slice(3, 'x') | list, [] | slice(2) | list
l | map('string') | list, words | map('upper') | join, l | map('default', 5) | list
people | map(attribute='city') | list, people | map(attribute='city', default='?') | list
nested | map(attribute=0) | list, nested | map(attribute='1.0') | list, nested | map('first') | list
l | map | list
l | map('nope') | list
['1', '2'] | map('int') | sum, ['a b', 'c'] | map('replace', ' ', '_') | list
range(10) | select('odd') | list, range(10) | reject('odd') | list, [0, 1, '', 'a'] | select | list
[0, 1, '', 'a'] | reject | list, range(10) | select('divisibleby', 3) | list, range(5) | select('>', 2) | list
people | selectattr('city') | map(attribute='name') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | rejectattr('age', '==', 30) | map(attribute='name') | list
people | rejectattr('city', 'defined') | map(attribute='name') | list
messages | selectattr('role', 'in', ['user', 'tool']) | list | length
messages | rejectattr('role', 'equalto', 'system') | first
l | select('nope') | list
people | groupby('age')
people | groupby('city', default='none') | map(attribute='grouper') | list
people | groupby('city', default='') | map('last') | map('length') | list
people | groupby('city')
d | items | list, {} | items | list, undefined_thing | items | list
d.a | tojson, l | tojson, s | tojson, u | tojson, html | tojson, none | tojson, t | tojson, x | tojson, big | tojson
u | tojson(ensure_ascii=true), d.a | tojson(indent=2), [] | tojson(indent=2), [[]] | tojson(indent=0)
d.a | tojson(separators=(',', ':')), {'b': 1, 'a': 2} | tojson(sort_keys=true), d.a | tojson(indent='--')
{1: 2, true: 3, none: 4, 1.5: 5} | tojson, (1, 2) | tojson, [1.0, 1e100, -0.0] | tojson
{(1, 2): 3} | tojson
range(3) | tojson
'\x00\x1f\x7f\u2028"\\/' | tojson, '\x7f🙂' | tojson(ensure_ascii=true)
tools[0] | tojson(indent=4)
'5' | int, '5.7' | int, 5.7 | int, -5.7 | int, 'x' | int, 'x' | int(9), none | int, '' | int, true | int
'0x1F' | int(base=16), '1F' | int(0, 16), '0b11' | int(base=2), '1_000' | int, ' 42 ' | int, '+7' | int, '-7' | int
[] | int, '1e3' | int, 'inf' | int, 'nan' | int
'1.5' | float, 5 | float, 'x' | float, 'x' | float(2.0), none | float, '1e3' | float, 'inf' | float, '-inf' | float, 'nan' | float
2.5 | round, 3.5 | round, 2.675 | round(2), 42 | round, 1234.567 | round(-2), 2.1 | round(method='ceil'), -2.1 | round(0, 'floor')
1234 | round(-2), 1250 | round(-2), 1350 | round(-2), 2.567 | round(1, 'floor'), 5 | round(1, 'ceil')
2.5 | round(0, 'up')
'a' | round
-5 | abs, x | abs, true | abs
'a' | abs
s | center(20), s | center, 'ab' | center(5), 'abc' | center(6), 'abc'.center(6, '*'), 'ab'.center(5, '*')
html | escape, html | e, html | safe, html | escape | escape, html | forceescape, 5 | escape, html | striptags
html | safe | escape, html | safe | forceescape, (html | safe) ~ '<b>', (html | safe) + '<b>', '<b>' + (html | safe)
('<i>' | safe) * 2, ('<i>%s' | safe) % '<b>', ('a<' | safe).upper(), ('a' | safe).replace('a', '<')
'<p>a &lt; b</p> <!-- c --> d' | striptags, '<a' | striptags
'%s and %d' | format('a', 5), '%(a)s-%(b)05.1f' | format(a='x', b=2.25), '%s' | format([1])
'%s' | format
'%d' % 5.9, '%5d|%-5d|%05d|%+d|% d' % (1, 2, 3, 4, 5), '%x %X %o %#x %#o' % (255, 255, 8, 255, 8), '%c%c' % (65, 'b')
'%.2f %e %g %G %5.1f%%' % (1.5, 12345.678, 1e-5, 1e20, 2.25), '%s %r %a' % ('é', 'é', 'é'), '%.2s|%5s|%-5s|' % ('abc', 'd', 'e')
'%s' % none, '%s' % [1, 2], '%s %s' % (1, 2), '%(x)s' % {'x': 1}, '%.3d' % 5, '%*d' % (5, 42), 'x' % [], '%i' % 5
'%s %s' % 1
'%s' % (1, 2)
'%d' % 'a'
'%z' % 1
'{} {}'.format(1, 'a'), '{1} {0}'.format(1, 2), '{a} {b[0]} {c.b}'.format(a=1, b=[2], c=d), '{{}}'.format()
'{:5}|{:<5}|{:>5}|{:^5}|{:*^7}'.format(1, 2, 3, 4, 'x'), '{:05d} {:+} {:,} {:_} {:x} {:#b}'.format(42, 5, 1234567, 1234567, 255, 5)
'{:.2f} {:.3} {:e} {:g} {:%} {:8.3f}|'.format(1.005, 2.0, 3.5, 1e10, 0.25, 2.5), '{!r} {!s}'.format('a', 'b'), '{:.2}'.format('abc')
'{:{}}|'.format(1, 5), '{0:>{w}}'.format('a', w=4), '{:10.1f}|'.format(2.25), '{:,.2f}'.format(1234567.891), '{:d}'.format(true)
'{} {}'.format(1)
'{0} {}'.format(1, 2)
'{x}'.format(1)
'{'.format(1)
'{:d}'.format('a')
'a,b,c'.split(','), 'a,b,c'.split(',', 1), ' a  b '.split(), ' a  b c'.split(none, 1), 'a,b,c'.rsplit(',', 1), ' a b '.rsplit(none, 1), ''.split(), ''.split(',')
'a'.split('')
'a\nb\r\nc\rd\n'.splitlines(), 'a\nb\n'.splitlines(true), 'a\x0bb\x85c\u2028d'.splitlines()
'xxabcxx'.strip('x'), 'abcba'.lstrip('ab'), 'abcba'.rstrip('ab'), '\u00a0a\u3000'.strip(), '  a '.lstrip() ~ '|', ' a '.rstrip() ~ '|'
s.startswith('Hell'), s.startswith(('x', 'H')), s.endswith('ld'), s.endswith(('a', 'b')), s.startswith('ello', 1), s.startswith('')
s.find('o'), s.find('zz'), s.rfind('o'), s.index('o'), s.count('o'), s.count('l'), u.find('州'), u.rfind('州'), s.find('o', 5), 'aaa'.count('aa'), 'abc'.count('')
s.index('zz')
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), u.upper(), 'ß'.casefold() == 'ss' or true
'-'.join(['a', 'b']), ''.join([]), '-'.join('abc'), ', '.join(d)
'-'.join([1])
'abc'.replace('b', 'x'), 'aaa'.replace('a', 'b', 2), 'abc'.replace('', '-'), 'é'.replace('', '-')
'abc'.removeprefix('ab'), 'abc'.removesuffix('bc'), 'abc'.removeprefix('x')
'123'.isdigit(), '12a'.isdigit(), ''.isdigit(), '²'.isdigit(), 'abc'.isalpha(), 'é杭'.isalpha(), 'a1'.isalnum(), ' \t'.isspace(), ''.isspace()
'ABC'.isupper(), 'abc'.islower(), 'Abc Def'.istitle(), 'abc'.isascii(), 'é'.isascii(), '½'.isnumeric(), '٣'.isdecimal(), 'a_1'.isidentifier(), 'a b'.isidentifier()
'42'.zfill(5), '-42'.zfill(5), '+4'.zfill(4), 'ab'.ljust(4) ~ '|', 'ab'.rjust(4), 'ab'.ljust(4, '*'), 'ab'.rjust(1)
'a-b-c'.partition('-'), 'a-b-c'.rpartition('-'), 'abc'.partition('-'), 'abc'.rpartition('-')
'a\tb'.expandtabs(4), 'a\tb'.expandtabs()
[1, 2, 1].count(1), [1, 2].index(2), (1, 2).index(2), (1, 1).count(1), [1, 2].copy()
[1].index(5)
l.append(4)
l.pop()
d.update({'z': 1})
d.pop('b')
l.append, l.append is defined
s.__class__, s.__class__ is defined
s['upper'](), s['__class__'] is defined
range(5), range(1, 5), range(0, 10, 3), range(5, 0, -2), range(3) | list, range(0) | list, range(5)[1], range(3) == range(0, 3)
range()
range(1, 2, 0)
range(200000)
dict(a=1, b=2), dict([('a', 1)], b=2), dict({'x': 1}), dict()
namespace(a=1).a, namespace({'b': 2}).b, namespace(a=1), namespace().x is defined, namespace(a=5)['a']
html | urlencode, {'a': 'x y', 'b/': 'é&'} | urlencode, [('a', 1)] | urlencode, 'a/b c' | urlencode, 5 | urlencode
{'a': 1, 'b': none, 'c': '<'} | xmlattr, {} | xmlattr, {'a': 1} | xmlattr(false)
{'a b': 1} | xmlattr
'a b  c-d é' | wordcount, '' | wordcount, 5 | wordcount
'foo bar baz qux' | truncate(9), 'foo bar baz qux' | truncate(9, true), 'foo bar baz qux' | truncate(11), 'foo bar baz qux' | truncate(11, false, '', 0), u | truncate(5, true, '…', 0)
'foo bar' | truncate(1)
'a\nb\n\nc' | indent, 'a\nb\n\nc' | indent(2, true), 'a\n\nb' | indent(2, blank=true), 'a\nb' | indent('> '), '' | indent
5 | indent
'The quick brown fox jumps over' | wordwrap(10), 'abcdefghijkl mn' | wordwrap(5), 'abcdefghijkl mn' | wordwrap(5, false), 'a b\nc d' | wordwrap(1, wrapstring='|'), 'well-known words' | wordwrap(6)
1 | filesizeformat, 0 | filesizeformat, 999 | filesizeformat, 1000 | filesizeformat, 1234567 | filesizeformat, 1024 | filesizeformat(true), 1e30 | filesizeformat, '300' | filesizeformat
d | attr('b') is defined, s | attr('upper') is defined
n | string, none | string, l | string, x | string, s | string
l | list, s | list, d | list, u | list, n | string | list
n | list
l | map('string') | length
(l | map('string')) is sequence, (l | map('string')) | first, (l | select) and true, [] | select and true
(d.items()) | sort, d.keys() | sort, d.items() | first, d.items()[0] is defined
cycler('a', 'b').next(), cycler('a').current
strftime_now('%Y-%m-%d'), strftime_now('%d %b %Y'), strftime_now('%B %-d')
raise_exception('no')
(1, 2) | sum, ('a',), ((1)), (), ('a', 'b') | join
l | length > 2, l | length + 1, l|length - 1, -l|length, not l | length
n is defined if t, [n if t else x, 2], {'a': n if f else 'z'}
l.0, l.0.x is defined, 'abc'.0
[1, 2,], (1, 2,), {'a': 1,}
s.split(', ')[0].lower().upper() | lower | title
loop is defined
"%s" % "x" ~ 'y', 'a' ~ 'b' * 2, 1 ~ 2 + 3
[l, d] | map('length') | list, [s, u] | map('upper') | map('lower') | list
'a' in ['a', 'b'] and 'c' not in ['a'], not 'a' in 'b', 1 in [true]
dict(**{'a': 1}), dict(*[[('b', 2)]]), '{} {}'.format(*[1, 2]), '{a}'.format(**{'a': 1})
1.0, 100.0, 1.10, 3.14159, 1e2, 5e-324, 1.7976931348623157e308, 0.1, 1/3, 2/3
1 is sameas true, 1.0 is integer, none == false, '' == none, 0 == false
""".strip("\n").split("\n")

INVALID = """
{{
{{ }}
{{ 1 + }}
{{ (1 }}
{{ [1 }}
{{ 1) }}
{{ 'a }}
{{ a b }}
{{ a..b }}
{{ a. }}
{{ a[] }}
{{ 012 }}
{{ 1a }}
{{ $ }}
{{ a ; b }}
{{ a = b }}
{{ f(a=1, 2) }}
{{ f(**a, *b) }}
{{ {1} }}
{{ {1: } }}
{{ a is }}
{{ a | }}
{{ a | 5 }}
{{ a | nope }}
{{ a is nope }}
{{ +}}
{% %}
{% if %}x{% endif %}
{% if a %}
{% if a %}{% endfor %}
{% endif %}
{% else %}
{% for %}{% endfor %}
{% for x in %}{% endfor %}
{% for x of l %}{% endfor %}
{% for loop in l %}{% endfor %}
{% for x.y in l %}{% endfor %}
{% for true in l %}{% endfor %}
{% for x in l %}
{% set %}
{% set x %}
{% set 5 = 1 %}
{% set none = 1 %}
{% set x.y = 1 %}
{% set x = %}
{% macro %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m(a %}{% endmacro %}
{% call x %}{% endcall %}
{% break %}
{% continue %}
{% nope %}
{% raw %}
{# x
{% if a = 1 %}{% endif %}
{% for a, b in l %}{% endfor %}
{% set a, b = 1 %}
{% filter nope %}{% endfilter %}
{% set s = 'x' %}{% set s.y = 1 %}
{% if a if b else c %}x{% endif %}
{% if false %}{{ 1 | nope }}{% endif %}ok
{% if true %}{{ 1 | nope }}{% endif %}ok
{{ 1 | nope if false else 2 }}
{{ 1 | nope if true else 2 }}
{% if 'nope' is filter %}{{ 1 | nope }}{% else %}no{% endif %}
""".strip("\n").split("\n")

TEMPLATES = [
    # White space.
    "a\n", "a\n\n", "\n", "a\r\nb\rc", "  {% if t %}\n  x\n  {% endif %}\n  y",
    "a {%- if t %} b {%- endif %} c", "a {% if t -%} b {% endif -%} c", "  {%+ if t %}x{% endif %}",
    "{% if t %}\n\nx{% endif %}", "{% if t +%}\nx{% endif %}", "a\n  {{ n }}  \n b",
    "a  {{- n -}}  b", "a\n  {#- c -#}\n b", "a\n  {# c #}\n b", "a\n  {# c #} d\n b", "{##}x{# a #}\n",
    "x {#- -#} y", "x\n\t {% set a = 1 %}\n\ty{{ a }}", "x {% set a = 1 %}\n y", "a\n  {{+ n }} b",
    "{% raw %}{{ n }}{% if %}{% endraw %}", "a {%- raw -%}  x {{ n }}  {%- endraw -%} b",
    "  {% raw %}\n x\n  {% endraw %}\n y", "{% raw %}{# {% endraw %}", "{{ '{{' }} {{ '%}' }} }} %} #}",
    "{ { n } } { % {", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "a{% set x = 1 %}\n\nb",
    "{% for i in l %}\n{{ i }}\n{% endfor %}\nend", "{%for i in l%}{{i}}{%endfor%}", "{{n}}{{-n}}{{- n}}",
    "\u00a0{%- if t %}x{% endif %}", "x\u2003{%- if t -%}\u2003y{% endif %}", "{%- if t -%}\n\n  x\n\n{%- endif -%}\n",
    "  {% if t %} a {% endif %}  \n  b", "\t{% if t %}\t\n\ta{% endif %}", "a{#\n\n#}\nb", "{{ 1 }}\n{{ 2 }}\n",
    "{%- set x = 1 %}\n  {%- set y = 2 %}\n{{ x ~ y }}", "a\n{%- if t %}\n    b\n{%- endif %}\n",
    # Conditions.
    "{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}", "{% if f %}a{% elif t %}b{% else %}c{% endif %}",
    "{% if f %}a{% elif f %}b{% else %}c{% endif %}", "{% if f %}a{% endif %}", "{% if (n if t else 0) %}a{% endif %}",
    "{% if not f and t %}a{% endif %}", "{% if undefined_thing %}a{% else %}b{% endif %}",
    "{% if t %}{% if f %}{% else %}{% if t %}deep{% endif %}{% endif %}{% endif %}", "{% if [] %}a{% elif {} %}b{% elif '' %}c{% elif 0.0 %}d{% else %}e{% endif %}",
    # Loops.
    "{% for i in l %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}", "{% for i in l %}{{ i }}{% else %}none{% endfor %}",
    "{% for i in undefined_thing %}x{% else %}none{% endfor %}", "{% for i in n %}{% endfor %}", "{% for i in none %}{% endfor %}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% endfor %}",
    "{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for i in range(5) %}{{ loop.cycle('a', 'b', 'c') }}{% endfor %}", "{% for i in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }}{% endfor %}", "{% for i in l %}{{ loop }}{% endfor %}",
    "{% for i in range(10) if i is odd %}{{ i }}:{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
    "{% for i in l if i > 5 %}{{ i }}{% else %}none{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for c in u %}[{{ c }}]{% endfor %}",
    "{% for (a, (b, c)) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for a, in [(1,), (2,)] %}{{ a }}{% endfor %}", "{% for i in 1, 2, 3 %}{{ i }}{% endfor %}", "{% for x in (l if t else []) %}{{ x }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{% break %}{% else %}else{% endfor %}", "{% for i in l %}{% continue %}{% else %}else{% endfor %}",
    "{% for i in l %}{{ i }}{% if loop.last %}{% break %}{% endif %}{% else %}else{% endfor %}",
    "{% for i in l %}{% for j in 'ab' %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for i in l %}{% set outer = loop %}{% for j in 'ab' %}{{ outer.index }}.{{ loop.index }} {% endfor %}{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "{% for i in l %}{{ y is defined }}{% set y = 1 %}{{ y }}{% endfor %}{{ y is defined }}",
    "{% for i in l %}{% if t %}{% set z = i %}{% endif %}{{ z }}{% endfor %}", "{% if t %}{% set z = 5 %}{% endif %}{{ z }}",
    "{% set i = 9 %}{% for i in l %}{{ i }}{% endfor %}{{ i }}", "{% for i in l %}{{ i }}{% endfor %}{{ i is defined }}",
    "{% for n in nested recursive %}{% if n is iterable %}({{ loop(n) }}){% else %}{{ n }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for i in l %}{{ loop(l) }}{% endfor %}", "{% set g = l | map('string') %}{{ g | list }}{{ g | list }}", "{% for x in l | map('string') %}{{ loop.length }}{{ x }}{% endfor %}",
    "{% for x in l | map('string') %}{{ x }}{{ loop.last }}{{ loop.revindex }}{% endfor %}", "{% for i in l|sort|reverse %}{{ i }}{% endfor %}",
    "{% set ns = namespace(on=true) %}{% for i in range(5) if ns.on %}{{ i }}{% if i == 2 %}{% set ns.on = false %}{% endif %}{% endfor %}",
    "{% for i in l if loop.first %}{{ i }}{% endfor %}", "{% for x in {'a': 1}.values() %}{{ x }}{{ loop.length }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "{% for i in l %}{% set loop = 5 %}{{ loop }}{% endfor %}",
    # Assignments.
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = [1, 2] %}{{ a }}{{ b }}", "{% set a, b = [1] %}",
    "{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{% set ns.b = 'x' %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
    "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace() %}{% set ns.a, x = 1, 2 %}{{ ns.a }}{{ x }}", "{% set d.b = 2 %}", "{% set nope.b = 2 %}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x | length }}", "{% set x | upper | trim %}  a{{ n }}b  {% endset %}{{ x }}", "{% set x | replace('a', 'b') %}aa{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}", "{% set ns = namespace() %}{% set ns.t %}abc{% endset %}{{ ns.t }}",
    "{% set n = n + 1 %}{{ n }}", "{% set x = 'a' if f else none %}{{ x is none }}", "{% set x = undefined_thing %}{{ x is defined }}",
    "{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% set a = 5 %}{% with a=1, b=a %}{{ b }}{% endwith %}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('a', 'b') | upper %}banana{% endfilter %}", "{% filter trim %}  {% set v = 1 %}x {% endfilter %}{{ v is defined }}",
    "{% print n, s %}", "{% for i in l %}{% set x %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endset %}{{ x }}{% endfor %}",
    # Macros.
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=4, a=0) }} {{ m() }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(none) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(c=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}in {{ n }}{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}in{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k * (fact(k - 1) | int) }}{% endif %}{% endmacro %}{{ fact(10) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 5 %}{{ m() }}",
    "{% macro m() %}{{ n }}{% set n = 1 %}{% endmacro %}{{ m() }}{{ n }}", "{% set v = 1 %}{% macro m() %}{% set v = 2 %}{{ v }}{% endmacro %}{{ m() }}{{ v }}", "{{ m is defined }}{% macro m() %}{% endmacro %}{{ m is callable }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}", "{% macro m() %}  x  {% endmacro %}[{{ m() | trim }}]{{ m() | length }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}b{% endmacro %}{{ a() }}",
    "{% macro m(l) %}{% for i in l %}{{ i }}{% endfor %}{% endmacro %}{{ m([1, 2]) }}{{ m(*[[3]]) }}{{ m(**{'l': [4]}) }}", "{% macro m(caller) %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}", "{% set ns = namespace(c=0) %}{% macro m() %}{% set ns.c = ns.c + 1 %}{% endmacro %}{{ m() }}{{ m() }}{{ ns.c }}",
    "{% macro m(x, y='d') -%}\n  {{ x }}{{ y }}\n{%- endmacro %}\n[{{ m('a') }}]", "{% generation %}a{{ n }}{% set g = 1 %}{% endgeneration %}{{ g is defined }}",
    # Idioms of chat templates.
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | string | trim }}\n{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}<<SYS>>{{ system }}<</SYS>>{% for m in rest %}[{{ m.role }}]{% endfor %}",
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}!{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m.role not in ['user', 'assistant', 'system', 'tool'] %}{{ raise_exception('bad role ' + m.role) }}{% endif %}{% endfor %}ok",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is iterable and m.content is not none %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% elif c['type'] == 'image' %}<img>{% endif %}{% endfor %}{% endif %}|{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' and m.content %}{% set content = m.content %}{% if '</think>' in content %}{{ content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}#{{ content.split('</think>')[-1].lstrip('\\n') }}{% endif %}{% endif %}{% endfor %}",
    "{% for m in messages %}{% if loop.previtem and loop.previtem.role != m.role %}{{ loop.previtem.role }}>{{ m.role }} {% endif %}{% endfor %}",
    "{% set ns = namespace(last=-1, found=false) %}{% for m in messages[::-1] %}{% set i = messages | length - 1 - loop.index0 %}{% if m.role == 'user' and not ns.found %}{% set ns.found = true %}{% set ns.last = i %}{% endif %}{% endfor %}{{ ns.last }}",
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}", "{% for tool in tools %}{{ tool.function | tojson(indent=2) }}{% endfor %}",
    "{% for t in tools %}{% set t = t.function %}{{ t.name }}({% for k, p in t.parameters.properties.items() %}{{ k }}: {{ p.type }}{{ ', ' if not loop.last }}{% endfor %}){% endfor %}",
    "{% for m in messages if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% for k, v in c.function.arguments.items() %}<{{ k }}={{ v }}>{% endfor %}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}calls{% elif 'tool_calls' in m %}empty{% else %}-{% endif %}{% endfor %}",
    "{% set tools = tools if tools is defined else none %}{% if tools is not none %}{{ tools | length }}{% endif %}", "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}Today: {{ date_string }}",
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}", "{% if enable_thinking is defined and enable_thinking is false %}a{% else %}b{% endif %}",
    "{{- bos_token }}\n{%- if messages[0].role == 'system' %}\n    {{- messages[0].content | trim }}\n{%- endif %}\n{{- eos_token }}\n",
    "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}{{ users | length }}{{ users[-1].content[0].text }}", "{{ messages | map(attribute='role') | join(',') }}",
    "{{ (messages | last).role }} {{ (messages | first)['role'] }} {{ messages[-1]['content'] }}", "{% set roles = [] %}{% for m in messages %}{% set roles = roles + [m.role] %}{% endfor %}{{ roles }}",
    "{% macro render(m) %}<|{{ m.role }}|>{{ m.content if m.content is string else m.content | tojson }}{% endmacro %}{% for m in messages %}{{ render(m) }}{% endfor %}",
    "{%- set first = messages | selectattr('role', 'in', ['system', 'developer']) | map(attribute='content') | first | default('none', true) -%}{{ first }}",
    "{%- for m in messages %}\n  {%- if m.role == 'user' -%}\n    U\n  {%- elif m.role == 'assistant' -%}\n    A{{ eos_token }}\n  {%- endif -%}\n{%- endfor -%}",
    "{{ '<|im_start|>' ~ 'x' ~ '\\n' }}{{ \"double \\\"quotes\\\"\" }}", "{% for m in messages %}{{ loop.index0 }}{{ '' if loop.last else ',' }}{% endfor %}", "{{ messages[0].content.strip().replace('.', '!') + ' ' + messages | length | string }}",
    "{% for k, v in tools[0].function | dictsort %}{{ k }};{% endfor %}", "{% set x = {'a': 1} %}{% set x = dict(x, **{'b': 2}) %}{{ x }}", "{{ tools[0].function.parameters.required | join(', ') if tools[0].function.parameters.required else 'no' }}",
    "{% for a in (messages[4].tool_calls[0].function.arguments | items) %}{{ a[0] }}:{{ a[1] }} {% endfor %}", "{%- macro type_of(p) -%}{%- if p.type == 'string' -%}str{%- elif p.type == 'integer' -%}int{%- endif -%}{%- endmacro -%}{% for k, p in tools[0].function.parameters.properties | items %}{{ k }}: {{ type_of(p) }}\n{% endfor %}",
]


def main():
    env = environment()
    cases = []
    for line in EXPRESSIONS:
        cases.append("{{ " + line + " }}")
    cases += INVALID + TEMPLATES
    out = []
    for source in dict.fromkeys(cases):
        case = {"template": source}
        try:
            rendered = env.from_string(source).render(**VARIABLES)
            if " at 0x" in rendered:
                continue
            case["rendered"] = rendered
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, AssertionError,
                LookupError, AttributeError, SyntaxError):
            pass
        out.append(case)
    path = pathlib.Path(__file__).resolve().parent.parent / "tests/data/template-cases.json"
    text = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in out)
    variables = json.dumps(VARIABLES, ensure_ascii=False)
    path.write_text('{"variables": %s,\n "cases": [\n  %s\n]}\n' % (variables, text), encoding="utf-8")
    print(len(out), "cases,", sum("rendered" not in case for case in out), "of them errors")


if __name__ == "__main__":
    main()
