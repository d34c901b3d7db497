"""The typed declarations of the chat's tools: signature and docstring, from which every schema comes.

A declaration is a plain function without a body of its own; `videollm.tools` implements what is declared here, and
chat templates, the HTTP API and MCP all show the same schemas. None is declared yet.
"""

from __future__ import annotations

from collections.abc import Callable

DECLARATIONS: tuple[Callable[..., str], ...] = ()
