"""Results as an interpreter and a notebook show them: a line of facts, a table of facts."""

from collections.abc import Sequence
from html import escape

LINE = 160  # characters of a line; what does not fit is left out, as a table has it
Fact = tuple[str, str]


class Facts:
    """A result that is a dataclass with `repr=False` and says what is worth knowing of it."""

    @property
    def facts(self) -> Sequence[Fact]:
        """Names and values, the most important first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        told, name = "", type(self).__name__
        for fact, value in self.facts:
            more = f"{', ' if told else ''}{fact} {value}"
            if len(name) + len(told) + len(more) + len("(, ...)") > LINE:
                return f"{name}({told}, ...)" if told else f"{name}(...)"
            told += more
        return f"{name}({told})"

    def _repr_html_(self) -> str:
        rows = (
            f'<tr><th style="text-align:left">{escape(fact)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for fact, value in self.facts
        )
        return f"<table>{''.join(rows)}</table>"


def change(before: float, after: float) -> str:
    """`36.8787 -> 37.1025`."""
    return f"{before:.4f} -> {after:.4f}"
