"""Names as data: read back by a CSV reader, and as they stand in Markdown, LaTeX, scripts of a page, SVG and a shell."""

import csv
import html
import io
import json
import re
import subprocess
import xml.etree.ElementTree as ET

import pytest

from encoders.runtime import escape
from encoders.runtime.html import html_table, tag
from encoders.runtime.page import render_document
from encoders.runtime.slurm import quote_directive
from encoders.runtime.svg import Frame, draw_chart

PLANTED = [
    "=cmd()", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "\u2212x", "a|b", "`id`", "$(id)", "a'b", 'a"b',
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a & b", "&lt;", "100 %", "a\\b", "\\input{/etc/passwd}", "x\ny",
    "[a](javascript:alert(1))", "![a](http://x/y.png)", "# head", "> quote", "- item", "1. item", "{{x}}", "a\u202egpj.exe", "a\x1b[31m",
    "~^_#", "<!--", "]]>", "%d%s", "a;b", "a\u2028b",
]  # fmt: skip


@pytest.mark.parametrize("text", PLANTED)
def test_no_cell_of_a_csv_file_is_a_formula_and_every_cell_is_read_back(text):
    table = escape.lines_to_csv([{"name": text, text or "x": 1.5, "more": -2}])
    head, row = csv.reader(io.StringIO(table, newline=""))
    assert row[1:] == ["1.5", "-2"]  # numbers are numbers
    for cell in (head[1], row[0]):
        assert not re.match(r"\s*[=+\-@\uff1d\u2212]|[\t\r\n]", cell)
        assert not set(cell) & {"\x1b", "\u202e", "\r", "\u2028"}
        assert escape.read_csv_cell(cell) == escape.strip_control(text, keep="\n\t")


@pytest.mark.parametrize("text", ["-0.5", "+1e-3", " 7 ", "nan", "-inf", "-", "0.7 [0.6, 0.8]", "a-b", ""])
def test_numbers_and_plain_text_stay_as_they_are_in_csv(text):
    assert escape.csv_cell(text) == text


@pytest.mark.parametrize("text", PLANTED)
def test_markdown_gets_one_line_without_markup(text):
    line = escape.escape_markdown(text)
    assert "\n" not in line
    assert "<" not in line
    assert not re.search(r"(?<!\\)[|`]|\]\(", line)
    assert not re.match(r"\s*(#|>|- |1\. )", line)
    unescaped = html.unescape(re.sub(r"\\([\\|`(\[#>\-.\d])", r"\1", line))
    assert unescaped.replace("\\", "") == escape.one_line(text).replace("\\", "")  # nothing that can be seen is lost


@pytest.mark.parametrize("text", PLANTED)
def test_latex_gets_no_command_of_a_name(text):
    line = escape.escape_latex(text)
    known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textasciigrave|textquotedbl)\{\}|\\[&%$#_{}]"
    rest = re.sub(known, "", line)
    assert not set(rest) & set('\\{}$&#^_%~<>"`')
    assert "\n" not in line


@pytest.mark.parametrize("text", PLANTED)
def test_html_attributes_and_svg_hold_a_name_as_text(text):
    seen = escape.strip_control(text, keep="\n\t")  # XML has no other control characters
    found = ET.fromstring(tag("p", tag("b", seen, title=seen), seen))
    assert found[0].text == seen
    assert found[0].get("title").split() == seen.split()  # XML makes a space of a line break in an attribute
    assert [child.tag for child in found.iter()] == ["p", "b"]
    chart = ET.fromstring(draw_chart(Frame(), [], seen, seen, seen))
    assert chart.find("title").text == seen
    assert not [child.tag for child in chart.iter() if child.tag in ("script", "img")]
    page = ET.fromstring(str(html_table([seen], [[seen]])))
    assert page.find(".//th[@scope='row']").text == seen


@pytest.mark.parametrize("text", PLANTED)
def test_a_value_in_a_script_cannot_end_it(text):
    written = escape.escape_script_json({text: [text]})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {text: [text]}


def test_a_page_refuses_a_script_or_a_style_that_a_browser_could_end():
    for more in ({"script": "x = '</script>'"}, {"style": "</style>"}):
        with pytest.raises(ValueError, match="must not contain"):
            render_document("t", tag("p", "x"), **more)


@pytest.mark.parametrize("text", [text for text in PLANTED if not set(text) & set("\n\r\0")])
def test_a_directive_of_a_job_is_one_word(text):
    line = quote_directive(text)
    assert "\n" not in line
    if line.startswith('"'):
        assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', line, re.DOTALL)
        assert re.sub(r"\\(.)", r"\1", line[1:-1]) == text


@pytest.mark.parametrize("text", PLANTED)
def test_the_arguments_of_a_job_reach_the_command_as_they_are(text):
    import shlex

    script = f"set -- {shlex.join(['--name', text])}\nprintf '%s' \"$2\""
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode() == text
