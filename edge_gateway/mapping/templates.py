"""Text with `{name}` and `{$.path}` in it."""

from __future__ import annotations

from edge_gateway.mapping.interface import CompiledTemplate


def compile_template(text: str, *, forbidden: str = "") -> CompiledTemplate:
    """A name, topic or path. `{name}` and `{$.path}` are put in; a `{` before anything else stands for itself.

    Numbers and booleans are written as in JSON. A value with a character of `forbidden` in it (such as "/+#" for
    topics) is a MappingError at `render`. Raises: MappingProblems.
    """
    raise NotImplementedError


def compile_body(text: str) -> CompiledTemplate:
    """A body: `$.params` alone is that value as JSON; text that begins with `{` or `[` is JSON, in which every value
    is put in as JSON (inside quotes: escaped); any other text is a template. Empty: the whole document as JSON.

    Raises: MappingProblems.
    """
    raise NotImplementedError
