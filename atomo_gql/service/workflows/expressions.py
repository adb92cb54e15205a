"""Reading a template: Jinja's parser makes a tree of it, and `compiler` makes functions of the tree."""

from jinja2 import Environment, TemplateError
from jinja2.parser import Parser

from atomo_gql.service.workflows.compiler import MAX_DEPTH, Compiler, Refused
from atomo_gql.service.workflows.paths import Evaluate

MAX_TEXT = 65_536  # characters of one template
MAX_TOKENS = 10_000  # words, signs and blanks

_JINJA = Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701  it parses, and never renders


def read(text: str) -> tuple[Evaluate, int]:
    """The function that fills a template in, and of how many nodes it is made.

    Raises:
        Refused: it is no template, or says what it must not.
    """
    if len(text) > MAX_TEXT:
        raise Refused(f"a template must have at most {MAX_TEXT} characters, not {len(text)}")
    # Jinja makes every line end "\n": meanwhile another blank, which the text does not have, stands for "\r".
    stand_in = next((sign for sign in "\x1f\x1e\x1d\x1c" if sign not in text), "") if "\r" in text else ""
    if "\r" in text and not stand_in:
        raise Refused("a template must not hold all of the control characters 1C to 1F beside a carriage return")
    source = text.replace("\r", stand_in) if stand_in else text
    try:
        _scan(source)
        compiler = Compiler(stand_in)
        return compiler.template(Parser(_JINJA, source).parse()), compiler.count
    except TemplateError as error:
        raise Refused(f"a template must be one that can be read: {(error.message or '')[:200]}") from None
    except RecursionError:
        raise Refused("a template must not be nested so deeply") from None
    except ValueError:  # a number of thousands of digits
        raise Refused("a template must not hold numbers beyond 64 bits") from None


def _scan(source: str) -> None:
    """Refuse blocks and what is too much, before the parser, which recurses, sees it."""
    nesting = 0
    for count, (_, token, value) in enumerate(_JINJA.lexer.tokeniter(source, None)):
        if token in ("block_begin", "raw_begin"):
            raise Refused("a template may hold {{ … }}; it must not hold {% … %}")
        if token == "operator":  # noqa: S105  a word of the lexer, and no secret
            nesting += (value in ("(", "[", "{")) - (value in (")", "]", "}"))
        if nesting > MAX_DEPTH:
            raise Refused(f"a template must not be nested deeper than {MAX_DEPTH} brackets")
        if count > MAX_TOKENS:
            raise Refused(f"a template must have at most {MAX_TOKENS} words and signs")
