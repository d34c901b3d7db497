"""Processors whose parts besides the tokenizer are classes of ours."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers.processing_utils import ProcessorMixin


class OwnPartsProcessor(ProcessorMixin):
    """Makes its parts from what processor_config.json says; the library would look their classes up over the hub.

    Attributes:
        own_parts: their classes, by name, in the order in which `__init__` takes them, before the tokenizer.
    """

    own_parts: ClassVar[dict[str, type]] = {}

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        saved = processor_dict or {}
        return [
            *(part(**saved.get(name, {})) for name, part in cls.own_parts.items()),
            cls._load_tokenizer_from_pretrained(
                "tokenizer", pretrained_model_name_or_path, **{**kwargs, "trust_remote_code": False}
            ),
        ]
