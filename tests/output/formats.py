"""What real models write for one and the same answer, family by family.

The marks are those of the families' own chat templates; each family here is told by a line or two
of its template, and answers with reasoning, words and calls to the tools below.
"""

# ruff: noqa: RUF001 - the bars in DeepSeek's markers are wide on purpose
from dataclasses import dataclass
from functools import cached_property

from localrun.output.family import Family, family_of

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "metric": {"type": "boolean"},
    },
    "required": ["city"],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": WEATHER_SCHEMA,
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
TOOLS = [WEATHER, CLOCK]
PARIS = {"city": "Paris", "days": 3}
ROME = {"city": "Rome", "metric": True}


@dataclass
class Format:
    """One family.

    Attributes:
        name: Of the family.
        template: What of its template tells it.
        one: The call of `get_weather` with PARIS.
        two: That, and one with ROME.
        thought: "Hm." as reasoning; None where it does not reason.
        words: "Well." as content.
        empty: A call of `now` without arguments.
        prompt: How its prompts end.
        prompt_open: How they end inside the reasoning.
        loose: Which of the texts stray from the way that a grammar holds a model to.
    """

    name: str
    template: str
    one: str
    two: str
    thought: str | None = None
    words: str = "Well."
    empty: str = ""
    prompt: str = ""
    prompt_open: str = ""
    loose: tuple[str, ...] = ()

    @cached_property
    def family(self) -> Family:
        return family_of(jinja=self.template, go=None, architecture="llama")


P = '{"city": "Paris", "days": 3}'
R = '{"city": "Rome", "metric": true}'
H1, H2 = (
    f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'
    for arguments in (P, R)
)
L1, L2 = (f'{{"name": "get_weather", "arguments": {a}}}' for a in (P, R))
LP1, LP2 = (f'{{"name": "get_weather", "parameters": {a}}}' for a in (P, R))


def _function(pairs: dict[str, str], head: str = "<function=get_weather>\n") -> str:
    lines = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in pairs.items())
    return f"{head}{lines}</function>"


P_TEXT, R_TEXT = {"city": "Paris", "days": "3"}, {"city": "Rome", "metric": "true"}
Q1, Q2 = (f"<tool_call>\n{_function(pairs)}\n</tool_call>" for pairs in (P_TEXT, R_TEXT))


def _seed(pairs: dict[str, str]) -> str:
    lines = "".join(f"<parameter={k}>{v}</parameter>\n" for k, v in pairs.items())
    return f"<seed:tool_call>\n<function=get_weather>\n{lines}</function>\n</seed:tool_call>"


def _glm(pairs: dict[str, str], nl: str = "\n") -> str:
    lines = "".join(
        f"<arg_key>{k}</arg_key>{nl}<arg_value>{v}</arg_value>{nl}" for k, v in pairs.items()
    )
    return f"<tool_call>get_weather{nl}{lines}</tool_call>"


def _invoke(pairs: dict[str, str]) -> str:
    lines = "".join(f'<parameter name="{k}">{v}</parameter>\n' for k, v in pairs.items())
    return f'<invoke name="get_weather">\n{lines}</invoke>\n'


def _dsml(pairs: dict[str, str]) -> str:
    lines = "".join(
        f'<｜DSML｜parameter name="{k}" string="{"true" if k == "city" else "false"}">{v}'
        "</｜DSML｜parameter>\n"
        for k, v in pairs.items()
    )
    return f'<｜DSML｜invoke name="get_weather">\n{lines}</｜DSML｜invoke>\n'


def _dsml_all(block: str, *calls: str) -> str:
    return f"<｜DSML｜{block}>\n{''.join(calls)}</｜DSML｜{block}>"


def _r1(arguments: str) -> str:
    return (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{arguments}\n```<｜tool▁call▁end｜>"
    )


def _v31(arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"


def _deepseek(*calls: str) -> str:
    return f"<｜tool▁calls▁begin｜>{''.join(calls)}<｜tool▁calls▁end｜>"


def _kimi(i: int, arguments: str) -> str:
    return (
        f"<|tool_call_begin|>functions.get_weather:{i}<|tool_call_argument_begin|>"
        f"{arguments}<|tool_call_end|>"
    )


def _kimi_all(*calls: str) -> str:
    return f"<|tool_calls_section_begin|>{''.join(calls)}<|tool_calls_section_end|>"


def _k3(pairs: dict[str, str], i: int) -> str:
    types = {"city": "string", "days": "number", "metric": "boolean"}
    lines = "".join(
        f'<|open|>argument key="{k}" type="{types[k]}"<|sep|>{v}<|close|>argument<|sep|>'
        for k, v in pairs.items()
    )
    return f'<|open|>call tool="get_weather" index="{i}"<|sep|>{lines}<|close|>call<|sep|>'


def _k3_all(*calls: str) -> str:
    return f"<|open|>tools<|sep|>{''.join(calls)}<|close|>tools<|sep|><|close|>message<|sep|>"


def _m3(pairs: dict[str, str]) -> str:
    ns = "]<]minimax[>["
    lines = "".join(f"{ns}<{k}>{v}{ns}</{k}>" for k, v in pairs.items())
    return f'{ns}<invoke name="get_weather">{lines}{ns}</invoke>\n'


def _m3_all(*calls: str) -> str:
    return f"]<]minimax[>[<tool_call>\n{''.join(calls)}]<]minimax[>[</tool_call>"


def _gemma4(body: str) -> str:
    return f"<|tool_call>call:get_weather{{{body}}}<tool_call|>"


G1, G2 = 'city:<|"|>Paris<|"|>,days:3', 'city:<|"|>Rome<|"|>,metric:true'
F1, F2 = (g.replace('<|"|>', "<escape>") for g in (G1, G2))


def _harmony(arguments: str) -> str:
    return (
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        f"{arguments}<|call|>"
    )


THINK = "<think>\nHm.\n</think>\n\n"
START = "<|start|>assistant"
FORMATS = [
    Format("hermes", "<tools> <tool_call>", H1, f"{H1}\n{H2}",
           empty='<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
    Format("qwen3", "{% if enable_thinking %} <tool_call> </think>", H1, f"{H1}\n{H2}", THINK,
           empty='<tool_call>\n{"name": "now"}\n</tool_call>', loose=("empty",),
           prompt_open="<|im_start|>assistant\n<think>\n"),
    Format("qwen3-coder", "<tool_call> <function=a> <parameter=b> </think>", Q1, f"{Q1}\n{Q2}",
           THINK, empty="<tool_call>\n<function=now>\n</function>\n</tool_call>",
           prompt_open="<|im_start|>assistant\n<think>\n"),
    Format("seed-oss", "<seed:tool_call> <seed:think>", _seed(P_TEXT),
           f"{_seed(P_TEXT)}\n{_seed(R_TEXT)}", "<seed:think>Hm.</seed:think>\n"),
    Format("glm", "<arg_key> <arg_value> </think>", _glm(P_TEXT), f"{_glm(P_TEXT)}\n{_glm(R_TEXT)}",
           THINK, empty="<tool_call>now</tool_call>", prompt_open="<|assistant|><think>"),
    Format("glm", "<arg_key> <arg_value> <tool_call>", _glm(P_TEXT, ""),
           _glm(P_TEXT, "") + _glm(R_TEXT, ""), empty="<tool_call>now\n</tool_call>"),
    Format("minimax", "<minimax:tool_call> </think>",
           f"<minimax:tool_call>\n{_invoke(P_TEXT)}</minimax:tool_call>",
           f"<minimax:tool_call>\n{_invoke(P_TEXT)}{_invoke(R_TEXT)}</minimax:tool_call>", THINK,
           empty='<minimax:tool_call>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
           prompt_open="]~b]ai\n<think>\n"),
    Format("minimax-m3", "]<]minimax[>[ <mm:think>", _m3_all(_m3(P_TEXT)),
           _m3_all(_m3(P_TEXT), _m3(R_TEXT)), "<mm:think>Hm.</mm:think>"),
    Format("deepseek-v3.2", "DSML function_calls </think>",
           _dsml_all("function_calls", _dsml(P_TEXT)),
           _dsml_all("function_calls", _dsml(P_TEXT), _dsml(R_TEXT)), "<think>Hm.</think>",
           prompt_open="<｜Assistant｜><think>"),
    Format("deepseek-v4", "DSML tool_calls </think>", _dsml_all("tool_calls", _dsml(P_TEXT)),
           _dsml_all("tool_calls", _dsml(P_TEXT), _dsml(R_TEXT)), "<think>Hm.</think>",
           prompt_open="<｜Assistant｜><think>"),
    Format("deepseek-r1", "<｜tool▁call▁begin｜> ```json </think>", _deepseek(_r1(P)),
           _deepseek(_r1(P), "\n", _r1(R)), THINK, prompt_open="<｜Assistant｜><think>\n"),
    Format("deepseek", "<｜tool▁call▁begin｜> </think>", _deepseek(_v31(P)),
           _deepseek(_v31(P), _v31(R)), "<think>Hm.</think>", prompt_open="<｜Assistant｜><think>"),
    Format("kimi-k2", "<|tool_calls_section_begin|> </think>", _kimi_all(_kimi(0, P)),
           _kimi_all(_kimi(0, P), _kimi(1, R)), "<think>Hm.</think>"),
    Format("kimi-k3", "<|open|> <|close|> <|sep|>", _k3_all(_k3(P_TEXT, 1)),
           _k3_all(_k3(P_TEXT, 1), _k3(R_TEXT, 2)), "<|open|>think<|sep|>Hm.<|close|>think<|sep|>",
           "<|open|>response<|sep|>Well.<|close|>response<|sep|>",
           prompt_open="<|open|>message role=\"assistant\"<|sep|><|open|>think<|sep|>"),
    Format("gemma4", "<|tool_call>call: <|channel>thought", _gemma4(G1), _gemma4(G1) + _gemma4(G2),
           "<|channel>thought\nHm.\n<channel|>", empty="<|tool_call>call:now{}<tool_call|>"),
    Format("functiongemma", "<start_function_call>",
           f"<start_function_call>call:get_weather{{{F1}}}<end_function_call>",
           f"<start_function_call>call:get_weather{{{F1}}}<end_function_call>"
           f"<start_function_call>call:get_weather{{{F2}}}<end_function_call>"),
    Format("mistral-nemo", "[TOOL_CALLS]", f"[TOOL_CALLS][{L1}]", f"[TOOL_CALLS][{L1}, {L2}]",
           empty='[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "123456789"}]',
           loose=("empty",)),
    Format("mistral", "[TOOL_CALLS] [ARGS] [THINK]", f"[TOOL_CALLS]get_weather[ARGS]{P}",
           f"[TOOL_CALLS]get_weather[ARGS]{P}[TOOL_CALLS]get_weather[ARGS]{R}",
           "[THINK]Hm.[/THINK]", empty="[TOOL_CALLS]now[ARGS]{}"),
    Format("mistral", "[TOOL_CALLS] [ARGS] [CALL_ID]",
           f"[TOOL_CALLS]get_weather[CALL_ID]000000001[ARGS]{P}",
           f"[TOOL_CALLS]get_weather[CALL_ID]000000001[ARGS]{P}"
           f"[TOOL_CALLS]get_weather[CALL_ID]000000002[ARGS]{R}"),
    Format("command-r7b", "<|START_ACTION|> <|START_THINKING|>",
           '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
           f'"parameters": {P}}}\n]<|END_ACTION|>',
           '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
           f'"parameters": {P}}},\n    {{"tool_call_id": "1", "tool_name": "get_weather", '
           f'"parameters": {R}}}\n]<|END_ACTION|>',
           "<|START_THINKING|>Hm.<|END_THINKING|>", "<|START_RESPONSE|>Well.<|END_RESPONSE|>",
           prompt_open="<|CHATBOT_TOKEN|><|START_THINKING|>"),
    Format("command-r", "Action: tool_name <|CHATBOT_TOKEN|>",
           f'Action:\n```json\n[{{"tool_name": "get_weather", "parameters": {P}}}]\n```',
           f'Action: ```json\n[\n    {{"tool_name": "get_weather", "parameters": {P}}},\n'
           f'    {{"tool_name": "get_weather", "parameters": {R}}}\n]```', loose=("two",)),
    Format("apertus", "<|tools_prefix|> <|inner_prefix|>",
           f'<|tools_prefix|>[{{"get_weather": {P}}}]<|tools_suffix|>',
           f'<|tools_prefix|>[{{"get_weather": {P}}}, {{"get_weather": {R}}}]<|tools_suffix|>',
           "<|inner_prefix|>Hm.<|inner_suffix|>"),
    Format("solar", "<|tool_calls|> <|tool_call:begin|> <|begin|>assistant<|think|>",
           f"<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>get_weather"
           f"<|tool_call:args|>{P}<|tool_call:end|><|calls|>",
           f"<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>get_weather<|tool_call:args|>{P}"
           f"<|tool_call:end|><|tool_call:begin|>b2<|tool_call:name|>get_weather<|tool_call:args|>"
           f"{R}<|tool_call:end|><|calls|>",
           "<|think|>Hm.<|end|><|begin|>assistant", "<|content|>Well.<|end|>"),
    Format("lfm2", "<|tool_list_start|> </think>",
           '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>',
           "<|tool_call_start|>[get_weather(city='Paris', days=3), "
           'get_weather(city="Rome", metric=True)]<|tool_call_end|>', "<think>Hm.</think>",
           empty="<|tool_call_start|>[now()]<|tool_call_end|>", loose=("two",)),
    Format("olmo3", "<function_calls> </function_calls> </think>",
           '<function_calls>get_weather(city="Paris", days=3)</function_calls>',
           '<function_calls>\nget_weather(city="Paris", days=3)\n'
           'get_weather(city="Rome", metric=true)\n</function_calls>', THINK),
    Format("llama4", "<|python_start|> tools", '[get_weather(city="Paris", days=3)]',
           '[get_weather(city="Paris", days=3), get_weather(city="Rome", metric=True)]',
           empty="<|python_start|>[now()]<|python_end|>", loose=("two", "empty")),
    Format("llama3", "<|start_header_id|> tools", LP1, f"{LP1}; {LP2}",
           empty='<|python_tag|>{"name": "now", "parameters": {}}', loose=("two", "empty")),
    Format("functionary-v3.1", "<function= </function> <|start_header_id|>",
           f"<function=get_weather>{P}</function>",
           f"<function=get_weather>{P}</function>\n<function=get_weather>{R}</function>"),
    Format("functionary", ">>>all", f"get_weather\n{P}", f"get_weather\n{P}>>>get_weather\n{R}",
           words="all\nWell.\n>>>", prompt=">>>"),
    Format("harmony", "<|channel|> <|message|>", _harmony(P), _harmony(P) + START + _harmony(R),
           f"<|channel|>analysis<|message|>Hm.<|end|>{START}",
           f"<|channel|>commentary<|message|>Well.<|end|>{START}", prompt=START, loose=("two",)),
    Format("nemotron", "<TOOLCALL> </think>", f"<TOOLCALL>[{L1}]</TOOLCALL>",
           f"<TOOLCALL>[{L1}, {L2}]</TOOLCALL>", THINK),
    Format("tool-calls", "<tool_calls>[ [BEGIN FINAL RESPONSE]", f"<tool_calls>[{L1}]</tool_calls>",
           f"<tool_calls>[{L1}, {L2}]</tool_calls>",
           "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\n"),
    Format("tool-calls", "<tool_calls>\n </think>", f"<tool_calls>\n{L1}\n</tool_calls>",
           f"<tool_calls>\n{L1}\n{L2}\n</tool_calls>", THINK, "<answer>\nWell.\n</answer>"),
    Format("hunyuan", "hy_Assistant <arg_key{}>", "<tool_calls:opensource>\n"
           "<tool_call:opensource>get_weather<tool_sep:opensource>\n"
           "<arg_key:opensource>city</arg_key:opensource>\n"
           "<arg_value:opensource>Paris</arg_value:opensource>\n"
           "<arg_key:opensource>days</arg_key:opensource>\n"
           "<arg_value:opensource>3</arg_value:opensource>\n"
           "</tool_call:opensource>\n</tool_calls:opensource>", "",
           "<think:opensource>Hm.</think:opensource>"),
    Format("gigachat", "<|function_call|>", f"<|function_call|>{L1}", ""),
    Format("gigachat", "<|role_sep|> function call",
           f"<|message_sep|>\n\nfunction call<|role_sep|>\n{L1}", ""),
    Format("internlm", "<|action_start|>", f"<|action_start|><|plugin|>\n{LP1}<|action_end|>", ""),
    Format("firefunction", "functools[", f" functools[{L1}]", f"functools[{L1}, {L2}]"),
    Format("granite", "<|tool_call|> </think>", f"<|tool_call|>[{L1}]",
           f"<|tool_call|>[{L1}, {L2}]", "<think>Hm.</think>"),
    Format("phi4", "<|tool|>", f"<|tool_call|>[{L1}]<|/tool_call|>", f"functools[{L1}, {L2}]",
           loose=("two",)),
    Format("minicpm", '<function name=" <param name=" </think>',
           '<function name="get_weather"><param name="city">Paris</param>'
           '<param name="days">3</param></function>',
           '<function name="get_weather"><param name="city"><![CDATA[Paris]]></param>'
           '<param name="days">3</param></function>\n<function name="get_weather">'
           '<param name="city">Rome</param><param name="metric">true</param></function>', THINK,
           empty='<function name="now"></function>'),
    Format("generic", "{% if tools %}", f"```json\n{L1}\n```", f"[{L1}, {L2}]",
           loose=("one", "two")),
    Format("generic", "{% if tools %} </think>", LP1, f"{L1}\n{L2}", THINK, loose=("one",)),
]  # fmt: skip

FEW = list(
    {
        f.name: f
        for f in FORMATS
        if f.name
        in {
            "hermes", "qwen3", "qwen3-coder", "glm", "deepseek-v4", "deepseek-r1", "gemma4",
            "mistral", "apertus", "lfm2", "llama3", "functionary", "harmony", "generic",
        }
    }.values()
)  # fmt: skip
"""One family for each way of writing calls."""
