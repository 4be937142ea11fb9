"""A script is checked before it is spoken, and what is wrong with it is named."""

import pytest

from engine.errors import ModelError
from engine.models.offline_script import CallTool, Fail, Finish, Say, Step, find_script, parse_script, without_script
from engine.records.message import FinishReason


def test_json_and_toml_say_the_same() -> None:
    json = '[[{"text": "a", "repeat": 2}, {"tool": "look", "input": {"at": [1, 2]}}], [{"finish": "max_tokens"}]]'
    toml = """
        steps = [
          [{ text = "a", repeat = 2 }, { tool = "look", input = { at = [1, 2] } }],
          [{ finish = "max_tokens" }],
        ]
    """
    wanted = (
        Step((Say(text="a", repeat=2), CallTool(tool="look", input={"at": [1, 2]}))),
        Step((Finish(finish=FinishReason.MAX_TOKENS),)),
    )
    assert parse_script(json) == parse_script(toml) == parse_script(f'{{"steps": {json}}}') == wanted


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("", "at least|table has one key"),
        ("[", "neither JSON .* nor TOML"),
        ("a = ", "neither JSON .* nor TOML"),
        ("{}", "one key, `steps`"),
        ('{"steps": [], "more": 1}', "one key, `steps`"),
        ("[]", "at least one step"),
        ("7", "at least one step"),
        ('{"steps": "x"}', "at least one step"),
        ('[[], {"text": "x"}]', "step 2: a step is a list"),
        ('[["x"]]', "step 1, action 1: an action is a table"),
        ('[[{"text": "x"}], [{"text": "x"}, {}]]', "step 2, action 2: .* exactly one of text, think"),
        ('[[{"text": "x", "wait": 1}]]', "step 1, action 1: .* exactly one of"),
        ('[[{"texts": "x"}]]', "step 1, action 1: .* exactly one of"),
        ('[[{"text": 1}]]', r"step 1, action 1: Expected `str`, got `int` - at `\$.text`"),
        ('[[{"text": "x", "evry": 1}]]', "step 1, action 1: .*unknown field `evry`"),
        ('[[{"text": "x", "repeat": 0}]]', "step 1, action 1: .*>= 1 - at `.*repeat`"),
        ('[[{"wait": -1}]]', "step 1, action 1: .*>= 0"),
        ('[[{"wait": 1e9}]]', "step 1, action 1: .*<= 86400"),
        ('[[{"hang": false}]]', "step 1, action 1"),
        ('[[{"tool": ""}]]', "step 1, action 1: .*length >= 1"),
        ('[[{"tool": "x", "input": "{}"}]]', "step 1, action 1: Expected `object`"),
        ('[[{"fail": "boredom"}]]', "step 1, action 1: Invalid enum value 'boredom'"),
        ('[[{"fail": "server", "times": 0}]]', "step 1, action 1: .*>= 1"),
        ('[[{"finish": "soon"}]]', "step 1, action 1: Invalid enum value 'soon'"),
        ('[[{"text": "x"}, {"finish": "max_tokens"}, {"text": "y"}]]', "step 1, action 2: nothing can follow"),
        ('[[{"usage": {"input_tokens": "many"}}]]', "step 1, action 1: Expected `int`"),
    ],
)
def test_a_faulty_script_is_refused_with_the_place_of_the_fault(script: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        parse_script(script)
    assert caught.value.kind == "bad_request"
    assert not caught.value.is_transient


def test_a_script_is_found_in_a_prompt_and_left_out_of_it() -> None:
    prompt = "Look:\n```python\nx\n```\n```script\n[[]]\n```\nand ```script``` too\n"
    assert find_script(prompt) == "[[]]\n"
    assert find_script(prompt.replace("\n", "\r\n")) == "[[]]\r\n"
    assert find_script("```script\nnever closed") is None
    assert find_script("no script, only words about ```script") is None
    assert without_script("a\n```script\n[[]]\n```\nb") == "a\n\nb"


def test_a_failure_carries_what_was_said_of_it() -> None:
    with pytest.raises(ModelError, match="asked for by the script") as caught:
        Fail(fail="overloaded").moves("unused")
    assert caught.value.kind == "overloaded"
