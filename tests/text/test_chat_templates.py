"""Chat templates: the same prompt as transformers' apply_chat_template, or a refusal where it refuses."""

import json

import families
import jinja2
import pytest
from templates import CONVERSATIONS, TEMPLATES, TOOLS


@pytest.fixture(scope="module", params=TEMPLATES)
def chat_model(request, probe, tmp_path_factory):
    from transformers import AutoTokenizer

    directory = tmp_path_factory.mktemp("chat") / "model"
    families.write("llama2", directory)
    (directory / "chat_template.jinja").write_text(TEMPLATES[request.param])
    assert "error" not in probe(dir=str(directory))
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("generate", [True, False], ids=["prompt", "no prompt"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompt_is_that_of_transformers(chat_model, probe, name, generate, tools):
    messages = CONVERSATIONS[name]
    answer = probe(
        messages=json.dumps(messages), tools="" if tools is None else json.dumps(tools), generate=generate
    )
    try:
        expected = chat_model.apply_chat_template(
            messages, tools=tools, add_generation_prompt=generate, tokenize=False
        )
    except jinja2.exceptions.TemplateError as error:
        assert str(error).split("\n")[0] in answer["error"]
        return
    assert answer == {"text": expected}
    ids = chat_model.apply_chat_template(messages, tools=tools, add_generation_prompt=generate, return_dict=False)
    assert probe(encode=expected, special=False, parse=True) == {"ids": ids}


def test_a_model_without_a_template_says_so(probe, tmp_path):
    families.write("gpt2", tmp_path / "model")
    probe(dir=str(tmp_path / "model"))
    answer = probe(messages='[{"role": "user", "content": "Hi"}]', tools="", generate=True)
    assert "has no chat template" in answer["error"]
