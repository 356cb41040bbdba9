"""Modelfiles: what is read, in which words it is refused, and that printing reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.modelfile import (
    INSTRUCTIONS,
    ROLES,
    BadModelfile,
    Command,
    Modelfile,
    check_requires,
    parse,
    typed_parameters,
)


def read(text: str | bytes) -> list[tuple[str, str, str]]:
    return [(c.name, c.key, c.value) for c in parse(text).commands]


def test_every_instruction_is_read_in_any_case_and_order():
    text = """# a comment
  from llama2:7b
ADAPTER ./a.gguf
\tDraft d.gguf
Template "{{ .Prompt }}"
SYSTEM  You are "kind".  \t
LICENSE MIT
LICENSE Apache
PARAMETER stop <|end|>
PARAMETER stop "a b "
parameter num_ctx 4096
MESSAGE user hi: you
RENDERER qwen3
PARSER qwen3
REQUIRES 0.14.0
"""
    assert read(text) == [
        ("from", "", "llama2:7b"),
        ("adapter", "", "./a.gguf"),
        ("draft", "", "d.gguf"),
        ("template", "", "{{ .Prompt }}"),
        ("system", "", 'You are "kind".'),
        ("license", "", "MIT"),
        ("license", "", "Apache"),
        ("parameter", "stop", "<|end|>"),
        ("parameter", "stop", "a b "),
        ("parameter", "num_ctx", "4096"),
        ("message", "user", "hi: you"),
        ("renderer", "", "qwen3"),
        ("parser", "", "qwen3"),
        ("requires", "", "0.14.0"),
    ]
    assert parse(text).values("license") == ["MIT", "Apache"]
    assert (parse(text).last("license"), parse(text).last("none")) == ("Apache", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('SYSTEM """one\ntwo"""', "one\ntwo"),
        ('SYSTEM """\none\n"""\n', "\none\n"),
        ('SYSTEM "one\ntwo"', "one\ntwo"),
        ('SYSTEM "a" b"', 'a" b'),  # a quote in mid-line does not end the value
        ('SYSTEM "a" b\nc"', 'a" b\nc'),
        ('SYSTEM """a"b"""', 'a"b'),
        ("SYSTEM 'a'", "'a'"),
        ("SYSTEM a # b", "a # b"),
        ("SYSTEM a\\nb", "a\\nb"),
        ('SYSTEM ""', ""),
        ("SYSTEM ", ""),
        ("SYSTEM a\r\nLICENSE b", "a"),
        ("SYSTEM a\x00\x07b", "ab"),
        ("SYSTEM می‌خواهم 👩‍🚀\u00a0x", "می‌خواهم 👩‍🚀\u00a0x"),
    ],
)
def test_a_value_is_what_stands_between_its_quotes(text, value):
    assert parse(f"FROM x\n{text}").last("system") == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_names_the_encoding(encoding):
    marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    content = marks.get(encoding, b"") + "FROM 模型\nSYSTEM 你好".encode(encoding)
    assert read(content) == [("from", "", "模型"), ("system", "", "你好")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("# FROM x\n", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM x\n\nBAD y", "(line 3): command must be one of"),
        ("FROM x\r\n\r\nBAD y", "(line 3): command must be one of"),
        ("FROM: x", "(line 1): command must be one of"),
        ("FROM\nx", "(line 1): command must be one of"),
        ("FROM x\nMESSAGE bot hi", "(line 2): message role must be one of"),
        ("FROM x\nMESSAGE User hi", "(line 2): message role must be one of"),
        ("FROM x\nMESSAGE user", "unexpected EOF: user"),
        ("FROM x\nPARAMETER stop\n", "unexpected EOF: stop"),
        ("FROM x\nPARAMETER num-ctx 4", "unexpected EOF: num"),
        ("FROM x\nSYSTEM", "unexpected EOF"),
        ('FROM x\nSYSTEM "open', "unexpected EOF"),
        ('FROM x\nSYSTEM """open"', "unexpected EOF"),
        ('FROM x\nSYSTEM "', "unexpected EOF"),
    ],
)
def test_what_cannot_be_read_is_refused_in_ollamas_words(text, message):
    with pytest.raises(BadModelfile) as caught:
        parse(text)
    assert caught.value.message.startswith(message)


def test_an_open_quote_says_where_it_was_opened():
    with pytest.raises(BadModelfile, match="unexpected EOF") as caught:
        parse('FROM x\n\nSYSTEM """a\nb\nc')
    assert caught.value.hint.startswith("line 3:")


def test_parameters_get_the_types_of_options():
    text = (
        "FROM x\nPARAMETER num_ctx 4096\nPARAMETER temperature .5\nPARAMETER temperature 1e-1\n"
        "PARAMETER use_mmap T\nPARAMETER stop a\nPARAMETER stop b\nPARAMETER mirostat 2\n"
        "PARAMETER draft_num_predict 3\nPARAMETER main_gpu +1"
    )
    assert typed_parameters(parse(text)) == {
        "num_ctx": 4096, "temperature": 0.1, "use_mmap": True, "stop": ["a", "b"],
        "draft_num_predict": 3, "main_gpu": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_ctx 4k", "invalid int value [4k]"),
        ("num_ctx 4_0", "invalid int value [4_0]"),
        ("num_ctx 99999999999999999999", "invalid int value [99999999999999999999]"),
        ("temperature hot", "invalid float value [hot]"),
        ("temperature nan", "invalid float value [nan]"),
        ("use_mmap yes", "invalid bool value [yes]"),
        ("numa 1", "unknown parameter 'numa'"),
        ("temprature 1", "unknown parameter 'temprature'"),
    ],
)
def test_a_parameter_of_another_type_is_refused(line, message):
    with pytest.raises(BadModelfile) as caught:
        typed_parameters(parse(f"FROM x\nPARAMETER {line}"))
    assert caught.value.message == message


@pytest.mark.parametrize("text", ["0.14.0", "v0.14.0", "1.2", "1", "1.2.3-rc.1+x.5"])
def test_a_semantic_version_is_taken(text):
    assert check_requires(text) == text.removeprefix("v")


@pytest.mark.parametrize("text", ["", "x", "01.2", "1.2.3.4", "1.2-rc", "1.2.3-"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(BadModelfile, match="semver"):
        check_requires(text)


def test_texts_are_quoted_only_where_they_need_it():
    commands = (
        Command("from", "a b"),
        Command("template", 'x "y"'),
        Command("system", 'say "hi"\nnow'),
        Command("license", "one\ntwo"),
        Command("parameter", " x", "stop"),
        Command("message", "", "user"),
    )
    assert str(Modelfile(commands)) == (
        'FROM a b\nTEMPLATE x "y"\nSYSTEM """say "hi"\nnow"""\nLICENSE "one\ntwo"\n'
        'PARAMETER stop " x"\nMESSAGE user \n'
    )


TEXTS = st.text(st.sampled_from("ab\"# \t\n\r'\\{}天👩\u200d") | st.characters(codec="utf-8"))


def sayable(text: str) -> bool:
    """Whether the language has a way to write the text."""
    is_kept = not any((ord(c) < 32 and c not in "\n\r\t") or 127 <= ord(c) < 160 for c in text)
    lines = text.replace("\r", "\n").split("\n")[:-1]
    return (
        is_kept
        and "\ufeff" not in text
        and not any(line.rstrip().endswith('"""') for line in lines)
        and not any("".join(lines[:i]).strip() == '"""' for i in range(len(lines) + 1))
    )


@st.composite
def modelfiles(draw) -> Modelfile:
    commands = [Command("from", draw(st.from_regex(r"[a-z0-9./:-]{1,20}", fullmatch=True)))]
    for name in draw(st.lists(st.sampled_from(INSTRUCTIONS[1:]), max_size=6)):
        keys = {"parameter": st.sampled_from(("stop", "x_1")), "message": st.sampled_from(ROLES)}
        key = draw(keys.get(name, st.just("")))
        commands.append(Command(name, draw(TEXTS.filter(sayable)), key))
    return Modelfile(tuple(commands))


@given(modelfiles())
def test_what_is_printed_reads_back(modelfile):
    assert parse(str(modelfile)) == modelfile
    assert parse(str(modelfile).encode()) == modelfile
