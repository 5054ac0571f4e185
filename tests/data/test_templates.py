"""Chat templates are foreign code: they render what transformers renders, and whatever they do has an end."""

import threading
from contextlib import closing
from datetime import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from lesa_jax.base.errors import InputError
from lesa_jax.data.templates import Templates
from tests.support.tokenizers import CHATML, INST, MARKED, PLAIN, TALK

NESTED = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
CALLING = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
OVER_MESSAGES = "".join(f"{{% for m{i} in messages %}}" for i in range(20)) + "{% endfor %}" * 20
DEEP = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"
DOUBLING = "{% set ns = namespace(s='aaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"


@pytest.fixture(scope="module")
def templates():
    with closing(Templates(seconds=1, memory=2 << 30)) as process:
        yield process


def render(templates: Templates, template: str, messages=TALK):
    return templates.render(messages, template, {"eos_token": "<eos>"}, ["<|im_end|>"])


@pytest.mark.parametrize("template", [CHATML, MARKED, INST, PLAIN])
def test_the_text_is_that_of_transformers(templates, template):
    texts, _ = render_jinja_template([TALK], chat_template=template, eos_token="<eos>")
    assert render(templates, template)[0] == texts[0]


@pytest.mark.parametrize("template", [NESTED, CALLING, OVER_MESSAGES])
def test_a_template_that_never_ends_is_ended(templates, template):
    with pytest.raises(InputError, match="takes more than 1 seconds for it; repair the template") as raised:
        render(templates, template)
    assert "\n" not in str(raised.value)
    assert render(templates, CHATML)[1]  # the next conversation is rendered


def test_it_is_ended_in_any_thread(templates):
    errors = []

    def other():
        try:
            render(templates, NESTED)
        except InputError as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 1


@pytest.mark.parametrize(
    "template",
    [
        *("{{ 'a' * 10**12 }}", "{{ 'a' * 10**10 }}", "{{ [1] * 10**10 }}", "{{ 'a' | center(10**10) }}", DOUBLING),
        *("{{ range(10**9) | list }}", DEEP, "{{ 1 / 0 }}", "{{ messages.x.y }}", "{% for %}", "{{ 'a' * 2**29 }}"),
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_asks_for_too_much_is_refused(templates, template):
    with pytest.raises(InputError, match="chat template (cannot render it|takes more than 1 seconds)") as raised:
        render(templates, template)
    assert "\n" not in str(raised.value)


def test_the_date_is_always_the_same(templates):
    text, _ = render(templates, "{{ strftime_now('%d %b %Y') }}")
    assert text == "26 Jul 2024"


def test_what_json_does_not_have_is_as_for_transformers(templates):
    messages = [{"role": "user", "content": "a", "when": datetime(2020, 1, 1)}]
    template = "{{ messages[0].when }}"
    assert render(templates, template, messages)[0] == render_jinja_template([messages], chat_template=template)[0][0]


def test_no_process_starts_where_nothing_is_rendered():
    with closing(Templates()) as unused:
        assert unused.process is None


def test_the_process_ends_with_its_user():
    unclosed = Templates()
    render(unclosed, CHATML)
    process = unclosed.process
    assert process is not None
    unclosed.close()
    assert process.returncode is not None
