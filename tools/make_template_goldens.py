#!/usr/bin/env python3
"""Renders the test templates and a list of expressions with Python's jinja2, under the settings that transformers
uses for chat templates. Output: tests/golden/templates/golden.json.

    python3 -m venv VENV && VENV/bin/pip install jinja2==3.1.6
    TZ=UTC VENV/bin/python tools/make_template_goldens.py [DIRECTORY_OF_TEMPLATES]
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

NOW = 1795046400  # 2026-11-19T00:00:00Z, what strftime_now shows


class Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} renders its body in a scope of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

    def render(self, caller):
        return caller()


class Refusal(jinja2.TemplateError):
    pass


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Refusal(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)
    return env


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a place, \"now\".",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "City & country, e.g. <Orléans>"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": None},
            "days": {"type": ["integer", "number"], "minimum": 1, "maximum": 7.5}},
            "required": ["place"]}}},
    {"type": "function", "function": {
        "name": "stop", "description": "Nothing more.\n", "parameters": {"type": "object", "properties": {}},
        "return": {"type": "object", "additionalProperties": {"type": "boolean"}}, "strict": True}},
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def call(name, arguments, number=1):
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": " Speak plainly. "}
CONTEXTS = {
    "one_question": {"messages": [user("  Hello, what's «up»?\n")]},
    "no_prompt": {"messages": [user("Hi")], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, user("Salut ça va ?")]},
    "turns": {"messages": [SYSTEM, user("1+1?"), assistant(" 2 "), user("2+2?"), assistant("4"), user("😀?")]},
    "tools": {"messages": [SYSTEM, user("Weather in Orléans?")], "tools": TOOLS},
    "tool_call": {"messages": [
        user("Weather?"), assistant("", tool_calls=[call("get_weather", {"place": "Orléans", "days": 3, "x": 1.5, "deep": {"a": [1, None, True]}})]),
        {"role": "tool", "content": "{\"temp\": 21}", "tool_call_id": "call00001", "name": "get_weather"}], "tools": TOOLS},
    "two_calls": {"messages": [
        user("Both?"), assistant("Let me see.", tool_calls=[call("get_weather", {"place": "A"}, 1), call("get_weather", {"place": "B"}, 2)]),
        {"role": "tool", "content": "1°", "tool_call_id": "call00001"}, {"role": "tool", "content": "2°", "tool_call_id": "call00002"},
        assistant("A: 1°, B: 2°"), user("Thanks")], "tools": TOOLS},
    "null_content": {"messages": [user("Go"), assistant(None, tool_calls=[call("stop", {})]), {"role": "tool", "content": "done"}], "tools": TOOLS},
    "string_arguments": {"messages": [user("Go"), assistant("x", tool_calls=[call("stop", "{\"a\": 1}")])]},
    "thinking": {"messages": [user("Why?"), assistant("<think>\nBecause\n</think>\n\nSo."), user("And?"),
                              assistant("Well", reasoning_content="\nHm\n")], "extra": {"enable_thinking": True, "thinking": True}},
    "no_thinking": {"messages": [user("Why?")], "extra": {"enable_thinking": False}},
    "parts": {"messages": [user([{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "nice?"}])]},
    "two_questions": {"messages": [user("a"), user("b")]},
    "assistant_first": {"messages": [assistant("a"), user("b")]},
    "unknown_role": {"messages": [user("a"), {"role": "oracle", "content": "b"}]},
    "builtin_tools": {"messages": [SYSTEM, user("Search"), assistant("", tool_calls=[call("brave", {"query": "x", "lang": "fr"})])],
                      "extra": {"builtin_tools": ["brave", "code_interpreter"], "tools_in_user_message": False, "date_string": "1 May 2025"}},
    "tools_apart": {"messages": [user("Weather?")], "tools": TOOLS, "extra": {"tools_in_user_message": False}},
    "empty": {"messages": []},
}
VALUES = {"messages": [user("hi")], "extra": {
    "n": 3, "f": 2.5, "big": 1e20, "small": 1e-7, "whole": 2.0, "large": 2**64 - 1, "t": True, "no": False, "none_": None, "s": "Hello World", "u": "Élan 日本 😀", "q": "it's",
    "qq": "it's \"x\"", "lines": "a\nb\r\n\n c\n", "html": "<a href=\"x\">&</a>", "numbers": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "d": {"b": 1, "a": 2, "C": 3}, "nested": {"x": {"y": [10, {"z": "deep"}]}, "items": "taken", "get": 7}, "people": [
        {"name": "Bo", "age": 3, "tags": ["x"]}, {"name": "al", "age": 1}, {"name": "Cy", "age": 2, "tags": []}], "empty_list": [], "empty_dict": {}, "blank": "", "sp": "  x y  ", "ctl": "\u0001\u007f\u00a0\u200b\u2028é"}}

SNIPPETS = r"""
{{ n }} {{ f }} {{ big }} {{ small }} {{ whole }} {{ t }} {{ no }} {{ none_ }} {{ s }} {{ missing }}|
{{ numbers }} {{ words }} {{ mixed }} {{ d }} {{ nested }} {{ people }}
{{ [q, qq, u, ctl, lines] }}
{{ (1,) }} {{ (1, 2) }} {{ () }} {{ [] }} {{ {} }} {{ {'a': 1, 2: 'b', none: true, 1.5: []} }}
{{ 1 + 2 }} {{ 1 + 2.0 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 1e16 }} {{ 1e15 }} {{ 123456789012345680.0 }} {{ 0.1 + 0.2 }} {{ 1e-4 }} {{ 1e-5 }} {{ 1.0 }} {{ 100.0 * 3 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1.5e3 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' == 'a' != 'b' }} {{ none == none }} {{ missing == missing2 }}
{{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 2 in numbers }} {{ 'b' in d }} {{ 'z' in missing }} {{ 1 in [true] }} {{ 'b' in d.keys() }} {{ 1 in d.values() }}
{{ not true }} {{ not missing }} {{ true and 'x' }} {{ '' or 'y' }} {{ 0 or none }} {{ 1 and 0 or 2 }} {{ not 1 == 2 }} {{ true and not false }}
{{ 'yes' if n > 2 else 'no' }} {{ 'yes' if n > 5 }}| {{ 1 if false else 2 if false else 3 }}
{{ 'a' ~ 1 ~ none ~ true ~ missing ~ 1.5 }} {{ 'a' + 'b' ~ 'c' }} {{ 1 ~ 2 + '3' }}
{{ 'ab' * 3 }} {{ 2 * [1, 2] }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ '' * 5 }}| {{ 'x' * -1 }}|
{{ 'a' 'b' "c" }} {{ 'tab\there' }} {{ 'nl\nx' }} {{ 'q\'q' }} {{ "\x41\u00e9\U0001F600" }} {{ 'back\\slash' }} {{ 'odd\q' }} {{ '\101' }}
{{ s[0] }} {{ s[-1] }} {{ s[99] }}| {{ u[0] }} {{ u[5] }} {{ u[-1] }} {{ numbers[0] }} {{ numbers[-1] }} {{ numbers[5] }}| {{ d['a'] }} {{ d.b }} {{ d['zz'] }}| {{ d.zz }}|
{{ s[1:3] }} {{ s[:3] }} {{ s[-3:] }} {{ s[::-1] }} {{ s[::2] }} {{ s[5:1] }}| {{ s[10:1:-2] }} {{ u[::-1] }} {{ u[5:7] }} {{ numbers[1:] }} {{ numbers[::-1] }} {{ numbers[-2:] }} {{ (1,2,3)[1:] }} {{ numbers[:100] }} {{ numbers[:-1] }}
{{ nested.x.y[1].z }} {{ nested['x']['y'][0] }} {{ nested.x.y.1.z }} {{ nested['items'] }} {{ nested.get('get') }} {{ nested['get'] }}
{{ nested.items() | list | length }} {{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ d.get('a') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.items() | list }}
{{ missing is defined }} {{ n is defined }} {{ missing is undefined }} {{ d.zz is defined }} {{ none_ is none }} {{ n is none }} {{ none_ is defined }} {{ n is not none }}
{{ s is string }} {{ n is string }} {{ n is number }} {{ t is number }} {{ f is float }} {{ n is integer }} {{ t is integer }} {{ t is boolean }} {{ d is mapping }} {{ numbers is mapping }} {{ numbers is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }} {{ missing is sequence }}
{{ s is iterable }} {{ n is iterable }} {{ d is iterable }} {{ missing is iterable }} {{ none_ is iterable }} {{ range is callable }} {{ s is callable }} {{ t is true }} {{ no is false }} {{ 1 is true }} {{ 0 is false }}
{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 1 is sameas 1 }} {{ 1 is sameas true }} {{ 1 is in [1, 2] }} {{ 5 is not in [1, 2] }} {{ 1 is eq 1 }} {{ 1 is ne 1 }} {{ 2 is gt 1 }} {{ 2 is lessthan 1 }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }}
{{ s|upper }} {{ s|lower }} {{ u|upper }} {{ 'hello world-foo (bar) it\'s'|title }} {{ 'hELLO wORLD'|capitalize }} {{ 'straße'|upper }} {{ 'ǆ'|capitalize }} {{ 'ßa'|capitalize }}
{{ sp|trim }}| {{ 'xxaxx'|trim('x') }} {{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 1) }} {{ 'aaa'|replace('', '-') }} {{ n|replace('3', 4) }} {{ s|length }} {{ u|length }} {{ numbers|length }} {{ d|count }} {{ missing|length }}
{{ numbers|sort }} {{ numbers|sort(reverse=true) }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ people|sort(attribute='age')|map(attribute='name')|list }} {{ people|sort(attribute='name')|map(attribute='name')|join(',') }}
{{ numbers|join }} {{ numbers|join(', ') }} {{ people|join('/', attribute='name') }} {{ 'abc'|join('.') }} {{ [1, none, true, missing]|join('-') }} {{ []|join(',') }}|
{{ numbers|first }} {{ numbers|last }} {{ []|first }}| {{ 'abc'|first }} {{ 'abc'|last }} {{ d|first }} {{ numbers|min }} {{ numbers|max }} {{ words|min }} {{ numbers|sum }} {{ people|sum(attribute='age') }} {{ people|sum('age', 10) }} {{ people|map(attribute='age')|max }}
{{ numbers|reverse|list }} {{ 'abc'|reverse }} {{ numbers|list }} {{ 'abc'|list }} {{ d|list }} {{ [1,1,2,'a','A']|unique|list }} {{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3,4,5]|batch(2, 0)|list }} {{ [1,2,3,4,5]|slice(2)|list }} {{ [1,2,3,4,5]|slice(3, 'x')|list }}
{{ none|selectattr('age', 'gt', 1)|map(attribute='name')|list }} {{ none|map(attribute='x')|list }} {{ false|map('upper')|list }} {{ 0|select|list }} {{ ''|reject('odd')|list }} {{ none|rejectattr('a')|list|length }}
{{ people|selectattr('age', 'gt', 1)|map(attribute='name')|list }} {{ people|selectattr('tags')|list|length }} {{ people|rejectattr('tags', 'defined')|map(attribute='name')|list }} {{ people|selectattr('name', 'equalto', 'Bo')|list }} {{ numbers|select('odd')|list }} {{ numbers|reject('odd')|list }} {{ [0, 1, '', 'a']|select|list }} {{ mixed|select('string')|list }} {{ numbers|select('in', [1, 2])|list }}
{{ words|map('upper')|list }} {{ people|map(attribute='tags', default='none')|list }} {{ [[1, 2], [3]]|map('length')|list }} {{ ['a']|map('replace', 'a', 'b')|list }} {{ [' x ']|map('trim')|join }} {{ people|map(attribute='tags.0', default='-')|list }}
{{ d|items|list }} {{ missing|items|list }} {{ d|dictsort }} {{ d|dictsort(by='value', reverse=true) }} {{ d|dictsort(true) }}
{{ missing|default('x') }} {{ none_|default('x') }} {{ ''|default('x', true) }} {{ ''|d('y', boolean=true) }} {{ 0|default(1) }} {{ d.zz|default({}) }}
{{ '12'|int }} {{ ' 12 '|int }} {{ '1_0'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.9'|int }} {{ 3.9|int }} {{ -3.9|int }} {{ '0x1f'|int(base=16) }} {{ '1f'|int(base=16) }} {{ none_|int }} {{ true|int }} {{ '1e3'|int }} {{ '-5'|int }}
{{ '1.5'|float }} {{ 'x'|float }} {{ 'x'|float(2.5) }} {{ 3|float }} {{ '1e3'|float }} {{ ' 2 '|float }} {{ none_|float }} {{ '.5'|float }} {{ '1_0.5'|float }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(method='ceil') }} {{ 2.9|round(method='floor') }} {{ 1234|round(-2) }} {{ 3|round }} {{ 42.55|round(1) }} {{ -3|abs }} {{ -3.5|abs }}
{{ none_|string }} {{ 1.0|string }} {{ [1]|string }} {{ true|string ~ 'x' }} {{ missing|string }}|
{{ d|tojson }} {{ mixed|tojson }} {{ u|tojson }} {{ qq|tojson }} {{ ctl|tojson }} {{ html|tojson }} {{ 1.0|tojson }} {{ 1e20|tojson }} {{ none_|tojson }} {{ (1, 2)|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}
{{ d|tojson(indent=2) }} {{ nested|tojson(indent=4) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }} {{ [[], {}, [1]]|tojson(indent=1) }} {{ [1, 2]|tojson(indent=0) }} {{ [1]|tojson(indent='\t') }}
{{ u|tojson(ensure_ascii=true) }} {{ ctl|tojson(ensure_ascii=true) }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ d|tojson(indent=1, separators=(', ', '=')) }} {{ d|tojson(true) }}
{{ lines|indent }} {{ lines|indent(2, true) }} {{ lines|indent(2, blank=true) }} {{ lines|indent('> ') }} {{ 'one'|indent }} {{ ''|indent(first=true) }}|
{{ 'a b c d e f g'|truncate(5) }} {{ 'a b c d e f g'|truncate(5, true) }} {{ 'a b c d e f g'|truncate(5, true, '..', 0) }} {{ 'abcdefghij'|truncate(5, leeway=0) }} {{ 'abc'|truncate(5) }} {{ 'a b, c-d'|wordcount }} {{ 'ab'|center(7) }}| {{ 'abc'|center(6) }}| {{ 'ab'|center(5) }}|
{{ html|e }} {{ html|escape|string }} {{ html|safe }} {{ html|safe + '<' }} {{ '<' + html|safe }} {{ html|safe ~ '<' }} {{ (html|safe)|length }} {{ [html|safe, '<']|join }} {{ (html|e)|replace('&', '!') }} {{ html|safe|upper }} {{ (html|safe)[0:3] + '>' }} {{ html|forceescape }} {{ ('<'|e) == '&lt;' }} {{ ['<'|e] }}
{{ '%s and %d'|format('x', 3) }} {{ '%5.2f|%-5s|%05d|%x|%%'|format(3.14159, 'ab', 42, 255) }} {{ '%(a)s'|format(a=1) }} {{ '%s' % 'y' }} {{ '%s-%s' % (1, 2) }} {{ '%r' % 'z' }} {{ '%s' % [1] }} {{ '%+d' % 5 }} {{ '%e' % 12345.678 }} {{ '%g' % 0.00001 }}
{{ 'a,b,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} {{ ' a  b c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.rsplit(maxsplit=1) }} {{ 'abc'.split('b')[0] }} {{ ''.split() }} {{ ''.split(',') }} {{ lines.splitlines() }} {{ lines.splitlines(true) }}
{{ sp.strip() }}| {{ sp.lstrip() }}| {{ sp.rstrip() }}| {{ 'xyxaxy'.strip('xy') }} {{ 'éaé'.strip('é') }} {{ '\n\na\n'.lstrip('\n') }}|
{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x', 'H')) }} {{ s.startswith('lo', 3) }} {{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ u.find('日') }} {{ s.index('W') }} {{ s.count('l') }} {{ s.count('') }} {{ s.find('o', 5) }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ 'they\'re bill\'s'.title() }} {{ 'aBC'.capitalize() }} {{ 'aBc'.swapcase() }} {{ s.replace('o', '0') }} {{ s.replace('o', '0', 1) }} {{ ','.join(['a', 'b']) }} {{ ','.join(words) }}
{{ 'abc'.isalpha() }} {{ '12'.isdigit() }} {{ '½'.isnumeric() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ ''.isalpha() }}
{{ 'x'.ljust(3) }}| {{ 'x'.rjust(3, '.') }} {{ 'x'.center(4, '*') }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 'a') }} {{ '{x}'.format(x=none) }} {{ '{{}}'.format() }} {{ '{!r}'.format('a') }}
{{ numbers.index(2) }} {{ numbers.count(1) }} {{ (1, 2).index(2) }} {{ d.copy() }} {{ numbers.copy() }}
{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ range(3) }} {{ range(1, 10, 3)|length }} {{ range(0)|list }} {{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ dict(d, z=9) }} {{ range(5)[1:3]|list }} {{ range(5)[-1] }}
{% for x in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }} {% endfor %}
{% for x in [] %}x{% else %}none{% endfor %} {% for x in missing %}x{% else %}none{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for c in 'aé' %}{{ c }}.{% endfor %} {% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}
{% for x in range(10) if x % 2 %}{{ x }}{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %} {% for x in range(10) %}{% if x == 3 %}{% continue %}{% endif %}{% if x == 6 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% set ns = namespace(on=true) %}{% for x in [1,2,3,4] if ns.on %}{{ x }}{% if x == 2 %}{% set ns.on = false %}{% endif %}{% endfor %} {% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}
{% set ns = namespace(on=true) %}{% for x in [1,2,3,4] if ns.on %}{{ x }}{{ loop.last }}{% if x == 2 %}{% set ns.on = false %}{% endif %}{% endfor %}
{% set x = 1 %}{% for i in [1] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }} {% if true %}{% set x = 3 %}{% endif %}{{ x }}
{% for i in [1,2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}{{ y }}| {% for i in [1, 2] %}{% for j in [3, 4] %}{{ i }}{{ j }}{{ loop.index }} {% endfor %}{{ loop.index }}{% endfor %}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t2 = 1, 2 %}{{ t2 }} {% set c = (1) %}{{ c }} {% set x = 'a' if no else 'b' %}{{ x }} {% set (p, q2) = [5, 6] %}{{ p }}{{ q2 }}
{% set ns = namespace(a=1, b='x') %}{{ ns.a }}{{ ns.b }}{{ ns.c }}| {% set ns.a = 5 %}{% set ns.c = [1] %}{{ ns.a }}{{ ns.c }}{{ ns['a'] }} {% set ns2 = namespace({'k': 1}, z=2) %}{{ ns2.k }}{{ ns2.z }} {{ ns.a is defined }}{{ ns.zz is defined }}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='y') }}{{ m(b=5, a=4) }}{{ m() }}{{ m(missing) }} {{ m(1)|length }} {{ m is callable }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }} {% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}
{% macro outer() %}<{{ caller('x') }}>{% endmacro %}{% call(v) outer() %}body {{ v }}{{ n }}{% endcall %} {% macro d2(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ d2(1) }} {% set g = 'g' %}{% macro see() %}{{ g }}{{ s }}{% endmacro %}{{ see() }}{% set g = 'h' %}{{ see() }}
{% set block %}  a {{ n }} {% endset %}[{{ block }}] {% set block2 | upper | trim %} abc {% endset %}[{{ block2 }}] {% filter upper %}abc {{ s }}{% endfilter %} {% filter replace('a', 'b')|trim %} aaa {% endfilter %}| {% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}| {% with %}{% set zz = 1 %}{{ zz }}{% endwith %}{{ zz }}|
{% if n == 3 %}three{% elif n == 4 %}four{% else %}other{% endif %} {% if no %}a{% elif t %}b{% endif %} {% if missing %}a{% else %}b{% endif %} {% if not missing and n %}c{% endif %}
{# comment #}a{#- c -#} b {#+ c +#} c {% raw %}{{ x }} {% if %}{% endraw %} {%- raw -%}  y  {%- endraw -%}  z
{% generation %}gen {{ n }}{% set hidden = 1 %}{% endgeneration %}{{ hidden }}| {{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %j %A') }}
{{ 'é'|tojson }} {{ '</script>'|tojson }} {{ '\u2028'|tojson }} {{ {'é': 'ü'} }} {{ 'a\u00adb\ufeff' }} {{ ['a\u00adb', '\ufeff', '\u0378', '\U0001F600', '\x7f'] }}
{{ messages[0].role }} {{ messages[0]['content'] }} {{ messages[-1].content }} {{ messages[0].content.upper() }} {{ messages|length }} {{ messages[0].keys()|list }} {{ messages[0] is mapping }} {{ 'role' in messages[0] }} {{ add_generation_prompt }} {{ bos_token }}{{ eos_token }} {{ tools }} {{ tools is none }}
{{ numbers|map('string')|join('+') }} {{ (numbers|map('string')) is iterable }} {{ numbers|map('int')|list|length }} {{ (n, f)|list }} {{ [n, [f]]|list|string|length }}
{{ n.zzz }}| {{ s.zzz }}| {{ numbers.zzz }}| {{ none_.x }}| {{ numbers['x'] }}| {{ s['upper']() }} {{ d['keys']()|list }} {{ n['x'] }}| {{ none_[0] }}| {{ d[numbers|first] }}|
{% set x = {'a': [1, 2, {'b': none}]} %}{{ x.a[2].b is none }} {{ x['a'][0:2] }} {{ x|tojson }} {{ x.a|length }} {{ x == {'a': [1, 2, {'b': none}]} }}
{{ "a" if "a" is in "abc" else "b" }} {{ 1 if not 0 }} {{ (1 if true else 2) + 1 }} {{ [1 if true else 2, 3] }} {{ {'k': 1 if no else 2} }} {{ 'x' if n is defined and n is not none and n > 2 else 'y' }}
{{ 3 - -2 }} {{ - 3|abs }} {{ (-3)|abs }} {{ -n }} {{ +n }} {{ 2 - 1 - 1 }} {{ 2 * 3 + 4 * 5 }} {{ (2 + 3) * 4 }} {{ 10 - 2 * 3 }} {{ not n in numbers }} {{ 'a' ~ 'b' in 'xaby' }} {{ '1' + 2 ~ 3 }}
{{ 1 is number and 'a' is string }} {{ n is defined or missing.x }} {{ missing is defined and missing.x }} {{ none_ is none or none_.x.y }} {{ [1, 2] is sequence and [1, 2]|length == 2 }}
{{ true|tojson }} {{ [true, false, none]|tojson }} {{ True }} {{ False }} {{ None }} {{ true|string|lower }} {{ {'a': True}|tojson }}
{% for p in people if p.tags is defined %}{{ p.name }}:{{ p.tags|length }}{% if not loop.last %}, {% endif %}{% endfor %} {% for p in people|sort(attribute='age') %}{{ loop.index }}.{{ p.name }} {% endfor %} {% for a, b in [[1, 2], [3, 4]] %}{{ a + b }} {% endfor %}
{{ large }} {{ large|tojson }} {{ {large: [large]}|tojson }} {{ [large] }} {{ large is integer }} {{ large is number }} {{ large is string }} {{ large == large }} {{ large > n }} {{ large in [1, large] }} {{ large|string|length }} {{ large|int }} {{ large|abs }} {{ large and 1 }}
{% for x in numbers %}{% break %}{% else %}none{% endfor %}|{% for x in numbers %}{% continue %}{% else %}none{% endfor %}|{% for x in numbers %}{% if x == 3 %}{% break %}{% endif %}{% else %}none{% endfor %}|{% for x in numbers %}{% if x == 1 %}{% break %}{% endif %}{% else %}none{% endfor %}|
{% if n is string %}{{ n|from_json }}{% elif no %}{{ n is nope }}{% else %}ok{% endif %} {{ n|nope if no else 'fine' }} {{ 'fine' if n else [n|nope] }} {% if no and n is nope %}x{% endif %} {% if no %}{% set x = n|nope %}{% with y = n|nope %}{% endwith %}{% endif %}
{{ loop }}| {% for x in [1] %}{% set inner = loop %}{% for y in [1, 2] %}{{ inner.index }}{{ loop.index }} {% endfor %}{% endfor %} {% for i in range(3) %}{{ '-' if not loop.first }}{{ i }}{% endfor %}
"""

# Sources of several lines, for white space control. Each is one snippet.
BLOCKS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc\n", "  {% set x = 1 %}  \n{{ x }}\n", "x {% if true %} y {% endif %} z\n\n",
    "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n", "{% for i in [1, 2] -%}\n  {{- i }}\n{%- endfor %}\nend", "  {#- c #}\n b {# c -#}\n  d", "\n\n  {{ 1 }}\n\n  {{- 2 -}}  \n\n{{ 3 }}\n",
    "  {%+ if true %}keep{% endif %}", "{% if true +%}\nkeep{% endif %}", "{% if true %}\n\nx{% endif %}", "{{ 1 }}\n{{ 2 }}", "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n", "\t{% if true %}\tx{% endif %}\t",
    "{{ '\n' }}{{ 'a\r\nb' }}", "{{\n  n\n  +\n  1\n}}", "{%\n  if n\n  == 3\n%}y{%\nendif\n%}", "{{ {'a': {'b': 1}}['a'] }} {{ {'a': 1}.a }}", "{{ \"}}\" }} {{ '%}' }} {% if '%}' == '%}' %}x{% endif %}",
    "{#\n multi\n line\n#}\nafter\n", "a {# x #} b\n {# y #}\nc", "  {% raw %}  \n {{ y }} \n  {% endraw %}\n z", "{% raw -%}\n x {%- endraw %}", "{ { % } {a} {{ '{' }} }} }", "{{ n }}{% if n %} {{ n }} {% endif -%}\n\n x",
    "\u00a0{%- if true %}\u2003x\u2003{%- endif %}", "x\n\u3000{% if true %}y{% endif %}", "{% if n %}a{%- else %}b{% endif %}", "{{- n }} {{ n -}} x", "a{%- set q = 1 %}\n{%- set r = 2 -%}\nb",
    "{% macro m() -%}\n  x\n{%- endmacro %}\n{{ m() }}\n", "{%- macro m(a) %}\n  {{ a }}\n{% endmacro -%}\n\n[{{ m(1) }}]", "{% set x %}\n  a\n{% endset %}\n[{{ x }}]",
    "{% if true: %}colon{% endif %}", "{% print 1, 'a' %}", "{%- for m in messages %}\n{%- if loop.first %}F{% endif %}\n{{ m.role }}\n{%- endfor %}\n", "line1\n{# a #}{# b #}\nline2\n", " {# a #} {# b #} \nx",
    "{% if n %}\n  {% if n %}\n    x\n  {% endif %}\n{% endif %}\n", "{%if n%}x{%endif%}{{n}}{%for i in numbers%}{{i}}{%endfor%}", "é\n  {% if n %}日{% endif %}\n",
]

# What must fail: at parsing or at rendering, with the reference's words where they are the template's own.
FAILURES = [
    "{{ raise_exception('No! ' ~ n) }}", "{{ missing.x }}", "{{ missing['x'] }}", "{{ missing + 1 }}", "{{ missing() }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}", "{{ none + 1 }}", "{{ n() }}", "{{ n|length }}", "{{ 1 / 0 }}",
    "{{ 1 in 'a' }}", "{{ 1 in none }}", "{{ 1 < 'a' }}", "{{ numbers|max(attribute='x') }}", "{% for x in n %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% set n.x = 1 %}", "{% for a, b in numbers %}{% endfor %}",
    "{{ numbers.append(1) }}", "{{ d.update({}) }}", "{{ d.pop('a') }}", "{{ [1]|tojson(indent=1, foo=2) }}", "{{ missing|tojson }}", "{{ range(1000000) }}", "{{ 'a'.index('z') }}", "{{ s.nope() }}", "{{ '%d' % 'a' }}",
    "{{ (x|map('upper'))[0].y }}", "{{ {[1]: 2} }}", "{{ d[[1]].x }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{{ 'abc'.split('') }}", "{{ numbers|map('nope')|list }}",
    "{{ ','.join([1]) }}", "{{ (numbers|map('int'))|length }}", "{{ numbers|first.x }}", "{{ 'x'|abs }}", "{{ missing|int }}", "{{ -'a' }}", "{{ d - d }}", "{{ loop.index }}", "{{ n.x.y }}",
    "{% if %}x{% endif %}", "{{ }}", "{% endif %}", "{% if true %}", "{% for x in %}{% endfor %}", "{{ 1 + }}", "{{ (1 }}", "{{ 'a }}", "{# open", "{% raw %}x", "{% nope %}", "{{ 1 + 2 ~ 3 }}", "{% call(x) range(3) %}{% endcall %}", "{{ x|nope }}", "{{ x is nope }}", "{% set %}", "{% set 1 = 2 %}",
    "{% set true = 2 %}", "{{ a b }}", "{{ a.[b] }}", "{% break %}", "{{ [1, 2 }}", "{{ {1: } }}", "{% macro %}{% endmacro %}", "{{ 'a' is string is string }}", "{% for x in y %}{% else %}", "{{ foo(a=1, 2) }}", "{{ $ }}", "{% macro m(a=1, b) %}{% endmacro %}",
    "{% if n %}{{ n|nope }}{% endif %}", "{% if no %}{% for x in n %}{{ x|nope }}{% endfor %}{% endif %}", "{% if no %}{% set x %}{{ n|nope }}{% endset %}{% endif %}", "{% if no %}{% set x | nope %}{% endset %}{% endif %}",
    "{% if no %}{% macro m() %}{{ n|nope }}{% endmacro %}{% endif %}", "{% for x in numbers if x is nope %}{% endfor %}", "{{ n is nope if n else 1 }}", "{{ n[:2] }}", "{{ none_[1:] }}", "{{ d[:1] }}", "{{ numbers['a':] }}", "{{ n|indent }}", "{{ missing|indent }}",
    "{% else %}", "{% if a %}{% endfor %}", "{{ x }", "{{ x %}", "{% x }}",
]


def render(env, source, context):
    variables = {"messages": context.get("messages"), "tools": context.get("tools"), "documents": None,
                 "add_generation_prompt": context.get("add_generation_prompt", True), "bos_token": "<s>", "eos_token": "</s>",
                 **context.get("extra", {})}
    try:
        return {"text": env.from_string(source).render(**variables)}
    except Refusal as refusal:
        return {"refusal": str(refusal)}
    except Exception as error:  # what jinja2 and Python say; ours is worded otherwise
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    where = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests/golden/templates")
    env = environment()
    files = {}
    for path in sorted(where.glob("*.jinja")):
        source = path.read_text()
        files[path.name] = {name: render(env, source, context) for name, context in CONTEXTS.items()}
    sources = [line for line in SNIPPETS.strip("\n").split("\n")] + BLOCKS + FAILURES
    snippets = [{"source": source, **render(env, source, VALUES)} for source in sources]
    for snippet in snippets:
        if ("text" in snippet) == (snippet["source"] in FAILURES):
            raise SystemExit(f"not as expected: {snippet}")
    out = {"made_by": f"jinja2 {jinja2.__version__}", "now": NOW, "contexts": CONTEXTS, "files": files, "values": VALUES, "snippets": snippets}
    (where / "golden.json").write_text(json.dumps(out, ensure_ascii=True, indent=0, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
